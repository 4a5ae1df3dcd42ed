import { useComputed, useSignal, useSignalEffect } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { Button } from "../../components/Button";
import { Icon } from "../../components/Icon";
import { type AddressProblem, readAddress } from "../../gateway/address";
import {
  addBox,
  box,
  boxes,
  keepKey,
  keyIsKept,
  keyToTry,
  selectBox,
  useKey,
} from "../../gateway/connection";
import type { Diagnosis } from "../../gateway/diagnose";
import { adding, enter, leaveBox, refused, switchTo } from "../../gateway/entrance";
import { lost } from "../../gateway/live";
import { tryPlace } from "../../gateway/probes";
import { product } from "../../texts/en/common";
import { addressProblems, signIn as t, tookWords } from "../../texts/en/signin";
import { DiagnosisNote } from "./DiagnosisNote";
import "./signin.css";

/** The address of the box of which a key is asked; `null` where the address is asked for too. */
function asked(): string | null {
  return adding.value ? null : (box.value?.address ?? null);
}

/** Take up a box that has let a key in. */
function takeUp(address: string, name: string): void {
  addBox({ address, name: name || new URL(address).host });
  selectBox(address);
  adding.value = false;
}

/** Asks for a key of the box in use; or for another box, and a key of that. */
export default function SignIn() {
  const asksAddress = asked() === null;
  const known = asksAddress ? null : box.value;
  const written = useSignal("");
  const name = useSignal("");
  const key = useSignal("");
  /** What the person chose; until then the key is kept if the one in use is. */
  const keepChosen = useSignal<boolean | null>(null);
  const keep = keepChosen.value ?? (known !== null && keyIsKept.value);
  const busy = useSignal(false);
  const problem = useSignal<AddressProblem | null>(null);
  const found = useSignal<Diagnosis | null>(refused.value);
  useSignalEffect(() => {
    found.value = refused.value;
  });
  const taken = useComputed(() => readAddress(written.value));
  const first = useRef<HTMLInputElement>(null);
  useEffect(() => first.current?.focus(), [asksAddress]);

  const address = (): string | null => {
    const at = asked();
    if (at !== null) return at;
    const read = taken.value;
    return typeof read === "string" ? null : read.address;
  };
  const shown = (): string => address() || location.origin;

  // A key that was typed for one box is not for another one, and a try at the one is over.
  const tries = useRef(0);
  const typedFor = useRef(asked());
  useLayoutEffect(() => {
    if (typedFor.current === asked()) return;
    typedFor.current = asked();
    tries.current++;
    key.value = "";
    keepChosen.value = null;
    found.value = refused.value;
    busy.value = false;
  }, [asked()]);

  const attempt = async (): Promise<void> => {
    const from = asked();
    const at = address();
    if (at === null) {
      problem.value = taken.value as AddressProblem;
      first.current?.focus();
      return;
    }
    const mine = ++tries.current;
    const isLeft = (): boolean => mine !== tries.current || from !== asked();
    const given = key.value.trim() || (from === null ? null : keyToTry.value);
    busy.value = true;
    const why = await tryPlace({ address: at, key: given });
    if (isLeft()) return;
    found.value = why;
    if (why === null) {
      if (from === null) takeUp(at, name.value.trim());
      if (given !== null) {
        useKey(given);
        if (keep || keepChosen.value !== null) keepKey(keep);
      }
      await enter();
    }
    if (!isLeft()) busy.value = false;
  };

  const onAddress = (text: string): void => {
    written.value = text;
    problem.value = null;
    const read = readAddress(text);
    if (typeof read !== "string" && read.key !== null) key.value = read.key;
  };

  return (
    <main class="sign-in">
      <div class="sheet">
        <header>
          <h1>{asksAddress && boxes.value.length > 0 ? t.addTitle : product}</h1>
          {known ? (
            <p class="soft">
              {t.at} <strong>{known.name}</strong>
              {known.address !== "" && known.name !== new URL(known.address).host && (
                <> ({known.address})</>
              )}
            </p>
          ) : (
            <p class="soft">{t.intro}</p>
          )}
        </header>
        {lost.value && <p class="note warn">{t.lost}</p>}
        {found.value && (
          <DiagnosisNote
            found={found.value}
            address={shown()}
            onAddress={(instead) => {
              if (known) {
                typedFor.current = null; // it is the same box
                adding.value = true;
                name.value = known.name;
              }
              onAddress(instead);
              void attempt();
            }}
            onAgain={() => void attempt()}
          />
        )}
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void attempt();
          }}
        >
          {asksAddress && (
            <>
              <div class="field">
                <label for="sign-in-address">{t.address}</label>
                <input
                  id="sign-in-address"
                  ref={first}
                  class="input mono"
                  inputMode="url"
                  autoComplete="url"
                  autoCapitalize="off"
                  spellcheck={false}
                  value={written}
                  aria-describedby="sign-in-address-hint"
                  aria-invalid={problem.value !== null}
                  onInput={(event) => onAddress(event.currentTarget.value)}
                />
                <p class="hint" id="sign-in-address-hint">
                  {problem.value !== null
                    ? addressProblems[problem.value]
                    : typeof taken.value === "string"
                      ? t.addressHint
                      : tookWords(taken.value)}
                </p>
              </div>
              <div class="field">
                <label for="sign-in-name">{t.name}</label>
                <input
                  id="sign-in-name"
                  class="input"
                  autoComplete="off"
                  value={name}
                  aria-describedby="sign-in-name-hint"
                  onInput={(event) => (name.value = event.currentTarget.value)}
                />
                <p class="hint" id="sign-in-name-hint">
                  {t.nameHint}
                </p>
              </div>
            </>
          )}
          <KeyField value={key.value} onInput={(text) => (key.value = text)} first={!asksAddress} />
          <div class="keep">
            <input
              id="sign-in-keep"
              type="checkbox"
              checked={keep}
              aria-describedby="sign-in-keep-hint"
              onChange={(event) => (keepChosen.value = event.currentTarget.checked)}
            />
            <label for="sign-in-keep">{t.keep}</label>
            <p class="hint" id="sign-in-keep-hint">
              {t.keepHint}
            </p>
          </div>
          <div class="actions">
            <Button kind="primary" type="submit" disabled={busy.value}>
              {busy.value ? t.entering : t.enter}
            </Button>
            {adding.value && box.value && (
              <Button kind="plain" onClick={() => (adding.value = false)}>
                {t.goBack}
              </Button>
            )}
          </div>
        </form>
        <p class="soft where">
          {t.whereServed}
          <code>{t.command}</code>
          {t.whereServedEnd}
        </p>
        {!asksAddress && <OtherBoxes />}
      </div>
    </main>
  );
}

interface KeyFieldProps {
  readonly value: string;
  readonly onInput: (text: string) => void;
  /** Whether it is where a person begins to type. */
  readonly first: boolean;
}

function KeyField({ value, onInput, first }: KeyFieldProps) {
  const visible = useSignal(false);
  const element = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (first) element.current?.focus();
  }, [first]);
  return (
    <div class="field">
      <label for="sign-in-key">{t.key}</label>
      <div class="with-button">
        <input
          id="sign-in-key"
          ref={element}
          class="input mono"
          {...(visible.value ? { type: "text" as const } : { type: "password" as const })}
          autoComplete="current-password"
          autoCapitalize="off"
          spellcheck={false}
          value={value}
          onInput={(event) => onInput(event.currentTarget.value)}
        />
        <Button
          kind="plain"
          label={visible.value ? t.hideKey : t.showKey}
          aria-pressed={visible.value}
          onClick={() => (visible.value = !visible.value)}
        >
          <Icon name={visible.value ? "hidden" : "visible"} />
        </Button>
      </div>
    </div>
  );
}

/** The way to the other boxes, where this one can't be entered. */
function OtherBoxes() {
  const others = boxes.value.filter((one) => one.address !== box.value?.address);
  return (
    <nav class="other-boxes" aria-label={t.otherBoxes}>
      {others.map((one) => (
        <Button key={one.address} onClick={() => switchTo(one.address)}>
          {one.name}
        </Button>
      ))}
      <Button kind="plain" onClick={() => (adding.value = true)}>
        <Icon name="plus" size={16} /> {t.addBox}
      </Button>
      {box.value && box.value.address !== "" && (
        <Button kind="plain" onClick={() => leaveBox()}>
          <Icon name="trash" size={16} /> {t.removeBox(box.value.name)}
        </Button>
      )}
    </nav>
  );
}

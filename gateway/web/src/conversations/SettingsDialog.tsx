/** What every request of the open conversation says beside its messages. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { Button } from "../components/Button";
import { Dialog } from "../components/Dialog";
import { Icon } from "../components/Icon";
import { choosable } from "../gateway/live";
import type { ListedModel } from "../gateway/types";
import { settings as t } from "../texts/en/conversations";
import { store } from "./conversations";
import { isPlain, LIMITS, readNumber, readSchema, type Limits, type Read } from "./settings";
import type { Opened } from "./store";
import type { Settings } from "./types";
import "./conversations.css";

/** Opens the settings of the conversation that is open. */
export function SettingsButton() {
  const open = useSignal(false);
  const opened = store.opened.value;
  if (opened === null) return null;
  const plain = isPlain(opened.conversation.settings);
  return (
    <>
      <Button
        kind="plain"
        class={plain ? undefined : "changed"}
        label={plain ? t.open : t.changed}
        aria-haspopup="dialog"
        onClick={() => (open.value = true)}
      >
        <Icon name="settings" />
      </Button>
      {open.value && <SettingsDialog opened={opened} onClose={() => (open.value = false)} />}
    </>
  );
}

interface Props {
  readonly opened: Opened;
  readonly onClose: () => void;
}

/** What is asked with, for the open conversation. */
export function SettingsDialog({ opened, onClose }: Props) {
  const { id, model: name, settings } = opened.conversation;
  const round = useSignal(0); // a reset makes the fields anew
  const model = choosable.value.find((one) => one.id === name);
  const set = (change: Partial<Record<keyof Settings, Settings[keyof Settings]>>): void => {
    const merged = Object.entries({ ...settings, ...change });
    store.change(id, {
      settings: Object.fromEntries(merged.filter(([, value]) => value !== undefined)),
    });
  };
  const longest: Limits = { ...LIMITS.max_tokens, ...most(model) };
  return (
    <Dialog title={t.title} onClose={onClose}>
      <p class="soft">{t.intro}</p>
      <div class="settings" key={round.value}>
        <Field label={t.system} hint={t.systemHint}>
          {(ids) => (
            <textarea
              {...ids}
              class="input"
              rows={4}
              defaultValue={settings.system ?? ""}
              onInput={(event) => set({ system: event.currentTarget.value.trim() || undefined })}
            />
          )}
        </Field>
        <div class="numbers">
          <NumberField
            label={t.temperature}
            hint={t.temperatureHint}
            limits={LIMITS.temperature}
            value={settings.temperature}
            onChange={(temperature) => set({ temperature })}
          />
          <NumberField
            label={t.topP}
            hint={t.topPHint}
            limits={LIMITS.top_p}
            value={settings.top_p}
            onChange={(top_p) => set({ top_p })}
          />
          <NumberField
            label={t.maxTokens}
            hint={t.maxTokensHint}
            limits={longest}
            value={settings.max_tokens}
            onChange={(max_tokens) => set({ max_tokens })}
          />
        </div>
        <JsonFields settings={settings} onChange={(json) => set({ json })} />
        {reasons(model, opened) && (
          <Field label={t.reasoning}>
            {(ids) => (
              <select
                {...ids}
                class="input"
                value={settings.reasoning === undefined ? "own" : settings.reasoning ? "on" : "off"}
                onChange={({ currentTarget: { value } }) =>
                  set({ reasoning: value === "own" ? undefined : value === "on" })
                }
              >
                {(["own", "on", "off"] as const).map((one) => (
                  <option key={one} value={one}>
                    {t.reasoningChoices[one]}
                  </option>
                ))}
              </select>
            )}
          </Field>
        )}
      </div>
      <div class="actions">
        <Button
          disabled={isPlain(settings)}
          onClick={() => {
            store.change(id, { settings: {} });
            round.value += 1;
          }}
        >
          {t.reset}
        </Button>
        <Button kind="primary" onClick={onClose}>
          {t.done}
        </Button>
      </div>
    </Dialog>
  );
}

/** No answer is longer than what the model can hold. */
function most(model: ListedModel | undefined): Partial<Limits> {
  return model?.context_size ? { most: model.context_size } : {};
}

/** Whether the model thinks, as far as is known: it says so, or did it in this conversation. */
function reasons(model: ListedModel | undefined, { conversation, messages }: Opened): boolean {
  if (conversation.settings.reasoning !== undefined) return true;
  if (model?.capabilities?.some((one) => one === "reasoning" || one === "thinking")) return true;
  return [...messages.values()].some((one) => one.reasoning !== undefined);
}

interface FieldProps {
  readonly label: string;
  readonly hint?: string;
  readonly problem?: string | undefined;
  readonly children: (ids: {
    readonly id: string;
    readonly "aria-describedby": string | undefined;
    readonly "aria-invalid": boolean;
  }) => ComponentChildren;
}

function Field({ label, hint, problem, children }: FieldProps) {
  const id = useId();
  const words = problem ?? hint;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({
        id,
        "aria-describedby": words === undefined ? undefined : `${id}-hint`,
        "aria-invalid": problem !== undefined,
      })}
      {words !== undefined && (
        <span id={`${id}-hint`} class={problem === undefined ? "hint" : "problem"} role="status">
          {words}
        </span>
      )}
    </div>
  );
}

interface NumberProps {
  readonly label: string;
  readonly hint: string;
  readonly limits: Limits;
  readonly value: number | undefined;
  readonly onChange: (value: number | undefined) => void;
}

/** A field of text, as one of numbers keeps to itself what can't be read. */
function NumberField({ label, hint, limits, value, onChange }: NumberProps) {
  const read = useSignal<Read<number>>({ value });
  return (
    <Field label={label} hint={hint} problem={read.value.problem}>
      {(ids) => (
        <input
          {...ids}
          class="input"
          inputMode="decimal"
          autoComplete="off"
          placeholder={t.own}
          defaultValue={value === undefined ? "" : String(value)}
          onInput={(event) => {
            const next = readNumber(event.currentTarget.value, limits);
            read.value = next;
            if (next.problem === undefined) onChange(next.value);
          }}
        />
      )}
    </Field>
  );
}

interface JsonProps {
  readonly settings: Settings;
  readonly onChange: (json: Settings["json"]) => void;
}

function JsonFields({ settings: { json }, onChange }: JsonProps) {
  const kind = useSignal(json === undefined ? "text" : json === true ? "json" : "schema");
  const typed = useSignal(typeof json === "object" ? JSON.stringify(json, null, 2) : "");
  const schema = readSchema(typed.value);
  const change = (): void => {
    const read = readSchema(typed.value);
    if (kind.value === "text") onChange(undefined);
    else if (kind.value === "json") onChange(true);
    else if (read.problem === undefined) onChange(read.value ?? true);
  };
  return (
    <>
      <Field label={t.format}>
        {(ids) => (
          <select
            {...ids}
            class="input"
            value={kind.value}
            onChange={(event) => {
              kind.value = event.currentTarget.value;
              change();
            }}
          >
            {(["text", "json", "schema"] as const).map((one) => (
              <option key={one} value={one}>
                {t.formats[one]}
              </option>
            ))}
          </select>
        )}
      </Field>
      {kind.value === "schema" && (
        <Field label={t.schema} hint={t.schemaHint} problem={schema.problem}>
          {(ids) => (
            <textarea
              {...ids}
              class="input mono"
              rows={6}
              spellcheck={false}
              placeholder={t.schemaExample}
              value={typed}
              onInput={(event) => {
                typed.value = event.currentTarget.value;
                change();
              }}
            />
          )}
        </Field>
      )}
    </>
  );
}

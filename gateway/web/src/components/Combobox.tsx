import { useComputed, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { Icon } from "./Icon";
import "./combobox.css";

export interface Choice {
  readonly value: string;
  readonly words: string;
  /** Beside its name: a state, a size. */
  readonly note?: ComponentChildren;
  /** Below its name. */
  readonly more?: string | undefined;
  /** What else finds it. */
  readonly alias?: string | undefined;
}

interface Props {
  /** What is chosen: "Model". */
  readonly label: string;
  readonly choices: readonly Choice[];
  readonly value: string | null;
  readonly onChoose: (value: string) => void;
  /** Shown on the button; the chosen one's words by default. */
  readonly children?: ComponentChildren;
  readonly findWords: string;
  readonly nothingWords: string;
  /** Beside its words on the button. */
  readonly told?: string | undefined;
  /** Above the list: what holds for each of them. */
  readonly about?: ComponentChildren;
}

/** From so many on one can search. */
const MANY = 8;

/** One of several: a button that opens a list, for keyboard, mouse and finger, with a search. */
export function Combobox(props: Props) {
  const { label, choices, value, onChoose, children, findWords, nothingWords, about, told } = props;
  const id = useId();
  const open = useSignal(false);
  const query = useSignal("");
  const at = useSignal(0);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const list = useRef<HTMLUListElement>(null);
  const input = useRef<HTMLInputElement>(null);
  const isOpen = open.value;
  const found = choices.filter((one) => matches(one, query.value));
  const current = useComputed(() => Math.max(0, at.value));
  const index = Math.min(current.value, found.length - 1);

  const show = (): void => {
    query.value = "";
    at.value = Math.max(
      0,
      choices.findIndex((one) => one.value === value),
    );
    open.value = true;
  };
  const hide = (refocus: boolean): void => {
    open.value = false;
    if (refocus) button.current?.focus();
  };
  const choose = (one: Choice | undefined): void => {
    if (one === undefined) return;
    hide(true);
    if (one.value !== value) onChoose(one.value);
  };

  useEffect(() => {
    if (!isOpen) return;
    // A keyboard on the screen would cover the list: there it comes when one wants to search.
    const search = matchMedia("(pointer: coarse)").matches ? null : input.current;
    (search ?? list.current)?.focus();
    const outside = (event: PointerEvent): void => {
      if (event.target instanceof Node && !root.current?.contains(event.target)) hide(false);
    };
    document.addEventListener("pointerdown", outside);
    return () => document.removeEventListener("pointerdown", outside);
  }, [isOpen]);
  useEffect(() => {
    if (isOpen) list.current?.children[index]?.scrollIntoView({ block: "nearest" });
  }, [isOpen, index]);

  const keys = (event: KeyboardEvent): void => {
    const last = found.length - 1;
    const to = MOVES[event.key]?.(index, last);
    if (to !== undefined) {
      if ((event.key === "Home" || event.key === "End") && event.target === input.current) return;
      at.value = Math.max(0, Math.min(last, to));
    } else if (event.key === "Enter" && !event.isComposing) choose(found[index]);
    else if (event.key === "Escape") hide(true);
    else if (event.key === "Tab") return hide(false);
    else if (event.key.length === 1 && event.target === list.current) {
      const next = typedTo(found, index, event.key);
      if (next === -1) return;
      at.value = next;
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };

  const words = choices.find((one) => one.value === value)?.words ?? "";
  const active = found[index] === undefined ? undefined : `${id}-${index}`;
  return (
    <div class="combobox" ref={root} onKeyDown={isOpen ? keys : undefined}>
      <button
        ref={button}
        type="button"
        class="button combobox-button"
        aria-haspopup="listbox"
        aria-expanded={isOpen}
        aria-label={[`${label}: ${words}`, told].filter(Boolean).join(" ")}
        onClick={() => (isOpen ? hide(true) : show())}
        onKeyDown={(event) => {
          if (isOpen || (event.key !== "ArrowDown" && event.key !== "ArrowUp")) return;
          event.preventDefault();
          show();
        }}
      >
        {children ?? words}
        <Icon name="down" size={16} />
      </button>
      {isOpen && (
        <div class="combobox-panel">
          {about && (
            <p class="about soft" id={`${id}-about`}>
              {about}
            </p>
          )}
          {choices.length >= MANY && (
            <input
              ref={input}
              class="input"
              type="text"
              role="combobox"
              aria-label={`${findWords}: ${label}`}
              placeholder={findWords}
              aria-expanded="true"
              aria-controls={`${id}-list`}
              aria-activedescendant={active}
              aria-autocomplete="list"
              autocomplete="off"
              spellcheck={false}
              value={query.value}
              onInput={(event) => {
                query.value = event.currentTarget.value;
                at.value = 0;
              }}
            />
          )}
          <ul
            ref={list}
            id={`${id}-list`}
            role="listbox"
            aria-label={label}
            aria-describedby={about ? `${id}-about` : undefined}
            tabIndex={0}
            aria-activedescendant={active}
          >
            {found.map((one, place) => (
              <li
                key={one.value}
                id={`${id}-${place}`}
                role="option"
                aria-selected={one.value === value}
                class={place === index ? "active" : undefined}
                onPointerMove={() => (at.value = place)}
                onClick={() => choose(one)}
              >
                <Icon name={one.value === value ? "check" : "blank"} size={16} />
                <span class="words">
                  {one.words}
                  {one.more && <small>{one.more}</small>}
                </span>
                {one.note}
              </li>
            ))}
          </ul>
          {found.length === 0 && (
            <p class="soft" role="status">
              {nothingWords}
            </p>
          )}
        </div>
      )}
    </div>
  );
}

const MOVES: Readonly<Record<string, ((at: number, last: number) => number) | undefined>> = {
  ArrowDown: (at) => at + 1,
  ArrowUp: (at) => at - 1,
  PageDown: (at) => at + 8,
  PageUp: (at) => at - 8,
  Home: () => 0,
  End: (_, last) => last,
};

function matches(one: Choice, query: string): boolean {
  const text = `${one.words} ${one.alias ?? ""}`.toLowerCase();
  return query
    .toLowerCase()
    .split(/\s+/)
    .every((part) => text.includes(part));
}

/** The next choice that begins with what was typed. */
function typedTo(found: readonly Choice[], from: number, letter: string): number {
  const order = [...found.keys()].map((offset) => (from + 1 + offset) % found.length);
  return (
    order.find((place) => found[place]?.words.toLowerCase().startsWith(letter.toLowerCase())) ?? -1
  );
}

import { useSignal } from "@preact/signals";
import { useEffect, useId, useRef } from "preact/hooks";
import { Dialog } from "../components/Dialog";
import { store, texts } from "../conversations/conversations";
import { switcher as t } from "../texts/en/switcher";
import { entriesFor, type Entry } from "./entries";
import { panel } from "./shortcuts";
import "./switcher.css";

/** A field and what answers it: arrows choose, Enter goes there. */
export default function Switcher() {
  const query = useSignal("");
  const at = useSignal(0);
  const list = useRef<HTMLUListElement>(null);
  const id = useId();
  const found = entriesFor(query.value, texts.texts.value);
  const index = Math.min(at.value, found.length - 1);

  useEffect(() => {
    void store.start().then(() => texts.refresh());
  }, []);
  useEffect(() => {
    list.current?.children[index]?.scrollIntoView({ block: "nearest" });
  }, [index, query.value]);

  const close = (): void => void (panel.value = null);
  const take = (entry: Entry | undefined): void => {
    if (entry === undefined) return;
    close();
    entry.run();
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const to = MOVES[event.key]?.(index, found.length);
    if (to !== undefined) at.value = Math.max(0, Math.min(found.length - 1, to));
    else if (event.key === "Enter" && !event.isComposing) take(found[index]);
    else return;
    event.preventDefault();
  };

  return (
    <Dialog title={t.title} onClose={close}>
      <input
        class="input"
        type="text"
        role="combobox"
        autofocus
        aria-label={t.find}
        placeholder={t.find}
        aria-expanded="true"
        aria-controls={`${id}-list`}
        aria-activedescendant={index >= 0 ? `${id}-${index}` : undefined}
        aria-autocomplete="list"
        autocomplete="off"
        spellcheck={false}
        value={query.value}
        onInput={(event) => {
          query.value = event.currentTarget.value;
          at.value = 0;
        }}
        onKeyDown={onKeyDown}
      />
      <ul class="switcher" ref={list} id={`${id}-list`} role="listbox" aria-label={t.results}>
        {found.map((entry, place) => (
          <li
            key={entry.key}
            id={`${id}-${place}`}
            role="option"
            aria-selected={place === index}
            onPointerMove={() => (at.value = place)}
            onClick={() => take(entry)}
          >
            <span class="words">{entry.words}</span>
            <span class="soft">{t.kinds[entry.kind]}</span>
          </li>
        ))}
      </ul>
      {found.length === 0 && <p class="soft">{t.nothing(query.value.trim())}</p>}
      <p class="visually-hidden" role="status">
        {query.value.trim() !== "" && t.found(found.length)}
      </p>
    </Dialog>
  );
}

const MOVES: Readonly<Record<string, ((at: number, all: number) => number) | undefined>> = {
  ArrowDown: (at, all) => (at + 1) % all,
  ArrowUp: (at, all) => (at - 1 + all) % all,
  PageDown: (at) => at + 8,
  PageUp: (at) => at - 8,
};

/** The API to read and to try: a key, the list of operations, and Swagger UI beside it. */

import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Button } from "../components/Button";
import { ErrorNote } from "../components/ErrorNote";
import { box, forgetKey, key, useKey } from "../gateway/connection";
import { askJson } from "../gateway/request";
import { docs as t } from "../texts/en/docs";
import { at, contents, type ApiDocument, type Entry } from "./document";
import type { Operations } from "./operations";
import "./docs.css";

export function Docs() {
  const document = useSignal<ApiDocument | null>(null);
  const error = useSignal<unknown>(null);
  const place = useRef<HTMLDivElement>(null);
  const field = useRef<HTMLInputElement>(null);
  const shown = useSignal<Operations | null>(null);
  useEffect(() => {
    const load = async (): Promise<void> => {
      const [made, { operations }] = await Promise.all([
        askJson<ApiDocument>("/openapi.json"),
        import("./operations"),
      ]);
      const here = at(made, box.value?.address || location.origin);
      document.value = here;
      if (!place.current) return;
      shown.value = await operations(place.current, here, () => field.current?.focus());
    };
    load().catch((reason: unknown) => (error.value = reason));
  }, []);
  return (
    <div class="docs">
      <header class="docs-head">
        <div>
          <a href="./">{t.product}</a> <strong>{t.title}</strong>
        </div>
        <KeyField field={field} />
        <a href="openapi.json">{t.asJson}</a>
      </header>
      <div class="docs-body">
        {document.value && (
          <Contents document={document.value} onChoose={(entry) => shown.value?.show(entry)} />
        )}
        <div class="docs-main">
          {error.value !== null && <ErrorNote error={error.value} />}
          {shown.value === null && error.value === null && <p class="loading">{t.loading}</p>}
          <div ref={place} />
        </div>
      </div>
    </div>
  );
}

function KeyField({ field }: { readonly field: { current: HTMLInputElement | null } }) {
  if (key.value !== null)
    return (
      <p class="docs-key">
        <span class="soft">{t.hasKey}</span>
        <Button onClick={forgetKey}>{t.forget}</Button>
      </p>
    );
  return (
    <form
      class="docs-key"
      onSubmit={(event) => {
        event.preventDefault();
        const value = field.current?.value.trim();
        if (value) useKey(value);
      }}
    >
      <input
        ref={field}
        class="input"
        type="password"
        autocomplete="off"
        aria-label={t.keyLabel}
        placeholder={t.keyLabel}
      />
      <Button type="submit">{t.use}</Button>
    </form>
  );
}

interface ContentsProps {
  readonly document: ApiDocument;
  readonly onChoose: (entry: Entry) => void;
}

function Contents({ document, onChoose }: ContentsProps) {
  const wanted = useSignal("");
  // On a phone it stands above the text, and would hide it.
  const isBeside = useSignal(matchMedia("(min-width: 900px)").matches);
  const groups = useComputed(() => contents(document, wanted.value));
  return (
    <nav class="docs-contents" aria-label={t.contents}>
      <input
        class="input"
        type="search"
        aria-label={t.find}
        placeholder={t.find}
        value={wanted.value}
        onInput={(event) => (wanted.value = event.currentTarget.value)}
      />
      {groups.value.length === 0 && <p class="soft">{t.none}</p>}
      {groups.value.map((group) => (
        <details
          key={group.name}
          open={wanted.value !== "" || (isBeside.value && group === groups.value[0])}
        >
          <summary>{group.name}</summary>
          <ul>
            {group.entries.map((entry) => (
              <li key={entry.id}>
                <a
                  href={`#/${encodeURIComponent(entry.tag)}/${entry.id}`}
                  onClick={() => onChoose(entry)}
                >
                  <span class={`docs-method ${entry.method.toLowerCase()}`}>{entry.method}</span>
                  <span>
                    {entry.path}
                    <small>{entry.summary}</small>
                  </span>
                </a>
              </li>
            ))}
          </ul>
        </details>
      ))}
    </nav>
  );
}

/** "Use it from your app": ready lines for each client, as the gateway has them. */

import { useSignal } from "@preact/signals";
import { useEffect, useId } from "preact/hooks";
import { box } from "../gateway/connection";
import { askJson } from "../gateway/request";
import { actions } from "../texts/en/common";
import { useIt as t } from "../texts/en/useIt";
import { CopyButton } from "./CopyButton";
import { ErrorNote } from "./ErrorNote";
import "./useIt.css";

interface Part {
  readonly where: string;
  readonly place: string;
  readonly language: string;
  readonly text: string;
}

interface Client {
  readonly client: string;
  readonly title: string;
  readonly about: string;
  readonly parts: readonly Part[];
  readonly notes: readonly string[];
  readonly documentation: string;
}

/** GET /clients. */
export interface ClientLines {
  readonly model: string;
  readonly key_variable: string;
  readonly clients: readonly Client[];
}

interface Props {
  /** `NAME` or `NAME:PERSONALITY`; without it what the key would get by itself. */
  readonly model?: string | undefined;
  /** A key to write into the lines: one just made. Without it the key in use, if wanted. */
  readonly apiKey?: string | undefined;
  /** Called with the lines that were copied. */
  readonly onCopied?: (text: string) => void;
  /** Whether what it stands in has said it. */
  readonly titled?: boolean;
}

/** Stands for a key until it is known. */
const PLACE = "THE_NEW_KEY";

function withKeyIn(lines: ClientLines, key: string): ClientLines {
  const clients = lines.clients.map((client) => ({
    ...client,
    parts: client.parts.map((part) => ({ ...part, text: part.text.replaceAll(PLACE, key) })),
  }));
  return { ...lines, clients };
}

export function UseIt({ model, apiKey, onCopied, titled = false }: Props) {
  const lines = useSignal<ClientLines | null>(null);
  const error = useSignal<unknown>(null);
  const withKey = useSignal(apiKey !== undefined);
  const chosen = useSignal("openai-python");
  const id = useId();
  useEffect(() => {
    const control = new AbortController();
    const query = new URLSearchParams({ url: box.value?.address || location.origin });
    if (model !== undefined) query.set("model", model);
    // A key that was just made is put in here, not asked with: nobody has used it yet.
    if (apiKey !== undefined) query.set("key", PLACE);
    else if (withKey.value) query.set("key", "true");
    error.value = null;
    askJson<ClientLines>(`/clients?${query}`, { signal: control.signal }).then(
      (found) => (lines.value = apiKey === undefined ? found : withKeyIn(found, apiKey)),
      (reason: unknown) => {
        if (!control.signal.aborted) error.value = reason;
      },
    );
    return () => control.abort();
  }, [model, apiKey, withKey.value]);
  const clients = lines.value?.clients ?? [];
  const shown = clients.find((one) => one.client === chosen.value) ?? clients[0];
  return (
    <section class="use-it" aria-labelledby={id}>
      <div class="use-it-head">
        <h3 id={id} class={titled ? "visually-hidden" : undefined}>
          {t.title}
        </h3>
        {shown && (
          <select
            class="input"
            aria-label={t.client}
            value={shown.client}
            onChange={(event) => (chosen.value = event.currentTarget.value)}
          >
            {clients.map((one) => (
              <option key={one.client} value={one.client}>
                {one.title}
              </option>
            ))}
          </select>
        )}
      </div>
      {error.value !== null && <ErrorNote error={error.value} />}
      {lines.value === null && error.value === null && <p class="soft">{actions.loading}</p>}
      {shown && <Lines client={shown} onCopied={onCopied} />}
      {apiKey === undefined && lines.value && (
        <div class="use-it-key">
          <input
            id={`${id}-key`}
            type="checkbox"
            checked={withKey.value}
            aria-describedby={withKey.value ? undefined : `${id}-hint`}
            onChange={(event) => (withKey.value = event.currentTarget.checked)}
          />
          <label for={`${id}-key`}>{t.withKey}</label>
          {!withKey.value && (
            <p class="hint soft" id={`${id}-hint`}>
              {t.keyIn(lines.value.key_variable)}
            </p>
          )}
        </div>
      )}
    </section>
  );
}

interface LinesProps {
  readonly client: Client;
  readonly onCopied: Props["onCopied"] | undefined;
}

function Lines({ client, onCopied }: LinesProps) {
  return (
    <>
      <p class="soft">{client.about}</p>
      {client.parts.map((part) => (
        <div key={part.where + part.text} class="use-it-part">
          <div>
            <span class="soft">{part.place}</span>
            <CopyButton text={part.text} label={t.copyLines} onCopied={onCopied} />
          </div>
          <pre tabIndex={0} role="region" aria-label={`${client.title}, ${part.where}`}>
            <code>{part.text}</code>
          </pre>
        </div>
      ))}
      <details>
        <summary>{t.notes}</summary>
        <ul>
          {client.notes.map((note) => (
            <li key={note}>{note}</li>
          ))}
          <li>
            <a href={client.documentation} target="_blank" rel="noreferrer">
              {t.documentation}
            </a>
          </li>
        </ul>
      </details>
    </>
  );
}

import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useId } from "preact/hooks";
import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import { events } from "../../gateway/events";
import type { JsonObject } from "../../schema-form/json";
import { modelEntry } from "../../texts/en/modelEntry";
import { tryBody } from "./personality";

const t = modelEntry.personalities;

interface Props {
  readonly model: string;
  /** As it stands in the form. */
  readonly draft: JsonObject;
  /** The name of the saved one; `null`: there is none yet. */
  readonly saved: string | null;
}

interface Answer {
  readonly text: string;
  readonly error: unknown;
  readonly over: boolean;
}

/** A question asked with what stands in the form, and with the saved one beside it. */
export function TryIt({ model, draft, saved }: Props) {
  const id = useId();
  const question = useSignal<string>(t.example);
  const beside = useSignal(false);
  const now = useSignal<Answer | null>(null);
  const before = useSignal<Answer | null>(null);
  const running = useSignal<AbortController | null>(null);
  useEffect(() => () => running.value?.abort(), []);
  const ask = async (): Promise<void> => {
    const control = new AbortController();
    running.value = control;
    before.value = null;
    const asked = [stream(tryBody(model, draft, question.value), now, control.signal)];
    if (beside.value && saved !== null) {
      const messages = [{ role: "user", content: question.value }];
      const body = { model, personality: saved, messages, stream: true };
      asked.push(stream(body, before, control.signal));
    }
    await Promise.all(asked);
    running.value = null;
  };
  return (
    <section class="try-it" aria-label={t.try}>
      <h2>{t.try}</h2>
      <p class="soft">{t.tryHint}</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (!running.value) void ask();
        }}
      >
        <label class="field" for={id}>
          <span>{t.question}</span>
          <textarea
            id={id}
            class="input"
            rows={2}
            value={question}
            onInput={(event) => (question.value = event.currentTarget.value)}
          />
        </label>
        {saved !== null && (
          <label>
            <input
              type="checkbox"
              checked={beside}
              onChange={(event) => (beside.value = event.currentTarget.checked)}
            />{" "}
            {t.beside}
          </label>
        )}
        {running.value ? (
          <Button onClick={() => running.value?.abort()}>{t.stop}</Button>
        ) : (
          <Button type="submit" disabled={question.value.trim() === ""}>
            {t.ask}
          </Button>
        )}
      </form>
      <div class={before.value ? "answers two" : "answers"}>
        {now.value && <AnswerBox title={t.now} answer={now.value} />}
        {before.value && <AnswerBox title={t.before} answer={before.value} />}
      </div>
    </section>
  );
}

function AnswerBox({ title, answer }: { readonly title: string; readonly answer: Answer }) {
  return (
    <div class="model-answer" aria-busy={!answer.over}>
      <h3>{title}</h3>
      {answer.error !== null && <ErrorNote error={answer.error} />}
      {answer.text === "" && !answer.over ? (
        <p class="soft">{t.waiting}</p>
      ) : (
        <p class="answer-text">{answer.text}</p>
      )}
    </div>
  );
}

interface Chunk {
  readonly choices?: readonly { readonly delta?: { readonly content?: string | null } }[];
}

async function stream(
  body: JsonObject,
  answer: Signal<Answer | null>,
  signal: AbortSignal,
): Promise<void> {
  let text = "";
  let error: unknown = null;
  answer.value = { text, error, over: false };
  try {
    const asked = events("/v1/chat/completions", { method: "POST", body, signal });
    for await (const { data } of asked) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data) as Chunk;
      text += chunk.choices?.[0]?.delta?.content ?? "";
      answer.value = { text, error, over: false };
    }
  } catch (reason) {
    if (!signal.aborted) error = reason;
  }
  answer.value = { text, error, over: true };
}

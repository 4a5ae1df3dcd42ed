import { failureOf } from "../gateway/failure";
import { errors as t } from "../texts/en/common";
import { withCode } from "./withCode";

/** A message of the gateway: as a sentence, and folded what it tells of a model's log. */
export function Said({ message }: { readonly message: string }) {
  const { said, log } = failureOf(message);
  return (
    <>
      <p class="sentence">{withCode(said)}</p>
      {log.length > 0 && (
        <details class="last-lines">
          <summary class="soft">{t.lastLines}</summary>
          <pre tabIndex={0} role="region" aria-label={t.lastLines}>
            {log.join("\n")}
          </pre>
        </details>
      )}
    </>
  );
}

import { State } from "../../components/State";
import { system as t } from "../../texts/en/system";
import type { Problem, Report } from "./types";

/** What `llm-gateway check` and `doctor` would say; first of all, that models.json is broken. */
export function Problems({ report }: { readonly report: Report }) {
  const { error, line, note } = report.models_file;
  // What keeps models.json from being read is told first, and once.
  const { problems } = report;
  const others = problems.filter(
    (one) => one.file !== report.paths.models_file || !error?.includes(one.message),
  );
  const errors = problems.filter((one) => one.level === "error").length;
  const counted = t.counted(errors, problems.length - errors);
  return (
    <section class="system-part" aria-labelledby="system-problems">
      <h2 id="system-problems">
        {t.problems} {problems.length > 0 && <span class="soft">{counted}</span>}
      </h2>
      {error !== null && (
        <div class="note bad" role="alert">
          <strong>{line === null ? t.broken : t.brokenLine(line)}</strong>
          <p>{error}</p>
          {note && <p class="soft">{note}</p>}
        </div>
      )}
      {problems.length === 0 && error === null && <State state="ready" words={t.fine} />}
      {others.length > 0 && (
        <ul class="system-problems">
          {others.map((one, index) => (
            <Row key={index} problem={one} />
          ))}
        </ul>
      )}
    </section>
  );
}

function Row({ problem }: { readonly problem: Problem }) {
  const { level, source, file, line, key, value, message, do: remedy } = problem;
  // What doctor finds has its subject in the message already.
  const place = [file, line !== null && t.line(line), source === "check" && key]
    .filter(Boolean)
    .join(", ");
  return (
    <li class={level}>
      <Mark level={level} />
      <div>
        <p>{sentence(message)}</p>
        {remedy && <p>{sentence(remedy)}</p>}
        {place && (
          <p class="soft place">
            {place}
            {value !== null && `: ${t.value(value)}`}
          </p>
        )}
      </div>
    </li>
  );
}

/** What remedies that are commands begin with: they are copied as they are. */
const PROGRAMS = "apt|apt-get|chmod|chown|mkdir|pip|sudo|systemctl";

/** With a capital, if it begins with a word, and not with the name of a setting or a program. */
function sentence(text: string): string {
  return new RegExp(`^(?!(${PROGRAMS}) )[a-z]+[ :,]`).test(text)
    ? text.charAt(0).toUpperCase() + text.slice(1)
    : text;
}

/** A cross or a triangle, and the word. */
function Mark({ level }: { readonly level: Problem["level"] }) {
  return (
    <span class={`system-mark ${level}`}>
      <svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true" fill="none">
        <path
          d={level === "error" ? "M3 3l8 8M11 3l-8 8" : "M7 1.5L13 12.5H1zM7 6v3M7 10.8v.2"}
          stroke="currentColor"
          stroke-width={level === "error" ? 2.2 : 1.4}
          stroke-linecap="round"
          stroke-linejoin="round"
        />
      </svg>
      {t.levels[level]}
    </span>
  );
}

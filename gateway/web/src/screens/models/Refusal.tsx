import { ErrorNote } from "../../components/ErrorNote";
import { withCode } from "../../components/withCode";
import { GatewayError } from "../../gateway/errors";
import type { Field } from "../../schema-form/schema";
import { modelEntry as t } from "../../texts/en/modelEntry";
import { problemsOf } from "./entry";
import { joined } from "./groups";
import { labelOf } from "./titles";

interface Props {
  readonly error: unknown;
  readonly name: string;
  readonly fields: readonly Field[];
}

/** Why it was not saved; what is wrong with a field stands beside that too. */
export function Refusal({ error, name, fields }: Props) {
  const titleOf = (path: string): string | undefined => {
    const field = fields.find((one) => path === joined(one.path));
    return field && labelOf(field).title;
  };
  if (error instanceof GatewayError && error.code === "process_setting") {
    const param = typeof error.details["param"] === "string" ? error.details["param"] : "";
    const words = t.processSetting((titleOf(param) ?? param) || t.aField);
    return (
      <div class="note bad" role="alert">
        <p>{withCode(words)}</p>
      </div>
    );
  }
  const problems = problemsOf(error, name);
  if (problems.length === 0) return <ErrorNote error={error} />;
  return (
    <div class="note bad" role="alert">
      <p>{t.invalid}</p>
      <ul>
        {problems.map(({ path, message }, index) => (
          <li key={index}>
            {path.length > 0 && (
              <strong>{titleOf(joined(path)) ?? <code>{joined(path)}</code>}</strong>
            )}{" "}
            {withCode(message)}
          </li>
        ))}
      </ul>
    </div>
  );
}

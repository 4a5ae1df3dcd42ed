/** An entry of models.json and its schema, read before something is shown of them. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import type { Schema } from "../../schema-form/schema";
import { actions } from "../../texts/en/common";
import { modelEntry as t } from "../../texts/en/modelEntry";
import { modelsSchema, readEntry, type Stored } from "./entry";

interface Props {
  readonly name: string;
  /** What is shown of the entry as it was read. */
  readonly show: (first: Stored, root: Schema) => ComponentChildren;
}

export function WithEntry({ name, show }: Props) {
  const found = useSignal<readonly [Stored, Schema] | null>(null);
  const error = useSignal<unknown>(null);
  const read = (): void => {
    found.value = error.value = null;
    Promise.all([readEntry(name), modelsSchema()]).then(
      (both) => (found.value = both),
      (reason: unknown) => (error.value = reason),
    );
  };
  useEffect(read, [name]);
  if (error.value !== null)
    return (
      <ErrorNote error={error.value}>
        <p>
          <Button onClick={read}>{actions.tryAgain}</Button>
        </p>
      </ErrorNote>
    );
  if (!found.value) return <p class="soft">{t.loading}</p>;
  return <>{show(...found.value)}</>;
}

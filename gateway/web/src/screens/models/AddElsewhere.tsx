import { useSignal } from "@preact/signals";
import { Button } from "../../components/Button";
import { toast } from "../../components/Toasts";
import { withCode } from "../../components/withCode";
import type { JsonObject } from "../../schema-form/json";
import { modelEntry } from "../../texts/en/modelEntry";
import { makeEntry } from "./entry";
import { Refusal } from "./Refusal";

const t = modelEntry.add;
const words = t.elsewhere;

/** A model that another server has. */
export function AddElsewhere({ onAdded }: { readonly onAdded: () => void }) {
  const name = useSignal("");
  const url = useSignal("");
  const key = useSignal("");
  const modelName = useSignal("");
  const busy = useSignal(false);
  const error = useSignal<unknown>(null);
  const add = async (): Promise<void> => {
    busy.value = true;
    error.value = null;
    const entry: JsonObject = {
      url: url.value.trim(),
      ...(key.value.trim() ? { key: key.value.trim() } : {}),
      ...(modelName.value.trim() ? { modelName: modelName.value.trim() } : {}),
    };
    try {
      await makeEntry(name.value.trim(), entry);
      toast(t.added(name.value.trim()));
      onAdded();
    } catch (reason) {
      error.value = reason;
    } finally {
      busy.value = false;
    }
  };
  return (
    <form
      class="elsewhere-form"
      onSubmit={(event) => {
        event.preventDefault();
        void add();
      }}
    >
      {error.value !== null && <Refusal error={error.value} name={name.value.trim()} fields={[]} />}
      <label class="field">
        <span>{t.name}</span>
        <input
          class="input"
          required
          value={name}
          onInput={(event) => (name.value = event.currentTarget.value)}
        />
      </label>
      <label class="field">
        <span>{words.url}</span>
        <input
          class="input mono"
          type="url"
          required
          value={url}
          onInput={(event) => (url.value = event.currentTarget.value)}
        />
        <span class="hint">{withCode(words.urlHint)}</span>
      </label>
      <label class="field">
        <span>{words.key}</span>
        <input
          class="input mono"
          type="password"
          autoComplete="off"
          value={key}
          onInput={(event) => (key.value = event.currentTarget.value)}
        />
        <span class="hint">{words.keyHint}</span>
      </label>
      <label class="field">
        <span>{words.modelName}</span>
        <input
          class="input mono"
          value={modelName}
          onInput={(event) => (modelName.value = event.currentTarget.value)}
        />
        <span class="hint">{words.modelNameHint}</span>
      </label>
      <div class="save-buttons">
        <Button kind="primary" type="submit" disabled={busy.value}>
          {t.addIt}
        </Button>
      </div>
    </form>
  );
}

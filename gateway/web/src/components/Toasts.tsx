import { signal } from "@preact/signals";
import { actions as t } from "../texts/en/common";
import { Button } from "./Button";
import { Icon } from "./Icon";

interface Toast {
  readonly id: number;
  readonly text: string;
  readonly action?: { readonly words: string; readonly run: () => void } | undefined;
}

const toasts = signal<readonly Toast[]>([]);
let last = 0;

/** Say something for six seconds, with an action ("Undo") if there is one. */
export function toast(text: string, action?: Toast["action"]): void {
  const id = ++last;
  toasts.value = [...toasts.value, { id, text, action }];
  setTimeout(() => dismiss(id), 6000);
}

function dismiss(id: number): void {
  toasts.value = toasts.value.filter((one) => one.id !== id);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ id, text, action }) => (
        <div key={id} class="toast">
          <span>{text}</span>
          {action && (
            <Button
              kind="plain"
              onClick={() => {
                action.run();
                dismiss(id);
              }}
            >
              {action.words}
            </Button>
          )}
          <Button kind="plain" label={t.close} onClick={() => dismiss(id)}>
            <Icon name="close" size={16} />
          </Button>
        </div>
      ))}
    </div>
  );
}

import { useSignal } from "@preact/signals";

export interface Unreadable {
  /** Whether any field has something written that can't be read, and so isn't in the value. */
  readonly any: boolean;
  /** For {@link SchemaField}'s `onUnreadable`. */
  readonly mark: (field: string, unreadable: boolean) => void;
}

/** Fields of a form that hold JSON which is none yet: it must not be saved as if they didn't. */
export function useUnreadable(): Unreadable {
  const fields = useSignal<ReadonlySet<string>>(new Set());
  const mark = (field: string, unreadable: boolean): void => {
    if (fields.peek().has(field) === unreadable) return;
    const next = new Set(fields.peek());
    if (unreadable) next.add(field);
    else next.delete(field);
    fields.value = next;
  };
  return { any: fields.value.size > 0, mark };
}

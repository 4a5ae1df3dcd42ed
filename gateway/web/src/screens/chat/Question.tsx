import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Button } from "../../components/Button";
import { CopyButton } from "../../components/CopyButton";
import { Icon } from "../../components/Icon";
import type { Message } from "../../conversations/types";
import { chat as t } from "../../texts/en/chat";
import { Branches } from "./Branches";
import { Pictures } from "./Pictures";

interface Props {
  readonly message: Message;
  readonly last: boolean;
  readonly onEdit: (text: string) => void;
}

export function Question({ message, last, onEdit }: Props) {
  const editing = useSignal(false);
  return (
    <article class={last ? "message question last" : "message question"} aria-label={t.you}>
      {message.images.length > 0 && <Pictures images={message.images} />}
      {editing.value ? (
        <Editor
          text={message.content}
          onDone={(text) => {
            editing.value = false;
            if (text !== null) onEdit(text);
          }}
        />
      ) : (
        <>
          {message.content !== "" && <div class="bubble">{message.content}</div>}
          <div class="message-foot">
            <Branches id={message.id} />
            <span class="message-actions">
              <CopyButton text={message.content} label={t.copy} />
              <Button kind="plain" label={t.edit} onClick={() => (editing.value = true)}>
                <Icon name="edit" size={16} />
              </Button>
            </span>
          </div>
        </>
      )}
    </article>
  );
}

interface EditorProps {
  readonly text: string;
  /** With `null` if it stays as it was. */
  readonly onDone: (text: string | null) => void;
}

function Editor({ text, onDone }: EditorProps) {
  const area = useRef<HTMLTextAreaElement>(null);
  const value = useSignal(text);
  useEffect(() => {
    area.current?.focus();
    area.current?.setSelectionRange(text.length, text.length);
  }, []);
  const done = (): void => onDone(value.value.trim() === "" ? null : value.value.trim());
  return (
    <div class="editor">
      <textarea
        ref={area}
        class="input"
        aria-label={t.edit}
        rows={Math.min(12, text.split("\n").length + 1)}
        value={value.value}
        onInput={(event) => (value.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === "Escape") onDone(null);
          else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) done();
        }}
      />
      <div class="ending-actions">
        <Button onClick={() => onDone(null)}>{t.cancel}</Button>
        <Button kind="primary" onClick={done}>
          {t.askAgain}
        </Button>
      </div>
    </div>
  );
}

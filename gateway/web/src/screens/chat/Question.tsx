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
  /** Whether another question can be asked now: there is a model, and it isn't answering. */
  readonly idle: boolean;
  /** Returns whether it was asked; what was typed stays until then. */
  readonly onEdit: (text: string) => boolean;
}

export function Question({ message, last, idle, onEdit }: Props) {
  const editing = useSignal(false);
  /** What was typed, kept when Escape closes the editor; `null`: nothing yet. */
  const typed = useSignal<string | null>(null);
  const close = (): void => {
    editing.value = false;
    typed.value = null;
  };
  return (
    <article class={last ? "message question last" : "message question"} aria-label={t.you}>
      {message.images.length > 0 && <Pictures images={message.images} />}
      {editing.value ? (
        <Editor
          text={typed.value ?? message.content}
          idle={idle}
          onType={(text) => (typed.value = text)}
          onAsk={(text) => {
            if (onEdit(text)) close();
          }}
          onLeave={() => (editing.value = false)}
          onCancel={close}
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
  readonly idle: boolean;
  readonly onType: (text: string) => void;
  readonly onAsk: (text: string) => void;
  /** It is closed, and what was typed kept. */
  readonly onLeave: () => void;
  /** It stays as it was. */
  readonly onCancel: () => void;
}

function Editor({ text, idle, onType, onAsk, onLeave, onCancel }: EditorProps) {
  const area = useRef<HTMLTextAreaElement>(null);
  const asks = text.trim();
  useEffect(() => {
    area.current?.focus();
    area.current?.setSelectionRange(text.length, text.length);
  }, []);
  return (
    <div class="editor">
      <textarea
        ref={area}
        class="input"
        aria-label={t.edit}
        rows={Math.min(12, text.split("\n").length + 1)}
        value={text}
        onInput={(event) => onType(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === "Escape") {
            event.stopPropagation(); // it would stop an answer that is being written, too
            onLeave();
          } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
            if (idle && asks !== "") onAsk(asks);
          }
        }}
      />
      <div class="ending-actions">
        <Button onClick={onCancel}>{t.cancel}</Button>
        <Button kind="primary" disabled={!idle || asks === ""} onClick={() => onAsk(asks)}>
          {t.askAgain}
        </Button>
      </div>
    </div>
  );
}

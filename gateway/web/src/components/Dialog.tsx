import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { actions as t } from "../texts/en/common";
import { Button } from "./Button";
import { Icon } from "./Icon";
import { useModal } from "./modal";

interface Props {
  readonly title: string;
  readonly onClose: () => void;
  readonly wide?: boolean;
  readonly children: ComponentChildren;
}

/** A modal dialog, with its title and what closes it. */
export function Dialog({ title, onClose, wide = false, children }: Props) {
  const element = useModal();
  const id = useId();
  return (
    <dialog
      ref={element}
      class={wide ? "dialog wide" : "dialog"}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
    >
      <header>
        <h2 id={id}>{title}</h2>
        <Button kind="plain" label={t.close} onClick={onClose}>
          <Icon name="close" />
        </Button>
      </header>
      <div class="body">{children}</div>
    </dialog>
  );
}

interface ConfirmProps {
  readonly title: string;
  readonly text: string;
  /** The button's words: what happens. */
  readonly action: string;
  /** The other button's words, where "Cancel" could be taken for what happens. */
  readonly keep?: string;
  readonly onConfirm: () => void;
  readonly onClose: () => void;
}

/** Asks once, and names what is destroyed. */
export function Confirm({
  title,
  text,
  action,
  keep = t.cancel,
  onConfirm,
  onClose,
}: ConfirmProps) {
  return (
    <Dialog title={title} onClose={onClose}>
      <p>{text}</p>
      <div class="actions">
        <Button onClick={onClose}>{keep}</Button>
        <Button
          kind="danger"
          onClick={() => {
            onConfirm();
            onClose();
          }}
        >
          {action}
        </Button>
      </div>
    </Dialog>
  );
}

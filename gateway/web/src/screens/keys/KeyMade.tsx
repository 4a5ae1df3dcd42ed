import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { Button } from "../../components/Button";
import { CopyFailed, copyText } from "../../components/CopyButton";
import { Confirm, Dialog } from "../../components/Dialog";
import { Icon } from "../../components/Icon";
import { UseIt } from "../../components/UseIt";
import { actions } from "../../texts/en/common";
import { keys as t } from "../../texts/en/keys";
import type { CreatedKey } from "./fields";

interface Props {
  readonly made: CreatedKey;
  readonly onClose: () => void;
}

/** The only time that a key's text is seen: to copy it is what is to be done first. */
export function KeyMade({ made, onClose }: Props) {
  const copied = useSignal(false);
  const failed = useSignal(false);
  const leaving = useSignal(false);
  const text = useRef<HTMLElement>(null);
  const copy = async (): Promise<void> => {
    copied.value = await copyText(made.key);
    failed.value = !copied.value;
    if (failed.value && text.current) getSelection()?.selectAllChildren(text.current);
  };
  const leave = (): void => {
    if (copied.value) onClose();
    else leaving.value = true;
  };
  const stay = (): void => {
    leaving.value = false;
    // Of an Escape that follows upon another one a browser closes it without asking.
    const dialog = text.current?.closest("dialog");
    if (dialog && !dialog.open) dialog.showModal();
  };
  return (
    <>
      <Dialog title={t.created(made.name)} onClose={leave} wide>
        <p>{t.shownOnce}</p>
        <div class="key-text" onCopy={() => (copied.value = true)}>
          <code ref={text}>{made.key}</code>
          <Button kind={copied.value ? undefined : "primary"} onClick={() => void copy()}>
            <Icon name={copied.value ? "check" : "copy"} size={16} />
            <span aria-live="polite">{copied.value ? actions.copied : t.copyKey}</span>
          </Button>
          {failed.value && <CopyFailed />}
        </div>
        {made.metrics && !made.admin ? (
          <p class="soft">{t.forPrometheus}</p>
        ) : (
          <UseIt
            model={made.models?.[0]}
            apiKey={made.key}
            onCopied={(lines) => {
              if (lines.includes(made.key)) copied.value = true;
            }}
          />
        )}
        <div class="actions">
          <Button kind={copied.value ? "primary" : undefined} onClick={leave}>
            {t.done}
          </Button>
        </div>
      </Dialog>
      {leaving.value && (
        <Confirm
          title={t.leaveTitle(made.name)}
          text={t.leaveText}
          action={t.leaveAction}
          keep={t.stay}
          onConfirm={onClose}
          onClose={stay}
        />
      )}
    </>
  );
}

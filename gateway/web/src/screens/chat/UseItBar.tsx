import { useSignal } from "@preact/signals";
import { Button } from "../../components/Button";
import { Dialog } from "../../components/Dialog";
import { Icon } from "../../components/Icon";
import { UseIt } from "../../components/UseIt";
import { chat as t } from "../../texts/en/chat";
import { closeUseIt, firstAnswer, useItClosed } from "./first";

/** After the first answer: how one's own programs get the same. Until it is closed. */
export function UseItBar({ model }: { readonly model: string }) {
  const open = useSignal(false);
  if (firstAnswer.value === null || useItClosed.value) return null;
  return (
    <div class="use-it-bar">
      <span>{t.useItHint}</span>
      <Button onClick={() => (open.value = true)}>{t.useIt}</Button>
      <Button kind="plain" label={t.closeUseIt} onClick={closeUseIt}>
        <Icon name="close" size={16} />
      </Button>
      {open.value && (
        <Dialog title={t.useIt} wide onClose={() => (open.value = false)}>
          <UseIt model={model} titled />
        </Dialog>
      )}
    </div>
  );
}

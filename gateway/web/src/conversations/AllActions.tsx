import { useSignal } from "@preact/signals";
import { Confirm } from "../components/Dialog";
import { Icon } from "../components/Icon";
import { Menu } from "../components/Menu";
import { toast } from "../components/Toasts";
import { boxes } from "../gateway/connection";
import { conversations as t, files as f } from "../texts/en/conversations";
import { store } from "./conversations";
import { ImportDialog } from "./ImportDialog";
import { openNewConversation } from "./route";
import { saveAsJson } from "./save";

/** What can be done with all conversations: export, import, delete. */
export function AllActions() {
  const dialog = useSignal<"import" | "delete" | null>(null);
  const all = store.list.value.length;
  const items = [
    { words: f.load, run: () => void (dialog.value = "import") },
    ...(all === 0
      ? []
      : [
          { words: f.saveAll, run: () => void saveAsJson() },
          { words: t.removeAll, run: () => void (dialog.value = "delete"), danger: true },
        ]),
  ];
  const close = (): void => void (dialog.value = null);
  const removeAll = async (): Promise<void> => {
    try {
      await store.removeAll();
    } catch {
      toast(t.cantRemove);
      return;
    }
    openNewConversation();
    toast(t.removedAll(all));
  };
  return (
    <>
      <Menu label={t.more} items={items}>
        <Icon name="more" />
      </Menu>
      {dialog.value === "import" && <ImportDialog onClose={close} />}
      {dialog.value === "delete" && (
        <Confirm
          title={t.removeAllTitle(all)}
          text={t.removeAllText(boxes.value.length)}
          action={t.removeAllAction(all)}
          onConfirm={() => void removeAll()}
          onClose={close}
        />
      )}
    </>
  );
}

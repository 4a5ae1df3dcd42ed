/** The list of conversations beside the chat, and the button that opens it. */

import type { ComponentChildren } from "preact";
import { Button } from "../components/Button";
import { Icon } from "../components/Icon";
import { useModal } from "../components/modal";
import { conversations as t } from "../texts/en/conversations";
import { ConversationList } from "./ConversationList";
import { narrow, panelOpen } from "./panel";
import "./conversations.css";

/** A column beside the chat on wide screens; on phones a drawer over it. */
export function ConversationPanel() {
  if (!panelOpen.value) return null;
  if (narrow.value)
    return (
      <Drawer>
        <ConversationList onChosen={() => (panelOpen.value = false)} />
      </Drawer>
    );
  return (
    <aside class="conversation-panel" aria-label={t.title}>
      <ConversationList />
    </aside>
  );
}

function Drawer({ children }: { readonly children: ComponentChildren }) {
  const element = useModal();
  const close = (): void => {
    panelOpen.value = false;
  };
  return (
    <dialog
      ref={element}
      class="conversation-drawer"
      aria-label={t.title}
      onCancel={(event) => {
        event.preventDefault();
        close();
      }}
      onClick={(event) => {
        if (event.target === event.currentTarget) close(); // beside it
      }}
    >
      <div class="conversation-panel">{children}</div>
    </dialog>
  );
}

/** Shows and hides the list. */
export function ConversationsButton() {
  const open = panelOpen.value;
  return (
    <Button
      kind="plain"
      label={open ? t.hide : t.show}
      aria-expanded={open}
      onClick={() => (panelOpen.value = !open)}
    >
      <Icon name="panel" />
    </Button>
  );
}

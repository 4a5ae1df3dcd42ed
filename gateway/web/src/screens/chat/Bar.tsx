/** Which model and personality are asked, and what can be done with the conversation. */

import { useSignal } from "@preact/signals";
import { useLayoutEffect } from "preact/hooks";
import { Button } from "../../components/Button";
import { Icon } from "../../components/Icon";
import { Menu } from "../../components/Menu";
import { ConversationsButton } from "../../conversations/ConversationPanel";
import { store } from "../../conversations/conversations";
import { narrow, panelOpen } from "../../conversations/panel";
import { openNewConversation } from "../../conversations/route";
import { isPlain } from "../../conversations/settings";
import { SettingsButton, SettingsDialog } from "../../conversations/SettingsDialog";
import { topbar } from "../../frame/topbar";
import { choosable, models as listed } from "../../gateway/live";
import { chat as t } from "../../texts/en/chat";
import { settings } from "../../texts/en/conversations";
import { named, talking } from "./choice";
import { ModelPicker, PersonalityPicker } from "./Pickers";

/** Over the messages, where there is room for it; {@link useTopbar} has it on a phone. */
export function Bar() {
  if (narrow.value) return null;
  return (
    <header class="chat-bar">
      <ConversationsButton />
      <Model />
      <Personality />
      <span class="room" />
      <SettingsButton />
      <NewChat />
    </header>
  );
}

/** On a phone, put it into the one bar there is, for as long as Chat is open. */
export function useTopbar(): void {
  const onPhone = narrow.value;
  useLayoutEffect(() => {
    if (!onPhone) return;
    topbar.value = <PhoneBar />;
    return () => {
      topbar.value = null;
    };
  }, [onPhone]);
}

function PhoneBar() {
  const settingsOpen = useSignal(false);
  const opened = store.opened.value;
  const showList = { words: t.conversations, run: () => void (panelOpen.value = true) };
  const set = opened && {
    words: isPlain(opened.conversation.settings) ? settings.open : settings.changed,
    run: () => void (settingsOpen.value = true),
  };
  return (
    <div class="phone-bar">
      <Model />
      <NewChat />
      <Menu label={t.more} items={set ? [showList, set] : [showList]}>
        <Icon name="more" />
      </Menu>
      {settingsOpen.value && opened && (
        <SettingsDialog opened={opened} onClose={() => (settingsOpen.value = false)} />
      )}
    </div>
  );
}

function Model() {
  const opened = store.opened.value;
  const models = talking(choosable.value);
  if (opened === null || models.length === 0) return null;
  const { id, model } = opened.conversation;
  return (
    <ModelPicker
      models={models}
      model={model === null ? undefined : named(models, model)}
      name={model}
      onChoose={(chosen) => store.change(id, { model: chosen })}
    />
  );
}

/** Nothing for a model that has no personalities. */
export function Personality() {
  const conversation = store.opened.value?.conversation;
  if (conversation === undefined || conversation.model === null) return null;
  const model = named(talking(choosable.value), conversation.model);
  if (model === undefined) return null;
  return (
    <PersonalityPicker
      models={listed.value ?? []}
      model={model}
      conversation={conversation}
      onChoose={(chosen) => store.change(conversation.id, { personality: chosen })}
    />
  );
}

function NewChat() {
  return (
    <Button kind="plain" label={t.newChat} onClick={openNewConversation}>
      <Icon name="plus" />
    </Button>
  );
}

import { useSignalEffect } from "@preact/signals";
import { Button } from "../../components/Button";
import { Empty } from "../../components/Empty";
import { ConversationPanel } from "../../conversations/ConversationPanel";
import { store } from "../../conversations/conversations";
import { narrow, panelOpen } from "../../conversations/panel";
import { openNewConversation, useConversationRoute } from "../../conversations/route";
import type { Opened } from "../../conversations/store";
import { TroubleNotes } from "../../conversations/TroubleNotes";
import { choosable, models as listed, role, status } from "../../gateway/live";
import { href } from "../../router";
import { chat as t } from "../../texts/en/chat";
import { askAgain, askEdited, askNew, goOn, lastModel, personalityOf } from "./ask";
import { Bar, Personality, useTopbar } from "./Bar";
import { first, named, sees, talking } from "./choice";
import { Composer } from "./Composer";
import { firstAnswer } from "./first";
import { takeAlong } from "./removed";
import { runs } from "./run";
import { Start } from "./Start";
import { useTakeUp } from "./takeUp";
import { Thread } from "./Thread";
import { UseItBar } from "./UseItBar";
import "./chat.css";
import "./composer.css";
import "./markdown.css";

// For as long as the page is there: answers go on while another screen is open.
store.onRemove(takeAlong);

/** Talk with a model. */
export default function Chat() {
  useConversationRoute();
  useFirstModel();
  useTopbar();
  useTakeUp();
  const opened = store.opened.value;
  const none = talking(choosable.value).length === 0;
  return (
    <div class="chat">
      <h1 class="visually-hidden">{t.title}</h1>
      <ConversationPanel />
      <section class="chat-main" aria-label={t.title}>
        <Bar />
        {none && (opened?.messages.size ?? 0) === 0 ? (
          <NoModels />
        ) : opened === null ? (
          <NotOpen />
        ) : (
          <Open opened={opened} />
        )}
      </section>
    </div>
  );
}

/** A conversation that has no model yet gets the one that is likeliest meant. */
function useFirstModel(): void {
  useSignalEffect(() => {
    const opened = store.opened.value;
    if (opened === null || opened.conversation.model !== null) return;
    const told = status.value;
    const model = first(talking(choosable.value), lastModel(), told);
    if (model === undefined) return;
    const personality = opened.fresh && told?.active === model.id ? told.personality : null;
    store.change(opened.conversation.id, {
      model: model.id,
      ...(personality !== null && { personality }),
    });
  });
}

function Open({ opened }: { readonly opened: Opened }) {
  const { conversation, messages } = opened;
  const { id } = conversation;
  const models = talking(choosable.value);
  const model = conversation.model === null ? undefined : named(models, conversation.model);
  const personality = model ? personalityOf(opened, model) : null;
  const run = runs.value.get(id);
  const isIdle = model !== undefined && run === undefined;
  const last = conversation.leaf === null ? undefined : messages.get(conversation.leaf);
  const isAnswered = last?.error === undefined && last?.content !== "";
  return (
    <>
      {!panelOpen.value && <TroubleNotes />}
      {messages.size === 0 && model ? (
        <Start
          model={model}
          personality={personality}
          onAsk={(text) => askNew(opened, model, text, [])}
        />
      ) : (
        <Thread
          opened={opened}
          remote={model?.remote === true}
          first={firstAnswer.value}
          idle={isIdle}
          onEdit={(message, text) => {
            if (isIdle) askEdited(opened, model, message, text);
            return isIdle;
          }}
          onAgain={(message) => isIdle && askAgain(opened, model, message)}
          onGoOn={(message) => isIdle && goOn(opened, model, message)}
          onStop={() => run?.stop()}
        />
      )}
      {messages.size > 0 && isIdle && isAnswered && (
        <UseItBar model={personality === null ? model.id : `${model.id}:${personality}`} />
      )}
      <Composer
        id={opened.fresh ? null : id}
        model={model?.id ?? conversation.model ?? t.model}
        isThere={model !== undefined}
        sees={sees(model)}
        running={run !== undefined}
        onSend={(text, images) => model && askNew(opened, model, text, images)}
        onStop={() => run?.stop()}
      >
        {narrow.value && <Personality />}
      </Composer>
    </>
  );
}

function NotOpen() {
  if (store.unopened.value)
    return (
      <Empty title={t.unopened}>
        <p>{t.unopenedText}</p>
        <Button kind="primary" onClick={() => void store.again()}>
          {t.tryAgain}
        </Button>
      </Empty>
    );
  if (store.missing.value === null)
    return (
      <>
        {!panelOpen.value && <TroubleNotes />}
        <p class="opening soft" role="status">
          {t.opening}
        </p>
      </>
    );
  return (
    <Empty title={t.missing}>
      <p>{t.missingText}</p>
      <Button kind="primary" onClick={openNewConversation}>
        {t.newChat}
      </Button>
    </Empty>
  );
}

function NoModels() {
  if (listed.value === null)
    return (
      <p class="opening soft" role="status">
        {t.loadingModels}
      </p>
    );
  const admin = role.value === "admin";
  return (
    <Empty title={t.noModels}>
      <p>{admin ? t.noModelsAdmin : t.noModelsUser}</p>
      {admin && (
        <a class="button primary" href={href("models")}>
          {t.toModels}
        </a>
      )}
    </Empty>
  );
}

import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Button } from "../components/Button";
import { Icon } from "../components/Icon";
import { conversations as t } from "../texts/en/conversations";
import { ConversationRow, type RowProps } from "./ConversationRow";
import { AllActions } from "./AllActions";
import { store, texts } from "./conversations";
import { groups } from "./groups";
import { narrow, panelOpen } from "./panel";
import { removeWithUndo } from "./actions";
import { openConversation, openNewConversation } from "./route";
import { search } from "./search";
import { TroubleNotes } from "./TroubleNotes";
import type { Conversation, ConversationId } from "./types";

/** So many rows are drawn at first, and again each time the end of them is reached. */
const STEP = 50;

/** Search, groups, and what can be done with each conversation and with all. */
export function ConversationList({ onChosen }: { readonly onChosen?: () => void }) {
  const query = useSignal("");
  const limit = useSignal(STEP);
  const active = useSignal<ConversationId | null>(null);
  const renaming = useSignal<ConversationId | null>(null);
  const searching = useSignal(false);
  const list = useRef<HTMLDivElement>(null);

  useEffect(() => {
    limit.value = STEP;
    if (query.value.trim() === "") return;
    searching.value = texts.texts.peek().size === 0;
    void texts.refresh().finally(() => (searching.value = false));
  }, [query.value, store.list.value]);

  const hits = useComputed(() =>
    query.value.trim() === "" ? null : search(query.value, store.list.value, texts.texts.value),
  );
  const open = store.opened.value?.conversation.id ?? null;
  const ordered: readonly Conversation[] =
    hits.value?.map((one) => one.conversation) ??
    groups(store.list.value).flatMap((one) => one.conversations);
  const reachable =
    ordered.find((one) => one.id === active.value) ??
    ordered.find((one) => one.id === open) ??
    ordered[0];

  const row = (conversation: Conversation): RowProps => ({
    conversation,
    snippet: null,
    current: conversation.id === open,
    reachable: conversation.id === reachable?.id,
    renaming: conversation.id === renaming.value,
    onFocus: () => (active.value = conversation.id),
    onChosen,
    onRename: (editing) => {
      renaming.value = editing ? conversation.id : null;
      if (!editing) focusRow(list.current, conversation.id);
    },
  });

  const onKeyDown = (event: KeyboardEvent): void => {
    if (!(event.target instanceof HTMLAnchorElement)) return;
    const at = ordered.findIndex((one) => one.id === active.value);
    const moves: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      Home: 0,
      End: Math.min(ordered.length, limit.value) - 1,
    };
    const to = moves[event.key];
    const conversation = ordered[at];
    if (to !== undefined) focusRow(list.current, ordered[to]?.id);
    else if (event.key === "F2" && conversation) renaming.value = conversation.id;
    else if (event.key === "Delete" && conversation) {
      const next = ordered[at + 1] ?? ordered[at - 1];
      void removeWithUndo(conversation).then(() => focusRow(list.current, next?.id));
    } else return;
    event.preventDefault();
  };

  return (
    <>
      <header>
        <h2>{t.title}</h2>
        {narrow.value && (
          <Button kind="plain" label={t.hide} onClick={() => (panelOpen.value = false)}>
            <Icon name="close" />
          </Button>
        )}
        <Button
          kind="plain"
          label={t.begin}
          onClick={() => {
            openNewConversation();
            onChosen?.();
          }}
        >
          <Icon name="plus" />
        </Button>
        <AllActions />
      </header>
      <div class="conversation-search">
        <Icon name="search" size={16} />
        <input
          class="input"
          type="search"
          placeholder={t.search}
          aria-label={t.search}
          value={query}
          onFocus={() => void texts.refresh()} // so that the first word finds them read
          onInput={(event) => (query.value = event.currentTarget.value)}
          onKeyDown={(event) => {
            const [best] = ordered;
            if (event.key === "ArrowDown") focusRow(list.current, best?.id);
            else if (event.key === "Enter" && hits.value && best && !event.isComposing) {
              openConversation(best.id);
              onChosen?.();
            } else return;
            event.preventDefault();
          }}
        />
      </div>
      <p class="visually-hidden" role="status">
        {hits.value && !searching.value && t.found(hits.value.length)}
      </p>
      <TroubleNotes />
      <div class="conversation-list" ref={list} onKeyDown={onKeyDown}>
        {hits.value ? (
          <Hits
            hits={hits.value.slice(0, limit.value)}
            query={query.value}
            searching={searching.value}
            row={row}
          />
        ) : (
          <Groups limit={limit.value} row={row} />
        )}
        {ordered.length > limit.value && (
          <More
            key={limit.value}
            words={t.shown(limit.value, ordered.length)}
            onReached={() => (limit.value += STEP)}
          />
        )}
      </div>
      <p class="conversation-foot soft">{t.kept}</p>
    </>
  );
}

interface Rows {
  readonly row: (conversation: Conversation) => RowProps;
}

function Groups({ limit, row }: Rows & { readonly limit: number }) {
  if (!store.ready.value) return null;
  if (store.list.value.length === 0) return <p class="soft none">{t.none}</p>;
  let room = limit;
  return (
    <>
      {groups(store.list.value).map(({ name, conversations }) => {
        const shown = conversations.slice(0, Math.max(0, room));
        room -= shown.length;
        return (
          shown.length > 0 && (
            <section key={name} aria-label={t.groups[name]}>
              <h3>{t.groups[name]}</h3>
              <ul>
                {shown.map((one) => (
                  <ConversationRow key={one.id} {...row(one)} />
                ))}
              </ul>
            </section>
          )
        );
      })}
    </>
  );
}

interface HitsProps extends Rows {
  readonly hits: ReturnType<typeof search>;
  readonly query: string;
  readonly searching: boolean;
}

function Hits({ hits, query, searching, row }: HitsProps) {
  if (hits.length === 0)
    return <p class="soft none">{searching ? t.searching : t.nothingFound(query.trim())}</p>;
  return (
    <ul>
      {hits.map(({ conversation, snippet }) => (
        <ConversationRow key={conversation.id} {...row(conversation)} snippet={snippet} />
      ))}
    </ul>
  );
}

/** Says how many there are, and calls when it is scrolled into sight. */
function More({ words, onReached }: { readonly words: string; readonly onReached: () => void }) {
  const place = useRef<HTMLParagraphElement>(null);
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const observer = new IntersectionObserver((entries) => {
      if (entries.some((one) => one.isIntersecting)) onReached();
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return (
    <p class="soft none" ref={place}>
      {words}
    </p>
  );
}

function focusRow(list: HTMLElement | null, id: ConversationId | undefined): void {
  if (id === undefined) return;
  const focus = (): boolean => {
    const link = list?.querySelector<HTMLElement>(`[data-conversation="${CSS.escape(id)}"]`);
    link?.focus();
    return link != null;
  };
  // At once, for keys that follow quickly; or after what was changed is drawn.
  if (!focus()) requestAnimationFrame(focus);
}

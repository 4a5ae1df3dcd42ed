import { useEffect, useRef } from "preact/hooks";
import { Icon } from "../components/Icon";
import { Menu } from "../components/Menu";
import { ago, exactly } from "../format";
import { boxes } from "../gateway/connection";
import { href } from "../router";
import { conversations as t } from "../texts/en/conversations";
import { actionsOf } from "./actions";
import { store } from "./conversations";
import type { Snippet } from "./search";
import type { Conversation } from "./types";

export interface RowProps {
  readonly conversation: Conversation;
  /** Where the searched words are, if not in the title. */
  readonly snippet: Snippet | null;
  /** Whether it is the one that is open. */
  readonly current: boolean;
  /** Whether Tab leads to it; arrows lead to the others. */
  readonly reachable: boolean;
  readonly renaming: boolean;
  readonly onFocus: () => void;
  readonly onChosen: (() => void) | undefined;
  readonly onRename: (editing: boolean) => void;
}

export function ConversationRow(props: RowProps) {
  const { conversation, snippet, current, reachable, renaming, onRename } = props;
  const title = conversation.title || t.untitled;
  const when = new Date(conversation.updated);
  const many = boxes.value.length > 1;
  const at = many ? boxes.value.find((one) => one.address === conversation.box) : undefined;
  const tab = reachable ? 0 : -1;
  if (renaming)
    return (
      <li class="conversation">
        <Rename conversation={conversation} onDone={() => onRename(false)} />
      </li>
    );
  return (
    <li class={current ? "conversation current" : "conversation"} onFocusCapture={props.onFocus}>
      <a
        href={href("chat", conversation.id)}
        data-conversation={conversation.id}
        tabIndex={tab}
        aria-current={current ? "page" : undefined}
        title={`${title}\n${ago(when)}, ${exactly(when)}${at ? `\n${t.elsewhere(at.name)}` : ""}`}
        onClick={props.onChosen}
        onDblClick={() => onRename(true)}
      >
        <span class="title">
          {conversation.pinned && <Icon name="pin" size={14} />}
          {title}
        </span>
        {snippet && <SnippetLine snippet={snippet} />}
        {at && <span class="soft line">{at.name}</span>}
      </a>
      <Menu
        label={t.actions(title)}
        tabIndex={tab}
        items={actionsOf(conversation, () => onRename(true))}
      >
        <Icon name="more" size={18} />
      </Menu>
    </li>
  );
}

function SnippetLine({ snippet }: { readonly snippet: Snippet }) {
  return (
    <span class="soft line">
      {snippet.map(({ text, match }, n) => (match ? <mark key={n}>{text}</mark> : text))}
    </span>
  );
}

interface RenameProps {
  readonly conversation: Conversation;
  readonly onDone: () => void;
}

/** The title as a field: Enter takes it over, Escape leaves it. */
function Rename({ conversation, onDone }: RenameProps) {
  const field = useRef<HTMLInputElement>(null);
  const over = useRef(false);
  useEffect(() => field.current?.select(), []);
  const end = (keep: boolean): void => {
    if (over.current) return; // leaving the field ends it too
    over.current = true;
    const title = field.current?.value.trim() ?? "";
    if (keep && title !== "" && title !== conversation.title)
      store.change(conversation.id, { title });
    onDone();
  };
  return (
    <input
      ref={field}
      class="input"
      aria-label={t.newTitle}
      maxLength={200}
      defaultValue={conversation.title}
      onBlur={() => end(true)}
      onKeyDown={(event) => {
        if (event.key !== "Enter" && event.key !== "Escape") return;
        event.preventDefault();
        event.stopPropagation();
        end(event.key === "Enter");
      }}
    />
  );
}

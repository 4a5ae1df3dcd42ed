import { Button } from "../../components/Button";
import { Icon } from "../../components/Icon";
import { store } from "../../conversations/conversations";
import { leafBelow, siblings } from "../../conversations/tree";
import type { MessageId } from "../../conversations/types";
import { chat as t } from "../../texts/en/chat";

/** ‹ 2/3 ›: the versions of a question or an answer. */
export function Branches({ id }: { readonly id: MessageId }) {
  const opened = store.opened.value;
  if (opened === null) return null;
  const { conversation, messages } = opened;
  const { ids, index } = siblings(messages, id);
  if (ids.length < 2) return null;
  const show = (step: number): void => {
    const to = ids[index + step];
    if (to !== undefined) store.change(conversation.id, { leaf: leafBelow(messages, to) });
  };
  return (
    <span class="branches">
      <Button kind="plain" label={t.earlier} disabled={index === 0} onClick={() => show(-1)}>
        <Icon name="left" size={16} />
      </Button>
      <span>{t.version(index + 1, ids.length)}</span>
      <Button
        kind="plain"
        label={t.later}
        disabled={index === ids.length - 1}
        onClick={() => show(1)}
      >
        <Icon name="right" size={16} />
      </Button>
    </span>
  );
}

import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Button } from "../../components/Button";
import { Icon } from "../../components/Icon";
import type { Opened } from "../../conversations/store";
import { path } from "../../conversations/tree";
import type { Message } from "../../conversations/types";
import { chat as t } from "../../texts/en/chat";
import { Answer } from "./Answer";
import { canGoOn } from "./body";
import { Question } from "./Question";
import { runs } from "./run";
import { useEnd } from "./end";

interface Props {
  readonly opened: Opened;
  readonly remote: boolean;
  /** The answer that is told of in plain words, as the first of all. */
  readonly first: Message["id"] | null;
  /** Whether something can be asked now: there is a model, and it isn't answering. */
  readonly idle: boolean;
  /** Returns whether it was asked. */
  readonly onEdit: (message: Message, text: string) => boolean;
  readonly onAgain: (message: Message) => void;
  readonly onGoOn: (message: Message) => void;
  readonly onStop: () => void;
}

/** Messages whose Markdown is worked out at once, and in each pause after that. */
const AT_ONCE = 12;
const IN_A_PAUSE = 4;

/** The messages of one conversation, from the first question to the leaf. */
export function Thread(props: Props) {
  const { opened, remote, first, idle, onEdit, onAgain, onGoOn, onStop } = props;
  const { conversation, messages } = opened;
  const shown = path(messages, conversation.leaf);
  const place = useRef<HTMLDivElement>(null);
  const { away, toEnd } = useEnd(place, conversation.id, shown.at(-1)?.id);
  const worked = useNear(conversation.id, shown.length);
  const run = useComputed(() => runs.value.get(conversation.id));
  return (
    <div class="thread-frame">
      <div
        class="thread"
        ref={place}
        tabIndex={0}
        role="region"
        aria-label={t.messages}
        onKeyDown={(event) => {
          if (event.key === "Escape" && run.value !== undefined) onStop();
        }}
      >
        <div class="thread-inner">
          {shown.map((message, index) => {
            const last = index === shown.length - 1;
            if (message.role === "user")
              return (
                <Question
                  key={message.id}
                  message={message}
                  last={last}
                  idle={idle}
                  onEdit={(text) => onEdit(message, text)}
                />
              );
            const writing = run.value?.message.peek().id === message.id ? run.value : undefined;
            return (
              <Answer
                key={message.id}
                message={message}
                run={writing}
                first={first === message.id}
                remote={remote}
                idle={idle}
                last={last}
                near={index >= shown.length - worked}
                goesOn={
                  last &&
                  message.finish !== "stop" &&
                  (message.toolCalls?.length ?? 0) === 0 &&
                  canGoOn(message.content, conversation.settings, remote)
                }
                onAgain={() => {
                  place.current?.focus(); // the button goes away, and Escape is to stop it
                  onAgain(message);
                }}
                onGoOn={() => {
                  place.current?.focus();
                  onGoOn(message);
                }}
              />
            );
          })}
        </div>
      </div>
      {away && (
        <Button class="to-end" label={t.toEnd} onClick={toEnd}>
          <Icon name="down" />
        </Button>
      )}
    </div>
  );
}

/**
 * How many of the last messages have their Markdown worked out: a screenful at once, the others
 * from there upwards, a few whenever the browser has nothing better to do.
 */
function useNear(conversation: string, length: number): number {
  const near = useSignal(AT_ONCE);
  useEffect(() => {
    near.value = AT_ONCE;
  }, [conversation]);
  const isDone = near.value >= length;
  useEffect(() => {
    if (isDone) return;
    return whenIdle(() => (near.value += IN_A_PAUSE));
  }, [near.value, isDone]);
  return near.value;
}

function whenIdle(work: () => void): () => void {
  if (!("requestIdleCallback" in window)) {
    const timer = setTimeout(work, 30); // Safari
    return () => clearTimeout(timer);
  }
  const handle = requestIdleCallback(work, { timeout: 200 });
  return () => cancelIdleCallback(handle);
}

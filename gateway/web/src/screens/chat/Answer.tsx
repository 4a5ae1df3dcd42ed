import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { Button } from "../../components/Button";
import { CopyButton } from "../../components/CopyButton";
import { Icon } from "../../components/Icon";
import { Said } from "../../components/Said";
import type { Message, MessageError, ToolCall } from "../../conversations/types";
import { broken, reached, role } from "../../gateway/live";
import { href } from "../../router";
import { chat as t } from "../../texts/en/chat";
import { Branches } from "./Branches";
import { Code } from "./Code";
import { Facts } from "./Facts";
import { Markdown } from "./Markdown";
import type { Run } from "./run";
import { isUnfinished } from "./takeUp";
import { Waiting } from "./Waiting";

interface Props {
  readonly message: Message;
  /** Its stream, while it is being written here. */
  readonly run: Run | undefined;
  readonly first: boolean;
  readonly remote: boolean;
  /** Whether something can be asked now. */
  readonly idle: boolean;
  /** The last one of what is shown. */
  readonly last: boolean;
  /** Whether its Markdown is worth working out now; else its text is shown as it is. */
  readonly near: boolean;
  /** Whether the model could go on where it ended. */
  readonly goesOn: boolean;
  readonly onAgain: () => void;
  readonly onGoOn: () => void;
}

export function Answer(props: Props) {
  const { run, last, near } = props;
  const message = run?.message.value ?? props.message;
  const { content, reasoning, toolCalls } = message;
  const growing = run !== undefined;
  return (
    <article class={last ? "message answer last" : "message answer"} aria-label={t.answer}>
      <header class="soft">{t.by(message.model ?? t.answer, message.personality)}</header>
      {reasoning && (
        <Thoughts
          text={reasoning}
          seconds={message.stats?.thoughtSeconds}
          growing={growing && content === ""}
        />
      )}
      {near ? <Markdown text={content} growing={growing} /> : <p class="as-it-is">{content}</p>}
      {toolCalls?.map((call, index) => (
        <Call key={call.id || index} call={call} growing={growing} />
      ))}
      {growing ? <Waiting run={run} /> : !isUnfinished(message) && <Ended {...props} />}
    </article>
  );
}

/** What the model thought before it answered, folded. */
function Thoughts({
  text,
  seconds,
  growing,
}: {
  readonly text: string;
  readonly seconds: number | undefined;
  readonly growing: boolean;
}) {
  const open = useSignal(false);
  const words = growing ? t.thinking : seconds === undefined ? t.thought : t.thoughtFor(seconds);
  return (
    <details class="thoughts" onToggle={(event) => (open.value = event.currentTarget.open)}>
      <summary>{words}</summary>
      {open.value && <Markdown text={text} growing={growing} />}
    </details>
  );
}

function Call({ call, growing }: { readonly call: ToolCall; readonly growing: boolean }) {
  return (
    <div class="call">
      <p>
        <Icon name="tool" size={16} /> {t.calls(call.name)}
      </p>
      {call.arguments.trim() === "" || call.arguments.trim() === "{}" ? (
        <p class="soft">{t.noArguments}</p>
      ) : (
        <Code text={pretty(call.arguments)} language="json" open={growing} />
      )}
    </div>
  );
}

function pretty(json: string): string {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json; // not whole, or wrong: as the model wrote it
  }
}

/** What is said of an answer that has ended, and what can be done with it. */
function Ended(props: Props) {
  const { message, first, remote, idle, last, goesOn, onAgain, onGoOn } = props;
  const { content, error, finish, id, toolCalls } = message;
  const empty = content === "" && (toolCalls?.length ?? 0) === 0;
  const why = empty ? endOfNothing(finish) : endOf(finish);
  const isBroken =
    error !== undefined || finish === undefined || finish === "cut" || finish === "lost";
  const offersAgain = (error !== undefined || why !== null) && (isBroken || empty);
  return (
    <>
      {error ? (
        <Failed {...props} error={error} />
      ) : (
        why !== null && (
          <div class={isBroken ? "note warn" : "ending"}>
            <p class={isBroken ? undefined : "soft"}>{why}</p>
            <Actions>
              {goesOn && (
                <Button disabled={!idle} onClick={onGoOn}>
                  {t.goOn}
                </Button>
              )}
              {offersAgain && (
                <Button disabled={!idle} onClick={onAgain}>
                  {content === "" ? t.tryAgain : t.again}
                </Button>
              )}
            </Actions>
          </div>
        )
      )}
      <div class="message-foot">
        <Branches id={id} />
        <span class="message-actions">
          {content !== "" && <CopyButton text={content} label={t.copy} />}
          {(!offersAgain || !last) && (
            <Button kind="plain" label={t.again} disabled={!idle} onClick={onAgain}>
              <Icon name="again" size={16} />
            </Button>
          )}
        </span>
        <Facts message={message} first={first} remote={remote} />
      </div>
    </>
  );
}

/** Why there is no whole answer; and that it can be had, once a gateway that was away is back. */
function Failed({
  message,
  error,
  idle,
  last,
  goesOn,
  onAgain,
  onGoOn,
}: Props & { error: MessageError }) {
  const { content, created, model } = message;
  const { requestId } = error;
  const isBack =
    last && error.unreachable === true && broken.value === null && reached.value > created;
  return (
    <div class={isBack ? "note" : "note bad"} role="alert">
      <Said message={isBack ? t.back : error.message} />
      {requestId && (
        <p class="soft request">
          {t.request} <code>{requestId}</code> <CopyButton text={requestId} label={t.copyId} />
        </p>
      )}
      <Actions>
        {goesOn && (
          <Button disabled={!idle} onClick={onGoOn}>
            {t.goOn}
          </Button>
        )}
        <Button kind={isBack ? "primary" : undefined} disabled={!idle} onClick={onAgain}>
          {isBack ? t.askAgain : content === "" ? t.tryAgain : t.again}
        </Button>
        {role.value === "admin" && model && requestId && (
          <a class="button plain" href={href("models", model)}>
            {t.seeLog}
          </a>
        )}
      </Actions>
    </div>
  );
}

function Actions({ children }: { readonly children: ComponentChildren }) {
  return <div class="ending-actions">{children}</div>;
}

function endOfNothing(finish: string | undefined): string | null {
  if (finish === "stop") return t.empty;
  return endOf(finish === "lost" ? undefined : finish); // there is no rest where nothing came
}

function endOf(finish: string | undefined): string | null {
  switch (finish) {
    case "stop":
    case "tool_calls":
    case "error":
      return null;
    case undefined:
      return t.unfinished;
    case "stopped":
      return t.stopped;
    case "cut":
      return t.cut;
    case "lost":
      return t.lost;
    case "length":
      return t.reachedLimit;
    case "content_filter":
      return t.filtered;
    default:
      return finish;
  }
}

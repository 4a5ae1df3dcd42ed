/**
 * Answers that are being written. They go on while the person looks at another conversation or
 * screen, and what came of them is kept as it comes.
 */

import { signal, type ReadonlySignal } from "@preact/signals";
import { store } from "../../conversations/conversations";
import type {
  Conversation,
  ConversationId,
  Image,
  Message,
  MessageError,
} from "../../conversations/types";
import { GatewayError } from "../../gateway/errors";
import { eventsOf } from "../../gateway/events";
import { ask } from "../../gateway/request";
import { chat as t } from "../../texts/en/chat";
import { DONE, NOTHING, take, type Answer } from "./answer";
import { bodyOf, canGoOn } from "./body";
import { addressesOf, NoPicture } from "./images";
import { placeInUse, refusedAt, watchPlace } from "./place";

/** Milliseconds between two pictures of an answer that grows, and between two writes of it. */
const SHOWN_EACH = 40;
const KEPT_EACH = 400;
/** Milliseconds before each attempt to go on after the network broke. */
const PAUSES = [500, 2000, 5000] as const;
/** Milliseconds of silence in the midst of an answer after which its connection is given up. */
const SILENCE = 45_000;

/** One answer under way. */
export interface Run {
  readonly model: string;
  /** When it was asked for, as in `performance.now()`. */
  readonly since: number;
  /** The answer so far, as a message. */
  readonly message: ReadonlySignal<Message>;
  /** The same as its stream tells it; of the attempt that is under way. */
  readonly answer: ReadonlySignal<Answer>;
  /** It broke, and is being gone on with: how often already. */
  readonly attempts: ReadonlySignal<number>;
  /** Resolves when all of it is kept. */
  readonly ended: Promise<void>;
  stop(): void;
}

const underWay = signal<ReadonlyMap<ConversationId, Run>>(new Map());

/** By their conversations. */
export const runs: ReadonlySignal<ReadonlyMap<ConversationId, Run>> = underWay;

export interface Wanted {
  readonly conversation: Conversation;
  readonly model: string;
  readonly personalities: boolean;
  /** Whether another server has the model. */
  readonly remote: boolean;
  /** From the first question to the one that is to be answered. */
  readonly path: readonly Message[];
  /** The message to write: a new one, or one to go on with. */
  readonly message: Message;
}

class Stopped extends Error {}
class Silent extends Error {}

/** Write an answer; resolves when it has ended, however it did. Never throws. */
export async function run(wanted: Wanted): Promise<void> {
  const { conversation } = wanted;
  if (underWay.peek().has(conversation.id)) return;
  const writing = new Writing(wanted);
  underWay.value = new Map(underWay.peek()).set(conversation.id, writing);
  try {
    writing.ended = writing.write();
    await writing.ended;
  } finally {
    const rest = new Map(underWay.peek());
    rest.delete(conversation.id);
    underWay.value = rest;
  }
}

/** Stop the answers of conversations; `null`: all. Resolves when what came of them is kept. */
export async function stopRuns(ids: readonly ConversationId[] | null): Promise<void> {
  const stopped = [...underWay.peek()].filter(([id]) => ids === null || ids.includes(id));
  for (const [, one] of stopped) one.stop();
  await Promise.all(stopped.map(([, one]) => one.ended));
}

type Ended = { readonly finish: string; readonly error?: MessageError };

const UNREACHABLE: Ended = {
  finish: "error",
  error: { message: t.unreachable, requestId: null, unreachable: true },
};

class Writing implements Run {
  readonly model: string;
  readonly since = performance.now();
  readonly message;
  readonly answer = signal<Answer>(NOTHING);
  readonly attempts = signal(0);
  ended: Promise<void> = Promise.resolve();
  readonly #wanted: Wanted;
  /** What was asked at one box is gone on with there, and told to no other. */
  readonly #place = placeInUse();
  readonly #control = new AbortController();
  /** What had come before this attempt. */
  #before: Message;
  #latest: Answer = NOTHING;
  #requestId: string | null = null;
  #firstPiece: number | null = null;
  #thinking: number | null = null;
  #thought: number | null = null;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #kept = 0;
  #heard = 0;

  constructor(wanted: Wanted) {
    const { finish: _, error: __, ...rest } = wanted.message;
    this.#wanted = wanted;
    this.#before = { ...rest, model: wanted.model };
    this.model = wanted.model;
    this.message = signal<Message>(this.#before);
  }

  stop(): void {
    this.#control.abort(new Stopped());
  }

  async write(): Promise<void> {
    store.put(this.#before);
    void store.flush();
    const leave = (): void => this.#keep(this.#current());
    addEventListener("pagehide", leave);
    const unwatch = watchPlace(this.#place, () => this.stop());
    let ended: Ended;
    try {
      ended = await this.#toTheEnd();
    } finally {
      unwatch();
      removeEventListener("pagehide", leave);
      if (this.#timer !== null) clearTimeout(this.#timer);
    }
    const whole: Message = { ...this.#current(), ...ended };
    this.message.value = whole;
    store.put(whole);
  }

  /** Ask until it is whole, and go on where the network broke it. */
  async #toTheEnd(): Promise<Ended> {
    const goesOn = this.#before.content !== "";
    for (;;) {
      const attempt = this.attempts.peek();
      const ended = await this.#attempt().catch((error: unknown) => this.#failed(error));
      if (ended !== "cut") {
        if (ended.error === undefined || (attempt === 0 && !goesOn)) return ended;
        return this.#control.signal.aborted ? ended : { ...ended, finish: "error" };
      }
      const pause = PAUSES[attempt];
      const current = this.#current();
      const { settings } = this.#wanted.conversation;
      const again = current.content === "" && (current.toolCalls?.length ?? 0) === 0;
      if (
        pause === undefined ||
        !(again || canGoOn(current.content, settings, this.#wanted.remote))
      )
        return { finish: "cut" };
      this.#before = again ? withoutThoughts(current) : current;
      this.#show(NOTHING);
      this.attempts.value = attempt + 1;
      if (!(await slept(pause, this.#control.signal))) return { finish: "stopped" };
    }
  }

  async #attempt(): Promise<Ended | "cut"> {
    const { conversation, model, personalities, path } = this.#wanted;
    const begun = this.#before.content;
    const body = bodyOf({
      conversation,
      model,
      personalities,
      path,
      images: await addressesOf(path.flatMap((one): readonly Image[] => one.images)),
      begun: begun === "" ? undefined : begun,
    });
    const { signal } = this.#control;
    const asked = { method: "POST", body, signal, place: this.#place } as const;
    const response = await ask("/v1/chat/completions", asked);
    this.#requestId = response.headers.get("X-Request-Id");
    const silence = new AbortController();
    const watch = setInterval(() => {
      const silent = performance.now() - this.#heard > SILENCE;
      if (silent && this.#latest.pieces > 0) silence.abort(new Silent());
    }, 5000);
    try {
      for await (const { data } of eventsOf(heard(response, silence.signal, this.#hear))) {
        if (data === DONE) break;
        this.#take(data);
        if (this.#latest.error !== null) return this.#erred(this.#latest.error);
      }
    } finally {
      clearInterval(watch);
    }
    const { finish } = this.#latest;
    return finish === null ? "cut" : { finish };
  }

  readonly #hear = (): void => {
    this.#heard = performance.now();
  };

  #failed(error: unknown): Ended | "cut" {
    if (this.#control.signal.aborted) return { finish: "stopped" };
    if (error instanceof GatewayError) {
      if (error.status === 401) refusedAt(this.#place);
      this.#requestId = error.requestId;
      return this.#erred(error.message);
    }
    if (error instanceof NoPicture) return this.#erred(t.lostPicture);
    const nothing = this.#requestId === null && this.#before.content === "";
    return nothing && this.attempts.peek() === 0 ? UNREACHABLE : "cut";
  }

  #erred(message: string): Ended {
    return { finish: "error", error: { message, requestId: this.#requestId } };
  }

  #take(data: string): void {
    const before = this.#latest;
    this.#latest = take(before, data);
    const now = performance.now();
    if (this.#latest.pieces > before.pieces) this.#firstPiece ??= now;
    if (this.#latest.reasoning.length > before.reasoning.length) {
      this.#thinking ??= now;
      this.#thought = now;
    }
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#show(this.#latest);
      if (performance.now() - this.#kept > KEPT_EACH) this.#keep(this.message.peek());
    }, SHOWN_EACH);
  }

  #show(answer: Answer): void {
    this.#latest = answer;
    this.answer.value = answer;
    this.message.value = this.#current();
  }

  #keep(message: Message): void {
    this.#kept = performance.now();
    store.put(message);
  }

  /** What came before this attempt, and what has come in it. */
  #current(): Message {
    const { content, reasoning, toolCalls, stats } = this.#latest;
    const before = this.#before;
    const seconds = (until: number | null, from: number | null): number | undefined =>
      until === null || from === null ? undefined : (until - from) / 1000;
    const thoughtSeconds = seconds(this.#thought, this.#thinking) ?? before.stats?.thoughtSeconds;
    const firstTokenSeconds =
      before.stats?.firstTokenSeconds ?? seconds(this.#firstPiece, this.since);
    const allReasoning = (before.reasoning ?? "") + reasoning;
    return {
      ...before,
      content: before.content + content,
      ...(allReasoning !== "" && { reasoning: allReasoning }),
      ...(toolCalls.length > 0 && { toolCalls }),
      stats: {
        ...stats,
        ...(firstTokenSeconds !== undefined && { firstTokenSeconds }),
        ...(thoughtSeconds !== undefined && { thoughtSeconds }),
      },
    };
  }
}

function withoutThoughts(message: Message): Message {
  const { reasoning: _, ...rest } = message;
  return rest;
}

/** The same answer; `hear` is called for each piece, heartbeats too, and `silent` ends it. */
function heard(response: Response, silent: AbortSignal, hear: () => void): Response {
  hear();
  const listening = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    transform(piece, controller) {
      hear();
      controller.enqueue(piece);
    },
  });
  return new Response(response.body?.pipeThrough(listening, { signal: silent }) ?? null);
}

/** Wait, at most as long as it takes the browser to be online again; false if it was aborted. */
function slept(milliseconds: number, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve(!signal.aborted);
    };
    const timer = setTimeout(done, milliseconds);
    addEventListener("online", done);
    signal.addEventListener("abort", done);
  });
}

/** One answer on its way from the gateway into its conversation. */

import { effect, signal, type ReadonlySignal, type Signal } from "@preact/signals";
import { store } from "../../conversations/conversations";
import { newId } from "../../conversations/types";
import type { Conversation, Image, Message, Stream } from "../../conversations/types";
import { GatewayError } from "../../gateway/errors";
import { eventsOf, isFinal } from "../../gateway/events";
import { ask, type Ask } from "../../gateway/request";
import { chat as t } from "../../texts/en/chat";
import { DONE, type Answer } from "./answer";
import { bodyOf, canGoOn } from "./body";
import { Growth } from "./growth";
import { addressesOf, NoPicture } from "./images";
import { hear, slept } from "./line";
import { inOneTab, stopElsewhere } from "./oneTab";
import { placeInUse, refusedAt, watchPlace } from "./place";

/** Milliseconds before each attempt to go on after the network broke. */
const PAUSES = [500, 2000, 5000] as const;
/** Milliseconds between further ones, where the gateway keeps the rest; and how many in all. */
const LATER = 10_000;
const MOST = 15;
/** Milliseconds for which the head of an answer that is stopped may be on its way. */
const HEAD = 200;
/** Milliseconds in which another tab stops its answer. */
const ELSEWHERE = 3000;
/** Milliseconds for which a question waits until the browser has kept by which name it is asked. */
const KEPT = 1000;
/** How often a stream is looked for that a page asked for just before it was gone. */
const LOOKS = 2;

/** One answer under way. */
export interface Run {
  readonly model: string;
  /** When it was asked for or taken up here, as in `performance.now()`. */
  readonly since: number;
  /** The answer so far, as a message. */
  readonly message: ReadonlySignal<Message>;
  /** The same as its stream tells it; of the attempt that is under way. */
  readonly answer: ReadonlySignal<Answer>;
  /** Whether it broke, and is being gone on with. */
  readonly reconnects: ReadonlySignal<boolean>;
  /** Whether another tab writes it, and this one looks on. */
  readonly elsewhere: ReadonlySignal<boolean>;
  /** Resolves when all of it is kept. */
  readonly ended: Promise<void>;
  stop(): void;
}

/** What is asked for. */
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

/** Before its end: the connection is gone; or with it the rest of the stream. */
type Broke = "cut" | "lost";
/** The code of a stream that can't be read on. */
const GONE = "stream_not_found";

type Ended = Partial<Message> & { readonly finish: string };

const UNREACHABLE: Ended = {
  finish: "error",
  error: { message: t.unreachable, requestId: null, unreachable: true },
};

export class Writing implements Run {
  readonly model: string;
  readonly since: number;
  readonly message: Signal<Message>;
  readonly answer: ReadonlySignal<Answer>;
  readonly reconnects = signal(false);
  readonly elsewhere = signal(false);
  ended: Promise<void> = Promise.resolve();
  /** `null`: it was asked for by a page that has gone, or another tab. */
  readonly #wanted: Wanted | null;
  /** What was asked at one box is gone on with there, and told to no other. */
  readonly #place = placeInUse();
  readonly #control = new AbortController();
  readonly #growth: Growth;
  #requestId: string | null = null;
  /** How often it was asked for anew, and has broken since something came last. */
  #askedAgain = 0;
  #breaks = 0;
  /** Whether the question was sent; and whether the head of its stream has come. */
  #isAsked: boolean;
  #isBegun: boolean;
  /** Whether the attempt under way reads a stream that was asked for before. */
  #reads = false;
  /** Whether this tab is the one that writes it. */
  #writes = false;

  /** `message`: a new one, or one to go on with; as `wanted`, or behind the last event it has. */
  constructor(message: Message, wanted: Wanted | null) {
    this.#wanted = wanted;
    this.#isAsked = this.#isBegun = wanted === null;
    this.model = wanted?.model ?? message.model ?? "";
    this.#growth = new Growth({ ...message, model: this.model }, wanted !== null);
    this.since = this.#growth.since;
    this.message = this.#growth.message;
    this.answer = this.#growth.answer;
  }

  stop(): void {
    stopElsewhere(this.message.peek().id); // without locks, others read it too
    if (this.#writes) this.stopHere();
    else setTimeout(() => this.#abort(), ELSEWHERE);
  }

  /** Stop it if this tab writes it. */
  stopHere(): void {
    if (!this.#writes) return;
    if (this.#isBegun || !this.#isAsked) this.#abort();
    // The gateway stops what it knows of: the question may be on its way.
    else setTimeout(() => this.#abort(), HEAD);
  }

  #abort(): void {
    this.#control.abort(new Stopped());
  }

  /** Write it to its end. */
  async write(): Promise<void> {
    if (this.#wanted !== null) void this.#comesBy(newId());
    const { id } = this.message.peek();
    let lookOn = (): void => undefined;
    const waits = (): void => {
      this.elsewhere.value = true;
      lookOn = effect(() => {
        this.message.value = store.opened.value?.messages.get(id) ?? this.message.peek();
      });
    };
    const { signal } = this.#control;
    try {
      await inOneTab(id, signal, waits, async () => {
        lookOn();
        this.elsewhere.value = false;
        this.#writes = true;
        if (this.#wanted !== null || (await this.#isLeft())) await this.#write();
      });
    } catch (error) {
      if (!signal.aborted) throw error; // else it was stopped while another tab wrote
    } finally {
      lookOn();
    }
  }

  /** Whether an answer that was begun elsewhere is still to be written; from where it was left. */
  async #isLeft(): Promise<boolean> {
    const kept = await this.#keptNow();
    if (kept === undefined) return false; // deleted meanwhile
    if (kept.finish === undefined && kept.stream?.box === this.#place.address) {
      this.#growth.goOnFrom(kept);
      return true;
    }
    store.put(kept); // shown at once, not only when the other tab has told of it
    return false;
  }

  async #keptNow(): Promise<Message | undefined> {
    await store.flush();
    const { id, conversation } = this.message.peek();
    return (await store.textsOf(conversation)).find((one) => one.id === id);
  }

  async #write(): Promise<void> {
    const leave = (): void => {
      this.#growth.keep();
      void store.flush();
    };
    addEventListener("pagehide", leave);
    const unwatch = watchPlace(this.#place, () => this.stop());
    let ended: Ended;
    try {
      ended = await this.#toTheEnd();
    } finally {
      unwatch();
      removeEventListener("pagehide", leave);
    }
    if (ended.finish === "stopped") this.#stopStream();
    this.#growth.end(ended);
  }

  /** End the work at the gateway, which goes on when nothing but the connection is closed. */
  #stopStream(): void {
    const { stream } = this.#growth;
    if (stream === null || !this.#isAsked) return;
    const asked = { method: "DELETE", place: this.#place, keepalive: true } as const;
    // If this doesn't arrive either, the gateway gives up what nobody reads after a while.
    ask(streamPath(stream), asked).catch(() => undefined);
  }

  /** Ask until it is whole; where the network broke it, read on, or have the model go on. */
  async #toTheEnd(): Promise<Ended> {
    for (;;) {
      const ended = await this.#attempt().catch((error: unknown) => this.#failed(error));
      if (typeof ended === "object") return ended;
      if (ended === "lost") {
        const kept = await this.#keptNow().catch(() => undefined);
        if (kept?.finish !== undefined) return { ...kept, finish: kept.finish }; // by another tab
      }
      const pause = this.#pauseAfter(ended);
      if (pause === null) return { finish: ended };
      this.reconnects.value = true;
      if (!(await slept(pause, this.#control.signal))) return { finish: "stopped" };
    }
  }

  /** Milliseconds until the next attempt, which is prepared; `null`: there is none. */
  #pauseAfter(broke: Broke): number | null {
    if (broke === "cut" && this.#growth.stream !== null) {
      this.#breaks += 1;
      return this.#breaks > MOST ? null : (PAUSES[this.#breaks - 1] ?? LATER);
    }
    const pause = PAUSES[this.#askedAgain];
    if (this.#wanted === null || pause === undefined) return null;
    const current = this.#growth.current();
    const again = current.content === "" && (current.toolCalls?.length ?? 0) === 0;
    const { conversation, remote } = this.#wanted;
    if (!again && !canGoOn(current.content, conversation.settings, remote)) return null;
    this.#askedAgain += 1;
    this.#isAsked = this.#isBegun = false;
    this.#growth.askAgain(again ? withoutThoughts(current) : current);
    return pause;
  }

  async #attempt(): Promise<Ended | Broke> {
    const asked = { signal: this.#control.signal, place: this.#place };
    const { stream } = this.#growth;
    this.#reads = this.#isAsked && stream !== null;
    const response = await (!this.#isAsked || stream === null
      ? this.#ask(asked)
      : ask(streamPath(stream), { ...asked, headers: { "Last-Event-ID": String(stream.seen) } }));
    this.#isBegun = true;
    this.#requestId = response.headers.get("X-Request-Id");
    return this.#read(response);
  }

  async #ask(asked: Pick<Ask, "signal" | "place">): Promise<Response> {
    if (this.#wanted === null) throw new RangeError("another page has asked for it");
    const { conversation, model, personalities, path } = this.#wanted;
    const begun = this.#growth.before.content;
    const body = bodyOf({
      conversation,
      model,
      personalities,
      path,
      images: await addressesOf(path.flatMap((one): readonly Image[] => one.images)),
      begun: begun === "" ? undefined : begun,
    });
    // A page that is gone before the answer begins finds it by this name when it comes back.
    const chosen = this.#growth.stream?.id ?? newId();
    await Promise.race([this.#comesBy(chosen), slept(KEPT, this.#control.signal)]);
    this.#control.signal.throwIfAborted();
    this.#isAsked = true;
    const headers = { "X-Stream-Resume": "true", "X-Stream-Id": chosen };
    const response = await ask("/v1/chat/completions", { ...asked, method: "POST", body, headers });
    const id = response.headers.get("X-Stream-Id");
    if (id !== chosen) void this.#comesBy(id); // an older gateway, or one that keeps none
    return response;
  }

  async #comesBy(id: string | null): Promise<void> {
    await this.#growth.comesBy(id === null ? null : { id, box: this.#place.address, seen: 0 });
  }

  async #read(response: Response): Promise<Ended | Broke> {
    const growth = this.#growth;
    const isBegun = (): boolean => growth.latest.pieces > 0;
    const [heard, unwatch] = hear(response, isBegun, growth.stream !== null);
    try {
      for await (const { data } of eventsOf(heard)) {
        this.#breaks = 0;
        this.reconnects.value = false;
        growth.count();
        if (data === DONE) return { finish: growth.latest.finish ?? "stop" };
        growth.take(data);
        const { error, code } = growth.latest;
        if (error !== null) return code === GONE ? "lost" : this.#erred(error);
      }
    } finally {
      unwatch();
    }
    const { finish } = growth.latest;
    return finish === null ? "cut" : { finish };
  }

  #failed(error: unknown): Ended | Broke {
    if (this.#control.signal.aborted) return { finish: "stopped" };
    const { before, stream } = this.#growth;
    if (error instanceof GatewayError) {
      if (error.status === 401) refusedAt(this.#place);
      if (this.#reads && !isFinal(error)) return "cut"; // of a proxy before a gateway
      if (this.#reads && error.code === GONE) {
        // The question of a page that was gone at once may still be on its way.
        const early = this.#wanted === null && stream?.seen === 0 && this.#breaks < LOOKS;
        return early ? "cut" : "lost";
      }
      this.#requestId = error.requestId;
      return this.#erred(error.message);
    }
    if (error instanceof NoPicture) return this.#erred(t.lostPicture);
    // Though no head came, the gateway may have the question.
    if (this.#isBegun || !this.#reads) return "cut";
    const nothing = this.#requestId === null && before.content === "";
    return nothing && this.#askedAgain === 0 ? UNREACHABLE : "lost";
  }

  #erred(message: string): Ended {
    return { finish: "error", error: { message, requestId: this.#requestId } };
  }
}

function withoutThoughts(message: Message): Message {
  const { reasoning: _, ...rest } = message;
  return rest;
}

function streamPath({ id }: Stream): string {
  return `/v1/streams/${encodeURIComponent(id)}`;
}

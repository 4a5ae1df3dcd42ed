/** An answer that grows: shown as its stream tells it, and kept in its conversation. */

import { signal } from "@preact/signals";
import { store } from "../../conversations/conversations";
import type { Message, Stats, Stream } from "../../conversations/types";
import { NOTHING, take, type Answer } from "./answer";

/** Milliseconds between two pictures of an answer that grows, and between two writes of it. */
const SHOWN_EACH = 40;
const KEPT_EACH = 400;

export class Growth {
  /** The answer so far, as a message. */
  readonly message;
  /** The same as its stream tells it; of the attempt that is under way. */
  readonly answer = signal<Answer>(NOTHING);
  /** When it was asked for or taken up here, as in `performance.now()`. */
  readonly since = performance.now();
  /** Whether its beginning was seen by this page. */
  readonly #isWhole: boolean;
  /** What had come before this attempt. */
  #before: Message;
  #latest: Answer = NOTHING;
  #stream: Stream | null = null;
  #firstPiece: number | null = null;
  #thinking: number | null = null;
  #thought: number | null = null;
  #showing: ReturnType<typeof setTimeout> | undefined;
  #keeping: ReturnType<typeof setTimeout> | undefined;

  /** `isWhole`: it is asked for by this page, which adds to what `message` has. */
  constructor(message: Message, isWhole: boolean) {
    this.#isWhole = isWhole;
    const { finish: _, error: __, stream: ___, ...rest } = message;
    this.#before = rest;
    this.message = signal<Message>(message);
    if (isWhole) this.#show();
    else this.goOnFrom(message);
  }

  /** What had come before this attempt. */
  get before(): Message {
    return this.#before;
  }

  get latest(): Answer {
    return this.#latest;
  }

  /** Where the rest can be read if the connection is lost. */
  get stream(): Stream | null {
    return this.#stream;
  }

  /** Go on behind what a message has of its stream. */
  goOnFrom(message: Message): void {
    const { finish: _, error: __, stream, content, reasoning, toolCalls, stats, ...bare } = message;
    this.#before = { ...bare, content: "", ...(stats && { stats }) };
    this.#stream = stream ?? null;
    this.#latest = {
      ...NOTHING,
      content,
      reasoning: reasoning ?? "",
      toolCalls: toolCalls ?? [],
      stats: stats ?? {},
      finish: stream?.finish ?? null,
      pieces: content === "" && !reasoning ? 0 : 1,
    };
    this.#show();
  }

  /** Add to it by another stream. */
  askAgain(before: Message): void {
    const { stream: _, ...rest } = before;
    this.#before = rest;
    this.#stream = null;
    this.#latest = NOTHING;
    this.#show();
  }

  /**
   * It comes by this stream, or by none that can be read on. Resolves when that is kept, for whoever
   * goes on with it.
   */
  async comesBy(stream: Stream | null): Promise<void> {
    this.#stream = stream;
    this.keep();
    await store.flush();
  }

  /** One more event has come. */
  count(): void {
    if (this.#stream !== null) this.#stream = { ...this.#stream, seen: this.#stream.seen + 1 };
  }

  /** Add what an event says. */
  take(data: string): void {
    const before = this.#latest;
    this.#latest = take(before, data);
    const now = performance.now();
    if (this.#latest.pieces > before.pieces) this.#firstPiece ??= now;
    if (this.#latest.reasoning.length > before.reasoning.length) {
      this.#thinking ??= now;
      this.#thought = now;
    }
    this.#showing ??= setTimeout(() => {
      this.#showing = undefined;
      this.#show();
    }, SHOWN_EACH);
    this.#keeping ??= setTimeout(this.keep, KEPT_EACH);
  }

  #show(): void {
    this.answer.value = this.#latest;
    this.message.value = this.current();
  }

  readonly keep = (): void => {
    clearTimeout(this.#keeping);
    this.#keeping = undefined;
    store.put(this.current());
  };

  /** Show and keep it as it has ended. */
  end(ended: Partial<Message>): void {
    clearTimeout(this.#showing);
    clearTimeout(this.#keeping);
    const { stream: _, ...current } = this.current();
    const whole: Message = { ...current, ...ended };
    this.message.value = whole;
    store.put(whole);
  }

  /** What came before this attempt, and what has come in it. */
  current(): Message {
    const { content, reasoning, toolCalls, finish, stats } = this.#latest;
    const before = this.#before;
    const allReasoning = (before.reasoning ?? "") + reasoning;
    const stream = finish === null || !this.#stream ? this.#stream : { ...this.#stream, finish };
    return {
      ...before,
      content: before.content + content,
      ...(allReasoning !== "" && { reasoning: allReasoning }),
      ...(toolCalls.length > 0 && { toolCalls }),
      ...(stream !== null && { stream }),
      stats: { ...stats, ...this.#times() },
    };
  }

  /** How long the first piece and the thoughts took, as far as this page saw it. */
  #times(): Pick<Stats, "firstTokenSeconds" | "thoughtSeconds"> {
    const { firstTokenSeconds, thoughtSeconds } = this.#before.stats ?? {};
    const here = seconds(this.#firstPiece, this.since);
    const first = firstTokenSeconds ?? (this.#isWhole ? here : undefined);
    const thoughtHere = seconds(this.#thought, this.#thinking);
    const thoughtBefore = this.#isWhole ? 0 : (thoughtSeconds ?? 0);
    const thought = thoughtHere === undefined ? thoughtSeconds : thoughtHere + thoughtBefore;
    return {
      ...(first !== undefined && { firstTokenSeconds: first }),
      ...(thought !== undefined && { thoughtSeconds: thought }),
    };
  }
}

function seconds(until: number | null, from: number | null): number | undefined {
  return until === null || from === null ? undefined : (until - from) / 1000;
}

/**
 * What a conversation is, as this browser keeps it. Nothing of it is kept by the gateway.
 *
 * Messages make a tree: an edited question and an answer asked for again are siblings of what was
 * there before, so nothing is overwritten. A conversation shows one path, from a root to `leaf`.
 */

export type ConversationId = string;
export type MessageId = string;

export interface Conversation {
  readonly id: ConversationId;
  /** Made from the first question until the person gives one; "" until then. */
  readonly title: string;
  readonly pinned: boolean;
  /** Milliseconds since 1970, as all times here. */
  readonly created: number;
  /** When something was last said in it, by which the list is sorted. */
  readonly updated: number;
  /** The model that is asked next; `null`: the gateway's choice. */
  readonly model: string | null;
  /** The personality that is asked next; `null`: the model's own. */
  readonly personality: string | null;
  readonly settings: Settings;
  /** The end of the path that is shown; `null` while nothing was said. */
  readonly leaf: MessageId | null;
  /**
   * Address of the box that answered last, as in `Box.address`.
   *
   * A conversation may go on at any box, as it is this browser's; but names of models mean
   * something at one only, so where several boxes are known the list says which one it was.
   */
  readonly box: string;
}

/**
 * What every request of a conversation says beside its messages, in the API's own names.
 *
 * What is absent is the model's own default.
 */
export interface Settings {
  /** The system text; a personality's comes before it. */
  readonly system?: string;
  readonly temperature?: number;
  readonly top_p?: number;
  readonly max_tokens?: number;
  /** Answers in JSON: any (`true`), or as a JSON Schema says. */
  readonly json?: true | JsonSchema;
  /** Whether the model thinks before it answers. */
  readonly reasoning?: boolean;
}

export type JsonSchema = Readonly<Record<string, unknown>>;

export interface Image {
  readonly id: string;
  /** Its media type: `image/png`. */
  readonly mime: string;
  readonly blob: Blob;
}

export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON as the model wrote it, whole or not. */
  readonly arguments: string;
}

/** A stream of events at a gateway, which can be read on there. */
export interface Stream {
  /** Its `X-Stream-Id`, which the page chooses before it asks. */
  readonly id: string;
  /** Address of the box that has it, as in `Box.address`. */
  readonly box: string;
  /** The number of the last event that the message has in it; they are counted from 1. */
  readonly seen: number;
  /** Why the answer ended, where that was seen before the end of the stream. */
  readonly finish?: string;
}

/** How an answer came about. */
export interface Stats {
  readonly firstTokenSeconds?: number;
  readonly tokensPerSecond?: number;
  readonly promptTokens?: number;
  /** Of the prompt's, those that needed no reading. */
  readonly cachedTokens?: number;
  readonly completionTokens?: number;
  /** How long it thought before it answered. */
  readonly thoughtSeconds?: number;
}

export interface Message {
  readonly id: MessageId;
  readonly conversation: ConversationId;
  /** What it follows; `null` for a first question. */
  readonly parent: MessageId | null;
  readonly role: "user" | "assistant";
  readonly content: string;
  readonly images: readonly Image[];
  readonly reasoning?: string;
  readonly toolCalls?: readonly ToolCall[];
  /** Who answered. */
  readonly model?: string;
  readonly personality?: string;
  /**
   * Why the answer ended: `stop`, `length`, `tool_calls` as the API says, `stopped` by the person,
   * `cut` by the network, `lost` with its stream, `error`. An answer without it is still being
   * written, or its tab was closed.
   */
  readonly finish?: string;
  /** Where the rest of an answer can be read, while it isn't whole. */
  readonly stream?: Stream;
  readonly error?: MessageError;
  readonly stats?: Stats;
  readonly created: number;
}

/** Why there is no answer, or no whole one. */
export interface MessageError {
  readonly message: string;
  readonly requestId: string | null;
  /** Nothing answered: the gateway was away, and may be back. */
  readonly unreachable?: true;
}

/** All messages of one conversation. */
export type Messages = ReadonlyMap<MessageId, Message>;

/** A new id of 80 random bits; `crypto.randomUUID` is missing where the page comes by plain HTTP. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

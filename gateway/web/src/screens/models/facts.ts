/** What GET /admin/models says beside the overview of each second: files, pins, the right to write. */

import { signal } from "@preact/signals";
import { models as listed, overview } from "../../gateway/live";
import { ask, askJson } from "../../gateway/request";
import type { ModelStatus } from "../../gateway/types";

export interface ServerStatus {
  readonly url: string;
  readonly up: boolean;
  readonly in_flight: number;
  readonly error: string | null;
  readonly retry_in: number | null;
}

/** A model as the overview tells of it; what this screen reads and the frame doesn't. */
export interface LiveModel extends ModelStatus {
  /** The last start came to nothing; `last_error` may be of one before. */
  readonly start_failed?: boolean;
  /** The machines that it is on, each once; `here` is this one. */
  readonly nodes?: readonly string[];
  readonly memory_on?: Readonly<Record<string, number>>;
  readonly unload_in?: number | null;
  readonly chosen?: { readonly text?: string; readonly params?: unknown } | null;
  readonly servers?: readonly ServerStatus[];
}

/** What is saved of its conversations, and what that has spared since the gateway started. */
export interface SavedConversations {
  readonly conversations: number;
  readonly size: number;
  /** Requests for which a conversation was read back, and what these had not to compute. */
  readonly hits: number;
  readonly tokens: number;
  readonly seconds: number;
  /** The same of requests whose conversation was still in a slot. */
  readonly slot_hits: number;
  readonly slot_tokens: number;
  readonly slot_seconds: number;
  readonly bytes_read: number;
  readonly bytes_written: number;
  readonly switched_off: string | null;
  /** How many are on the disk of each node that has some. */
  readonly nodes?: Readonly<Record<string, number>>;
}

/** A personality, as clients see it: a model of its own. */
export interface VirtualModel {
  readonly id: string;
  readonly personality: string;
  readonly description: string | null;
  readonly unlisted: boolean;
}

export interface Facts {
  readonly name: string;
  /** By `meta` of its entry. */
  readonly display_name?: string | null;
  readonly unlisted?: boolean;
  readonly personalities: readonly string[];
  readonly virtual_models?: readonly VirtualModel[];
  readonly file?: string | null;
  readonly size?: number | null;
  readonly quantisation?: string | null;
  readonly trained_context?: number | null;
  readonly description?: string | null;
  readonly pinned?: boolean;
  readonly preload?: boolean;
  readonly remote?: boolean;
  /** Null: nothing yet; missing: none are saved here. */
  readonly prompt_cache?: SavedConversations | null;
}

export interface ModelsFile {
  readonly path: string;
  readonly writable: boolean;
  readonly reason: string | null;
  readonly process_settings: boolean;
}

export const facts = signal<ReadonlyMap<string, Facts>>(new Map());
export const modelsFile = signal<ModelsFile | null>(null);
/** Whether {@link facts} have been asked for: before, cards would change under the eyes. */
export const settled = signal(false);

/** Whether other servers have it; the list of all clients tells it too, and is there first. */
export function isRemote(name: string): boolean {
  return (
    facts.value.get(name)?.remote ?? listed.value?.find((one) => one.id === name)?.remote ?? false
  );
}

let asked = 0;

/** Ask anew; what was known stays where that fails, and where a later answer came first. */
export async function refreshFacts(): Promise<void> {
  const mine = ++asked;
  try {
    const answer = await askJson<{
      models: readonly Facts[];
      models_file: ModelsFile;
    }>("/admin/models");
    if (mine !== asked) return;
    facts.value = new Map(answer.models.map((one) => [one.name, one]));
    modelsFile.value = answer.models_file;
  } catch {
    // the frame says already that the connection broke
  } finally {
    settled.value = true;
  }
}

/** Every model, as of this second. */
export function liveModels(): readonly LiveModel[] {
  return overview.value?.models ?? [];
}

export async function load(name: string): Promise<void> {
  await ask("/models/load", { method: "POST", body: { model: name } });
}

export async function unload(name: string): Promise<void> {
  await ask("/models/unload", { method: "POST", body: { model: name } });
}

/** The route of an entry; a name may hold slashes. */
export function entryPath(name: string): string {
  return `/admin/models/${encodeURIComponent(name)}`;
}

export async function setPinned(name: string, pinned: boolean): Promise<void> {
  await ask(entryPath(name), { method: "PATCH", body: { pinned: pinned ? true : null } });
  await refreshFacts();
}

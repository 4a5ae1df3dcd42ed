/** GET /admin/system and /admin/system/history. Sizes in bytes, times as RFC 3339. */

import type { Device, Machine } from "../../gateway/types";

export interface Report {
  readonly version: string;
  readonly python: string;
  readonly system: string;
  readonly processors: number | null;
  readonly started: string;
  readonly pid: number;
  readonly user: string;
  readonly paths: {
    /** `null`: built-in defaults. */
    readonly config: string | null;
    readonly models_file: string;
    readonly llm_storage: string;
    readonly data_dir: string;
  };
  readonly urls: readonly string[];
  readonly redirect_urls: readonly string[];
  readonly llama_server: {
    readonly path: string | null;
    readonly bundled: boolean;
    readonly version: string | null;
    readonly problem: string | null;
  };
  readonly machine: Machine | null;
  /** The other machines of the cluster; an older gateway knows none. */
  readonly nodes?: readonly Node[];
  readonly disks: readonly Disk[];
  /** `null`: plain HTTP. */
  readonly certificate: Certificate | null;
  readonly models_file: {
    readonly error: string | null;
    readonly line: number | null;
    readonly note: string | null;
    readonly demonstration: boolean;
  };
  readonly problems: readonly Problem[];
}

export interface Node {
  readonly name: string;
  readonly up: boolean;
  readonly drained: boolean;
  readonly problem: string | null;
  readonly host: string;
  readonly devices: readonly Device[];
  /** Those that this gateway runs there. */
  readonly models: readonly string[];
  /** Why it can't take part in models that span machines; an older gateway tells neither. */
  readonly no_rpc?: string | null;
  /** What is wrong there, though it is used. */
  readonly troubles?: readonly string[];
}

export interface Disk {
  readonly name: string;
  readonly path: string;
  readonly total: number | null;
  readonly free: number | null;
}

export interface Certificate {
  readonly source: "home-made" | "own" | "acme";
  readonly issuer: string | null;
  readonly names: readonly string[];
  readonly not_before: string | null;
  readonly not_after: string | null;
  readonly days_left: number | null;
  readonly trusted_elsewhere: boolean | null;
  readonly renewal: {
    readonly authority: string | null;
    readonly last_success: string | null;
    readonly next_try: string | null;
    readonly failures: number;
    readonly last_error: string | null;
  };
}

export interface Problem {
  readonly level: "error" | "warning";
  readonly source: "check" | "doctor";
  readonly file: string | null;
  readonly line: number | null;
  readonly key: string | null;
  readonly value: string | null;
  readonly message: string;
  readonly do: string | null;
}

/** Lists of equal length. */
export interface History {
  readonly range: number;
  readonly every: number;
  /** Seconds since 1970. */
  readonly times: readonly number[];
  readonly devices: readonly {
    readonly name: string;
    readonly description: string;
    readonly total: number;
    readonly used: readonly (number | null)[];
  }[];
  readonly gateway_memory: readonly (number | null)[];
  readonly models_memory: readonly (number | null)[];
  readonly running: readonly number[];
  readonly waiting: readonly number[];
  readonly prompt_tokens_per_second: readonly number[];
  readonly completion_tokens_per_second: readonly number[];
}

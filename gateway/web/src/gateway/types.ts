/** Shapes of the gateway's answers that several screens read; see GET /openapi.json. */

/** A model, or a personality of one (`NAME:PERSONALITY`), of GET /v1/models. */
export interface ListedModel {
  readonly id: string;
  readonly status: { readonly value: "loaded" | "loading" | "unloaded" | "failed" | string };
  readonly aliases: readonly string[];
  readonly description?: string;
  /** For people, where models.json has one. */
  readonly name?: string;
  readonly context_size?: number;
  readonly architecture?: {
    readonly input_modalities: readonly string[];
    readonly output_modalities: readonly string[];
  };
  readonly meta?: Readonly<Record<string, unknown>>;
  readonly capabilities?: readonly string[];
  readonly personalities?: readonly string[];
  readonly personality?: string;
  /** The model, if this is a personality of one. */
  readonly parent?: string;
  /** Whether other servers have it. */
  readonly remote?: boolean;
}

/** An event of GET /status, which every key may follow. */
export interface Status {
  readonly status: string;
  readonly info: string;
  readonly models: readonly string[];
  readonly active: string | null;
  readonly personality: string | null;
  readonly waiting: readonly WaitingModel[];
  readonly models_file_error: string | null;
  readonly machine_problem: string | null;
}

/** A model that loads, or is waited for. */
export interface WaitingModel {
  readonly model: string;
  readonly stage: string;
  readonly percent: number | null;
  /** For how long it has been at this stage. */
  readonly seconds: number;
  readonly queued: number;
  readonly queue: readonly { readonly position: number; readonly seconds: number }[];
}

/** GET /admin/status. */
export interface Overview {
  readonly version: string;
  /** Seconds. */
  readonly uptime: number;
  readonly ready: boolean;
  readonly urls: readonly string[];
  readonly in_flight: number;
  readonly active: { readonly model: string; readonly personality: string | null } | null;
  readonly models_file_error: string | null;
  readonly machine: Machine | null;
  /** The other machines of the cluster. */
  readonly nodes?: readonly { readonly name: string; readonly up: boolean }[];
  readonly models: readonly ModelStatus[];
  readonly requests: {
    readonly under_way: readonly RunningRequest[];
    readonly not_shown: number;
  };
}

export interface Machine {
  readonly source: string;
  readonly gpu: boolean;
  readonly problem: string | null;
  readonly devices: readonly Device[];
}

/** Sizes in bytes. */
export interface Device {
  readonly name: string;
  readonly description: string;
  readonly total: number;
  readonly free: number;
  readonly for_models: number;
  readonly left: number;
}

export interface ModelStatus {
  readonly name: string;
  /** `unloaded`, `starting`, `ready`, `draining`, `failed`, `remote`... */
  readonly state: string;
  readonly state_seconds: number | null;
  /** What a start is at, where that is not the load itself: "copying x.gguf from attic". */
  readonly stage?: string | null;
  readonly progress: number | null;
  readonly in_flight: number;
  readonly queued: number;
  readonly slots: number | null;
  readonly load_seconds: number | null;
  readonly starts: number;
  readonly deaths: number;
  readonly last_error: string | null;
  readonly retry_in: number | null;
  /** Bytes: estimated or measured need, and what it holds now. */
  readonly memory: number | null;
  readonly memory_held: number | null;
  readonly devices: readonly string[];
  readonly degraded: string | null;
  readonly usage: {
    readonly requests: number;
    readonly prompt_tokens: number;
    readonly cached_tokens: number;
    readonly completion_tokens: number;
    readonly tokens_per_second: number | null;
  };
}

export interface RunningRequest {
  readonly id: string;
  readonly key: string;
  readonly name: string | null;
  readonly model: string;
  readonly personality: string | null;
  readonly route: string;
  readonly seconds: number;
  readonly stage: "waiting" | "reading" | "writing";
  readonly completion_tokens: number;
}

/**
 * Why a gateway doesn't let this page in, decided from what probes have found. Pure.
 *
 * A browser tells scripts no reason for a request that failed (WHATWG Fetch: a network error). But
 * what else succeeds at the same address, and what doesn't, leaves few reasons, or one.
 */

import { isLocal, isLoopback } from "./address";
import { GatewayError } from "./errors";

export type Diagnosis =
  /** This device has no network. */
  | { readonly kind: "offline" }
  /** Nothing answers there: wrong address, not running, another network. */
  | { readonly kind: "unreachable" }
  /** The same, or one that the browser doesn't trust, or the local network: it doesn't say. */
  | { readonly kind: "silent"; readonly local: boolean }
  /** It speaks TLS, and the browser doesn't trust its certificate. */
  | { readonly kind: "certificate" }
  /** It speaks http where https was tried, or the other way round. */
  | { readonly kind: "scheme"; readonly instead: "http" | "https" }
  /** It answers, but not to pages of this origin. */
  | { readonly kind: "origin" }
  /** A page that came over https may not speak http to others. */
  | { readonly kind: "mixed" }
  /** The browser keeps this page from devices of the local network. */
  | { readonly kind: "local-network"; readonly permission: "denied" | "prompt" }
  /** The same, and it can't be allowed, as this page came over plain http. */
  | { readonly kind: "insecure-page" }
  /** Another server, or another path. */
  | { readonly kind: "not-gateway"; readonly status: number }
  /** The gateway goes by other names (421). */
  | { readonly kind: "host"; readonly error: GatewayError }
  /** No key was sent where one is needed. */
  | { readonly kind: "no-key" }
  /** 401; `reason`: what the gateway says of it. */
  | { readonly kind: "wrong-key"; readonly reason: "unknown" | "revoked" | "expired" }
  /** 403. */
  | { readonly kind: "rights"; readonly error: GatewayError }
  /** 429 for who sent too many wrong keys: this one may be right. `seconds` to wait. */
  | { readonly kind: "too-many"; readonly seconds: number }
  /** 503, and GET /ready says the same. */
  | { readonly kind: "not-ready"; readonly stage: "starting" | "stopping" | null }
  /** Something else that the gateway answers. */
  | { readonly kind: "error"; readonly error: unknown };

export type Permission = "granted" | "prompt" | "denied" | null;

/** What is known after a request that got no answer. Where a probe wasn't made: `null`. */
export interface Silence {
  readonly online: boolean;
  /** Of this page. */
  readonly page: { readonly secure: boolean; readonly host: string };
  /** Of the box. */
  readonly box: { readonly secure: boolean; readonly host: string };
  /** Whether a request came through whose answer stays hidden (`no-cors`). */
  readonly hidden: boolean;
  /** The same with http for https and the other way round; `readable`: by CORS, with a 2xx. */
  readonly otherScheme: "readable" | "hidden" | "none" | null;
  /** For the local network; `null` in browsers that have no such permission. */
  readonly permission: Permission;
}

/** The reason for no answer. */
export function ofSilence(seen: Silence): Diagnosis {
  const { page, box } = seen;
  if (seen.hidden) return { kind: "origin" };
  const mixed = page.secure && !box.secure && !isLoopback(box.host);
  if (mixed && !(seen.permission !== null && isLocal(box.host))) return { kind: "mixed" };
  if (!seen.online && !isLoopback(box.host)) return { kind: "offline" };
  if (seen.otherScheme === "readable")
    return { kind: "scheme", instead: box.secure ? "http" : "https" };
  if (seen.otherScheme === "hidden")
    return box.secure ? { kind: "certificate" } : { kind: "scheme", instead: "https" };
  // Pages of the same network need no permission, and have been asked for none.
  const fromOutside = !isLocal(page.host);
  if (fromOutside && !page.secure && seen.permission === "denied" && isLocal(box.host))
    return { kind: "insecure-page" };
  if (fromOutside && page.secure && seen.permission === "denied")
    return { kind: "local-network", permission: "denied" };
  const couldAsk = fromOutside && page.secure && seen.permission === "prompt";
  if (couldAsk && isLocal(box.host)) return { kind: "local-network", permission: "prompt" };
  if (box.secure && seen.otherScheme === null) return { kind: "silent", local: couldAsk };
  if (mixed) return { kind: "mixed" };
  return { kind: "unreachable" };
}

/** The reason for an answer that is an error. */
export function ofError(error: GatewayError, stage: "starting" | "stopping" | null): Diagnosis {
  const { status, code } = error;
  if (code === null && status !== 503) return { kind: "not-gateway", status };
  if (code === "https_only") return { kind: "scheme", instead: "https" };
  if (status === 421) return { kind: "host", error };
  if (status === 401) {
    if (code === "api_key_revoked") return { kind: "wrong-key", reason: "revoked" };
    if (code === "api_key_expired") return { kind: "wrong-key", reason: "expired" };
    return { kind: "wrong-key", reason: "unknown" };
  }
  if (status === 403) return { kind: "rights", error };
  if (status === 429 && code === "too_many_wrong_keys")
    return { kind: "too-many", seconds: error.retryAfter ?? 60 };
  if (status === 503) return { kind: "not-ready", stage };
  return { kind: "error", error };
}

/** Whether GET /health was answered as a gateway does: `{"status": "ok"}`. */
export function isHealth(body: unknown): boolean {
  return typeof body === "object" && body !== null && "status" in body && body.status === "ok";
}

/** Whether GET /v1/models was: a list of models that have a state. */
export function isModelList(body: unknown): boolean {
  if (typeof body !== "object" || body === null || !("data" in body)) return false;
  return (
    Array.isArray(body.data) &&
    body.data.every((one: unknown) => typeof one === "object" && one !== null && "status" in one)
  );
}

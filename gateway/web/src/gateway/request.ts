/** Requests to the gateway of the box in use. */

import { isLoopback } from "./address";
import { box, key, keyRefused } from "./connection";
import { errorOf, Unreachable } from "./errors";

/** A gateway, and the key to show there; `null` for none. */
export interface Place {
  /** An origin; "" is the page's own. */
  readonly address: string;
  readonly key: string | null;
}

export interface Ask {
  readonly method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Sent as JSON. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** Whether it is sent though the page is closed meanwhile. */
  readonly keepalive?: boolean;
  /** Another place than the box in use. */
  readonly place?: Place;
}

/** Not yet in TypeScript's library (WICG Local Network Access). */
interface NetworkRequestInit extends RequestInit {
  targetAddressSpace?: "local" | "loopback";
}

/** The address of a route at the box in use. `path` begins with "/". */
export function address(path: string): string {
  return (box.value?.address ?? "") + path;
}

/**
 * Ask a route of the gateway, with the key in use.
 *
 * Throws {@link GatewayError} for an answer that is none of 2xx (and 304), {@link Unreachable} if
 * none came, and what `signal` was aborted with.
 */
export async function ask(path: string, options: Ask = {}): Promise<Response> {
  const headers: Record<string, string> = { ...options.headers };
  const place = options.place ?? { address: address(""), key: key.value };
  if (place.key !== null) headers["Authorization"] ??= `Bearer ${place.key}`;
  const init: NetworkRequestInit = {
    method: options.method ?? "GET",
    headers,
    cache: "no-store",
    credentials: "omit",
    referrerPolicy: "no-referrer",
    signal: options.signal ?? null,
    keepalive: options.keepalive ?? false,
  };
  if (options.body !== undefined) {
    headers["Content-Type"] ??= "application/json";
    init.body = JSON.stringify(options.body);
  }
  const space = addressSpace(place.address);
  if (space !== null) init.targetAddressSpace = space;
  let response: Response;
  try {
    response = await fetch(place.address + path, init);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Unreachable(String(error instanceof Error ? error.message : error));
  }
  if (response.status === 401 && !options.place && place.key === key.value)
    keyRefused.value = place.key;
  if (!response.ok && response.status !== 304) throw await errorOf(response);
  return response;
}

/**
 * What makes Chromium let a page of https speak http to the local network, after asking the person
 * (WICG Local Network Access, "Mixed Content"). Other browsers don't know it, and refuse.
 */
function addressSpace(origin: string): "local" | null {
  if (location.protocol !== "https:" || !origin.startsWith("http://")) return null;
  return isLoopback(new URL(origin).hostname) ? null : "local";
}

/** The same, for the JSON of the answer. */
export async function askJson<T>(path: string, options: Ask = {}): Promise<T> {
  return (await (await ask(path, options)).json()) as T;
}

/** Requests that find out why there is no way to a gateway; {@link ofSilence} decides. */

import { isLoopback } from "./address";
import { type Diagnosis, ofError, ofSilence, isHealth, isModelList } from "./diagnose";
import type { Permission, Silence } from "./diagnose";
import { GatewayError, Unreachable } from "./errors";
import { askJson, type Place } from "./request";

/** Milliseconds for one probe; those of a way that is barred fail at once. */
const PATIENCE = 6000;

/**
 * Try to come in at `place`: `null` if its key opens it (or it needs none), else why not.
 *
 * Nothing is kept of it, neither address nor key.
 */
export async function tryPlace(place: Place): Promise<Diagnosis | null> {
  try {
    if (!isHealth(await askJson<unknown>("/health", { place: { ...place, key: null } })))
      return { kind: "not-gateway", status: 200 };
    const listed = await askJson<unknown>("/v1/models", { place });
    return isModelList(listed) ? null : { kind: "not-gateway", status: 200 };
  } catch (error) {
    const found = await diagnose(place, error);
    return found.kind === "wrong-key" && place.key === null ? { kind: "no-key" } : found;
  }
}

/** Why a request to `place` ended with `error`. */
export async function diagnose(place: Place, error: unknown): Promise<Diagnosis> {
  if (error instanceof GatewayError)
    return ofError(error, error.status === 503 ? await stage(place) : null);
  if (error instanceof SyntaxError) return { kind: "not-gateway", status: 200 };
  if (error instanceof Unreachable) return ofSilence(await silence(place));
  return { kind: "error", error };
}

async function stage(place: Place): Promise<"starting" | "stopping" | null> {
  const answer = await quick(`${place.address}/ready`, {});
  const body: unknown = await answer?.json().catch(() => null);
  if (typeof body !== "object" || body === null || !("status" in body)) return null;
  return body.status === "starting" || body.status === "stopping" ? body.status : null;
}

async function silence(place: Place): Promise<Silence> {
  const url = new URL(place.address === "" ? location.origin : place.address);
  const page = { secure: location.protocol === "https:", host: location.hostname };
  const box = { secure: url.protocol === "https:", host: url.hostname };
  const ping = "/ping";
  const [hidden, otherScheme, permission] = await Promise.all([
    quick(url.origin + ping, { mode: "no-cors" }),
    tryOtherScheme(url, page.secure, ping),
    localNetworkPermission(),
  ]);
  return { online: navigator.onLine, page, box, hidden: hidden !== null, otherScheme, permission };
}

/** Plain http is out of reach of a page of https, except at this very machine. */
async function tryOtherScheme(
  url: URL,
  fromSecure: boolean,
  path: string,
): Promise<Silence["otherScheme"]> {
  const secure = url.protocol === "https:";
  if (secure && fromSecure && !isLoopback(url.hostname)) return null;
  const other = `${secure ? "http" : "https"}://${url.host}${path}`;
  const readable = await quick(other, {});
  if (readable?.ok) return "readable";
  return readable !== null || (await quick(other, { mode: "no-cors" })) ? "hidden" : "none";
}

/** Chromium's permission for local networks, by the names it has had. */
async function localNetworkPermission(): Promise<Permission> {
  for (const name of ["local-network-access", "local-network"]) {
    try {
      // No library of types knows these names yet.
      const query = navigator.permissions.query.bind(navigator.permissions) as (descriptor: {
        name: string;
      }) => Promise<PermissionStatus>;
      return (await query({ name })).state;
    } catch {
      // a TypeError: this browser has no permission of that name
    }
  }
  return null;
}

async function quick(url: string, options: RequestInit): Promise<Response | null> {
  try {
    return await fetch(url, {
      cache: "no-store",
      credentials: "omit",
      referrerPolicy: "no-referrer",
      signal: AbortSignal.timeout(PATIENCE),
      ...options,
    });
  } catch {
    return null;
  }
}

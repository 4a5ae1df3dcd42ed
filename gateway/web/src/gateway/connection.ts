/**
 * The box whose gateway this page talks to, and the key it shows there.
 *
 * Served by a gateway, the page's own origin is the first box; hosted elsewhere there is none
 * until its address is given. Boxes are kept in localStorage; a key in sessionStorage, or with
 * its box if the person asked for that.
 */

import { batch, computed, signal } from "@preact/signals";
import { local, session } from "../storage";
import { decoded } from "./address";

export interface Box {
  /** An origin without a path: `https://box.example:8443`; "" is the origin of the page. */
  readonly address: string;
  readonly name: string;
}

interface KeptBox extends Box {
  readonly key?: string;
}

const BOXES = "llm-gateway.boxes";
const CURRENT = "llm-gateway.box";
const KEY = "llm-gateway.key:";

/** Whether a gateway serves this page: it says so in a meta tag that static hosting lacks. */
export const servedByGateway: boolean = document.querySelector('meta[name="llm-gateway"]') !== null;

const kept = signal<readonly KeptBox[]>(read());
const selected = signal<string>(chosenBefore());
const sessionKey = signal<string | null>(session.get(KEY + selected.value));

export const boxes = computed<readonly Box[]>(() => kept.value);

/** The box in use; `null` where the page is hosted elsewhere and no address is known yet. */
export const box = computed<Box | null>(
  () => kept.value.find((one) => one.address === selected.value) ?? null,
);

const keptKey = computed<string | null>(
  () => kept.value.find((one) => one.address === selected.value)?.key ?? null,
);

/** The key in use at {@link box}, or `null`. */
export const key = computed<string | null>(() => sessionKey.value ?? keptKey.value);

/** The key that the gateway has refused last (401), to be compared with {@link key}. */
export const keyRefused = signal<string | null>(null);

/** The key to try where none is given: the one in use or, after that was refused, the kept one. */
export const keyToTry = computed<string | null>(
  () => [key.value, keptKey.value].find((one) => one !== keyRefused.value) ?? null,
);

/** Whether the key in use is kept in this browser after the tab is closed. */
export const keyIsKept = computed<boolean>(
  () => keptKey.value !== null && keptKey.value === key.value,
);

function read(): readonly KeptBox[] {
  const own: KeptBox[] = servedByGateway ? [{ address: "", name: location.hostname }] : [];
  try {
    const found: unknown = JSON.parse(local.get(BOXES) ?? "[]");
    const known = Array.isArray(found) ? found.filter(isBox) : [];
    return [...own.filter((one) => !known.some((k) => k.address === one.address)), ...known].filter(
      (one) => one.address !== "" || servedByGateway,
    );
  } catch {
    return own;
  }
}

function isBox(value: unknown): value is KeptBox {
  if (typeof value !== "object" || value === null) return false;
  const { address, name, key: itsKey } = value as Record<string, unknown>;
  return (
    typeof address === "string" &&
    typeof name === "string" &&
    (itsKey === undefined || typeof itsKey === "string")
  );
}

/** The box that was in use here, else the one that was in any tab, as far as it is still known. */
function chosenBefore(): string {
  const known = [session.get(CURRENT), local.get(CURRENT)].find((address) =>
    kept.value.some((one) => one.address === address),
  );
  return known ?? kept.value[0]?.address ?? "";
}

/** Change what is kept now: another tab may have changed it since it was read here. */
function change(how: (known: readonly KeptBox[]) => readonly KeptBox[]): void {
  kept.value = how(read());
  local.set(BOXES, JSON.stringify(kept.value));
}

addEventListener("storage", ({ key: place }) => {
  if (place !== BOXES && place !== null) return; // `null`: all of it was cleared
  batch(() => {
    kept.value = read();
    if (!kept.value.some((one) => one.address === selected.value)) selectFirst();
  });
});

/** Take up a box: add it, or change its name. */
export function addBox(added: Box): void {
  change((known) =>
    known.some((one) => one.address === added.address)
      ? known.map((one) => (one.address === added.address ? { ...one, ...added } : one))
      : [...known, added],
  );
}

/** Forget a box and the key that is kept for it. */
export function removeBox(address: string): void {
  session.remove(KEY + address);
  change((known) => known.filter((one) => one.address !== address));
  if (selected.value === address) selectFirst();
}

function selectFirst(): void {
  selectBox(kept.value[0]?.address ?? "");
}

export function selectBox(address: string): void {
  session.set(CURRENT, address);
  local.set(CURRENT, address);
  batch(() => {
    selected.value = address;
    sessionKey.value = session.get(KEY + address);
  });
}

/** Use `value` as the key of the box in use, in this tab; what is kept beyond it stays. */
export function useKey(value: string): void {
  sessionKey.value = value;
  session.set(KEY + selected.value, value);
}

/** Keep the key in use beyond this tab, in place of the one that was; or keep none any more. */
export function keepKey(keep: boolean): void {
  const value = key.value;
  change((known) =>
    known.map((one) => {
      if (one.address !== selected.value) return one;
      const { key: _, ...rest } = one;
      return keep && value !== null ? { ...rest, key: value } : rest;
    }),
  );
}

/** Forget the key of the box in use, here and where it was kept. */
export function forgetKey(): void {
  session.remove(KEY + selected.value);
  batch(() => {
    sessionKey.value = null;
    keepKey(false);
  });
}

/**
 * Take a key out of the address bar (`#key=...`, the link of a first start), so that neither the
 * browser's history nor a shared address holds it.
 *
 * Returns whether there was one.
 */
export function takeKeyFromAddress(): boolean {
  const found = /^#key=([^&]+)/.exec(location.hash);
  if (!found?.[1]) return false;
  history.replaceState(null, "", location.pathname + location.search + "#/chat");
  if (!servedByGateway) return false; // whose key would it be?
  selectBox("");
  useKey(decoded(found[1]));
  return true;
}

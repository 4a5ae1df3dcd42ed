/**
 * The box whose gateway this page talks to, and the key it shows there.
 *
 * Served by a gateway, the page's own origin is the first box; hosted elsewhere there is none
 * until its address is given. Boxes are kept in localStorage; a key in sessionStorage, or with
 * its box if the person asked for that.
 */

import { computed, signal } from "@preact/signals";
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
const selected = signal<string>(
  sessionStorage.getItem(CURRENT) ?? localStorage.getItem(CURRENT) ?? kept.value[0]?.address ?? "",
);
const sessionKey = signal<string | null>(sessionStorage.getItem(KEY + selected.value));

export const boxes = computed<readonly Box[]>(() => kept.value);

/** The box in use; `null` where the page is hosted elsewhere and no address is known yet. */
export const box = computed<Box | null>(
  () => kept.value.find((one) => one.address === selected.value) ?? null,
);

/** The key in use at {@link box}, or `null`. */
export const key = computed<string | null>(
  () => sessionKey.value ?? kept.value.find((one) => one.address === selected.value)?.key ?? null,
);

/** The key that the gateway has refused last (401), to be compared with {@link key}. */
export const keyRefused = signal<string | null>(null);

/** Whether the key in use is kept in this browser after the tab is closed. */
export const keyIsKept = computed<boolean>(
  () => kept.value.find((one) => one.address === selected.value)?.key !== undefined,
);

function read(): readonly KeptBox[] {
  const own: KeptBox[] = servedByGateway ? [{ address: "", name: location.hostname }] : [];
  try {
    const found: unknown = JSON.parse(localStorage.getItem(BOXES) ?? "[]");
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

function write(next: readonly KeptBox[]): void {
  kept.value = next;
  localStorage.setItem(BOXES, JSON.stringify(next));
}

/** Take up a box: add it, or change its name. */
export function addBox(added: Box): void {
  const known = kept.value.some((one) => one.address === added.address);
  write(
    known
      ? kept.value.map((one) => (one.address === added.address ? { ...one, ...added } : one))
      : [...kept.value, added],
  );
}

/** Forget a box and the key that is kept for it. */
export function removeBox(address: string): void {
  sessionStorage.removeItem(KEY + address);
  write(kept.value.filter((one) => one.address !== address));
  if (selected.value === address) selectBox(kept.value[0]?.address ?? "");
}

export function selectBox(address: string): void {
  selected.value = address;
  sessionStorage.setItem(CURRENT, address);
  localStorage.setItem(CURRENT, address);
  sessionKey.value = sessionStorage.getItem(KEY + address);
}

/** Use `value` as the key of the box in use; `keep` it beyond this tab, or don't. */
export function useKey(value: string, keep: boolean): void {
  sessionKey.value = value;
  sessionStorage.setItem(KEY + selected.value, value);
  write(
    kept.value.map((one) => {
      if (one.address !== selected.value) return one;
      const { key: _, ...rest } = one;
      return keep ? { ...rest, key: value } : rest;
    }),
  );
}

/** Forget the key of the box in use, here and where it was kept. */
export function forgetKey(): void {
  sessionStorage.removeItem(KEY + selected.value);
  sessionKey.value = null;
  write(
    kept.value.map(({ key: itsKey, ...rest }) =>
      rest.address === selected.value || itsKey === undefined ? rest : { ...rest, key: itsKey },
    ),
  );
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
  useKey(decoded(found[1]), false);
  return true;
}

/** What goes on at the box in use, kept up to date while somebody is signed in and looks. */

import { computed, effect, signal } from "@preact/signals";
import { box, key, keyRefused } from "./connection";
import { GatewayError } from "./errors";
import { follow, type Wait } from "./events";
import { askJson } from "./request";
import type { ListedModel, Overview, Status, WaitingModel } from "./types";

/** What the key in use may do; `null` until the gateway has said so. */
export const role = signal<"admin" | "user" | null>(null);
/** GET /v1/models, anew at every change that GET /status tells of; `null` until it came. */
export const models = signal<readonly ListedModel[] | null>(null);
/** The last event of GET /status. */
export const status = signal<Status | null>(null);
/** GET /admin/status, each second, for admin keys. */
export const overview = signal<Overview | null>(null);
/** Why what is shown may be old, or `null`: the connection broke and is being tried again. */
export const broken = signal<unknown>(null);
/** When the gateway was first reached, or was reached again; as `Date.now()` counts. */
export const reached = signal(0);
/** While it is {@link broken}: until when the next try waits, and how not to wait. */
export const wait = signal<Wait | null>(null);
/** Whether the device has a network at all, as far as the browser knows. */
export const online = signal(navigator.onLine);
for (const event of ["online", "offline"])
  addEventListener(event, () => {
    online.value = navigator.onLine;
    if (online.value) wait.value?.now();
  });

/** Models of which a key may choose: without their personalities. */
export const choosable = computed<readonly ListedModel[]>(
  () => models.value?.filter((one) => one.parent === undefined) ?? [],
);

/** Whether a model that is waited for is being loaded; else its requests wait for a slot. */
export function isLoading({ stage }: WaitingModel): boolean {
  return stage === "starting";
}

export const signedIn = computed<boolean>(() => role.value !== null && box.value !== null);
/** Whether the key of who is signed in has been refused since: revoked, or expired. */
export const lost = computed<boolean>(
  () => signedIn.value && key.value !== null && keyRefused.value === key.value,
);

/** Whose what is shown is: the box that was asked, and whether a key was shown there. */
let seen: { readonly address: string; readonly withKey: boolean } | null = null;
let current: AbortController | null = null;

/**
 * Begin to follow the box and key in use, in place of whatever was followed before.
 *
 * Throws what the gateway answers to the first question ({@link GatewayError}: a wrong key, for
 * example) or Unreachable; what was seen before then stays. Does nothing if the box or the key in
 * use is another one by the time that the gateway has answered.
 */
export async function begin(): Promise<void> {
  const place = { address: box.value?.address, key: key.value };
  const isLeft = (): boolean => place.address !== box.value?.address || place.key !== key.value;
  const listed = await askJson<{ data: readonly ListedModel[] }>("/v1/models");
  if (place.address === undefined || isLeft()) return;
  const told = await askJson<Overview>("/admin/status").catch((error: unknown) => {
    if (error instanceof GatewayError && error.status === 403) return null;
    throw error;
  });
  if (isLeft()) return;
  end();
  seen = { address: place.address, withKey: place.key !== null };
  keyRefused.value = null;
  models.value = listed.data;
  overview.value = told;
  role.value = told ? "admin" : "user";
  reached.value = Date.now();
  followAll();
}

function followAll(): void {
  const control = new AbortController();
  current = control;
  const { signal: ended } = control;
  const onError = (error: unknown): void => {
    if (ended.aborted) return;
    broken.value = error;
    if (error !== null) return;
    wait.value = null;
    reached.value = Date.now();
  };
  const onWait = (next: Wait): void => {
    if (!ended.aborted) wait.value = next;
  };
  const onStatus = (value: Status): void => {
    status.value = value;
    void refreshModels(ended);
  };
  void follow<Status>("/status", ended, onStatus, onError, onWait);
  if (role.value === "admin") {
    const onOverview = (value: Overview): void => void (overview.value = value);
    // Whether it broke, /status tells; of both at once a person needs to know once.
    void follow<Overview>("/admin/status?follow=true", ended, onOverview);
  }
}

let asked = 0;

async function refreshModels(ended: AbortSignal): Promise<void> {
  const mine = ++asked;
  try {
    const listed = await askJson<{ data: readonly ListedModel[] }>("/v1/models", {
      signal: ended,
    });
    // An answer that took longer than the next one tells what is no longer so.
    if (!ended.aborted && mine === asked) models.value = listed.data;
  } catch {
    // `broken` says so already, by the stream beside it
  }
}

/** Stop following, and forget what was seen: the person signed out, or changes the box. */
export function end(): void {
  current?.abort();
  current = seen = null;
  role.value = models.value = status.value = overview.value = broken.value = wait.value = null;
}

// By whatever way, also in another tab: nothing of one box is shown as another's, or to nobody.
effect(() => {
  const address = box.value?.address;
  const signedOut = key.value === null;
  if (seen !== null && (seen.address !== address || (seen.withKey && signedOut))) end();
});

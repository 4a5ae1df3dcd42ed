import { describe, expect, it } from "vitest";
import { isHealth, isModelList, ofError, ofSilence, type Silence } from "./diagnose";
import { GatewayError } from "./errors";

/** A page at home over http, and a box there that doesn't answer. */
const NOTHING: Silence = {
  online: true,
  page: { secure: false, host: "192.168.1.4" },
  box: { secure: false, host: "192.168.1.5" },
  hidden: false,
  otherScheme: "none",
  permission: null,
};
/** A page on the internet, and a box with TLS: nothing but it can be asked. */
const HOSTED: Silence = {
  ...NOTHING,
  page: { secure: true, host: "app.example" },
  box: { secure: true, host: "box.example" },
  otherScheme: null,
};
const http = { secure: false, host: "box.example" };
const https = { secure: true, host: "192.168.1.5" };

describe("no answer", () => {
  it.each<[string, Silence, object]>([
    ["nothing there", NOTHING, { kind: "unreachable" }],
    ["no network", { ...NOTHING, online: false }, { kind: "offline" }],
    [
      "no network, and this very machine",
      { ...NOTHING, online: false, box: { secure: false, host: "127.0.0.1" } },
      { kind: "unreachable" },
    ],
    ["another origin", { ...HOSTED, hidden: true }, { kind: "origin" }],
    [
      "TLS that isn't trusted",
      { ...NOTHING, box: https, otherScheme: "hidden" },
      { kind: "certificate" },
    ],
    [
      "http where https was tried",
      { ...NOTHING, box: https, otherScheme: "readable" },
      { kind: "scheme", instead: "http" },
    ],
    [
      "https where http was tried",
      { ...NOTHING, otherScheme: "readable" },
      { kind: "scheme", instead: "https" },
    ],
    ["http from https", { ...HOSTED, box: http, otherScheme: "none" }, { kind: "mixed" }],
    [
      "http at home from https, in a browser that may ask",
      { ...HOSTED, box: { secure: false, host: "box.lan" }, permission: "prompt" },
      { kind: "local-network", permission: "prompt" },
    ],
    [
      "the same, in one that can't",
      { ...HOSTED, box: { secure: false, host: "box.lan" } },
      { kind: "mixed" },
    ],
    [
      "http of this very machine from https",
      { ...HOSTED, box: { secure: false, host: "127.0.0.1" }, otherScheme: "none" },
      { kind: "unreachable" },
    ],
    ["https from https, in Firefox", HOSTED, { kind: "silent", local: false }],
    [
      "https from https, in Chromium",
      { ...HOSTED, permission: "prompt" },
      { kind: "silent", local: true },
    ],
    [
      "the local network, refused",
      { ...HOSTED, box: https, permission: "denied" },
      { kind: "local-network", permission: "denied" },
    ],
    [
      "the local network, not yet allowed",
      { ...HOSTED, box: https, permission: "prompt" },
      { kind: "local-network", permission: "prompt" },
    ],
    [
      "the local network, from a page without TLS",
      { ...NOTHING, page: { secure: false, host: "app.example" }, permission: "denied" },
      { kind: "insecure-page" },
    ],
    [
      "both at home, where no permission is needed",
      { ...NOTHING, permission: "denied" },
      { kind: "unreachable" },
    ],
  ])("%s", (_, seen, expected) => expect(ofSilence(seen)).toEqual(expected));
});

describe("an answer", () => {
  const error = (status: number, code: string | null, retryAfter: number | null = null) =>
    new GatewayError("words", status, code, "req_1", {}, retryAfter);
  it.each<[number, string | null, object]>([
    [401, "invalid_api_key", { kind: "wrong-key", reason: "unknown" }],
    [401, "api_key_revoked", { kind: "wrong-key", reason: "revoked" }],
    [401, "api_key_expired", { kind: "wrong-key", reason: "expired" }],
    [400, "https_only", { kind: "scheme", instead: "https" }],
    [401, null, { kind: "not-gateway", status: 401 }],
    [403, "local_only", { kind: "rights" }],
    [404, null, { kind: "not-gateway", status: 404 }],
    [421, "host_not_allowed", { kind: "host" }],
    [429, "too_many_wrong_keys", { kind: "too-many", seconds: 12 }],
    [429, "rate_limit_exceeded", { kind: "error" }],
    [500, "models_file_broken", { kind: "error" }],
    [503, "unavailable", { kind: "not-ready", stage: "stopping" }],
  ])("%d %s", (status, code, expected) =>
    expect(ofError(error(status, code, 12), "stopping")).toMatchObject(expected),
  );
});

it("knows a gateway by its answers", () => {
  expect(isHealth({ status: "ok" })).toBe(true);
  expect([null, "ok", {}, { status: "up" }].some(isHealth)).toBe(false);
  expect(isModelList({ data: [{ id: "m", status: { value: "loaded" } }] })).toBe(true);
  expect([{ data: [{ id: "m" }] }, { models: [] }, []].some(isModelList)).toBe(false);
});

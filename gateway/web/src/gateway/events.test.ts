import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { GatewayError } from "./errors";
import { follow } from "./events";

let control: AbortController;

beforeEach(() => void (control = new AbortController()));
afterEach(() => {
  control.abort();
  vi.unstubAllGlobals();
});

/** The network: gives these answers, one after the other. */
function answers(...all: readonly (() => Response)[]): void {
  const left = [...all];
  vi.stubGlobal("fetch", () => {
    const next = left.shift();
    return next ? Promise.resolve(next()) : new Promise(() => undefined);
  });
}

const stream = (): Response => new Response('data: {"number": 1}\n\n');

describe("a stream that is followed", () => {
  it.each([403, 404, 407])("goes on after a %d of a proxy's", async (status) => {
    answers(() => new Response("<h1>Not now</h1>", { status }), stream);
    const heard: unknown[] = [];
    await new Promise<void>((resolve) => {
      const onEvent = (value: unknown): void => {
        heard.push(value);
        resolve();
      };
      const onError = (error: unknown): void => void heard.push(error);
      const over = follow("/status", control.signal, onEvent, onError, (wait) => wait.now());
      void over.then(resolve);
    });
    expect(heard).toEqual([expect.any(GatewayError), null, { number: 1 }]);
  });

  it("ends where the gateway itself has refused", async () => {
    const error = { message: "This key may not.", code: "permission_denied" };
    answers(() => Response.json({ error }, { status: 403 }), stream);
    const heard: unknown[] = [];
    const hear = (value: unknown): void => void heard.push(value);
    await follow("/admin/status", control.signal, hear, hear, hear);
    expect(heard).toEqual([expect.objectContaining({ status: 403, code: "permission_denied" })]);
  });
});

import { describe, expect, it } from "vitest";
import { wordsOf } from "../components/ErrorNote";
import { errorOf, GatewayError, Unreachable } from "./errors";

function answer(body: string, headers: Record<string, string> = {}): Response {
  return new Response(body, { status: 502, statusText: "Bad Gateway", headers });
}

describe("an error that was answered", () => {
  it("has its message, and what belongs to it", async () => {
    const body = JSON.stringify({ error: { message: "no room", code: "no_memory", param: null } });
    const error = await errorOf(answer(body, { "X-Request-Id": "req_1", "Retry-After": "7" }));
    expect(wordsOf(error)).toBe("no room");
    expect(error).toMatchObject({
      status: 502,
      code: "no_memory",
      requestId: "req_1",
      retryAfter: 7,
    });
  });

  it.each([
    "",
    "null",
    "<html>Bad Gateway</html>",
    '{"error": {"message": {"nested": true}}}',
    '{"error": "a text"}',
    '{"detail": [{"loc": ["body"], "msg": "wrong"}]}',
  ])("is told by its status where it is none of ours: %s", async (body) => {
    const error = await errorOf(answer(body, { "X-Request-Id": "req_2" }));
    expect(wordsOf(error)).toBe("502 Bad Gateway");
    expect(error.requestId).toBe("req_2");
  });
});

describe("the words for an error", () => {
  it.each([
    new Unreachable(),
    new Error(),
    new GatewayError("", 500, null, null),
    { message: "no error" },
    "a text",
    null,
    undefined,
  ])("are a sentence, whatever was thrown: %o", (thrown) => {
    expect(wordsOf(thrown)).toMatch(/^[A-Z].* .*[.?]$/);
  });
});

import { expect, test } from "vitest";
import { at, contents, operation, type ApiDocument } from "./document";

const made = (id: string, tag: string, summary: string, source = "") => ({
  operationId: id,
  tags: [tag],
  summary,
  "x-scope": "chat",
  "x-codeSamples": [{ lang: "Shell", label: "curl", source }],
});

const DOCUMENT: ApiDocument = {
  info: { title: "t", version: "1" },
  tags: [
    { name: "Chat", description: "" },
    { name: "Models", description: "" },
    { name: "Empty", description: "" },
  ],
  servers: [{ url: "/" }],
  paths: {
    "/models": { get: made("get_models", "Models", "Names") },
    "/v1/chat/completions": {
      post: made(
        "post_chat",
        "Chat",
        "Chat Completions",
        "curl http://127.0.0.1:8080/v1/chat/completions # http://127.0.0.1:8080",
      ),
    },
  },
};

test("groups are in the order of the tags, and those without operations are left out", () => {
  expect(contents(DOCUMENT).map((group) => group.name)).toEqual(["Chat", "Models"]);
});

test("operations are found by method, address and words, in any order", () => {
  const ids = (wanted: string) =>
    contents(DOCUMENT, wanted).flatMap((group) => group.entries.map((one) => one.id));
  expect(ids("completions post")).toEqual(["post_chat"]);
  expect(ids("NAMES")).toEqual(["get_models"]);
  expect(ids("nothing")).toEqual([]);
});

test("code and servers have the address of the gateway", () => {
  const there = at(DOCUMENT, "https://box.example:8443");
  const found = operation(there, "/v1/chat/completions", "POST");
  expect(found?.["x-codeSamples"]?.[0]?.source).toBe(
    "curl https://box.example:8443/v1/chat/completions # https://box.example:8443",
  );
  expect(there.servers).toEqual([{ url: "https://box.example:8443" }]);
});

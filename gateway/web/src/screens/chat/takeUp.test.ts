import "fake-indexeddb/auto";
import { describe, expect, it, vi } from "vitest";
import { store } from "../../conversations/conversations";
import { ConversationStore } from "../../conversations/store";
import type { Message } from "../../conversations/types";
import { selectBox } from "../../gateway/connection";
import { runs, takeUp } from "./run";
import { isUnfinished, unfinished } from "./takeUp";
import {
  asked,
  begin,
  eachWithItsNetwork,
  KITCHEN,
  OFFICE,
  piece,
  request,
  type Asked,
} from "./testing/network";

eachWithItsNetwork();

const STREAM = { "X-Stream-Id": "stream_1" };
const ONE = `${KITCHEN}/v1/streams/stream_1`;
const DONE = "data: [DONE]\n\n";

/** Whether a request reads on behind an event. */
function behind(one: Asked): readonly (string | null)[] {
  return [one.method, one.url, one.headers.get("Last-Event-ID")];
}

/** What is left of an answer whose page has gone: as it was kept last. */
async function left(events: readonly string[]): Promise<Message> {
  const { id, ended, message } = begin();
  (await request(1)).answer(events, "open", STREAM);
  await vi.waitFor(() => expect(message()?.stream?.seen).toBe(events.length), 5000);
  const kept = message();
  for (const one of runs.value.values()) one.stop();
  await ended;
  if (kept === undefined) throw new Error("nothing was kept");
  store.put({ ...kept, conversation: id });
  const { finish: _, ...rest } = kept;
  store.put(rest);
  await store.flush();
  asked.length = 0;
  return rest;
}

async function takenUp(message: Message): Promise<{ readonly ended: Promise<void> }> {
  await store.open(message.conversation);
  if (!isUnfinished(message)) throw new Error("it has no stream");
  return { ended: takeUp(message) };
}

describe("an answer whose connection breaks", () => {
  it("is read on behind the last event that came", async () => {
    const { ended, message } = begin();
    const first = await request(1);
    expect(first.headers.get("X-Stream-Resume")).toBe("true");
    first.answer([": a comment\n\n", piece("It "), piece("is ")], "break", STREAM);
    const second = await request(2);
    expect(behind(second)).toEqual(["GET", ONE, "2"]);
    second.answer([piece("over ")], "break");
    const third = await request(3);
    expect(behind(third)).toEqual(["GET", ONE, "3"]);
    third.answer([piece("there."), piece("", "stop"), DONE], "end");
    await ended;
    expect(message()).toMatchObject({ content: "It is over there.", finish: "stop" });
    expect(message()).not.toHaveProperty("stream");
  });

  it("waits for a gateway that its proxy doesn't reach", async () => {
    const { ended, message } = begin();
    (await request(1)).answer([piece("It ")], "break", STREAM);
    (await request(2)).refuse(502, null);
    const third = await request(3);
    expect(behind(third)).toEqual(["GET", ONE, "1"]);
    third.answer([piece("is.", "stop"), DONE], "end");
    await ended;
    expect(message()?.content).toBe("It is.");
  });

  it("is gone on with by the model where the gateway has lost the rest", async () => {
    const { ended, message } = begin();
    (await request(1)).answer([piece("It is ")], "break", STREAM);
    (await request(2)).refuse(404, "stream_not_found");
    const third = await request(3);
    expect(third.url).toBe(`${KITCHEN}/v1/chat/completions`);
    third.answer([piece("there.", "stop"), DONE], "end", { "X-Stream-Id": "stream_2" });
    await ended;
    expect(message()).toMatchObject({ content: "It is there.", finish: "stop" });
  });

  it("shows that it is being gone on with", async () => {
    const { id } = begin();
    (await request(1)).answer([piece("It ")], "break", STREAM);
    await vi.waitFor(() => expect(runs.value.get(id)?.reconnects.value).toBe(true));
    (await request(2)).answer([piece("is ")], "open");
    await vi.waitFor(() => expect(runs.value.get(id)?.reconnects.value).toBe(false));
    expect(runs.value.get(id)?.message.value.content).toMatch(/^It /);
  });
});

describe("an answer whose head has not come", () => {
  it("is kept by the name by which it is asked for", async () => {
    const { id, ended, message } = begin();
    const first = await request(1);
    const name = first.headers.get("X-Stream-Id");
    expect(name).toMatch(/^[a-z0-9]{16,64}$/);
    const kept = new ConversationStore(() => "");
    const answer = (await kept.textsOf(id)).find((one) => one.role === "assistant");
    expect(answer?.stream).toEqual({ id: name, box: KITCHEN, seen: 0 });
    await kept.close();
    first.answer([piece("Yes.", "stop"), DONE], "end", { "X-Stream-Id": name ?? "" });
    await ended;
    expect(message()).not.toHaveProperty("stream");
  });

  it("is looked for when its connection broke", async () => {
    const { ended, message } = begin();
    const first = await request(1);
    first.fail();
    const second = await request(2);
    const name = first.headers.get("X-Stream-Id") ?? "";
    expect(behind(second)).toEqual(["GET", `${KITCHEN}/v1/streams/${name}`, "0"]);
    second.answer([piece("Yes.", "stop"), DONE], "end");
    await ended;
    expect(message()).toMatchObject({ content: "Yes.", finish: "stop" });
  });

  it("is asked for again, by another name, where the gateway has no such question", async () => {
    const { ended, message } = begin();
    const first = await request(1);
    first.fail();
    (await request(2)).refuse(404, "stream_not_found");
    const third = await request(3);
    expect(third.url).toBe(`${KITCHEN}/v1/chat/completions`);
    expect(third.headers.get("X-Stream-Id")).not.toBe(first.headers.get("X-Stream-Id"));
    third.answer([piece("Yes.", "stop"), DONE], "end");
    await ended;
    expect(message()).toMatchObject({ content: "Yes.", finish: "stop" });
  });

  it("tells that nothing is there when nothing answers at all", async () => {
    const { ended, message } = begin();
    (await request(1)).fail();
    (await request(2)).fail();
    await ended;
    expect(asked).toHaveLength(2);
    expect(message()?.error).toMatchObject({ unreachable: true });
  });

  it("is asked for again, and not looked for, where the gateway keeps no streams", async () => {
    const { ended, message } = begin();
    (await request(1)).answer([piece("It ")], "break");
    const second = await request(2);
    expect(second.url).toBe(`${KITCHEN}/v1/chat/completions`);
    second.answer([piece("is.", "stop"), DONE], "end");
    await ended;
    expect(message()?.content).toBe("It is.");
  });
});

describe("an answer that is stopped", () => {
  it("is ended at the gateway, which would go on with it", async () => {
    const { id, ended, message } = begin();
    (await request(1)).answer([piece("It ")], "open", STREAM);
    await vi.waitFor(() => expect(runs.value.get(id)?.message.value.content).toBe("It "));
    runs.value.get(id)?.stop();
    await ended;
    const { method, url, headers } = await request(2);
    expect([method, url]).toEqual(["DELETE", ONE]);
    expect(headers.get("Authorization")).toBe("Bearer kitchen-key");
    expect(message()).toMatchObject({ content: "It ", finish: "stopped" });
  });

  it("as its head is on the way is ended there too", async () => {
    const { id, ended } = begin();
    const { answer } = await request(1);
    runs.value.get(id)?.stop();
    answer([], "open", STREAM);
    await ended;
    expect((await request(2)).method).toBe("DELETE");
  });
});

describe("an answer whose page has gone", () => {
  it("is read on, with all that it had", async () => {
    const call = { index: 0, id: "c", function: { name: "weather", arguments: '{"city"' } };
    const event = (delta: object): string =>
      `data: ${JSON.stringify({ choices: [{ index: 0, delta }] })}\n\n`;
    const message = await left([
      event({ reasoning_content: "Let me " }),
      event({ tool_calls: [call] }),
      piece("I "),
    ]);
    const { ended } = await takenUp(message);
    const second = await request(1);
    expect(behind(second)).toEqual(["GET", ONE, "3"]);
    const more = { index: 0, function: { arguments: ': "Cairo"}' } };
    second.answer(
      [
        event({ tool_calls: [more] }),
        event({ reasoning_content: "see." }),
        piece("ask.", "tool_calls"),
        DONE,
      ],
      "end",
    );
    await ended;
    expect(store.opened.value?.messages.get(message.id)).toMatchObject({
      content: "I ask.",
      reasoning: "Let me see.",
      toolCalls: [{ id: "c", name: "weather", arguments: '{"city": "Cairo"}' }],
      finish: "tool_calls",
    });
  });

  it("knows why it ended though it was left before the end of its stream", async () => {
    const message = await left([piece("Yes."), piece("", "length")]);
    const { ended } = await takenUp(message);
    (await request(1)).answer([DONE], "end");
    await ended;
    expect(store.opened.value?.messages.get(message.id)).toMatchObject({
      content: "Yes.",
      finish: "length",
    });
  });

  it("before it began is looked for a while: its question may be on its way", async () => {
    const message = await left([]);
    const { ended } = await takenUp(message);
    (await request(1)).refuse(404, "stream_not_found");
    const second = await request(2);
    const one = `${KITCHEN}/v1/streams/${message.stream?.id ?? ""}`;
    expect(behind(second)).toEqual(["GET", one, "0"]);
    second.answer([piece("Yes.", "stop"), DONE], "end");
    await ended;
    expect(store.opened.value?.messages.get(message.id)).toMatchObject({ content: "Yes." });
  });

  it("before it began is lost in the end", async () => {
    const message = await left([]);
    const { ended } = await takenUp(message);
    for (const number of [1, 2, 3]) (await request(number)).refuse(404, "stream_not_found");
    await ended;
    expect(store.opened.value?.messages.get(message.id)).toMatchObject({
      content: "",
      finish: "lost",
    });
  });

  it("stays as it is where the gateway has lost the rest", async () => {
    const message = await left([piece("It is ")]);
    const { ended } = await takenUp(message);
    (await request(1)).refuse(404, "stream_not_found");
    await ended;
    expect(asked).toHaveLength(1);
    expect(store.opened.value?.messages.get(message.id)).toMatchObject({
      content: "It is ",
      finish: "lost",
    });
  });

  it("is left alone when another tab has brought it to its end", async () => {
    const message = await left([piece("It is ")]);
    await store.open(message.conversation);
    const whole: Message = { ...message, content: "It is there.", finish: "stop" };
    store.put(whole);
    await store.flush();
    const { ended } = await takenUp(message);
    await ended;
    expect(asked).toEqual([]);
    expect(store.opened.value?.messages.get(message.id)).toMatchObject(whole);
  });

  it("is read on at its own box alone", async () => {
    const message = await left([piece("It is ")]);
    expect(isUnfinished(message)).toBe(true);
    const messages = new Map([[message.id, message]]);
    expect(unfinished(messages)).toBe(message);
    selectBox(OFFICE);
    expect(unfinished(messages)).toBeUndefined();
  });
});

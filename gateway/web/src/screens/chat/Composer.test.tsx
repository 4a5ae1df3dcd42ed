import { act, cleanup, fireEvent, render, screen } from "@testing-library/preact";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { chat as t } from "../../texts/en/chat";
import { Composer } from "./Composer";
import { keepUnsent } from "./unsent";

type Bitmap = Pick<ImageBitmap, "width" | "height" | "close">;

/** Pictures that the browser reads, in the order in which it began, until the test says they are. */
let decoding: { readonly done: () => Promise<void>; readonly fail: () => Promise<void> }[];

beforeEach(() => {
  decoding = [];
  vi.stubGlobal("createImageBitmap", () => {
    return new Promise<Bitmap>((resolve, reject) => {
      decoding.push({
        done: () => settled(() => resolve({ width: 4, height: 4, close: () => undefined })),
        fail: () => settled(() => reject(new DOMException("no picture", "InvalidStateError"))),
      });
    });
  });
});

afterEach(() => {
  cleanup();
  for (const id of [null, "a", "b"]) keepUnsent(id, []);
  localStorage.clear();
  vi.unstubAllGlobals();
});

async function settled(work: () => void): Promise<void> {
  await act(async () => {
    work();
    await new Promise((resolve) => setTimeout(resolve));
  });
}

function Asked({ id, onSend }: { id: string | null; onSend?: (text: string, n: number) => void }) {
  return (
    <Composer
      id={id}
      model="smol"
      isThere
      sees
      running={false}
      onSend={(text, images) => onSend?.(text, images.length)}
      onStop={() => undefined}
    />
  );
}

const box = () => screen.getByRole<HTMLTextAreaElement>("textbox", { name: t.message });
const pictures = (): number => screen.queryAllByRole("button", { name: /^Show picture/ }).length;
const enter = (): void => void fireEvent.keyDown(box(), { key: "Enter" });

function paste(name: string): void {
  const file = new File(["picture"], name, { type: "image/png" });
  fireEvent.paste(box(), { clipboardData: { files: [file] } });
}

describe("pictures of a question", () => {
  it("are all there, though one was pasted while another was read", async () => {
    render(<Asked id="a" />);
    paste("first.png");
    paste("second.png");
    await decoding[1]?.done();
    await decoding[0]?.done();
    expect(pictures()).toBe(2);
  });

  it("are waited for when Enter comes before they are read, and sent once", async () => {
    const onSend = vi.fn();
    render(<Asked id="a" onSend={onSend} />);
    fireEvent.input(box(), { target: { value: "What is it?" } });
    paste("first.png");
    await settled(enter);
    expect(onSend).not.toHaveBeenCalled();
    await decoding[0]?.done();
    expect(onSend).toHaveBeenCalledExactlyOnceWith("What is it?", 1);
    expect(pictures()).toBe(0);
    expect(box().value).toBe("");
  });

  it("hold a question back that can't be sent with them", async () => {
    const onSend = vi.fn();
    render(<Asked id="a" onSend={onSend} />);
    fireEvent.input(box(), { target: { value: "What is it?" } });
    paste("broken.png");
    await settled(enter);
    await decoding[0]?.fail();
    expect(onSend).not.toHaveBeenCalled();
    expect(box().value).toBe("What is it?");
  });

  it("stay with their conversation, and are there when it is opened again", async () => {
    const { rerender, unmount } = render(<Asked id="a" />);
    paste("first.png");
    rerender(<Asked id="b" />);
    await decoding[0]?.done();
    expect(pictures()).toBe(0);
    unmount(); // another screen
    render(<Asked id="a" />);
    expect(pictures()).toBe(1);
  });
});

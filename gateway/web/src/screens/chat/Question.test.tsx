import { cleanup, fireEvent, render, screen } from "@testing-library/preact";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Message } from "../../conversations/types";
import { chat as t } from "../../texts/en/chat";
import { Question } from "./Question";

const MESSAGE: Message = {
  id: "q",
  conversation: "c",
  parent: null,
  role: "user",
  content: "Where is the Nile?",
  images: [],
  created: 1,
};

const edit = (): void => void fireEvent.click(screen.getByRole("button", { name: t.edit }));
const editor = () => screen.queryByRole<HTMLTextAreaElement>("textbox");
const type = (value: string): void =>
  void fireEvent.input(screen.getByRole("textbox"), { target: { value } });
const askAgain = () => screen.getByRole<HTMLButtonElement>("button", { name: t.askAgain });

afterEach(cleanup);

describe("a question that is edited", () => {
  it("stays open, with what was typed, while it can't be asked", () => {
    const onEdit = vi.fn(() => false);
    const { rerender } = render(<Question message={MESSAGE} last idle={false} onEdit={onEdit} />);
    edit();
    type("Where is the Amazon?");
    fireEvent.keyDown(screen.getByRole("textbox"), { key: "Enter", ctrlKey: true });
    expect(askAgain().disabled).toBe(true);
    expect(editor()?.value).toBe("Where is the Amazon?");
    expect(onEdit).not.toHaveBeenCalled();
    // It has become possible, but not been taken: a moment that the screen didn't know of yet.
    rerender(<Question message={MESSAGE} last idle onEdit={onEdit} />);
    fireEvent.click(askAgain());
    expect(onEdit).toHaveBeenCalledExactlyOnceWith("Where is the Amazon?");
    expect(editor()?.value).toBe("Where is the Amazon?");
    onEdit.mockReturnValue(true);
    fireEvent.click(askAgain());
    expect(editor()).toBeNull();
  });

  it("is kept by Escape, which stops no answer, and let go of by Cancel", () => {
    const stop = vi.fn();
    render(
      <div onKeyDown={stop}>
        <Question message={MESSAGE} last idle onEdit={() => true} />
      </div>,
    );
    edit();
    type("Where is the Amazon?");
    fireEvent.keyDown(screen.getByRole("textbox"), { key: "Escape" });
    expect(editor()).toBeNull();
    expect(stop).not.toHaveBeenCalled();
    edit();
    expect(editor()?.value).toBe("Where is the Amazon?");
    fireEvent.click(screen.getByRole("button", { name: t.cancel }));
    edit();
    expect(editor()?.value).toBe("Where is the Nile?");
  });
});

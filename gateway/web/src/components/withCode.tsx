import type { ComponentChildren } from "preact";

/** A text of the gateway or of ours, with what stands between backquotes as code. */
export function withCode(text: string): ComponentChildren {
  return text
    .split(/`([^`\n]+)`/)
    .map((part, index) => (index % 2 ? <code key={index}>{part}</code> : part));
}

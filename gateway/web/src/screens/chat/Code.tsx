import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { CopyButton } from "../../components/CopyButton";
import { chat as t } from "../../texts/en/chat";
import { coloured } from "./highlight";

interface Props {
  readonly text: string;
  readonly language: string;
  /** It is still being written: colours come once it is whole. */
  readonly open?: boolean;
}

/** A block of code: its language, a button that copies it, long lines that scroll inside. */
export function Code({ text, language, open = false }: Props) {
  const html = useSignal<string | null>(null);
  const element = useRef<HTMLElement>(null);
  useEffect(() => {
    html.value = null;
    if (open) return;
    let current = true;
    void coloured(text, language).then((found) => {
      if (current) html.value = found;
    });
    return () => {
      current = false;
    };
  }, [text, language, open]);
  useEffect(() => {
    const code = element.current;
    if (code === null) return;
    if (html.value !== null) {
      code.innerHTML = html.value; // of the highlighter's own making: spans and escaped text
      return;
    }
    const [only, more] = code.childNodes;
    if (only instanceof Text && more === undefined && text.startsWith(only.data))
      only.appendData(text.slice(only.data.length));
    else code.textContent = text;
  }, [text, html.value]);
  return (
    <div class="code" role="group" aria-label={t.code(language)}>
      <div class="code-head">
        <span>{language}</span>
        <CopyButton text={text} label={t.copyCode} />
      </div>
      <pre tabIndex={0}>
        <code ref={element} />
      </pre>
    </div>
  );
}

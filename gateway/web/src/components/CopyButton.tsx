import { useSignal } from "@preact/signals";
import { actions as t } from "../texts/en/common";
import { Button } from "./Button";
import { Icon } from "./Icon";

interface Props {
  /** A function where making it takes a while. */
  readonly text: string | (() => string);
  readonly label?: string;
}

/** Copies `text`, and says so for two seconds. */
export function CopyButton({ text, label = t.copy }: Props) {
  const done = useSignal(false);
  const copy = async (): Promise<void> => {
    await copyText(typeof text === "string" ? text : text());
    done.value = true;
    setTimeout(() => (done.value = false), 2000);
  };
  return (
    <Button kind="plain" label={done.value ? t.copied : label} onClick={() => void copy()}>
      <Icon name={done.value ? "check" : "copy"} size={16} />
    </Button>
  );
}

/** Put `text` into the clipboard, also over plain HTTP, where `navigator.clipboard` is missing. */
export async function copyText(text: string): Promise<void> {
  if (window.isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.setAttribute("aria-hidden", "true");
  area.className = "visually-hidden";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

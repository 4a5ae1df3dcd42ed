import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { Button } from "../../components/Button";
import { Icon } from "../../components/Icon";
import { toast } from "../../components/Toasts";
import type { Image } from "../../conversations/types";
import { chat as t } from "../../texts/en/chat";
import { draft, keepDraft } from "./draft";
import { useDrop } from "./drop";
import { isPicture, MOST, picturesIn } from "./images";
import { Pictures } from "./Pictures";
import { addUnsent, keepUnsent, reading, unsent } from "./unsent";

interface Props {
  /** The conversation it belongs to; `null`: one that isn't begun. */
  readonly id: string | null;
  readonly model: string;
  /** Whether there is such a model to ask. */
  readonly isThere: boolean;
  /** Whether the model can look at pictures. */
  readonly sees: boolean;
  readonly running: boolean;
  readonly onSend: (text: string, images: readonly Image[]) => void;
  readonly onStop: () => void;
  /** Beside the buttons, in place of the hint. */
  readonly children?: ComponentChildren;
}

/** Fingers have no Shift: there, Enter begins a new line, and the button sends. */
const BY_FINGER = matchMedia("(pointer: coarse) and (hover: none)");

/** Where questions are written: grows with them, keeps them, takes pictures. */
export function Composer(props: Props) {
  const { id, model, isThere, sees, running, onSend, onStop, children } = props;
  const text = useSignal(draft(id));
  const images = unsent(id);
  const isReading = reading(id) > 0;
  /** Whether the question is sent as soon as its pictures are read. */
  const waits = useSignal(false);
  const area = useRef<HTMLTextAreaElement>(null);
  const files = useRef<HTMLInputElement>(null);
  const camera = useRef<HTMLInputElement>(null);

  useEffect(() => {
    text.value = draft(id);
    waits.value = false;
    if (!BY_FINGER.matches) area.current?.focus();
  }, [id]);
  useLayoutEffect(() => {
    const element = area.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight + 2}px`;
  }, [text.value]);

  const add = async (added: readonly File[]): Promise<void> => {
    if (added.length === 0) return;
    if (!sees) return toast(t.noEyes(model));
    const room = Math.max(0, MOST - unsent(id).length - reading(id));
    if (added.length > room) toast(t.tooMany(MOST));
    const unreadable = await addUnsent(id, added.slice(0, room));
    // Sent without it, the question would be another one.
    if (unreadable.length > 0) waits.value = false;
    for (const name of unreadable) toast(t.noPicture(name));
    area.current?.focus();
  };
  const dragged = useDrop((files) => {
    const pictures = files.filter(isPicture);
    const other = files.find((one) => !isPicture(one));
    if (other && sees) toast(t.notTaken(other.name));
    void add(sees ? pictures : files);
  });
  const ready = text.value.trim() !== "" || images.length > 0;
  const send = (): void => {
    waits.value = isReading;
    if (running || !ready || !isThere || isReading) return;
    onSend(text.value.trim(), images);
    text.value = "";
    keepUnsent(id, []);
    keepDraft(id, "");
    area.current?.focus();
  };
  useEffect(() => {
    if (waits.value && !isReading) send();
  }, [waits.value, isReading]);
  const keys = (event: KeyboardEvent): void => {
    // While characters are being composed (Japanese, Chinese...), Enter takes what is offered.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Escape" && running) {
      event.preventDefault();
      onStop();
    } else if (event.key === "Enter" && !event.shiftKey && !BY_FINGER.matches) {
      event.preventDefault();
      send();
    }
  };
  const chosen = (event: Event): void => {
    const element = event.currentTarget as HTMLInputElement;
    void add([...(element.files ?? [])]);
    element.value = "";
  };
  const asks = isThere ? t.placeholder(model) : t.chooseFirst;
  const drops = sees ? t.dropHere : t.noEyes(model);

  return (
    <form
      class={dragged.value ? "composer dragged" : "composer"}
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {images.length > 0 && (
        <Pictures
          images={images}
          onRemove={(gone) =>
            keepUnsent(
              id,
              images.filter((one) => one.id !== gone),
            )
          }
        />
      )}
      <textarea
        ref={area}
        rows={1}
        aria-label={t.message}
        placeholder={dragged.value ? drops : asks}
        enterkeyhint={BY_FINGER.matches ? "enter" : "send"}
        value={text.value}
        onInput={(event) => {
          text.value = event.currentTarget.value;
          keepDraft(id, text.value);
        }}
        onKeyDown={keys}
        onPaste={(event) => {
          const pasted = picturesIn(event.clipboardData);
          if (pasted.length === 0) return;
          event.preventDefault();
          void add(pasted);
        }}
      />
      <div class="composer-row">
        {sees && (
          <>
            <Button kind="plain" label={t.addPictures} onClick={() => files.current?.click()}>
              <Icon name="image" />
            </Button>
            <input
              ref={files}
              type="file"
              accept="image/*"
              multiple
              hidden
              tabIndex={-1}
              onChange={chosen}
            />
            <Button
              kind="plain"
              class="by-finger"
              label={t.takePicture}
              onClick={() => camera.current?.click()}
            >
              <Icon name="camera" />
            </Button>
            <input
              ref={camera}
              type="file"
              accept="image/*"
              capture="environment"
              hidden
              tabIndex={-1}
              onChange={chosen}
            />
          </>
        )}
        <div class="room">{children || <span class="hint soft">{t.hint}</span>}</div>
        {running ? (
          <Button kind="primary" class="round" label={t.stop} onClick={onStop}>
            <Icon name="stop" />
          </Button>
        ) : (
          <Button
            kind="primary"
            class="round"
            type="submit"
            label={t.send}
            disabled={!(ready || isReading) || !isThere}
          >
            <Icon name="send" />
          </Button>
        )}
      </div>
    </form>
  );
}

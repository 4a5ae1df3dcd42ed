import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Button } from "../../components/Button";
import { Dialog } from "../../components/Dialog";
import { Icon } from "../../components/Icon";
import type { Image } from "../../conversations/types";
import { chat as t } from "../../texts/en/chat";

interface Props {
  readonly images: readonly Image[];
  readonly onRemove?: ((id: Image["id"]) => void) | undefined;
}

/** Small pictures; each can be seen as a whole, and taken away before it is sent. */
export function Pictures({ images, onRemove }: Props) {
  const whole = useSignal<number | null>(null);
  const shown = whole.value === null ? undefined : images[whole.value];
  return (
    <ul class="pictures">
      {images.map((image, index) => (
        <li key={image.id}>
          <button
            type="button"
            aria-label={t.openPicture(index + 1)}
            onClick={() => (whole.value = index)}
          >
            <Picture image={image} alt="" />
          </button>
          {onRemove && (
            <Button
              class="remove"
              label={t.removePicture(index + 1)}
              onClick={() => onRemove(image.id)}
            >
              <Icon name="close" size={14} />
            </Button>
          )}
        </li>
      ))}
      {shown && whole.value !== null && (
        <Dialog title={t.picture(whole.value + 1)} wide onClose={() => (whole.value = null)}>
          <Picture image={shown} alt={t.picture(whole.value + 1)} />
        </Dialog>
      )}
    </ul>
  );
}

function Picture({ image, alt }: { readonly image: Image; readonly alt: string }) {
  const address = useSignal("");
  useEffect(() => {
    address.value = URL.createObjectURL(image.blob);
    return () => URL.revokeObjectURL(address.value);
  }, [image.blob]);
  return address.value === "" ? null : <img src={address.value} alt={alt} />;
}

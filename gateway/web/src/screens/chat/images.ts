/** Pictures that a person adds to a question: made small here, so that they travel fast. */

import { newId, type Image } from "../../conversations/types";

/** Pixels of the longer side: more than vision models look at costs time and tells them nothing. */
const LONGEST_SIDE = 1568;
/** Bytes up to which a picture of such a size is sent as it is. */
const SMALL = 500_000;
const QUALITY = 0.88;
/** What llama-server reads (stb_image), and canvas makes. */
const READ_AS_IT_IS = new Set(["image/jpeg", "image/png"]);

/** How many pictures a question may have. */
export const MOST = 8;

/** A picture that no browser could read, by its name. */
export class NoPicture extends Error {}

/**
 * A picture no larger than a model needs it, upright as its camera says.
 *
 * Throws {@link NoPicture} if this browser can't read it.
 */
export async function picture(file: Blob, name: string): Promise<Image> {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new NoPicture(name);
  });
  try {
    const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
    if (scale === 1 && file.size <= SMALL && READ_AS_IT_IS.has(file.type))
      return { id: newId(), mime: file.type, blob: file };
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d");
    if (context === null) throw new NoPicture(name);
    context.fillStyle = "#fff"; // behind what is transparent, as JPEG has no such thing
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise<Blob | null>((resolve) =>
      canvas.toBlob(resolve, "image/jpeg", QUALITY),
    );
    if (blob === null) throw new NoPicture(name);
    return { id: newId(), mime: blob.type, blob };
  } finally {
    bitmap.close();
  }
}

const addresses = new WeakMap<Blob, Promise<string>>();

/**
 * `data:` addresses of pictures, by their ids.
 *
 * Throws {@link NoPicture} if the browser can't read one that it has kept.
 */
export async function addressesOf(
  images: readonly Image[],
): Promise<ReadonlyMap<Image["id"], string>> {
  const pairs = images.map(async (one) => [one.id, await addressOf(one)] as const);
  return new Map(await Promise.all(pairs));
}

function addressOf({ blob, mime }: Image): Promise<string> {
  const before = addresses.get(blob);
  if (before) return before;
  const made = new Promise<string>((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => {
      const found = typeof reader.result === "string" ? reader.result : "";
      resolve(found.replace(/^data:[^;,]*/, `data:${mime}`));
    };
    reader.onerror = () => reject(new NoPicture(""));
    reader.readAsDataURL(blob);
  });
  addresses.set(blob, made);
  made.catch(() => addresses.delete(blob)); // the next time it may be readable
  return made;
}

/** Pictures among what was pasted. */
export function picturesIn(data: DataTransfer | null): readonly File[] {
  return [...(data?.files ?? [])].filter(isPicture);
}

export function isPicture(file: File): boolean {
  return file.type.startsWith("image/");
}

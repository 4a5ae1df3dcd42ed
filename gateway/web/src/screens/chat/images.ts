/** Pictures that a person adds to a question: made small here, so that they travel fast. */

import { newId, type Image } from "../../conversations/types";

/** Pixels of the longer side: more than vision models look at costs time and tells them nothing. */
const LONGEST_SIDE = 1568;
/** Bytes up to which a picture of such a size is sent as it is. */
const SMALL = 500_000;
const QUALITY = 0.88;
/** Chunks of a PNG that tell where, when and with what it was made, or anything at all. */
const TELLING = new Set(["eXIf", "tEXt", "zTXt", "iTXt"]);

/** How many pictures a question may have. */
export const MOST = 8;

/** A picture that no browser could read, by its name. */
export class NoPicture extends Error {}

/**
 * A picture no larger than a model needs it, upright as its camera says, and without what else its
 * camera tells: the place where it was taken, for one.
 *
 * Throws {@link NoPicture} if this browser can't read it.
 */
export async function picture(file: Blob, name: string): Promise<Image> {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new NoPicture(name);
  });
  try {
    const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
    const staysPng = scale === 1 && file.size <= SMALL && file.type === "image/png";
    if (staysPng && !tells(await file.arrayBuffer()))
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
      canvas.toBlob(resolve, staysPng ? "image/png" : "image/jpeg", QUALITY),
    );
    if (blob === null) throw new NoPicture(name);
    return { id: newId(), mime: blob.type, blob };
  } finally {
    bitmap.close();
  }
}

/** Whether a PNG has chunks that say more than the picture. */
export function tells(png: ArrayBuffer): boolean {
  const view = new DataView(png);
  // Behind 8 bytes of signature, each chunk: length, name, data, checksum.
  for (let at = 8; at + 8 <= png.byteLength; at += 12 + view.getUint32(at)) {
    const name = String.fromCharCode(...new Uint8Array(png, at + 4, 4));
    if (TELLING.has(name)) return true;
  }
  return false;
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

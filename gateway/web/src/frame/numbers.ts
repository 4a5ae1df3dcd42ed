const GIB = 2 ** 30;

/** Bytes in GiB, as short as fits in a corner: "18", "1.4", "0.1". */
export function gib(bytes: number): string {
  const value = bytes / GIB;
  return value >= 9.95 ? String(Math.round(value)) : value.toFixed(1).replace(/\.0$/, "");
}

/**
 * What this browser keeps for the page.
 *
 * A browser may keep nothing: where storage is blocked (cookies are, or in some frames) the mere
 * look at it throws, and it may be full. Then this tab remembers, for as long as it is open.
 */

export interface Kept {
  get(place: string): string | null;
  set(place: string, value: string): void;
  remove(place: string): void;
}

/** Beyond this tab, for all tabs of this origin. */
export const local: Kept = guarded(() => localStorage);
/** For this tab alone. */
export const session: Kept = guarded(() => sessionStorage);

function guarded(storage: () => Storage): Kept {
  const unwritten = new Map<string, string | null>();
  const write = (place: string, value: string | null): void => {
    try {
      if (value === null) storage().removeItem(place);
      else storage().setItem(place, value);
      unwritten.delete(place);
    } catch {
      unwritten.set(place, value);
    }
  };
  return {
    get(place) {
      const remembered = unwritten.get(place);
      if (remembered !== undefined) return remembered;
      try {
        return storage().getItem(place);
      } catch {
        return null;
      }
    },
    set: write,
    remove: (place) => write(place, null),
  };
}

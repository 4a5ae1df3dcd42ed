/** What was typed and isn't sent yet, kept for each conversation in this browser. */

const PLACE = "llm-gateway.draft:";
const NEW = `${PLACE}new`;

/** `id`: a conversation; `null`: one that isn't begun. */
export function draft(id: string | null): string {
  try {
    return localStorage.getItem(id === null ? NEW : PLACE + id) ?? "";
  } catch {
    return "";
  }
}

export function keepDraft(id: string | null, text: string): void {
  keep(id === null ? NEW : PLACE + id, text);
}

/** Forget drafts of conversations; `null`: of all that are begun. Returns what brings them back. */
export function takeDrafts(ids: readonly string[] | null): () => void {
  const taken = places(ids).map((place) => [place, draft(place.slice(PLACE.length))] as const);
  for (const [place] of taken) keep(place, "");
  return () => {
    for (const [place, text] of taken) keep(place, text);
  };
}

function places(ids: readonly string[] | null): readonly string[] {
  if (ids !== null) return ids.map((one) => PLACE + one);
  try {
    return Object.keys(localStorage).filter((one) => one.startsWith(PLACE) && one !== NEW);
  } catch {
    return [];
  }
}

function keep(place: string, text: string): void {
  try {
    if (text === "") localStorage.removeItem(place);
    else localStorage.setItem(place, text);
  } catch {
    // a full or forbidden storage loses a draft, and nothing else
  }
}

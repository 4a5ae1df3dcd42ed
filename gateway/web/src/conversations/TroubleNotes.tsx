import { Button } from "../components/Button";
import { conversations as t } from "../texts/en/conversations";
import { store } from "./conversations";

/** What keeps conversations from being kept, if anything does. */
export function TroubleNotes() {
  const trouble = store.trouble.value;
  const unreadable = store.unreadable.value;
  return (
    <>
      {trouble && (
        <div class="note warn" role="status">
          <p>{t.trouble[trouble]}</p>
          {(trouble === "full" || trouble === "failed" || trouble === "unread") && (
            <p>
              <Button onClick={() => void store.again()}>{t.tryAgain}</Button>
            </p>
          )}
        </div>
      )}
      {store.missing.value !== null && (
        <p class="note warn" role="status">
          {t.missing}
        </p>
      )}
      {store.opened.value?.deleted && (
        <p class="note warn" role="status">
          {t.deleted}
        </p>
      )}
      {unreadable > 0 && <p class="soft none">{t.unreadable(unreadable)}</p>}
    </>
  );
}

import { box } from "../gateway/connection";
import { signIn as t } from "../texts/en/signin";

/** Shown where the first answer takes long enough to be waited for (CSS lets it appear late). */
export function Connecting() {
  return (
    <main class="connecting soft">
      <p role="status">{t.connecting(box.value?.name ?? "")}</p>
    </main>
  );
}

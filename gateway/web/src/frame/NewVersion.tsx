import { signal, useSignalEffect } from "@preact/signals";
import { useRef } from "preact/hooks";
import { Button } from "../components/Button";
import { servedByGateway } from "../gateway/connection";
import { broken, overview } from "../gateway/live";
import { frame as t } from "../texts/en/frame";

/** Whether the page that is open is older than the one there is. */
const outdated = signal(false);

/**
 * Offers to load the page anew when there is another one: looked for whenever the gateway came
 * back, as it does after an update, or says another version.
 */
export function NewVersion() {
  const version = useRef<string | null>(null);
  const wasBroken = useRef(false);
  useSignalEffect(() => {
    const said = overview.value?.version ?? null;
    const changed = said !== null && version.current !== null && said !== version.current;
    version.current = said ?? version.current;
    const back = wasBroken.current && broken.value === null;
    wasBroken.current = broken.value !== null;
    if (servedByGateway && (changed || back)) void look();
  });
  if (!outdated.value) return null;
  return (
    <div class="banner" role="status">
      <span>{t.newVersion}</span>
      <Button kind="plain" onClick={() => location.reload()}>
        {t.reload}
      </Button>
    </div>
  );
}

async function look(): Promise<void> {
  try {
    const answer = await fetch(location.pathname, {
      headers: { Accept: "text/html" },
      cache: "no-store",
    });
    if (!answer.ok) return;
    const there = scripts(new DOMParser().parseFromString(await answer.text(), "text/html"));
    if (there.length > 0 && there.join() !== scripts(document).join()) outdated.value = true;
  } catch {
    // away again: looked for once more when it is back
  }
}

/** Names of assets hold a hash of what is in them. */
function scripts(page: Document): readonly string[] {
  const found = page.querySelectorAll<HTMLScriptElement>('script[type="module"][src]');
  return [...found].map((one) => one.getAttribute("src") ?? "");
}

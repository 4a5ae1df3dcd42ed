/** The page as an installed app: its service worker, and what happens when it is upgraded. */

import { session } from "./storage";

const RELOADED = "llm-gateway.reloaded";
/** Milliseconds: a page that was loaded anew and still lacks a part isn't loaded anew again. */
const ONCE_IN = 30_000;

/**
 * Keep the page in this browser, so that it opens where the gateway can't be reached.
 *
 * Browsers allow that over https and on the machine itself; elsewhere nothing happens.
 */
export function installShell(): void {
  window.addEventListener("vite:preloadError", () => void reloadIfUpgraded());
  if (!import.meta.env.PROD || !("serviceWorker" in navigator)) return;
  const register = (): void => {
    navigator.serviceWorker
      .register("/sw.js", { scope: "/", updateViaCache: "none" })
      .catch((error: unknown) => console.warn("the page isn't kept in this browser:", error));
  };
  // Not before the page is there: it has better things to fetch.
  if (document.readyState === "complete") register();
  else window.addEventListener("load", register, { once: true });
}

/** A part that an upgrade took away: the page that is served now has others. */
async function reloadIfUpgraded(): Promise<void> {
  const before = Number(session.get(RELOADED) ?? 0);
  if (Date.now() - before < ONCE_IN) return;
  const answer = await fetch("/", { headers: { Accept: "text/html" }, cache: "no-store" }).catch(
    () => null,
  );
  if (answer?.ok !== true) return; // out of reach: what is shown is better than nothing
  const served = /\/assets\/index-[\w-]+\.js/.exec(await answer.text())?.[0];
  if (served === undefined || document.querySelector(`script[src="${served}"]`) !== null) return;
  session.set(RELOADED, String(Date.now()));
  location.reload();
}

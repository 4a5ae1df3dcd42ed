/**
 * The service worker: keeps the page itself (its HTML, scripts, styles), so that it opens where the
 * gateway can't be reached, and says so. Answers of the API never pass through here.
 *
 * The two constants are written when the page is built (shell.ts), so each build is another worker.
 */
const VERSION = "development";
/** What the first screen is made of. */
const SHELL = [];

const KEPT = `shell-${VERSION}`;
const PAGE = "/";
/** Milliseconds after which a gateway that says nothing counts as out of reach. */
const PATIENCE = 4000;

self.addEventListener("install", (event) => {
  event.waitUntil(fill().then(() => self.skipWaiting()));
});

/** A new version takes over at once: the page is asked for anew each time it is opened anyway. */
self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      const names = await caches.keys();
      const old = names.filter((name) => name.startsWith("shell-") && name !== KEPT);
      await Promise.all(old.map((name) => caches.delete(name)));
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin) return;
  if (request.mode === "navigate") {
    if (url.pathname === PAGE) event.respondWith(page(request));
  } else if (url.pathname.startsWith("/assets/")) {
    event.respondWith(asset(request));
  }
});

async function fill() {
  const cache = await caches.open(KEPT);
  await cache.addAll(SHELL);
  const answer = await fetch(PAGE, { headers: { Accept: "text/html" }, cache: "no-cache" });
  if (isPage(answer)) await cache.put(PAGE, answer);
}

/** From the gateway; what is kept, only if it can't be reached. */
async function page(request) {
  const cache = await caches.open(KEPT);
  const kept = await cache.match(PAGE, { ignoreVary: true });
  const asked = fetch(request).then((answer) => {
    if (isPage(answer)) void cache.put(PAGE, answer.clone()).catch(() => undefined);
    return answer;
  });
  if (kept === undefined) return asked;
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, PATIENCE, kept);
  });
  return Promise.race([asked.catch(() => kept), late]).finally(() => clearTimeout(timer));
}

/** Its name holds a hash of what is in it, so what is kept is right for ever. */
async function asset(request) {
  const cache = await caches.open(KEPT);
  const kept = await cache.match(request, { ignoreVary: true });
  if (kept !== undefined) return kept;
  const answer = await fetch(request);
  // A full disk, or a host that answers with its page where there is no such file.
  if (answer.ok && !isPage(answer)) await cache.put(request, answer.clone()).catch(() => undefined);
  return answer;
}

function isPage(answer) {
  return (
    answer.ok && !answer.redirected && (answer.headers.get("Content-Type") ?? "").includes("text/html")
  );
}

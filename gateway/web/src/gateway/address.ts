/** The address of a box as people type or paste it. Pure. */

export interface TakenAddress {
  /** An origin: `https://box.example:8443`. */
  readonly address: string;
  readonly host: string;
  /** The key in a pasted link of a first start (`#key=...`). */
  readonly key: string | null;
  /** A path that was left out, as the routes of the API have one of their own: `/v1`. */
  readonly path: string | null;
  /** Whether `https://` or `http://` was added. */
  readonly schemeAdded: boolean;
}

export type AddressProblem = "empty" | "scheme" | "malformed";

/** What `text` says; a problem where it is no address of a web server. */
export function readAddress(text: string): TakenAddress | AddressProblem {
  const trimmed = text.trim();
  if (trimmed === "") return "empty";
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(trimmed)?.[1]?.toLowerCase();
  if (scheme !== undefined && scheme !== "http" && scheme !== "https") return "scheme";
  const whole = scheme === undefined ? `${guess(trimmed)}://${trimmed}` : trimmed;
  if (!URL.canParse(whole)) return "malformed";
  const url = new URL(whole);
  if (url.hostname === "" || url.username !== "" || url.password !== "") return "malformed";
  const found = /^#key=([^&]+)/.exec(url.hash)?.[1];
  return {
    address: url.origin,
    host: url.hostname,
    key: found === undefined ? null : decoded(found),
    path: url.pathname === "/" ? null : url.pathname.replace(/\/$/, ""),
    schemeAdded: scheme === undefined,
  };
}

/** The scheme of an address without one: TLS, except for this very machine. */
function guess(text: string): "http" | "https" {
  return URL.canParse(`http://${text}`) && isLoopback(new URL(`http://${text}`).hostname)
    ? "http"
    : "https";
}

/** `decodeURIComponent`, and the text itself where it holds a broken escape. */
export function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Whether a host is this machine, to which a page of https may speak http. */
export function isLoopback(host: string): boolean {
  return (
    host === "localhost" || host.endsWith(".localhost") || /^(127(\.\d+){3}|\[::1\])$/.test(host)
  );
}

/** Whether a host looks like one of a home's network: by its address, or a name that only it has. */
export function isLocal(host: string): boolean {
  if (isLoopback(host)) return true;
  if (/^(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|169\.254\.)/.test(host)) return true;
  if (/^\[(f[cd]|fe[89ab])/i.test(host)) return true;
  if (host.startsWith("[")) return false;
  return !host.includes(".") || /\.(local|lan|home|internal|home\.arpa|fritz\.box)$/.test(host);
}

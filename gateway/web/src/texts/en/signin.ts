/** Words of the screen that asks for a key, and of why it leads nowhere. */

import { count } from "../../format";
import type { AddressProblem, TakenAddress } from "../../gateway/address";
import type { Diagnosis } from "../../gateway/diagnose";

export const signIn = {
  title: "Sign in",
  addTitle: "Add a box",
  intro: "Your own models, on your own box.",
  address: "Address of the box",
  addressHint: "As the gateway prints it when it starts: https://box.example:8443",
  name: "Name for it",
  nameHint: "Optional. Shown here, and in this browser only.",
  key: "API key",
  whereServed: "At its first start, the gateway prints a link with the key. On the box, ",
  whereServedEnd: " makes another key.",
  command: "llm-gateway keys create NAME",
  keep: "Keep the key in this browser",
  keepHint: "Otherwise it is forgotten when this tab is closed. Not on a device that others use.",
  enter: "Sign in",
  entering: "Signing in…",
  connecting: (name: string): string => `Connecting to ${name}…`,
  showKey: "Show the key",
  hideKey: "Hide the key",
  at: "At",
  otherBoxes: "Other boxes",
  addBox: "Add a box",
  goBack: "Go back",
  removeBox: (name: string): string => `Remove ${name}`,
  noKeyGiven: "Enter a key.",
  openBox: (address: string): string => `Open ${address} in a new tab`,
  openOwnPage: (address: string): string => `Open the gateway's own page at ${address}`,
  openSecure: "Open this page by https",
  use: (address: string): string => `Use ${address}`,
  seconds: (seconds: number): string => `Wait ${count(seconds)} s`,
  again: "Trying again by itself.",
  docs: "docs/tls.md",
  lost: "Your key no longer opens this box. What you typed is kept.",
} as const;

export function tookWords(taken: TakenAddress): string {
  const parts = [`Goes to ${taken.address}`];
  if (taken.key !== null) parts.push("and the key in the link");
  if (taken.path !== null) parts.push(`without ${taken.path}, which belongs to the API`);
  return `${parts.join(", ")}.`;
}

export const addressProblems: Readonly<Record<AddressProblem, string>> = {
  empty: "Enter the address of the box.",
  scheme: "The address of a gateway begins with https:// or http://.",
  malformed: "That is no address. One looks like https://box.example:8443",
};

export interface Advice {
  readonly title: string;
  /** What to do, in the order in which it is likely to help. */
  readonly steps: readonly string[];
  /** What to write, and into what. */
  readonly code?: { readonly text: string; readonly label: string };
}

/** Of the box: its address, and of this page: its origin. */
export interface Between {
  readonly address: string;
  readonly origin: string;
}

const RUNNING = "Is the gateway running? On the box, `llm-gateway status` says so.";
const AUTHORITY =
  "To have it trusted for good, copy the authority's file, `ssl/NAME-chain.pem`, from the box to " +
  "this device and add it to the authorities that the system or browser trusts (`docs/tls.md`).";

/** What is the matter, and what helps. */
export function advice(found: Diagnosis, { address, origin }: Between): Advice {
  switch (found.kind) {
    case "offline":
      return {
        title: "This device is offline",
        steps: ["Connect it to a network, then try again."],
      };
    case "unreachable":
      return {
        title: `Nothing answers at ${address}`,
        steps: [
          RUNNING,
          "Is the address right, with its port? The gateway prints it when it starts.",
          "Is this device in the same network, and does the gateway listen there? With " +
            "`host: 127.0.0.1` in `conf/gateway.yaml`, only programs on the box itself reach it.",
        ],
      };
    case "silent":
      return {
        title: `No connection to ${address}, and the browser doesn't say why`,
        steps: [
          "Open it in a new tab: there the browser tells.",
          `It warns of the certificate: this browser doesn't trust it. ${AUTHORITY}`,
          `Nothing opens: ${RUNNING.replace("Is", "is")} Is the port right?`,
          ...(found.local
            ? [
                "The gateway's page opens: the browser keeps this page from your local network. " +
                  "Allow it when asked, or in the settings left of the address bar.",
              ]
            : []),
        ],
      };
    case "certificate":
      return {
        title: `This browser doesn't trust the certificate of ${address}`,
        steps: [
          "Open it in a new tab: the browser shows what it has against it. Where you go on past " +
            "its warning, this page comes in too, for a while.",
          AUTHORITY,
          "A box with a public name can get a certificate that everybody trusts: `tls.acme` in " +
            "`conf/gateway.yaml`.",
        ],
      };
    case "scheme": {
      const is = found.instead === "http" ? "http, without TLS" : "https";
      return { title: `The gateway at ${address} speaks ${is}`, steps: [] };
    }
    case "origin":
      return {
        title: `${address} answers, but not to this page`,
        steps: [
          `If it is the gateway: it doesn't let in pages of ${origin}. Add that to ` +
            "`conf/gateway.yaml` on the box, beside the origins that may stand there, and restart it.",
          "If it is another server: check the port.",
        ],
        code: { label: "conf/gateway.yaml", text: `cors: {origins: ["${origin}"]}` },
      };
    case "mixed":
      return {
        title: "A page that came by https can't talk to a box by http",
        steps: [
          "Give the gateway a certificate (`docs/tls.md`), and take its address with `https://`.",
          "Or use the page that the gateway serves itself.",
        ],
      };
    case "local-network":
      return found.permission === "denied"
        ? {
            title: "The browser keeps this page from your local network",
            steps: [
              "Open the settings of this page, left of its address, and allow it to reach the " +
                "local network. Then try again.",
            ],
          }
        : {
            title: `No connection to ${address}`,
            steps: [
              `${RUNNING} Is the port right?`,
              "Did the browser ask whether this page may reach your local network? Try again, and " +
                "allow it.",
            ],
          };
    case "insecure-page":
      return {
        title: "The browser keeps this page from your local network",
        steps: [
          "It lets only pages that came by https talk to a box at home.",
          `If ${address} doesn't open in a tab of its own either, the gateway isn't running there.`,
        ],
      };
    case "not-gateway":
      return {
        title: `At ${address} there is no gateway, but another server`,
        steps: [
          found.status === 200
            ? "It answers something else than a gateway does."
            : `It answers ${found.status}, and not as a gateway does.`,
          "Check the port: the gateway prints it when it starts, and it is 8080 unless changed.",
          "Is there a reverse proxy in front? It must pass all paths on to the gateway.",
        ],
      };
    case "host": {
      const host = new URL(address).hostname;
      return {
        title: `The gateway doesn't answer to the name ${host}`,
        steps: [
          "So that no stranger's page reaches it by a name of its own, it answers only to names " +
            "it knows. If this is one of its names, add it to `conf/gateway.yaml` and restart it.",
        ],
        code: { label: "conf/gateway.yaml", text: `allowed_hosts: ["${host}"]` },
      };
    }
    case "no-key":
      return { title: "This gateway asks for a key", steps: [] };
    case "wrong-key":
      return {
        title: {
          unknown: `The gateway at ${address} doesn't know this key`,
          revoked: "This key has been revoked",
          expired: "This key has expired",
        }[found.reason],
        steps: [
          ...(found.reason === "unknown"
            ? [
                "Is it whole? The gateway's own keys begin with `llmgw_`.",
                "Is it a key of this box?",
              ]
            : []),
          "On the box, `llm-gateway keys list` shows which there are, and " +
            "`llm-gateway keys create NAME` makes one.",
        ],
      };
    case "rights":
      return {
        title: "This key doesn't have the right to that",
        steps: [`The gateway says: ${found.error.message}`],
      };
    case "too-many":
      return {
        title: "Too many wrong keys came from this device",
        steps: [
          "So that nobody guesses a key, the gateway looks at no more of them for a while. Check " +
            "the key meanwhile.",
        ],
      };
    case "not-ready":
      return {
        title: {
          starting: "The gateway is starting",
          stopping: "The gateway is stopping",
          none: "The gateway takes no requests at the moment",
        }[found.stage ?? "none"],
        steps: [],
      };
    case "error":
      return { title: "That didn't work", steps: [] };
  }
}

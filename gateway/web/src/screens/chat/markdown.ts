/**
 * What a model wrote, as nodes that can do nothing to the page and tell nobody anything.
 *
 * marked makes HTML of Markdown, DOMPurify leaves of it what is listed here. Pictures from elsewhere
 * become links, as their address would tell a stranger's server what was said; links lead to http(s)
 * and mail only; there are no styles, names, ids, forms or frames.
 */

import DOMPurify, { type Config } from "dompurify";
import { Lexer, Parser, Renderer, type Tokens } from "marked";
import type { Links } from "./blocks";

const TAGS =
  "a abbr b blockquote br caption cite code col colgroup dd del details dfn div dl dt em figcaption figure " +
  "h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strong sub summary sup table " +
  "tbody td tfoot th thead tr u ul var";

const CONFIG: Config & { RETURN_DOM_FRAGMENT: true } = {
  ALLOWED_TAGS: TAGS.split(" "),
  ALLOWED_ATTR: [
    "href",
    "src",
    "alt",
    "title",
    "start",
    "align",
    "colspan",
    "rowspan",
    "open",
    "class",
  ],
  // What is no address isn't held against what an address may be.
  ADD_URI_SAFE_ATTR: ["start", "align", "colspan", "rowspan", "open"],
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|data:image\/(?:png|jpeg|gif|webp);base64,)/i,
  RETURN_DOM_FRAGMENT: true,
};

const SAFE_LINK = /^(?:https?:\/\/|mailto:)/i;
const OWN_PICTURE = /^data:image\/(?:png|jpeg|gif|webp);base64,/i;
const LANGUAGE = /(?:^|\s)language-([\w+#.-]+)/;

class Plain extends Renderer {
  /** A picture is a link, as long as it isn't in the text itself. */
  override image({ href, title, text }: Tokens.Image): string {
    const named = title ? ` title="${escaped(title)}"` : "";
    return `<img src="${escaped(href)}" alt="${escaped(text)}"${named}>`;
  }

  /** No control of a form, which nothing could name. */
  override checkbox({ checked }: Tokens.Checkbox): string {
    return checked ? "☑ " : "☐ ";
  }

  override code({ text, lang }: Tokens.Code): string {
    const language = lang?.trim().split(/[\s{,:]/)[0] ?? "";
    const named = language ? ` class="language-${escaped(language)}"` : "";
    return `<pre><code${named}>${escaped(text)}\n</code></pre>`;
  }
}

const RENDERER = new Plain();

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
}

/**
 * Nodes of a piece of Markdown. `links`: definitions of links in other pieces of the text.
 *
 * What marked can't read, as it is nested more deeply than the stack of calls, is shown as it is.
 */
export function nodesOf(source: string, links: Links = {}): DocumentFragment {
  try {
    const lexer = new Lexer({ gfm: true, breaks: true });
    Object.assign(lexer.tokens.links, links);
    return harmless(Parser.parse(lexer.lex(source), { gfm: true, renderer: RENDERER }));
  } catch {
    return asItIs(source);
  }
}

function asItIs(source: string): DocumentFragment {
  const found = document.createDocumentFragment();
  const text = document.createElement("p");
  text.className = "as-it-is";
  text.textContent = source;
  found.append(text);
  return found;
}

/** Nodes of HTML that somebody else has written. They belong to a document without a window. */
export function harmless(html: string): DocumentFragment {
  const found = DOMPurify.sanitize(html, CONFIG);
  for (const image of found.querySelectorAll("img")) tameImage(image);
  for (const link of found.querySelectorAll("a")) tameLink(link);
  for (const heading of found.querySelectorAll("h1, h2, h3, h4, h5, h6")) tameHeading(heading);
  for (const one of found.querySelectorAll("[class]")) tameClass(one);
  for (const table of found.querySelectorAll("table")) frame(table);
  return found;
}

function tameImage(image: HTMLImageElement): void {
  const source = image.getAttribute("src") ?? "";
  if (OWN_PICTURE.test(source)) return;
  const words = image.getAttribute("alt")?.trim() || source;
  const document = image.ownerDocument;
  if (!SAFE_LINK.test(source) || image.closest("a")) {
    image.replaceWith(document.createTextNode(words));
    return;
  }
  const link = document.createElement("a");
  link.setAttribute("href", source);
  link.textContent = words;
  image.replaceWith(link);
}

function tameLink(link: HTMLAnchorElement): void {
  const to = link.getAttribute("href") ?? "";
  if (!SAFE_LINK.test(to)) {
    link.replaceWith(...link.childNodes);
    return;
  }
  link.setAttribute("target", "_blank");
  link.setAttribute("rel", "noopener noreferrer nofollow");
  if (!link.getAttribute("title")) link.setAttribute("title", to);
}

/** An answer's headings stand below those of the page. */
function tameHeading(heading: Element): void {
  const document = heading.ownerDocument;
  const level = Math.min(6, Number(heading.tagName.slice(1)) + 2);
  const lower = document.createElement("p");
  lower.className = "heading";
  lower.setAttribute("role", "heading");
  lower.setAttribute("aria-level", String(level));
  lower.append(...heading.childNodes);
  heading.replaceWith(lower);
}

/** A class names a language of code, and nothing of this page's. */
function tameClass(element: Element): void {
  if (element.matches('p.heading[role="heading"]')) return;
  const language = element.matches("pre > code")
    ? LANGUAGE.exec(element.className)?.[1]
    : undefined;
  if (language === undefined) element.removeAttribute("class");
  else element.className = `language-${language}`;
}

/** A wide table scrolls within a frame, by keyboard too. */
function frame(table: HTMLTableElement): void {
  const around = table.ownerDocument.createElement("div");
  around.className = "wide";
  around.tabIndex = 0;
  table.replaceWith(around);
  around.append(table);
}

/** The language that a `pre > code` is marked with, or "". */
export function languageOf(code: Element): string {
  return LANGUAGE.exec(code.className)?.[1] ?? "";
}

/**
 * Make the children of `place` those of `wanted`, and leave alone what is the same already, so that
 * what is selected or focused in a text that grows stays so.
 */
export function morph(place: Node, wanted: Node): void {
  let old = place.firstChild;
  for (const next of [...wanted.childNodes]) {
    if (old === null) {
      place.appendChild(next);
      continue;
    }
    const after: ChildNode | null = old.nextSibling;
    if (!old.isEqualNode(next)) update(old, next);
    old = after;
  }
  while (old !== null) {
    const after: ChildNode | null = old.nextSibling;
    old.remove();
    old = after;
  }
}

function update(old: ChildNode, next: ChildNode): void {
  if (old instanceof Text && next.nodeType === Node.TEXT_NODE) {
    const text = next.nodeValue ?? "";
    if (text.startsWith(old.data)) old.appendData(text.slice(old.data.length));
    else old.data = text;
  } else if (old instanceof Element && old.cloneNode(false).isEqualNode(next.cloneNode(false))) {
    morph(old, next);
  } else old.replaceWith(next);
}

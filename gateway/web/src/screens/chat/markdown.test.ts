// @vitest-environment jsdom
// DOMPurify needs a DOM that parses as browsers do.
import { describe, expect, it } from "vitest";
import { harmless, languageOf, morph, nodesOf } from "./markdown";

function html(source: string): string {
  const place = document.createElement("div");
  place.append(nodesOf(source));
  return place.innerHTML;
}

function place(fragment: DocumentFragment): HTMLElement {
  const found = document.createElement("div");
  found.append(fragment);
  return found;
}

describe("what a model writes", () => {
  it.each([
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '<svg onload="alert(1)"><script>alert(1)</script></svg>',
    "<iframe src='https://a.example'></iframe>",
    "<style>body{display:none}</style>",
    "<link rel=stylesheet href=https://a.example>",
    "<form action=https://a.example><input name=q><button>x</button></form>",
    "<object data=https://a.example></object><embed src=https://a.example>",
    "<math><mi xlink:href='javascript:alert(1)'>x</mi></math>",
    "<base href=https://a.example>",
    "<meta http-equiv=refresh content='0;url=https://a.example'>",
    "<video src=https://a.example/v autoplay></video><audio src=https://a.example/a></audio>",
    "<p style='background:url(https://a.example/p)' id=page name=x class=button onclick=alert(1)>x</p>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x) [y](/admin/keys) [z](#/keys) [w](//a.example)",
    "<a href='jav&#x09;ascript:alert(1)'>x</a>",
    "![x](https://a.example/secret.png)",
    "<img src=//a.example/x.png srcset='https://a.example/y.png 2x'>",
    "<picture><source srcset=https://a.example/x.png><img src=https://a.example/y.png></picture>",
    "<table background=https://a.example/x.png><tr><td>x</td></tr></table>",
    "```html\n<script>alert(1)</script>\n```",
    '![x"><script>alert(1)</script>](https://a.example/"onerror=alert(1))',
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    '```x"onload="alert(1)\ny\n```',
  ])("does nothing: %s", (source) => {
    const found = place(nodesOf(source));
    const forbidden =
      "script, style, link, iframe, object, embed, form, input, button, svg, math, base, meta, video, audio, source, picture";
    expect(found.querySelector(forbidden)).toBeNull();
    for (const element of found.querySelectorAll("*"))
      for (const { name, value } of element.attributes) {
        expect(name).not.toMatch(/^on|^style$|^id$|^name$|srcset|background|^data-/);
        if (name === "href") expect(value).toMatch(/^(https?:\/\/|mailto:)/);
        if (name === "src") expect(value).toMatch(/^data:image\/(png|jpeg|gif|webp);base64,/);
        if (name === "class") expect(value).toMatch(/^(language-[\w+#.-]+|heading|wide)$/);
      }
  });

  it("links to others without telling them where one comes from", () => {
    const link = place(nodesOf("[Nile](https://example.org/n 'River')")).querySelector("a");
    expect(link?.getAttribute("href")).toBe("https://example.org/n");
    expect(link?.target).toBe("_blank");
    expect(link?.rel).toBe("noopener noreferrer nofollow");
    expect(link?.title).toBe("River");
  });

  it("shows a picture from elsewhere as a link, and its own", () => {
    const far = place(nodesOf("![A cat](https://example.org/cat.png)"));
    expect(far.querySelector("img")).toBeNull();
    expect(far.querySelector("a")?.textContent).toBe("A cat");
    expect(far.querySelector("a")?.getAttribute("href")).toBe("https://example.org/cat.png");
    const own = place(nodesOf("![dot](data:image/png;base64,iVBORw0KGgo=)"));
    expect(own.querySelector("img")?.alt).toBe("dot");
  });

  it("is Markdown as people know it", () => {
    expect(html("**bold** and `code`")).toBe(
      "<p><strong>bold</strong> and <code>code</code></p>\n",
    );
    const table = place(nodesOf("| a | b |\n|---|--:|\n| 1 | 2 |")).querySelector(".wide > table");
    expect(table?.querySelectorAll("th, td")).toHaveLength(4);
    expect(table?.querySelector("td[align=right]")?.textContent).toBe("2");
    expect(place(nodesOf("- [x] done\n- [ ] open")).textContent).toMatch(/☑ done\s+☐ open/);
    expect(place(nodesOf("one\ntwo")).querySelectorAll("br")).toHaveLength(1);
    expect(
      place(nodesOf("a<br>b H<sub>2</sub>O <kbd>x</kbd>")).querySelectorAll("br, sub, kbd"),
    ).toHaveLength(3);
  });

  it("has headings below those of the page", () => {
    const heading = place(nodesOf("# Rivers")).querySelector("[role=heading]");
    expect(heading?.getAttribute("aria-level")).toBe("3");
    expect(heading?.textContent).toBe("Rivers");
  });

  it("names the language of its code", () => {
    const code = place(nodesOf("```c++ {1}\nint x;\n```")).querySelector("pre > code");
    expect(code && languageOf(code)).toBe("c++");
    expect(code?.textContent).toBe("int x;\n");
  });

  it("finds links that are defined elsewhere", () => {
    const links = { n: { href: "https://example.org/n", title: "" } };
    expect(place(nodesOf("See [this][n].", links)).querySelector("a")?.href).toBe(
      "https://example.org/n",
    );
  });
});

it("highlighted code is spans and text", () => {
  const found = place(harmless('<span class="hljs-keyword">x</span><b onclick=x>y</b>'));
  expect(found.innerHTML).toBe("<span>x</span><b>y</b>");
});

describe("what is on the page already", () => {
  it("stays as it is while the text grows", () => {
    const element = document.createElement("div");
    morph(element, nodesOf("First.\n\n- one\n- tw"));
    const [paragraph, , list] = element.childNodes;
    const item = element.querySelector("li");
    morph(element, nodesOf("First.\n\n- one\n- two\n- three"));
    expect(element.childNodes[0]).toBe(paragraph);
    expect(element.childNodes[2]).toBe(list);
    expect(element.querySelector("li")).toBe(item);
    expect(element.textContent).toMatch(/First\.\s+one\s+two\s+three/);
  });

  it.each([
    ["One *em*", "One *em* and **more**"],
    ["# Title", "Title"],
    ["a\n\nb\n\nc", "a"],
    ["| a |\n|--", "| a |\n|---|\n| 1 |"],
    ["", "x"],
    ["x", ""],
    ["[a](https://a.example)", "[a](https://b.example)"],
  ])("becomes what is wanted: %j, then %j", (before, now) => {
    const element = document.createElement("div");
    morph(element, nodesOf(before));
    morph(element, nodesOf(now));
    expect(element.innerHTML).toBe(html(now));
  });
});

describe("what is nested more deeply than can be read", () => {
  it.each([">", "- "])("is shown as it is: %j", (mark) => {
    const source = `${mark.repeat(20_000)}<b>deep</b>`;
    const found = place(nodesOf(source));
    expect(found.textContent).toBe(source);
    expect(found.querySelector("b")).toBeNull();
  });
});

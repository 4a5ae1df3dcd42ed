import { Component, render } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { EMPTY, split, type Block, type Links, type Split } from "./blocks";
import { Code } from "./Code";
import { languageOf, morph, nodesOf } from "./markdown";

interface Props {
  readonly text: string;
  /** It is being written: the end of it may change. */
  readonly growing?: boolean;
}

/** Markdown of a model. While it grows, only its last block is worked out anew. */
export function Markdown({ text, growing = false }: Props) {
  const last = useRef<Split>(EMPTY);
  // A link may be defined behind where it is used, so what is whole is read once more as a whole.
  const plain = text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
  const found = split(plain, last.current);
  last.current = found;
  return (
    <div class="markdown">
      {found.blocks.map((block, index) => (
        <One
          key={block.at}
          block={block}
          links={found.links}
          settled={!growing || index < found.closed}
          final={!growing}
        />
      ))}
    </div>
  );
}

interface OneProps {
  readonly block: Block;
  readonly links: Links;
  readonly settled: boolean;
  readonly final: boolean;
}

class One extends Component<OneProps> {
  override shouldComponentUpdate(now: OneProps): boolean {
    const before = this.props;
    return (
      before.block.raw !== now.block.raw ||
      before.settled !== now.settled ||
      (before.final !== now.final && now.block.raw.includes("["))
    );
  }

  override render({ block, links, settled }: OneProps) {
    const { raw, code } = block;
    if (!code) return <Prose raw={raw} links={links} settled={settled} />;
    return <Code text={code.text} language={code.language} open={code.open && !settled} />;
  }
}

function Prose({
  raw,
  links,
  settled,
}: Pick<OneProps, "links" | "settled"> & { readonly raw: string }) {
  const element = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    if (element.current) morph(element.current, nodesOf(raw, links));
  });
  useEffect(() => {
    if (!settled || !element.current) return;
    return withCode(element.current);
  });
  return <div ref={element} />;
}

/** Give code within lists and quotes what code has elsewhere. Returns what takes it away again. */
function withCode(place: Element): () => void {
  const places: Element[] = [];
  for (const pre of place.querySelectorAll("pre")) {
    const code = pre.querySelector("code");
    const around = document.createElement("div");
    pre.replaceWith(around);
    render(
      <Code
        text={(pre.textContent ?? "").replace(/\n$/, "")}
        language={code ? languageOf(code) : ""}
      />,
      around,
    );
    places.push(around);
  }
  return () => {
    for (const one of places) render(null, one);
  };
}

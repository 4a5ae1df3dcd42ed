import type { ComponentChildren } from "preact";
import { State } from "../../components/State";
import { size } from "../../format";
import { system as t } from "../../texts/en/system";
import type { Node } from "./types";

/** The other machines of the cluster: whether they are there, what they have, who runs there. */
export function Nodes({ nodes }: { readonly nodes: readonly Node[] }) {
  return (
    <section class="system-part" aria-labelledby="system-nodes">
      <h2 id="system-nodes">{t.nodes}</h2>
      <ul class="system-cards">
        {nodes.map((one) => (
          <li key={one.name} class="system-card system-node">
            <h3>{one.name}</h3>
            {stateOf(one)}
            <dl class="system-facts">
              <Fact name={t.address}>{one.host}</Fact>
              {one.up && <Fact name={t.devices}>{devicesOf(one)}</Fact>}
              <Fact name={t.nodeRuns}>{runsOf(one) || t.nodeRunsNothing}</Fact>
              {one.up && one.no_rpc != null && (
                <Fact name={t.spans}>
                  <span class="soft">{t.spansNot(one.no_rpc)}</span>
                </Fact>
              )}
              {one.up && !!one.troubles?.length && (
                <Fact name={t.troubles}>
                  {one.troubles.map((trouble) => (
                    <p key={trouble} class="soon">
                      {trouble}
                    </p>
                  ))}
                </Fact>
              )}
            </dl>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Fact({ name, children }: { readonly name: string; readonly children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function stateOf(node: Node) {
  if (!node.up) return <State state="failed" words={t.down(node.problem)} />;
  return (
    <State state={node.drained ? "draining" : "ready"} words={node.drained ? t.drained : t.up} />
  );
}

function devicesOf({ devices }: Node) {
  return devices.map((one) => (
    <p key={one.name}>
      {one.name} <span class="soft">{t.forModels(size(one.for_models))}</span>
    </p>
  ));
}

/** Each model once, with how many copies of it run there. */
function runsOf({ models }: Node): string {
  const names = [...new Set(models)];
  return names
    .map((name) => t.nodeCopies(name, models.filter((one) => one === name).length))
    .join(", ");
}

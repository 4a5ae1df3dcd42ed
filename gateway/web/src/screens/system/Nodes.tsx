import { State } from "../../components/State";
import { type Column, Table } from "../../components/Table";
import { size } from "../../format";
import { system as t } from "../../texts/en/system";
import type { Node } from "./types";

const COLUMNS: readonly Column<Node>[] = [
  { head: t.node, cell: (one) => one.name, sort: (one) => one.name },
  { head: t.nodeState, cell: stateOf },
  { head: t.address, cell: (one) => one.host },
  { head: t.devices, cell: devicesOf },
  { head: t.nodeRuns, cell: (one) => one.models.join(", ") || t.nodeRunsNothing },
];

/** The other machines of the cluster: whether they are there, what they have, who runs there. */
export function Nodes({ nodes }: { readonly nodes: readonly Node[] }) {
  return (
    <section class="system-part" aria-labelledby="system-nodes">
      <h2 id="system-nodes">{t.nodes}</h2>
      <Table
        title={t.nodes}
        titleHidden
        columns={COLUMNS}
        rows={nodes}
        rowKey={(one) => one.name}
      />
    </section>
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

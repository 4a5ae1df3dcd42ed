"""What models need on each node, as the nodes say, and which of them have their files."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.backends.placement import Demand
from gateway.cluster.files import has_files
from gateway.cluster.known_node import KnownNode
from gateway.cluster.offering import Asked
from gateway.cluster.own_files import OwnFiles
from gateway.cluster.rpc_program import why_no_help
from gateway.errors import GatewayError
from gateway.models.local_model import LocalModel
from gateway.names import HERE

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one model: for which entry, what it needs where, who has its files."""

    identity: tuple[object, ...]
    elsewhere: Mapping[str, Demand]
    here: bool
    sources: tuple[str, ...]


class Demands:
    """The demands of models on ``nodes``. ``own``: the files of this machine, which nodes may
    copy. ``shared``: none of them may run on this machine, which
    other gateways could not reach.
    """

    def __init__(
        self,
        nodes: Mapping[str, KnownNode],
        llm_storage: Path,
        own: OwnFiles,
        *,
        shared: bool,
    ) -> None:
        self._nodes = nodes
        self._llm_storage = llm_storage
        self._own = own
        self._shared = shared
        self._known: dict[str, _Known] = {}

    def clear(self) -> None:
        """Forget everything: nodes have changed."""
        self._known.clear()

    def of(self, spec: LocalModel, demand: Demand) -> Demand:
        """Return ``demand``, of this machine, with what is known of ``spec``'s on each node."""
        if not self.knows(spec):
            return demand
        known = self._known[spec.name]
        return replace(demand, elsewhere=known.elsewhere, here=known.here)

    def knows(self, spec: LocalModel) -> bool:
        """Return whether the nodes have said what ``spec`` needs there."""
        known = self._known.get(spec.name)
        return known is not None and known.identity == _identity(spec)

    def takes(self, spec: LocalModel) -> bool:
        """Return whether there is a node where ``spec`` may run."""
        known = self._known.get(spec.name)
        if known is None:
            return False
        return any(
            self._nodes[name].takes_models for name in known.elsewhere if name in self._nodes
        )

    def sources(self, spec: LocalModel, target: KnownNode) -> list[Asked]:
        """Return who may have the files of ``spec`` for ``target``: nodes that have said so, all of
        them where that isn't known, and this machine.
        """
        known = self._known.get(spec.name)  # not after news of a node, until it is looked up again
        names = tuple(self._nodes) if known is None else known.sources
        nodes = (self._nodes[name] for name in names if name in self._nodes)
        found: list[Asked] = [node for node in nodes if node is not target and node.up]
        return [*found, self._own.towards(target.host)]

    async def look_up(self, spec: LocalModel) -> None:
        """Ask the nodes what ``spec`` needs there.

        One without its files can take it where its entry names that node: then they are copied
        there from another, or from here. What it needs, one that has them says.
        """
        nodes = [
            n for n in self._nodes.values() if n.up and (not spec.nodes or n.name in spec.nodes)
        ]
        others = [n for n in self._nodes.values() if n.up and n not in nodes]
        asked = await asyncio.gather(*(self._ask(node, spec) for node in nodes))
        found = {n.name: need for n, need in zip(nodes, asked, strict=True) if need is not None}
        sources = list(found)
        if spec.nodes and len(found) < len(nodes):
            for node in others:
                if not sources and await self._ask(node, spec) is not None:
                    sources.append(node.name)
            lack = [node for node in nodes if node.name not in found]
            first = self._nodes[sources[0]] if sources else None
            needs = await asyncio.gather(*(self._ask_for(node, spec, first) for node in lack))
            found |= {
                node.name: replace(need, devices=(), copied=True)
                for node, need in zip(lack, needs, strict=True)
                if need is not None
            }
        here = spec.may_run_here(cluster=True) and not self._shared
        if here and found and not spec.nodes:
            here = await asyncio.to_thread(has_files, spec, self._llm_storage)
        if spec.machines > 1:
            found = {name: self._with_helpers(spec, name, need) for name, need in found.items()}
        self._known[spec.name] = _Known(_identity(spec), found, here, tuple(sources))

    async def _ask_for(
        self, target: KnownNode, spec: LocalModel, source: KnownNode | None
    ) -> Demand | None:
        """Return what ``spec`` would need on ``target``, as ``source`` says; None: as we do."""
        if source is not None:
            return await self._ask(source, spec, target)
        return await self._own.demand(spec, gpu=target.has.gpu)

    def _with_helpers(self, spec: LocalModel, node: str, demand: Demand) -> Demand:
        """Return ``demand``, of ``spec`` on ``node``, with the nodes that can lend it devices."""
        leads = self._nodes[node].has.rpc
        helpers = tuple(
            name
            for name, other in self._nodes.items()
            if name != node
            and other.takes_models
            and (not spec.nodes or name in spec.nodes)
            and why_no_help(leads, other.has.rpc) is None
        )
        return replace(demand, helpers=helpers, most_helpers=spec.machines - 1)

    def alone(self, spec: LocalModel) -> str | None:
        """Return why ``spec``, which may span machines, doesn't; None: it may not, or does."""
        known = self._known.get(spec.name)
        if spec.machines < 2 or known is None:
            return None
        if any(demand.helpers for demand in known.elsewhere.values()):
            return None
        for name in known.elsewhere:
            for other in self._nodes.values():
                may = other.takes_models and (not spec.nodes or other.name in spec.nodes)
                if other.name != name and may:
                    why = why_no_help(self._nodes[name].has.rpc, other.has.rpc)
                    return f"{other.name} can lend nothing to {name}: {why}"
        return "there is no other node to lend it devices"

    async def _ask(
        self, node: KnownNode, spec: LocalModel, target: KnownNode | None = None
    ) -> Demand | None:
        """Return what ``spec`` needs on ``node``, or would need on ``target``."""
        try:
            gpu = None if target is None else target.has.gpu
            demand: Demand | None = await node.ask("demand", spec, gpu)
        except GatewayError as error:
            _log.info("what %s needs on %s is not known: %s", spec.name, node.name, error.message)
            return None
        if demand is None:
            return None
        return replace(demand, devices=tuple(f"{node.name}/{one}" for one in demand.devices))

    def problem(self, spec: LocalModel, head: str | None) -> str | None:
        """Return why no node takes ``spec``, if none does; None: some node does.

        ``head``: why the head of the cluster gives no answer, if it doesn't.
        """
        if self.takes(spec):
            return None
        may = [n for n in self._nodes.values() if not spec.nodes or n.name in spec.nodes]
        unheard = sorted(set(spec.nodes) - {n.name for n in may} - {HERE})
        reasons = [_why(node) for node in may]
        reasons += [f"the node {name} has never joined" for name in unheard]
        if self._shared and spec.may_run_here(cluster=True):
            reasons.append("gateways that share models load none on their own machine (here)")
        if head is not None:
            reasons.append(f"the head of the cluster gives no answer ({head})")
        return "; ".join(reasons) or "no node has joined"


def _why(node: KnownNode) -> str:
    if node.drained:
        return f"the node {node.name} is drained"
    if node.up:
        return f"the node {node.name} hasn't its files"
    return f"the node {node.name} is away ({node.problem})"


def _identity(spec: LocalModel) -> tuple[object, ...]:
    return (*spec.process_identity(), spec.memory, spec.nodes, spec.machines)

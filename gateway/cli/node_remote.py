"""``llm-gateway node list | drain | resume | remove``: what a gateway knows of its cluster."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final
from urllib.parse import quote

from gateway.cli.options import add_json
from gateway.cli.parser import explain
from gateway.cli.table import print_table
from gateway.cli.terminal import clean
from gateway.cli.which_gateway import add_gateway, client_for

#: Seconds for the requests at a node that is removed to end.
_PATIENCE: Final = 3600.0


def add_list(parser: argparse.ArgumentParser) -> None:
    """Add the options of `node list`."""
    add_gateway(parser)
    add_json(parser)
    parser.set_defaults(run=run_list)
    explain(
        parser,
        "Lists the machines that have joined a gateway's cluster, with their devices, and what "
        "runs there.",
        examples=["llm-gateway node list", "llm-gateway node list --json"],
        fields={
            "cluster": "`engine`, `address`, `placement`, and `problem` if its head gives no "
            "answer; or null: the gateway has none",
            "nodes[].name": "its name",
            "nodes[].up": "whether it answers",
            "nodes[].drained": "whether it takes no more models",
            "nodes[].problem": "why it isn't up, or null",
            "nodes[].host": "its address",
            "nodes[].version": "of llm-gateway there",
            "nodes[].gpu": "whether it has a GPU that its llama-server can use",
            "nodes[].no_rpc": "why it can't lead models that span machines, or can't lend devices "
            "to them, or null",
            "nodes[].devices": "with bytes in all, free, and for models",
            "nodes[].models": "names of the models that the gateway runs there",
            "nodes[].llama_server": "the version of its llama-server, or null",
            "nodes[].troubles": "what is wrong there, though it is used",
            "nodes[].clock_off": "seconds by which its clock is ahead of the gateway's",
        },
    )


def add_change(parser: argparse.ArgumentParser, change: str) -> None:
    """Add the options of `node drain`, `node resume` and `node remove`."""
    add_gateway(parser)
    parser.add_argument("name", metavar="NAME", help="the node, by the name it has joined with")
    parser.set_defaults(run=run_change, change=change)
    explain(parser, _ABOUT[change], examples=[f"llm-gateway node {change} attic"])


_ABOUT: Final = {
    "drain": "Lets a machine take no more models, until `node resume`. What runs there finishes "
    "its requests, no stream breaks; what was loaded there is loaded again on another.",
    "resume": "Lets a machine take models again.",
    "remove": "Drains a machine, waits until nothing runs there any more, and forgets it. To use "
    "it again, let it join again.",
}


def run_list(args: argparse.Namespace) -> int:
    """Print it. Return 0."""
    client = client_for(args)
    told = client.ask("GET", "/admin/nodes")
    if args.json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    cluster, nodes = told["cluster"], told["nodes"]
    if cluster is None:
        print(f"{client.name} has no cluster: `cluster: {{engine: ray}}` in gateway.yaml is one")
        return 0
    if cluster["problem"] is not None:
        print(clean(f"warning: the head of the cluster gives no answer: {cluster['problem']}"))
    if not nodes:
        print("no machine has joined yet: `llm-gateway node join HEAD`, there")
        return 0
    print_table(("NODE", "STATE", "ADDRESS", "FOR MODELS", "RUNS"), [_row(one) for one in nodes])
    for one in nodes:
        if one["problem"]:
            print(clean(f"{one['name']}: {one['problem']}"))
        for trouble in one["troubles"] if one["up"] else ():
            print(clean(f"{one['name']}: {trouble}"))
    return 0


def run_change(args: argparse.Namespace) -> int:
    """Do it, and tell what is so now. Return 0."""
    client, name, change = client_for(args), args.name, args.change
    path = f"/admin/nodes/{quote(name, safe='')}"
    if change == "remove":
        client.ask("DELETE", path, timeout=_PATIENCE)
        print(clean(f"{name} is removed, and nothing of {client.name} runs there."))
        return 0
    node = client.ask("POST", f"{path}/{change}")
    if change == "resume":
        print(clean(f"{name} takes models again."))
    elif node["models"]:
        print(clean(f"{name} takes no more models; {', '.join(node['models'])} will leave it."))
    else:
        print(clean(f"{name} takes no more models, and none is there."))
    return 0


def _row(node: dict[str, Any]) -> tuple[str, ...]:
    state = "drained" if node["drained"] else "up"
    devices = ", ".join(
        f"{one['name']} {one['for_models'] / 2**30:.1f} GiB" for one in node["devices"]
    )
    return (
        node["name"],
        state if node["up"] else "away",
        node["host"] or "-",
        devices or "-",
        ", ".join(node["models"]) or "-",
    )

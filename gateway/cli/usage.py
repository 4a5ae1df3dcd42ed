"""``llm-gateway usage``: who used how much."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final

from gateway.cli.client import Refused
from gateway.cli.parser import explain
from gateway.cli.table import print_table
from gateway.cli.which_gateway import add_gateway, client_for

_COUNTERS: Final = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")
_TITLES: Final = ("REQUESTS", "PROMPT", "CACHED", "ANSWER")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_gateway(parser)
    parser.add_argument(
        "--days", type=int, metavar="N", default=30, help="today and those before (default: 30)"
    )
    parser.add_argument(
        "--by", choices=("key", "model", "day"), help="one line for each of these, not for both"
    )
    parser.add_argument("--json", action="store_true", help="the same for programs")
    parser.set_defaults(run=run)
    explain(
        parser,
        "Shows requests and tokens by key and model, the most tokens first, or by"
        " day, the newest last. Days are in UTC; days without requests are left "
        "out.",
        examples=["llm-gateway usage --days 7 --by key", "llm-gateway usage --by day --json"],
        fields={
            "[].key?": "id of the key; not with `--by model` or `--by day`",
            "[].name?": "its name, or null for one that is unknown now; beside `key`",
            "[].model?": "name of the model; not with `--by key` or `--by day`",
            "[].day?": "like 2026-01-31; with `--by day` only",
            "[].requests": "number of requests",
            "[].prompt_tokens": "tokens of prompts",
            "[].completion_tokens": "tokens of answers",
            "[].cached_tokens": "tokens of prompts that had not to be computed",
        },
    )


def run(args: argparse.Namespace) -> int:
    """Print a table of requests and tokens, with the totals below it."""
    by = (args.by,) if args.by else ("key", "model")
    rows: list[dict[str, Any]] = client_for(args).ask(
        "GET", f"/admin/usage?days={args.days}&by={','.join(by)}"
    )["usage"]
    if rows and not rows[0].keys() >= {*by}:
        raise Refused(f"that gateway is older, and doesn't tell usage by {args.by}")
    for row in rows:
        row.setdefault("cached_tokens", 0)  # a gateway that is older doesn't tell
    if args.by != "day":
        rows.sort(key=lambda row: -(row["prompt_tokens"] + row["completion_tokens"]))
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    if not rows:
        last = "today" if args.days == 1 else f"in the last {args.days} days"
        print(f"no requests {last}", file=sys.stderr)
        return 0
    table = [(*(_named(row, name) for name in by), *_counted(row)) for row in rows]
    if len(rows) > 1:
        total = {counter: sum(row[counter] for row in rows) for counter in _COUNTERS}
        table.append(("total", *("" for _ in by[1:]), *_counted(total)))
    print_table((*(name.upper() for name in by), *_TITLES), table)
    return 0


def _named(row: dict[str, Any], by: str) -> str:
    """Return the usage by the names of keys; two keys of one name are told apart."""
    if by == "key" and row["name"]:
        return f"{row['name']} ({row['key']})"
    return str(row[by])


def _counted(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{row[counter]:,}" for counter in _COUNTERS)

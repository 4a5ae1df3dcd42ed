"""``llm-gateway pull OWNER/REPO[:QUANT]``: download a model from the hub, and add it."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.cli.parser import explain
from gateway.cli.pull_table import ask
from gateway.cli.which_gateway import add_gateway, client_for, remote_client
from gateway.config.load import load_settings
from gateway.plurals import counted

if TYPE_CHECKING:
    from gateway.backends.pulled import Offer, PullPlace
    from gateway.config.settings import Settings
    from gateway.models.hub import Variant
    from gateway.models.hub_client import Hub
    from gateway.models.pull import PullPlan

#: Prefixes that people copy from a page of the hub, or know from other programs.
_BEFORE: Final = re.compile(r"(?:hf:(?://)?|(?:https://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options of the command."""
    explain(
        parser,
        "Downloads a GGUF model from the hub (huggingface.co, or its mirror in "
        "HF_ENDPOINT) into llm_storage: all parts of a split model, and its "
        "projector for pictures. An interrupted download continues where it "
        "stopped; the hash is checked at the end. Then an entry that fits this "
        "machine is written into models.json. HF_TOKEN is a token for gated and "
        "private models. With --url that gateway downloads the model to its own "
        "machine, with --node a machine of its cluster does, and Ctrl-C only stops "
        "watching.",
        examples=[
            "llm-gateway pull unsloth/Qwen3-4B-GGUF",
            "llm-gateway pull unsloth/Qwen3-4B-GGUF:Q4_K_M --name qwen",
            "llm-gateway pull unsloth/Qwen3-4B-GGUF --yes --url https://box.example.com",
            "llm-gateway pull unsloth/Qwen3-4B-GGUF --node attic",
        ],
        exits={
            2: "the command line was not understood, or nobody was there to choose",
            130: "Ctrl-C; the same again goes on",
        },
        fields={
            "repository": "OWNER/REPO",
            "revision": "the commit that all of this is of",
            "gated": "whether its owner has to let one in",
            "shut": "whether that is so, and there is no token (HF_TOKEN)",
            "left_out": "how many files were left out, for names that can't be used",
            "quantisations[].name": "what stands behind the colon",
            "quantisations[].files": "their paths in the repository",
            "quantisations[].missing": "how many parts of a split model it lacks",
            "quantisations[].size": "bytes of its files",
            "quantisations[].projector": "the file that pictures need; or null",
            "quantisations[].download": "bytes to fetch: its files, and the projector",
            "quantisations[].memory": "bytes that it will take, about",
            "quantisations[].fits": "yes, partly (not all of it on the GPU) or no",
            "quantisations[].why": "the numbers behind that, a sentence",
            "quantisations[].recommended": "whether --yes takes it",
        },
    )
    add_gateway(parser)
    parser.add_argument(
        "model",
        metavar="OWNER/REPO[:QUANT]",
        help="the repository, and which of its files: a quantisation like Q4_K_M, or a file's "
        "name; without one it lists what there is and what fits, and asks",
    )
    parser.add_argument(
        "--yes", action="store_true", help="without QUANT: take the recommended one, without asking"
    )
    parser.add_argument(
        "--json", action="store_true", help="print what the repository has, download nothing"
    )
    parser.add_argument("--name", metavar="NAME", help="what to call the model in models.json")
    parser.add_argument(
        "--no-entry", action="store_true", help="download the files, and leave models.json alone"
    )
    parser.add_argument("--revision", metavar="REV", help="a branch, a tag or a commit")
    parser.add_argument(
        "--replace", action="store_true", help="download again what differs from the hub's"
    )
    parser.add_argument(
        "--node",
        metavar="NAME",
        help="the machine of the gateway's cluster that downloads it, for itself",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Return 0 if the model is here; 1 if it failed; 2 if there is a choice to make; 130
    after Ctrl-C.
    """
    from gateway.backends import pulled
    from gateway.models.hub import check_revision, parse_reference
    from gateway.models.hub_client import Hub

    given = _BEFORE.sub("", args.model, count=1)
    reference = parse_reference(given)
    revision = check_revision(args.revision) if args.revision is not None else None
    gateway = client_for(args) if args.node is not None else remote_client(args)
    if gateway is not None:
        from gateway.cli import pull_remote

        return pull_remote.run(gateway, args, reference, revision)
    place = _place(load_settings(args.config).settings)
    with_entry = not (args.no_entry or args.json)
    pulled.check(place, args.name, entry=with_entry)
    client = Hub()
    offer = pulled.look(place, client, reference, revision)
    if args.json:
        print(json.dumps(offer.report(), indent=2))
        return 0
    if reference.quantisation is None and not args.yes:
        variant = ask(offer.report(), partial(_taken, offer))
        if variant is None:
            return 2
    else:
        variant = pulled.chosen(offer)
    plan = pulled.planned(place, offer, variant)
    _tell(plan, offer)
    try:
        _fetch(plan, client, args)
    except KeyboardInterrupt:
        has = f" ({_size(plan.stored)} of {_size(plan.size)} have come)" if plan.stored else ""
        print(f"\nstopped{has}: run the same again to go on", file=sys.stderr)
        return 130
    if with_entry:
        _enter(place, plan, args.name)
    return 0


def _place(settings: Settings) -> PullPlace:
    from gateway.backends.pulled import PullPlace

    wanted = settings.scheduler.memory_budget
    return PullPlace(
        settings.llm_storage,
        settings.models_file,
        settings.llama_server,
        None if wanted == "auto" else wanted,
    )


# --- which -----------------------------------------------------------------------------------


def _taken(offer: Offer, answer: str | int) -> Variant:
    """Return the quantisation of that number or name."""
    from gateway.models import hub

    if isinstance(answer, int):
        return hub.complete(offer.repository.variants[answer], offer.repository)
    return hub.choose(offer.repository, answer)


# --- fetching --------------------------------------------------------------------------------


def _tell(plan: PullPlan, offer: Offer) -> None:
    files = counted(len(plan.files), "file")
    folder = plan.place(plan.files[0]).parent
    label = plan.variant.label
    print(f"{plan.repository.id} {label}: {files}, {_size(plan.size)}\ninto {folder}")
    fits = offer.fits(plan.variant)
    if fits == "no":
        print(
            f"warning: it needs about {_size(_about(plan))} of memory, and this machine has "
            f"{_size(offer.room.main + offer.room.ram)} for it",
            file=sys.stderr,
        )


def _about(plan: PullPlan) -> int:
    from gateway.backends.pulled import about

    return about(plan.size)


def _fetch(plan: PullPlan, client: Hub, args: argparse.Namespace) -> None:
    from gateway.cli.pull_progress import shown
    from gateway.models.pull import pull

    with shown(sys.stderr) as told:
        pull(plan, client, told, replace=args.replace)


def _enter(place: PullPlace, plan: PullPlan, name: str | None) -> None:
    from gateway.backends.pulled import add_entry

    entry = add_entry(place, plan, name)
    if isinstance(entry, str):
        print(f"done: it is the model {entry} of {place.models_file}")
        return
    if entry.doubt:
        print(f"warning: {entry.doubt}", file=sys.stderr)
    context = entry.entry["params"].get("ctxSize", 0) // entry.entry.get("parallel", 1)
    print(
        f"done: it is the model {entry.name} of {place.models_file}\n"
        f"      {context:,} tokens of context, about {_size(entry.memory)} of memory\n"
        f"Try it: llm-gateway chat {shlex.quote(entry.name)}"
    )


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"

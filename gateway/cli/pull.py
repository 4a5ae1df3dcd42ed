"""``llm-gateway pull OWNER/REPO[:QUANT]``: a model of the hub, fetched and made one of ours."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from typing import TYPE_CHECKING, Final

from gateway.cli.options import add_config
from gateway.cli.parser import explain
from gateway.cli.table import print_table
from gateway.cli.terminal import clean, is_terminal
from gateway.config import load_settings

if TYPE_CHECKING:
    from gateway.backends.pulled import Offer, Place
    from gateway.config import Settings
    from gateway.models.hub import Variant
    from gateway.models.hub_client import Hub
    from gateway.models.pull import Plan

_FITS: Final = {"yes": "yes", "partly": "in part on the GPU", "no": "no"}
#: What people copy from a page of the hub, or are used to from other programs.
_BEFORE: Final = re.compile(r"(?:hf:(?://)?|(?:https://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    explain(
        parser,
        "Fetches a GGUF model from the hub (huggingface.co, or its mirror in HF_ENDPOINT) into "
        "llm_storage: all parts of a split one, and its projector for pictures. What was broken "
        "off goes on where it ended; the hash is checked at the end. Then an entry that fits this "
        "machine is written into models.json. HF_TOKEN is a token for gated and private "
        "ones.",
        examples=[
            "llm-gateway pull unsloth/Qwen3-4B-GGUF",
            "llm-gateway pull unsloth/Qwen3-4B-GGUF:Q4_K_M --name qwen",
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
    add_config(parser)
    parser.add_argument(
        "model",
        metavar="OWNER/REPO[:QUANT]",
        help="the repository, and which of its files: a quantisation like Q4_K_M, or a file's "
        "name; without one it lists what there is and what fits, and asks",
    )
    parser.add_argument(
        "--yes", action="store_true", help="without QUANT: what is recommended, without a question"
    )
    parser.add_argument(
        "--json", action="store_true", help="print what the repository has, fetch nothing"
    )
    parser.add_argument("--name", metavar="NAME", help="what to call the model in models.json")
    parser.add_argument(
        "--no-entry", action="store_true", help="fetch the files, and leave models.json alone"
    )
    parser.add_argument("--revision", metavar="REV", help="a branch, a tag or a commit")
    parser.add_argument(
        "--replace", action="store_true", help="fetch again what is here and differs from the hub's"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0: it is there; 1: stderr says why not; 2: there is a choice to make; 130: Ctrl-C."""
    from gateway.backends import pulled
    from gateway.models.hub import check_revision, parse_reference
    from gateway.models.hub_client import Hub

    given = _BEFORE.sub("", args.model, count=1)
    reference = parse_reference(given)
    revision = check_revision(args.revision) if args.revision is not None else None
    place = _place(load_settings(args.config).settings)
    with_entry = not (args.no_entry or args.json)
    pulled.check(place, args.name, entry=with_entry)
    client = Hub()
    offer = pulled.look(place, client, reference, revision)
    if args.json:
        print(json.dumps(offer.report(), indent=2))
        return 0
    if reference.quantisation is None and not args.yes:
        variant = _ask(offer)
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


def _place(settings: Settings) -> Place:
    from gateway.backends.pulled import Place

    wanted = settings.scheduler.memory_budget
    return Place(
        settings.llm_storage,
        settings.models_file,
        settings.llama_server,
        None if wanted == "auto" else wanted,
    )


# --- which -----------------------------------------------------------------------------------


def _ask(offer: Offer) -> Variant | None:
    """Which one, of those there are; ``None``: that isn't said, and stderr says how to."""
    variants = offer.repository.variants
    best = offer.recommended
    _show(offer)
    example = (best or variants[0]).label
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        print(
            f"error: name one of them: llm-gateway pull {offer.repository.id}:{example}"
            + (", or --yes for that" if best is not None else ""),
            file=sys.stderr,
        )
        return None
    default = str(variants.index(best) + 1) if best is not None else ""
    while True:
        print()
        try:
            answer = input(f"Fetch which? {f'[{default}] ' if default else ''}").strip()
        except EOFError:
            print()
            return None
        if (found := _answered(answer or default, offer)) is not None:
            return found


def _answered(answer: str, offer: Offer) -> Variant | None:
    from gateway.errors import GatewayError
    from gateway.models import hub

    variants = offer.repository.variants
    try:
        if answer.isdecimal() and 1 <= int(answer[:6]) <= len(variants):
            return hub.complete(variants[int(answer) - 1], offer.repository)
        if answer and not answer.isdecimal():
            return hub.choose(offer.repository, answer)
    except GatewayError as error:
        print(clean(error.message))
        return None
    print(f"a number from 1 to {len(variants)}, or a name; Ctrl-C ends it")
    return None


def _show(offer: Offer) -> None:
    """What there is, the smallest first."""
    best = offer.recommended
    rows = []
    for number, one in enumerate(offer.repository.variants, 1):
        note = "recommended" if one is best else ""
        if one.missing:
            note = f"{one.missing} parts are missing"
        elif len(one.files) > 1:
            note += f"{', ' if note else ''}{len(one.files)} parts"
        rows.append((str(number), one.label, _size(offer.size(one)), _FITS[offer.fits(one)], note))
    print_table(("", "QUANTISATION", "SIZE", "FITS", ""), rows)
    notes = []
    if offer.repository.projectors:
        notes.append("SIZE is with the projector, which pictures need.")
    if offer.shut:
        notes.append("It is gated: HF_TOKEN must be a token of an account that was let in.")
    if offer.repository.left_out:
        notes.append(f"Left out for names that can't be used: {offer.repository.left_out}.")
    if best is None:
        notes.append("Nothing fits the memory of this machine.")
    if notes:
        print("", *notes, sep="\n")


# --- fetching --------------------------------------------------------------------------------


def _tell(plan: Plan, offer: Offer) -> None:
    files = f"{len(plan.files)} files" if len(plan.files) > 1 else "1 file"
    folder = plan.place(plan.files[0]).parent
    label = plan.variant.label
    print(f"{plan.repository.id} {label}: {files}, {_size(plan.size)}\ninto {folder}")
    fits = offer.fits(plan.variant)
    if fits == "no":
        print(
            f"warning: it needs about {_size(_about(plan))} of memory, and this machine has "
            f"{_size(offer.room.main + offer.room.beside)} for it",
            file=sys.stderr,
        )


def _about(plan: Plan) -> int:
    from gateway.backends.pulled import about

    return about(plan.size)


def _fetch(plan: Plan, client: Hub, args: argparse.Namespace) -> None:
    from gateway.cli.pull_progress import shown
    from gateway.models.pull import pull

    with shown(sys.stderr) as told:
        pull(plan, client, told, replace=args.replace)


def _enter(place: Place, plan: Plan, name: str | None) -> None:
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

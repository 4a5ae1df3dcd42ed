"""``llm-gateway models add``, ``rm`` and ``show``: one entry of models.json."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.control import control_request
from gateway.cli.models_file import add_entries, remove_entry
from gateway.cli.options import add_json
from gateway.cli.parser import explain
from gateway.cli.which_gateway import add_gateway, remote_client
from gateway.config.load import load_settings
from gateway.errors import BadRequest, LoadFailed, ModelNotFound
from gateway.models import editing
from gateway.spelling import did_you_mean

if TYPE_CHECKING:
    from gateway.config.settings import Settings
    from gateway.models.catalog import Catalog
    from gateway.models.local_model import LocalModel
    from gateway.models.model import Model

_REMOTE = re.compile(r"([^=/]+)=(https?://.*)", re.DOTALL)


def add_options(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the arguments and options of the commands."""
    adding = actions.add_parser(
        "add",
        help="write an entry for a GGUF file, or for a model of another server",
    )
    explain(
        adding,
        "Writes an entry that fits this machine for one file, as `models scan` "
        "does for all. With --url, FILE is one that `models scan` finds on that "
        "gateway's machine.",
        examples=[
            "llm-gateway models add ~/LLMs/Qwen3-8B-Q4_K_M.gguf --name qwen",
            "llm-gateway models add far=http://192.168.1.30:8080",
        ],
    )
    add_gateway(adding, again=True)
    adding.add_argument(
        "what", metavar="FILE|NAME=URL", help="a GGUF file, or a name and where its server is"
    )
    adding.add_argument("--name", metavar="NAME", help="what to call the model of FILE")
    adding.set_defaults(run=run_add)

    removing = actions.add_parser("rm", help="take an entry out, and its file if wished")
    add_gateway(removing, again=True)
    removing.add_argument("name", metavar="NAME", help="as `models` lists it")
    removing.add_argument("--file", action="store_true", help="delete the model's files as well")
    removing.add_argument("--yes", action="store_true", help="don't ask")
    removing.set_defaults(run=run_rm)
    explain(
        removing,
        "Removes an entry from models.json; the previous file is kept as models.json~.",
        examples=["llm-gateway models rm qwen --file"],
    )

    showing = actions.add_parser(
        "show", help="an entry, its file, its state, and its llama-server's command line"
    )
    add_gateway(showing, again=True)
    showing.add_argument("name", metavar="NAME", help="or an alias")
    add_json(showing, again=True)
    showing.set_defaults(run=run_show)
    explain(
        showing,
        "Shows the entry of a model, its file, its state, and its llama-server's command line.",
        examples=["llm-gateway models show qwen --json"],
        fields={
            "name": "the model's name",
            "entry": "what models.json says of it; what is secret in it is `***`",
            "virtual_models": "its personalities as clients see them: `id`, `personality`, "
            "`description`, `unlisted`",
            "state": "what a running gateway says, as in `models --json`; else a sentence",
            "memory?": "bytes it takes; null if not known. With a running gateway only",
            "chosen?": "what it has chosen where the entry is silent: its `params` and why "
            "(`text`); or null. With a running gateway only",
            "file?": "path of its GGUF file",
            "what?": "what the file is, in words",
            "problem?": "why it can't be loaded",
            "command?": "llama-server's command line, word for word",
        },
    )


def _read(settings: Settings) -> tuple[bytes, Catalog]:
    """Return the text of models.json and what it says; empty if there is none."""
    from gateway.library import read_catalog
    from gateway.models.catalog import EMPTY

    before = editing.read(settings.models_file)
    return before, read_catalog(settings.models_file)[0] if before.strip() else EMPTY


# --- add -------------------------------------------------------------------------------------


def run_add(args: argparse.Namespace) -> int:
    """Return 0 if the entry was added; 1 if it wasn't (stderr says why)."""
    from gateway.cli import models_remote

    remote = _remote(args)
    if (client := remote_client(args)) is not None:
        name, entry = remote or (args.name, None)
        return models_remote.add(client, name, args.what, entry)
    settings = load_settings(args.config).settings
    before, catalog = _read(settings)
    name, entry = remote or _entry_of_file(args.what, args.name, settings, catalog)
    if name in catalog.models or name in catalog.aliases:
        other = "give it another NAME" if remote is not None else "`--name` gives it another"
        raise BadRequest(f"there is a model {name!r} already: {other}")
    add_entries(settings.models_file, before, {name: entry})
    return 0


def _remote(args: argparse.Namespace) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the entry for NAME=URL."""
    if (found := _REMOTE.fullmatch(args.what)) is None:
        return None
    if args.name is not None:
        raise BadRequest("--name is for a FILE: NAME=URL has a name")
    urls = found[2].split(",")
    return found[1].strip(), {"url": urls[0] if len(urls) == 1 else urls}


def _entry_of_file(
    given: str, name: str | None, settings: Settings, catalog: Catalog
) -> tuple[str, dict[str, Any]]:
    from gateway.backends.scan import proposals_for
    from gateway.models.storage import Task, look_at, with_projector

    storage = settings.llm_storage.expanduser().absolute()
    places = (Path(given).expanduser().absolute(), storage / given)
    file = next((place for place in places if place.exists()), None)
    if file is None:
        if "=" in given and not given.lower().endswith(".gguf"):
            raise BadRequest(
                f"{given} is no file, and no NAME=URL: a URL is like http://box:8080/v1"
            )
        where = " or ".join(dict.fromkeys(str(place.parent) for place in places))
        raise BadRequest(f"there is no file {Path(given).name} in {where}")
    found = look_at(file, storage)
    if found.problem is not None:
        raise BadRequest(found.problem)
    if found.task in (Task.PROJECTOR, Task.ADAPTER):
        key = "mmproj" if found.task is Task.PROJECTOR else "extraArgs"
        raise BadRequest(
            f"{found.reference} is no model of its own: it belongs to the entry of one ({key})"
        )
    proposed = proposals_for([with_projector(found, storage)], settings, catalog)
    (proposal,) = proposed.proposals
    for doubt in filter(None, (proposed.doubt, proposal.doubt)):
        print(f"warning: {doubt}", file=sys.stderr)
    return name or proposal.name, proposal.entry


# --- rm --------------------------------------------------------------------------------------


def run_rm(args: argparse.Namespace) -> int:
    """Return 0 if the entry was removed; 1 if it wasn't (stderr says why)."""
    from gateway.cli import models_remote

    if (client := remote_client(args)) is not None:
        return models_remote.remove(client, args)
    settings = load_settings(args.config).settings
    before, catalog = _read(settings)
    spec = catalog.models.get(args.name)
    if spec is None:
        raise _unknown(args.name, catalog, settings)
    files = _files_to_delete(spec, settings, catalog) if args.file else []
    if files and not args.yes:
        size = sum(file.stat().st_size for file in files) / 2**30
        print(*files, sep="\n")
        if not sys.stdin.isatty():
            raise BadRequest("nothing was deleted: --yes deletes without a question")
        if input(f"Delete for good ({size:.1f} GiB)? [no] ").strip().lower() not in ("y", "yes"):
            return 0
    remove_entry(settings.models_file, before, args.name)
    for file in files:
        file.unlink(missing_ok=True)
        print(f"deleted {file}")
    return 0


def _files_to_delete(spec: Model, settings: Settings, catalog: Catalog) -> list[Path]:
    """Return the files that only this model uses. Raises :class:`BadRequest` if there are none."""
    from gateway.models.paths import files_of, split_parts

    storage = settings.llm_storage.expanduser().absolute()
    if spec.file is None or spec.file.startswith("package:"):
        raise BadRequest(f"the model {spec.name!r} has no file below llm_storage to delete")
    others = {
        file.resolve()
        for other in catalog.models.values()
        if other.name != spec.name
        for file in files_of(other, settings.llm_storage)
    }
    ours = [part for file in files_of(spec, settings.llm_storage) for part in split_parts(file)]
    files = [file for file in ours if file.is_file() and file.resolve() not in others]
    if not files:
        raise BadRequest(
            "its files are gone, or another model uses them: without --file, only the "
            "entry is taken out"
        )
    for file in files:
        if not file.resolve().is_relative_to(storage.resolve()):
            raise BadRequest(f"{file} is not below llm_storage ({storage}): delete it yourself")
    return files


def _unknown(name: str, catalog: Catalog, settings: Settings) -> ModelNotFound:
    known = did_you_mean(name, catalog.names)
    return ModelNotFound(f"there is no model {name!r} in {settings.models_file}{known}")


# --- show ------------------------------------------------------------------------------------


def run_show(args: argparse.Namespace) -> int:
    """Return 0, or 1 for an unknown model."""
    from gateway.cli import models_remote

    client = remote_client(args)
    shown = _shown(args) if client is None else models_remote.shown(client, args.name)
    if args.json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        _print(shown)
    return 0


def _shown(args: argparse.Namespace) -> dict[str, Any]:
    from gateway.cli.serve import demo_if_bare

    settings = demo_if_bare(load_settings(args.config)).settings
    before, catalog = _read(settings)
    name = catalog.aliases.get(args.name, args.name)
    spec = catalog.models.get(name)
    if spec is None:
        raise _unknown(args.name, catalog, settings)
    from gateway.models.local_model import LocalModel

    state = _state(name, settings)
    return {
        "name": name,
        "entry": _without_key(json.loads(before.decode("utf-8-sig"))[name]),
        "virtual_models": spec.virtual_models,
        **state,
        **(_of_file(spec, settings, state.get("chosen")) if isinstance(spec, LocalModel) else {}),
    }


def _print(shown: dict[str, Any]) -> None:
    if shown["entry"] is not None:
        entry = {shown["name"]: shown["entry"]}
        print(json.dumps(entry, indent=2, ensure_ascii=False), end="\n\n")
    for one in shown["virtual_models"]:
        said = filter(None, (one["description"], one["unlisted"] and "(unlisted)"))
        print(f"{'client sees:':12} {'  '.join((one['id'], *said))}")
    labels = {"state": "state", "file": "file", "what": "what it is", "memory": "memory"}
    for key, label in labels.items():
        if key in shown:
            text = _gib(shown[key]) if key == "memory" else shown[key]
            print(f"{label + ':':12} {text}")
    if (chosen := shown.get("chosen")) is not None:
        print(f"{'chosen:':12} {chosen['text']}")
    if problem := shown.get("problem"):
        print(f"{'problem:':12} {problem}")
    if command := shown.get("command"):
        print(f"\n{shlex.join(command)}")


def _without_key(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry without the key of another server."""
    key = entry.get("key")
    hidden = isinstance(key, str) and not key.startswith(("env:", "file:"))
    return {**entry, "key": "***"} if hidden else entry


def _state(name: str, settings: Settings) -> dict[str, Any]:
    answer = control_request(settings, "GET", "/admin/models")
    if answer is None or answer[0] != 200:
        return {"state": "the gateway is not running"}
    for model in answer[1]["models"]:
        if model["name"] == name:
            return {key: model.get(key) for key in ("state", "memory", "chosen")}
    return {"state": "unknown to the running gateway"}


def _of_file(
    spec: LocalModel, settings: Settings, chosen: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what the model's file says, and its command line, with what the gateway has
    ``chosen``.
    """
    from gateway.backends.command import build_command, find_program
    from gateway.backends.tuning import with_params
    from gateway.models.paths import resolve_model_path
    from gateway.models.storage import look_at

    told: dict[str, Any] = {}
    storage = settings.llm_storage.expanduser().absolute()
    try:
        file = resolve_model_path(spec.params.model or "", storage)
        told["file"] = str(file)
        found = look_at(file, storage)
        words = (found.architecture, found.quantisation, found.task and found.task.value)
        told["what"] = ", ".join(filter(None, (*words, *found.abilities)))
        if found.trained:
            told["what"] += f", trained with {found.trained:,} tokens of context"
        if found.problem is not None:
            told["problem"] = found.problem
        command = build_command(
            with_params(spec, chosen["params"] if chosen is not None else {}),
            program=find_program(settings.llama_server, os.environ),
            socket="MODEL.sock",
            llm_storage=storage,
            environ=os.environ,
        )
        told["command"] = list(command.argv)
    except LoadFailed as error:
        told["problem"] = error.detail or error.message
    return told


def _gib(size: int | None) -> str:
    return f"{size / 2**30:.1f} GiB" if size else "not loaded yet, so not known"

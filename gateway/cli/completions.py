"""``llm-gateway completions``: scripts for shells that complete its command lines."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from gateway.cli.parser import explain
from gateway.errors import GatewayError

_SHELLS: Final = ("bash", "zsh", "fish")
#: Names that need no quotes in a shell; others aren't offered.
_PLAIN: Final = re.compile(r"[\w.+@%/-]+")
#: Seconds that somebody who has pressed Tab waits for a gateway.
_PATIENCE: Final = 2.0
#: Metavar of an argument -> the kind of its value.
_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("FILE", "FILE|NAME=URL"), "file"),
        **dict.fromkeys(("DIR", "FOLDER"), "directory"),
        **dict.fromkeys(("NAME[:PERSONALITY]", "MODEL[:PERSONALITY]", "MODEL"), "models"),
        "CLIENT": "clients",
    }
)
#: The same by command and name, where the metavar says too little.
_OF_COMMANDS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("unload", "model"): "models",
        ("logs", "model"): "models",
        ("models rm", "name"): "models",
        ("models show", "name"): "models",
        ("logout", "name"): "profiles",
        ("login", "use"): "profiles",
        ("login", "name"): "profiles",
    }
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "shell", metavar="SHELL", choices=_SHELLS, nargs="?", help="bash, zsh or fish"
    )
    # What the scripts ask for while somebody types.
    parser.add_argument("--names", choices=tuple(_NAMES), help=argparse.SUPPRESS)
    parser.set_defaults(run=run, config=None, url=None, key=None, ca=None, profile=None)
    explain(
        parser,
        "Prints a script that completes commands, options, files, and names of models and "
        "profiles when Tab is pressed. To have it in every new shell (the folder first, "
        "by `mkdir -p`, if it isn't there):\n\n"
        "  bash  llm-gateway completions bash \\\n"
        "          > ~/.local/share/bash-completion/completions/llm-gateway\n"
        "        (with the package bash-completion; without, in ~/.bashrc:\n"
        "        source <(llm-gateway completions bash))\n"
        "  zsh   llm-gateway completions zsh > ~/.zfunc/_llm-gateway\n"
        "        and in ~/.zshrc, once: fpath+=~/.zfunc; autoload -Uz compinit; compinit\n"
        "  fish  llm-gateway completions fish \\\n"
        "          > ~/.config/fish/completions/llm-gateway.fish\n",
        examples=["llm-gateway completions zsh > ~/.zfunc/_llm-gateway"],
    )


def run(args: argparse.Namespace) -> int:
    """Print the script on stdout."""
    if args.names is not None:
        with contextlib.suppress(GatewayError, OSError, ValueError):
            print(*filter(_PLAIN.fullmatch, _NAMES[args.names](args)), sep="\n")
        return 0
    if args.shell is None:
        from gateway.errors import BadRequest

        raise BadRequest(f"for which shell? {', '.join(_SHELLS)}")
    import shtab

    from gateway.cli import parser_for

    parser = parser_for(None)
    ways: dict[str, Any] = {
        "file": shtab.FILE,
        "directory": shtab.DIRECTORY,
        **{
            kind: shtab.cmd(f"llm-gateway completions --names {kind} 2>/dev/null")
            for kind in _NAMES
        },
    }
    for one in _all(parser):
        for action in one._actions:
            if (kind := _kind(one.prog.partition(" ")[2], action)) is not None:
                action.complete = ways[kind]  # type: ignore[attr-defined]  # shtab looks there
    print(shtab.complete(parser, args.shell))
    return 0


def _all(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser and those below it, each with a description short enough for a
    completion.
    """
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            about = {one.dest: one.help for one in action._choices_actions}
            for name, below in action.choices.items():
                below.description = about.get(name)
                yield from _all(below)


def _kind(command: str, action: argparse.Action) -> str | None:
    if action.choices is not None:
        return None
    if action.dest == "profile":
        return "profiles"
    if action.dest == "model":
        return "models"
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    return _OF_COMMANDS.get((command, action.dest)) or _KINDS.get(metavar)


# --- names -----------------------------------------------------------------------------------


def _models(args: argparse.Namespace) -> Iterable[str]:
    from gateway.cli.client import NoGateway
    from gateway.cli.which_gateway import client_for
    from gateway.config.load import load_settings
    from gateway.library import read_catalog

    try:
        shown = client_for(args).ask("GET", "/v1/models", timeout=_PATIENCE)["data"]
    except NoGateway:
        catalog, _ = read_catalog(load_settings(None).settings.models_file)
        return list(catalog.models)
    return [one["id"] for one in shown]


def _profiles(args: argparse.Namespace) -> Iterable[str]:
    from gateway.cli.profiles import read_profiles

    return read_profiles().by_name


def _clients(args: argparse.Namespace) -> Iterable[str]:
    from gateway.clients import CLIENTS

    return CLIENTS


_NAMES: Final[Mapping[str, Callable[[argparse.Namespace], Iterable[str]]]] = MappingProxyType(
    {"models": _models, "profiles": _profiles, "clients": _clients}
)

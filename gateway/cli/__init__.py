"""The command line: ``llm-gateway COMMAND ...``. Each command is a module of this package.

The ``add_options(parser)`` of a module adds what the command takes, and sets ``run``, a function of
the arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from gateway import __version__
from gateway.cli.parser import Parser
from gateway.cli.terminal import clean, discard_output, never_fail, open_what_is_closed
from gateway.errors import GatewayError

#: Command -> its module and what it's for. Only the module of the command asked for is imported.
COMMANDS: Final = {
    "serve": ("gateway.cli.serve", "run the gateway"),
    "check": ("gateway.cli.check", "list everything wrong with the configuration"),
    "keys": ("gateway.cli.keys", "make, list, revoke and import API keys"),
    "tls": ("gateway.cli.tls", "make certificates"),
    "init": ("gateway.cli.init", "make conf/, data/ and ssl/ in a folder"),
    "models": ("gateway.cli.models", "list, find, add, remove and show models"),
    "pull": ("gateway.cli.pull", "download a model from the hub"),
    "load": ("gateway.cli.load", "load a model, and make it the active one"),
    "unload": ("gateway.cli.unload", "unload a model"),
    "logs": ("gateway.cli.model_logs", "show what a model's llama-server writes"),
    "cache": ("gateway.cli.cache", "show or remove saved conversations"),
    "usage": ("gateway.cli.usage", "show who used how much"),
    "chat": ("gateway.cli.chat", "ask a model, or talk with it"),
    "connect": ("gateway.cli.connect", "show how to set up a client for the gateway"),
    "doctor": ("gateway.cli.doctor", "check the whole machine, and say what to do"),
    "service": ("gateway.cli.service", "install and drive the service of systemd"),
    "node": ("gateway.cli.node", "run models on several machines"),
    "backup": ("gateway.cli.backup", "save configuration, keys and usage in one file"),
    "restore": ("gateway.cli.restore", "put back what a backup has saved"),
    "store": ("gateway.cli.store", "move keys, usage and records to PostgreSQL, or back"),
    "migrate": ("gateway.cli.migrate", "take over the folder of LLM-API"),
    "login": ("gateway.cli.login", "save the profile of a gateway elsewhere, with a key"),
    "logout": ("gateway.cli.logout", "delete the profile of a gateway elsewhere"),
    "completions": ("gateway.cli.completions", "complete command lines in your shell"),
    "status": ("gateway.cli.status", "watch a running gateway (ends with Ctrl-C)"),
}

#: Heading -> commands, in the order of the help.
GROUPS: Final = {
    "a gateway of your own": ("init", "check", "serve", "doctor", "service", "node"),
    "moving house": ("migrate", "backup", "restore", "store"),
    "models": ("models", "pull", "load", "unload", "logs"),
    "using it": ("chat", "status", "usage", "cache", "connect"),
    "access": ("keys", "tls", "login", "logout"),
    "your shell": ("completions",),
}

#: Set so that pydantic doesn't open the metadata of every installed package to find plugins.
PLUGINS: Final = "PYDANTIC_DISABLE_PLUGINS"

#: The errors of a file or terminal that takes no more output.
UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Return 0 if it is done, 1 if it failed (stderr says why), 2 if it
    was not understood.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    open_what_is_closed()
    never_fail()
    start = argparse.Namespace(plugins_given=PLUGINS in os.environ)
    os.environ.setdefault(PLUGINS, "__all__")
    # Modules and classes stay: a collector that looks through them again and again, as they
    # become more, finds nothing, and takes a twelfth of the time until `serve` listens.
    gc.disable()
    try:
        # The top level has no options with a value: the first word is the command.
        command = next((word for word in arguments if not word.startswith("-")), "")
        parser = parser_for(command)
        if not arguments:
            parser.print_help()
            return 0
        args = parser.parse_args(arguments, start)
    finally:
        gc.enable()
    _take_variables(args)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has gone.
        discard_output()
        return 1
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells have it
    except GatewayError as error:
        # Another gateway's words may be in it.
        print(f"error: {clean(str(error), lines=True)}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in UNWRITABLE or error.filename is not None:
            raise
        discard_output()
        print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    except Exception as error:
        from gateway.problems import InvalidFiles

        if not isinstance(error, InvalidFiles):
            raise
        for problem in error.problems:
            print(f"error: {clean(str(problem), lines=True)}", file=sys.stderr)
        return 1
    return code


def _take_variables(args: argparse.Namespace) -> None:
    """Set the variables of the service whose configuration a command uses, as systemd does for it.

    Secrets are there, and any setting may be (``store.url``): without them a command would work on
    another database than the service. What is set already stays.
    """
    from gateway.config.environment import variables_in
    from gateway.config.places import find_config, service_variables

    if hasattr(args, "config") and (file := service_variables(find_config(args.config))):
        with contextlib.suppress(OSError, ValueError):  # there is none, or it is root's alone
            for name, value in variables_in(file.read_text(encoding="utf-8")).items():
                os.environ.setdefault(name, value)


def parser_for(command: str | None) -> Parser:
    """Return the parser of ``command``, with those above it; ``None``: of all commands."""
    parser = _Top(
        prog="llm-gateway",
        description="Serves the models of llama-server to the internet as if they were OpenAI's.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for name, (module, about) in COMMANDS.items():
        wanted = command in (name, None)
        subparser = subparsers.add_parser(name, help=about, add_help=wanted)
        if wanted:
            importlib.import_module(module).add_options(subparser)
            parser.below = subparser if name == command else None
    return parser


class _Top(Parser):
    """The parser of ``llm-gateway`` itself. Its help lists the commands in groups."""

    def format_help(self) -> str:
        """Return the help: the commands by purpose."""
        lines = ["usage: llm-gateway COMMAND [OPTIONS]", "", self.description or ""]
        for heading, names in grouped().items():
            lines += ["", f"{heading}:", *(f"  {name:12} {COMMANDS[name][1]}" for name in names)]
        return "\n".join(
            [
                *lines,
                "",
                "`llm-gateway COMMAND -h` tells what a command takes; --version: of this program.",
                "",
            ]
        )


def grouped() -> dict[str, list[str]]:
    """Return heading -> names of commands, in the order of the help."""
    groups = {
        head: there
        for head, names in GROUPS.items()
        if (there := [name for name in names if name in COMMANDS])
    }
    known = {name for names in groups.values() for name in names}
    if others := [name for name in COMMANDS if name not in known]:
        groups["more"] = others
    return groups

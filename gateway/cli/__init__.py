"""The command line: ``llm-gateway COMMAND ...``. Each command is a module of this package.

Its ``add_options(parser)`` says what it takes and sets ``run``, a function of the arguments.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from gateway import __version__
from gateway.errors import GatewayError

#: Command -> its module and what it's for. Only the module of the command asked for is imported.
COMMANDS: Final = {
    "serve": ("gateway.cli.serve", "run the gateway"),
    "check": ("gateway.cli.check", "list everything wrong with the configuration"),
    "keys": ("gateway.cli.keys", "make, list, revoke and import API keys"),
    "tls": ("gateway.cli.tls", "make certificates"),
    "init": ("gateway.cli.init", "make conf/, data/ and ssl/ in a folder"),
    "models": ("gateway.cli.models", "list the models, their state and personalities"),
    "status": ("gateway.cli.status", "watch a running gateway (ends with Ctrl-C)"),
}


#: Else pydantic opens the metadata of every package that is installed, to find plugins in it.
PLUGINS: Final = "PYDANTIC_DISABLE_PLUGINS"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. 0: done; 1: it failed, and stderr says why; 2: it was not understood."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    start = argparse.Namespace(plugins_given=PLUGINS in os.environ)
    os.environ.setdefault(PLUGINS, "__all__")
    # Modules and classes stay: a collector that looks through them again and again, as they
    # become more, finds nothing, and takes a twelfth of the time until `serve` listens.
    gc.disable()
    try:
        args = _parser(arguments).parse_args(arguments, start)
    finally:
        gc.enable()
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python would complain once more when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells have it
    except GatewayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        from gateway.validation import InvalidFiles

        if not isinstance(error, InvalidFiles):
            raise
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 1
    return code


class _Parser(argparse.ArgumentParser):
    """Says what was probably meant by a command or option that there isn't."""

    #: That of the command.
    below: argparse.ArgumentParser | None = None

    def error(self, message: str) -> NoReturn:
        """End with status 2, and ``message`` on stderr."""
        wrong = re.search(r"invalid choice: '([^']*)'|unrecognized arguments: (-\S+)", message)
        if wrong is not None and "maybe you meant" not in message:  # newer versions of Python
            from gateway.spelling import did_you_mean

            below = self.below.format_help() if self.below is not None else ""
            options = re.findall(r"--[\w-]+", self.format_help() + below)
            choices = re.findall(r"[\w-]+", message.partition("choose from")[2])
            word = (wrong[1] or wrong[2]).partition("=")[0]
            message += did_you_mean(word, options if wrong[2] else choices)
        super().error(message)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="llm-gateway",
        description="Serves the models of llama-server to the internet as if they were OpenAI's.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # The top level has no options with a value: the first word is the command.
    command = next((word for word in arguments if not word.startswith("-")), "")
    for name, (module, about) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=about, add_help=name == command)
        if name == command:
            importlib.import_module(module).add_options(subparser)
            parser.below = subparser
    return parser

"""``llm-gateway chat``: one question, or a conversation, in the terminal.

An answer goes to stdout as it arrives, so that a question given as an argument or through a pipe
can be part of a script. Everything else goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from gateway.cli.client import Client, NoGateway, Refused
from gateway.cli.parser import explain
from gateway.cli.terminal import is_terminal, moves
from gateway.cli.watching import watched
from gateway.cli.which_gateway import add_gateway, client_for
from gateway.cli.which_model import model_meant, picked
from gateway.errors import BadRequest, GatewayError
from gateway.plurals import counted

#: Control characters, which a model's answer must not send to the terminal.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_HELP: Final = """\
/model NAME        go on with another model
/personality NAME  with another personality; none: without one
/system TEXT       a system prompt of your own; without a text: none
/new               forget the conversation
/save FILE         write it down, as JSON
/exit              or Ctrl-D
Ctrl-C stops an answer. A line that ends with \\ goes on in the next one."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options of the command."""
    add_gateway(parser)
    parser.add_argument(
        "model",
        metavar="MODEL[:PERSONALITY]",
        nargs="?",
        help="default: the active one, or the only one there is; in a conversation you are asked",
    )
    parser.add_argument(
        "question", metavar="QUESTION", nargs="?", help="answer it and end; - reads it from stdin"
    )
    parser.add_argument("--system", metavar="TEXT", help="a system prompt")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="the longest answer")
    parser.set_defaults(run=run)
    explain(
        parser,
        "Asks one question, given as an argument or on standard input. Without a "
        "question, in a terminal, it starts a conversation; /help lists its "
        "commands.",
        examples=[
            "llm-gateway chat",
            'llm-gateway chat Qwen3-8B "Why is the sky blue?"',
            "git diff | llm-gateway chat Qwen3-8B --system 'Write a commit message.'",
        ],
        exits={130: "the answer was stopped by Ctrl-C"},
    )


def run(args: argparse.Namespace) -> int:
    """Return 0; 1 if a question could not be answered; 130 if Ctrl-C stopped an answer."""
    client = client_for(args)
    chat = Chat(client, args.model, args.system, args.max_tokens)
    question = args.question
    if question == "-" or (question is None and not sys.stdin.isatty()):
        question = sys.stdin.read().strip()
        if not question:
            raise BadRequest(f"there is no question: standard input is empty{_or_so(args)}")
    if question is not None:
        return 0 if _asked(chat, question) else 130
    return _talk(chat)


def _or_so(args: argparse.Namespace) -> str:
    """Return a hint for somebody who gave a question, but no model before it."""
    if args.question is not None or not re.search(r"\s", args.model or ""):
        return ""
    return f", and {args.model!r} was taken for the model: `llm-gateway chat MODEL QUESTION`"


def _asked(chat: Chat, question: str) -> bool:
    """Ask, see :meth:`Chat.ask`. If several models could be meant, the error tells how to
    name one.
    """
    try:
        return chat.ask(question)
    except Refused as refused:
        if chat.model is not None or refused.answered != 404:
            raise
        raise Refused(f"{refused}. Here: `llm-gateway chat MODEL QUESTION`", 404) from None


@dataclass(slots=True)
class Chat:
    """A conversation, and the gateway and model it is held with."""

    client: Client
    model: str | None
    system: str | None = None
    max_tokens: int | None = None
    personality: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)

    def ask(self, question: str) -> bool:
        """Print the answer as it arrives. Return ``False`` if it was stopped; what there is of it
        stays.

        Raises :class:`GatewayError`; the question is then not part of the conversation.
        """
        said: list[str] = []
        whole = True
        end: Mapping[str, Any] = MappingProxyType({})
        try:
            for event in self._answer(question):
                if text := self.text_of(event):
                    said.append(text)
                    print(text, end="", flush=True)
                end = {**end, **{k: v for k in ("usage", "timings") if (v := event.get(k))}}
        except KeyboardInterrupt:
            whole = False
        finally:
            if said:
                print(flush=True)
        if said or whole:  # stopped while it loaded, it has not been asked
            self.messages.append({"role": "user", "content": question})
            self.messages.append({"role": "assistant", "content": "".join(said)})
        if is_terminal(sys.stderr) and (words := _in_numbers(end)):
            plain = os.environ.get("NO_COLOR") or not moves(sys.stderr)
            print(words if plain else f"{_DIM}{words}{_PLAIN}", file=sys.stderr)
        return whole

    def _answer(self, question: str) -> Iterator[dict[str, Any]]:
        """Yield the events of the answer's stream. Until the first, a terminal shows the
        progress.
        """
        body: dict[str, Any] = {
            "messages": [
                *([{"role": "system", "content": self.system}] if self.system else []),
                *self.messages,
                {"role": "user", "content": question},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        given = {"model": self.model, "personality": self.personality}
        body |= {name: value for name, value in given.items() if value is not None}
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        events = self.client.events("POST", "/v1/chat/completions", body)
        try:
            with watched(self.client, self.model or "the model"):
                data = next(events, None)
            while data != "[DONE]":
                if data is None:
                    raise NoGateway(f"{self.client.name} broke off in the middle of the answer")
                event = json.loads(data)
                if error := event.get("error"):
                    raise Refused(str(error.get("message") if isinstance(error, dict) else error))
                yield event
                data = next(events, None)
        finally:
            events.close()  # type: ignore[attr-defined]  # a generator: the connection ends

    def text_of(self, event: dict[str, Any]) -> str:
        for choice in event.get("choices") or ():
            if text := (choice.get("delta") or {}).get("content"):
                return _CONTROL.sub("", text)
        return ""


def _in_numbers(end: Mapping[str, Any]) -> str:
    """Return in words how long an answer took and how many tokens it has."""
    usage, timings = end.get("usage") or {}, end.get("timings") or {}
    words = []
    if tokens := usage.get("completion_tokens"):
        words.append(counted(tokens, "token"))
    if speed := timings.get("predicted_per_second"):
        words.append(f"{speed:.1f} tokens/s")
    if prompt := usage.get("prompt_tokens"):
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        words.append(f"prompt: {counted(prompt, 'token')}, {cached} of them cached")
    return ", ".join(words)


# --- a conversation --------------------------------------------------------------------------


class _Over(Exception):
    """Raised when the conversation has ended."""


def _talk(chat: Chat) -> int:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - as it is imported, input() gets a line that can be edited
    whom = chat.model
    if whom is None and (whom := model_meant(chat.client)) is None:
        try:
            whom = chat.model = picked(chat.client)
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
    print(
        f"{whom}, at {chat.client.name}. /help tells what can be typed; Ctrl-D ends.",
        file=sys.stderr,
    )
    while True:
        try:
            typed = _typed()
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print()
            continue
        try:
            if typed.startswith("/"):
                _command(chat, typed)
            elif typed:
                chat.ask(typed)
        except _Over:
            return 0
        except GatewayError as error:
            print(f"error: {error}", file=sys.stderr)


def _typed() -> str:
    line = input("> ")
    lines = []
    while line.endswith("\\"):
        lines.append(line[:-1])
        line = input(". ")
    return "\n".join((*lines, line)).strip()


def _command(chat: Chat, typed: str) -> None:
    """Carry out a ``/command``. Raises :class:`BadRequest` for an unknown one."""
    name, _, rest = typed.partition(" ")
    command = _COMMANDS.get(name)
    if command is None:
        raise BadRequest(f"there is no {name}; there are: {', '.join(_COMMANDS)}")
    if words := command(chat, rest.strip()):
        print(words, file=sys.stderr)


def _model(chat: Chat, name: str) -> str:
    if not name:
        names = ", ".join(model["id"] for model in chat.client.ask("GET", "/v1/models")["data"])
        return f"now: {chat.model or 'the active one'}; there are: {names}"
    chat.client.ask("GET", f"/v1/models/{quote(name, safe='')}")  # it says what is wrong with it
    chat.model = name
    return f"from now on: {name}"


def _personality(chat: Chat, name: str) -> str:
    chat.personality = name or None
    return f"from now on: {name or 'the one of its model or key'}"


def _system(chat: Chat, text: str) -> str:
    chat.system = text or None
    return "from now on with this system prompt" if text else "without a system prompt"


def _new(chat: Chat, _: str) -> str:
    chat.messages.clear()
    return "forgotten"


def _save(chat: Chat, file: str) -> str:
    if not file:
        raise BadRequest("/save FILE: which file?")
    path = Path(file).expanduser()
    data = {"model": chat.model, "system": chat.system, "messages": chat.messages}
    try:
        with path.open("x", encoding="utf-8") as stream:
            json.dump(data, stream, indent=2, ensure_ascii=False)
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}") from None
    return f"written to {path}"


def _help(_chat: Chat, _: str) -> str:
    return _HELP


def _exit(_chat: Chat, _: str) -> str:
    raise _Over


_COMMANDS: Final[Mapping[str, Callable[[Chat, str], str]]] = MappingProxyType(
    {
        "/model": _model,
        "/personality": _personality,
        "/system": _system,
        "/new": _new,
        "/save": _save,
        "/help": _help,
        "/exit": _exit,
    }
)

"""The description of a client, and the syntax of values in clients' files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

#: The variable that holds the key, here and in the command line's own ``--url``.
KEY: Final = "LLM_GATEWAY_API_KEY"
#: The gateway's name in files that name their servers.
NAME: Final = "llm-gateway"
TITLE: Final = "LLM-API Gateway"
#: The context size for clients that need one when it isn't known: that of small models.
SOME_CONTEXT: Final = 8192

#: The path of the authority's file on a client's machine, if that is another one.
CA_AT_HOME: Final = "$HOME/llm-gateway-ca.crt"

Language = Literal["toml", "yaml", "json", "sh", "env", "pem", "python", "javascript", "text"]


@dataclass(frozen=True, slots=True)
class ClientTarget:
    """The gateway and the model for which a client is set up."""

    #: The URL of the gateway, without ``/v1`` and without a slash at its end.
    url: str
    #: The model as clients name it: ``NAME`` or ``NAME:PERSONALITY``.
    model: str
    #: The key to write down; ``None``: only the variable that holds it.
    key: str | None = None
    #: Tokens of the model's context; ``None``: not known.
    context: int | None = None
    vision: bool = False
    #: A model for embeddings, if there is one.
    embeddings: str | None = None
    #: The PEM file of a private authority that signed the gateway's certificate: its path, or
    #: :data:`CA_AT_HOME`.
    ca: str | None = None

    @property
    def base_url(self) -> str:
        """The base URL of OpenAI's clients."""
        return f"{self.url}/v1"

    @property
    def ca_path(self) -> str | None:
        """:attr:`ca` for places where variables aren't expanded, with a visible placeholder."""
        return self.ca if self.ca != CA_AT_HOME else f"/PATH/TO/{CA_AT_HOME.rpartition('/')[2]}"


class Part(NamedTuple):
    """A piece of configuration: ``text`` goes to ``where``. An ``example`` shows its use."""

    where: str
    language: Language
    text: str
    example: bool = False

    @property
    def place(self) -> str:
        """The place for the text, in words."""
        if self.example:
            return f"Then, in {self.where}"
        return f"{'In' if self.language in ('sh', 'text') else 'Into'} {self.where}"


@dataclass(frozen=True, slots=True)
class Setup:
    """A client, and how it is set up. ``parts`` gives the most important one first."""

    title: str
    #: One line about the client.
    about: str
    #: The features that it needs of the gateway and the model.
    needs: tuple[str, ...]
    documentation: str
    #: The version, or the date of the documentation, that its lines were checked against.
    checked: str
    parts: Callable[[ClientTarget], list[Part]]
    notes: tuple[str, ...] = ()
    #: Whether the lines name :attr:`Target.embeddings`.
    embeds: bool = False
    #: Whether it reads the key from a variable; else the key itself is entered in a file or a
    #: window.
    reads_variable: bool = True
    #: The least tokens of context for it to be useful: its own prompts are long.
    least_context: int | None = None
    #: Whether its lines must say how large the model's context is.
    must_know_context: bool = False
    #: The variable that names the file of an authority to trust; ``None``: there is none.
    ca_variable: str | None = None
    #: How to make it trust a private authority, if a variable isn't enough.
    ca_note: str | None = None

    def parts_for(self, target: ClientTarget) -> list[Part]:
        """Return all parts for ``target``, with what makes the client trust its certificate."""
        parts = self.parts(target)
        if target.ca is None or self.ca_variable is None:
            return parts
        lines = exports({self.ca_variable: target.ca})
        shell = next((n for n, part in enumerate(parts) if _is_setting(part)), None)
        if shell is None:
            return [*parts, Part(f"the shell that {self.title} starts from", "sh", lines)]
        parts[shell] = parts[shell]._replace(text=parts[shell].text + lines)
        return parts


def _is_setting(part: Part) -> bool:
    return part.language == "sh" and not part.example and part.text.startswith("export ")


# --- how values are written ------------------------------------------------------------------


def exports(variables: Mapping[str, str | None]) -> str:
    """Return lines of a shell; ``None`` is the key, by its variable."""
    return "".join(
        f'export {name}="${KEY}"\n' if value is None else f"export {name}={quoted(value)}\n"
        for name, value in variables.items()
        if not (value is None and name == KEY)  # it is there already
    )


def quoted(value: str) -> str:
    """Return one word of a shell."""
    return f'"{value}"' if value == CA_AT_HOME else shlex.quote(value)


def toml(value: object) -> str:
    """Return a value of TOML: its basic strings are JSON's, but for DEL (TOML 1.0, String)."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def yaml_text(value: object) -> str:
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10_000)
    return text


def json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def fields_text(fields: Mapping[str, str | None]) -> str:
    """Return the fields of a window as text; ``None`` stands for the key, which isn't known
    here.
    """
    width = max(map(len, fields)) + 2
    return "".join(
        f"{name + ':':{width}}{'(a key of the gateway)' if value is None else value}\n"
        for name, value in fields.items()
    )


def key_line(target: ClientTarget, where: str) -> list[Part]:
    """Return the key for a client that reads its variable: only if it has just been made."""
    return [Part(where, "sh", exports({KEY: target.key}))] if target.key is not None else []

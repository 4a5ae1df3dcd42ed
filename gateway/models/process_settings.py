"""The settings of an entry that choose programs, or files outside ``llm_storage``.

Who has an admin key may change models over HTTP, and must not get a shell by it: such a key may be
stolen, or lie in a page. So these fields are for who can write the file, unless
``admin.process_settings`` says otherwise. What stands there already may stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from gateway.errors import LoadFailed
from gateway.models.local_model import LocalModel
from gateway.models.model import Model
from gateway.models.paths import resolve_model_path, split_parts
from gateway.models.remote_model import RemoteModel

SETTING: Final = "admin.process_settings"


class Refusal(NamedTuple):
    """A refusal of ``field``, as models.json calls it."""

    field: str
    reason: str


#: Arguments that are proposed for models (:mod:`gateway.backends.proposal`), and never name files
#: or programs.
_HARMLESS: Final = {
    "--ubatch-size": re.compile(r"\d{1,7}"),
    "--pooling": re.compile(r"none|mean|cls|last|rank"),
}


def refusals(before: Model, after: Model, llm_storage: Path) -> Iterator[Refusal]:
    """Yield what of the change from ``before`` is not for HTTP. Blocking: links are followed.

    ``before`` is an empty one where there was no entry.
    """
    match after:
        case LocalModel():
            yield from _of_a_process(
                before if isinstance(before, LocalModel) else LocalModel(), after, llm_storage
            )
        case RemoteModel():
            yield from _of_servers(
                before if isinstance(before, RemoteModel) else RemoteModel(), after
            )


def _of_a_process(before: LocalModel, after: LocalModel, llm_storage: Path) -> Iterator[Refusal]:
    for name, value in after.env.items():
        if before.env.get(name) != value:
            yield Refusal(f"env.{name}", "variables choose what a program loads and does")
    if after.extra_args not in ((), before.extra_args) and not _harmless(after.extra_args):
        yield Refusal("extraArgs", "arguments of llama-server name files and programs")
    for field, old, new in _files(before, after):
        if new and new != old and (reason := _why_outside(new, llm_storage)) is not None:
            yield Refusal(field, reason)


def _files(before: LocalModel, after: LocalModel) -> Iterator[tuple[str, str | None, str | None]]:
    for field in ("model", "promptFile", "promptCache", "grammarFile"):
        name = re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", field)
        yield f"params.{field}", getattr(before.params, name), getattr(after.params, name)
    yield "mmproj", before.mmproj, after.mmproj
    yield "draftModel", before.draft_model, after.draft_model


def _of_servers(before: RemoteModel, after: RemoteModel) -> Iterator[Refusal]:
    if after.ca_file and after.ca_file != before.ca_file:
        yield Refusal("caFile", "it is a file outside llm_storage")
    if after.key is None:
        return
    if after.key != before.key:
        if after.key.reveal().startswith(("env:", "file:")):
            reason = "it would send a variable or a file of this machine to the servers at url"
            yield Refusal("key", reason)
    elif set(after.url) - set(before.url):
        yield Refusal("url", "the key that stands there would go to another server: give one too")


def _harmless(arguments: tuple[str, ...]) -> bool:
    pairs = zip(arguments[::2], arguments[1::2], strict=False)
    return not len(arguments) % 2 and all(
        name in _HARMLESS and _HARMLESS[name].fullmatch(value) for name, value in pairs
    )


def _why_outside(reference: str, llm_storage: Path) -> str | None:
    """Return why ``reference`` may be a file outside ``llm_storage``; ``None``: it isn't."""
    if reference.startswith("package:"):
        return "it is a file of a Python package, not one below llm_storage"
    plain = reference.replace("\\", "/")
    if plain.startswith(("/", "~")) or re.match(r"[A-Za-z]:", plain):
        return "it is an absolute path: name a file below llm_storage, from there"
    if ".." in plain.split("/"):
        return "it leads out of a folder (..): name a file below llm_storage, from there"
    try:
        root = llm_storage.expanduser().resolve()
        file = resolve_model_path(reference, llm_storage)  # what a load will open, and no other
        inside = all(part.resolve().is_relative_to(root) for part in split_parts(file))
    except LoadFailed:  # nothing will be opened
        return None
    except (OSError, RuntimeError):
        return "its links lead in a circle, or cannot be followed"
    except ValueError:  # a NUL character: it can't be opened either
        return None
    return None if inside else "a link leads out of llm_storage"

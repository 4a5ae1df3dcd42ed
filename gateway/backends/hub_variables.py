"""What a machine that pulls for this one is to know of the hub: which one, and the token for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

ENDPOINT: Final = "HF_ENDPOINT"
TOKEN: Final = "HF_TOKEN"  # noqa: S105  # the name of a variable
#: Whatever else the hub's client takes a token from (huggingface_hub.utils._auth).
_ALIKE: Final = ("HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_OIDC_RESOURCE")


def hub_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a pull for this machine; none: nothing special is set here.

    The token is the one of HF_TOKEN, or that `hf auth login` has left. Blocks.
    """
    token = environ.get(TOKEN) or environ.get(_ALIKE[0]) or _kept(environ)
    found = {TOKEN: token.strip() if token else "", ENDPOINT: environ.get(ENDPOINT, "")}
    return {name: value for name, value in found.items() if value}


def _kept(environ: Mapping[str, str]) -> str | None:
    home = environ.get("HOME", "")
    cache = environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
    folder = environ.get("HF_HOME") or f"{cache}/huggingface"
    file = Path(environ.get("HF_TOKEN_PATH") or f"{folder}/token")
    try:
        return file.expanduser().read_text()
    except (OSError, ValueError):
        return None


def with_hub(environ: Mapping[str, str], hub: Mapping[str, str]) -> dict[str, str]:
    """Return ``environ`` for a pull from the hub of another machine.

    A token is for one hub: where any of the other's variables is set, none of our own is used.
    """
    if not hub:
        return dict(environ)
    kept = {k: v for k, v in environ.items() if k not in (ENDPOINT, TOKEN, *_ALIKE)}
    # An empty path: no token of this machine's account.
    return {**kept, "HF_TOKEN_PATH": "/dev/null", **hub}

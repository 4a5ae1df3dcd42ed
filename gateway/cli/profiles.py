"""Profiles of gateways elsewhere: their addresses, keys and authorities.

They are kept in ``profiles.json`` in the user's configuration folder (XDG Base Directory
Specification), which only its owner may read. The certificate of an authority is a separate file
beside it, so that it can be given to other programs.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from gateway.errors import BadRequest
from gateway.private_files import make_folder, write_private
from gateway.spelling import did_you_mean

_FILE: Final = "profiles.json"
_NAME: Final = re.compile(r"\w[\w.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Profile:
    """One gateway. ``key`` is ``None`` if the gateway needs none."""

    name: str
    url: str
    key: str | None
    ca: Path | None


@dataclass(frozen=True, slots=True)
class Profiles:
    """All profiles by name, and the default one."""

    by_name: dict[str, Profile]
    default: str | None

    def named(self, name: str) -> Profile:
        """Return a profile. Raises :class:`BadRequest` for an unknown name."""
        try:
            return self.by_name[name]
        except KeyError:
            there = f"; there are: {', '.join(self.by_name)}" if self.by_name else ""
            raise BadRequest(
                f"there is no profile {name!r}{did_you_mean(name, self.by_name)}{there}: "
                f"`llm-gateway login URL --name {name}` makes it"
            ) from None


def folder() -> Path:
    """Return the user's configuration folder for the gateway."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home).expanduser() / "llm-gateway"


def checked_name(name: str) -> str:
    """Return ``name`` if a profile may have it. Raises :class:`BadRequest`."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"--name {name!r}: a profile's name has up to 64 letters, digits, '.', '-' and '_'"
        )
    return name


def read_profiles() -> Profiles:
    """Return all profiles. Raises :class:`BadRequest` if the file is broken or can't be read."""
    file = folder() / _FILE
    try:
        data = json.loads(file.read_bytes())
        by_name = {
            name: Profile(
                name=name,
                url=_text(one["url"]),
                key=_text(one["key"]) if one.get("key") is not None else None,
                ca=file.parent / _text(one["ca"]) if one.get("ca") is not None else None,
            )
            for name, one in data["profiles"].items()
        }
        default = data.get("default")
    except FileNotFoundError:
        return Profiles({}, None)
    except OSError as error:
        raise BadRequest(f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        # Neither text nor position: what stands there is a key.
        raise BadRequest(
            f"{file} is not what `llm-gateway login` writes: mend it, or delete it and log in again"
        ) from None
    return Profiles(by_name, default if default in by_name else None)


def save(profile: Profile, ca: bytes | None) -> None:
    """Write a profile, replacing one of the same name, and make it the default.

    ``ca`` is the authority's certificate (PEM); ``profile.ca`` becomes its file. Raises
    :class:`BadRequest`.
    """
    profiles = read_profiles()
    authority = None if ca is None else folder() / f"{profile.name}-ca.pem"
    written = replace(profile, ca=authority)
    try:
        make_folder(folder())
        if authority is not None and ca is not None:
            write_private(authority, ca)
        _write(Profiles({**profiles.by_name, profile.name: written}, profile.name))
    except OSError as error:
        raise BadRequest(f"{error.filename or folder()}: {error.strerror}") from None


def remove(name: str) -> Profile:
    """Delete a profile. The default is then the only one left, or none. Raises
    :class:`BadRequest`.
    """
    profiles = read_profiles()
    gone = profiles.named(name)
    left = {other: one for other, one in profiles.by_name.items() if other != name}
    default = profiles.default if profiles.default != name else None
    try:
        _write(Profiles(left, default or (next(iter(left)) if len(left) == 1 else None)))
        if gone.ca is not None and gone.ca.parent == folder():
            gone.ca.unlink(missing_ok=True)
    except OSError as error:
        raise BadRequest(f"{error.filename or folder()}: {error.strerror}") from None
    return gone


def make_default(name: str) -> Profile:
    """Use this profile from now on if none is named. Raises :class:`BadRequest`."""
    profiles = read_profiles()
    chosen = profiles.named(name)
    try:
        _write(replace(profiles, default=name))
    except OSError as error:
        raise BadRequest(f"{error.filename or folder()}: {error.strerror}") from None
    return chosen


def _write(profiles: Profiles) -> None:
    shown: dict[str, dict[str, Any]] = {
        one.name: {"url": one.url, "key": one.key, "ca": one.ca.name if one.ca else None}
        for one in profiles.by_name.values()
    }
    data = {"default": profiles.default, "profiles": shown}
    write_private(folder() / _FILE, json.dumps(data, indent=2) + "\n")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value

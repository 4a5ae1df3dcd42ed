"""``llm-gateway login`` and ``logout``: profiles of gateways elsewhere, with their keys."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.cli.client import (
    TIMEOUT,
    UNKNOWN_AUTHORITY,
    Client,
    NoGateway,
    Refused,
    Untrusted,
    parsed,
)
from gateway.cli.parser import explain
from gateway.cli.profiles import (
    Profile,
    checked_name,
    folder,
    make_default,
    read_profiles,
    remove,
    save,
)
from gateway.cli.table import print_table
from gateway.errors import BadRequest
from gateway.listen_on import is_loopback
from gateway.plurals import counted

if TYPE_CHECKING:
    from gateway.cli.trust import ShownChain

#: How often a terminal user is asked for a key.
_TRIES: Final = 3
#: OpenSSL's codes for a certificate of another name, or another address.
_OTHER_NAME: Final = frozenset({62, 64})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options of `login`."""
    parser.add_argument("url", metavar="URL", nargs="?", help="like https://box.example.com:8443")
    parser.add_argument(
        "--name", metavar="NAME", help="what to call the profile (default: the host's name)"
    )
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--ca", metavar="FILE", help="PEM file of the authority that has signed its certificate"
    )
    trust.add_argument(
        "--fingerprint",
        metavar="SHA256",
        help="the fingerprint of its certificate, or of its authority's: trust it without asking",
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--list", action="store_true", help="list the profiles there are")
    other.add_argument("--use", metavar="NAME", help="make this profile the default one")
    parser.add_argument("--json", action="store_true", help="with --list: the same for programs")
    parser.set_defaults(run=run)
    explain(
        parser,
        "Writes a profile: the address of a gateway elsewhere, a key, and the authority of its "
        "certificate. Every command that talks to a gateway then takes --profile NAME; without, "
        "it uses the profile written last, unless a gateway runs on this machine.\n"
        "The key is asked for in a terminal, and not shown; else it is a line on standard input. "
        "It is tried before it is written. A certificate that this machine doesn't trust is shown, "
        "and written down if you say that it is the right one: `llm-gateway tls show` tells its "
        "fingerprint on the box.",
        examples=[
            "llm-gateway login https://box.lan:8443",
            "llm-gateway login box.lan:8443 --name box --ca ca.pem < key.txt",
            "llm-gateway login --list",
        ],
        exits={1: "it can't be reached, or takes no such key: nothing is written"},
        fields={
            "[].name": "the profile's name",
            "[].url": "address of the gateway",
            "[].key": "whether it has a key",
            "[].ca": "file of the authority to trust beside the system's; or null",
            "[].default": "whether it is used where none is named",
        },
    )


def add_logout_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options of `logout`."""
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="a profile (default: the default one)"
    )
    parser.set_defaults(run=run_logout)
    explain(
        parser,
        "Deletes a profile and its key from this machine. The key itself stays "
        "valid until `llm-gateway keys revoke` ends it.",
        examples=["llm-gateway logout box"],
    )


def run(args: argparse.Namespace) -> int:
    """Return 0, or 1 with the reason on stderr; then nothing is written."""
    if args.list:
        return _list(as_json=args.json)
    if args.json:
        raise BadRequest("--json is for --list")
    if args.use is not None:
        chosen = make_default(args.use)
        print(f"default: {chosen.name}, {chosen.url}")
        return 0
    url, name = _which(args.url, args.name)
    parts = parsed(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        _say("warning: without https, everybody between here and there can read the key")
    url = parts.geturl()
    known = read_profiles().by_name.get(name)
    before = known.ca if known is not None and known.url == url else None
    authority = _trusted(url, args.ca, args.fingerprint, before)
    key, about = _key_for(url, authority)
    save(Profile(name, url, key, None), authority)
    print(f"logged in to {url}: {about}")
    print(f"profile {name} is now the default; in {folder()}")
    return 0


def run_logout(args: argparse.Namespace) -> int:
    """Return 0, or 1 if there is no such profile."""
    profiles = read_profiles()
    name = args.name or profiles.default
    if name is None:
        raise BadRequest("which profile? `llm-gateway login --list` lists them")
    gone = remove(name)
    print(f"forgotten: {name}, {gone.url}")
    if gone.key is not None:
        _say("its key goes on being valid until `llm-gateway keys revoke`, or its end")
    return 0


def _list(*, as_json: bool) -> int:
    profiles = read_profiles()
    shown = [
        {
            "name": one.name,
            "url": one.url,
            "key": one.key is not None,
            "ca": str(one.ca) if one.ca is not None else None,
            "default": one.name == profiles.default,
        }
        for one in profiles.by_name.values()
    ]
    if as_json:
        print(json.dumps(shown, indent=2))
    elif shown:
        print_table(
            ("", "NAME", "URL", "KEY", "AUTHORITY"),
            [
                (
                    "*" if one["default"] else "",
                    str(one["name"]),
                    str(one["url"]),
                    "yes" if one["key"] else "none",
                    str(one["ca"] or "the system's"),
                )
                for one in shown
            ],
        )
        _say("*: the default one")
    else:
        print(f"there are no profiles in {folder()}: `llm-gateway login URL` makes one")
    return 0


def _which(url: str | None, name: str | None) -> tuple[str, str]:
    """Return the address and the profile's name: as given, as known, or else as answered to
    a question.
    """
    if name is not None:
        checked_name(name)
    known = read_profiles()
    if url is None and (name or known.default) in known.by_name:
        name = name or known.default or ""
        url = known.by_name[name].url
        _say(f"another key for {url} (profile {name})")
        return url, name
    if url is None:
        if not sys.stdin.isatty():
            raise BadRequest("which gateway? llm-gateway login URL")
        url = _asked("Address of the gateway, like https://box.example.com: ")
    if name is None:
        host = (parsed(url).hostname or "").replace(":", "-").strip("-.") or "gateway"
        name = checked_name(host[:64])
    return url, name


# --- whether it is the right one -------------------------------------------------------------


def _trusted(
    url: str, ca: str | None, fingerprint: str | None, before: Path | None
) -> bytes | None:
    """Return the PEM of the authority to trust; ``None`` if those of the system are enough.

    ``before`` is the file of the authority that was trusted until now.

    Raises :class:`GatewayError` if the gateway can't be reached, or isn't trusted.
    """
    if ca is not None:
        file = Path(ca).expanduser()
        Client(url, None, str(file))  # raises what is wrong with it
        return file.read_bytes()
    if fingerprint is not None:
        from gateway.cli.trust import checked_fingerprint

        wanted = checked_fingerprint(fingerprint)
        shown = _shown(url)
        if not shown.has(wanted):
            raise BadRequest(
                f"{url} shows another certificate, whose SHA-256 is {shown.fingerprint}: either it "
                "has been renewed, or somebody stands in between"
            )
        return shown.anchor
    for authority in (*([before.read_bytes()] if before and before.is_file() else []), None):
        try:
            Client(url, None, None, authority=authority).ask("GET", "/v1/models")
        except Refused:
            return authority
        except Untrusted as error:
            if error.verify_code not in UNKNOWN_AUTHORITY | _OTHER_NAME:
                raise
            if error.verify_code in _OTHER_NAME:
                return authority  # the next request reports it
        else:
            return authority
    return _vouched_for(url)


def _shown(url: str) -> ShownChain:
    from gateway.cli.trust import shown_by

    parts = parsed(url)
    if parts.scheme != "https":
        raise BadRequest("--fingerprint is for https: over http there is no certificate")
    try:
        return shown_by(parts.hostname or "", parts.port or 443, timeout=TIMEOUT)
    except OSError as error:
        raise NoGateway(f"{url} cannot be reached: {error.strerror or error}") from None


def _vouched_for(url: str) -> bytes:
    """Show the certificate to the person at the terminal, and ask whether it is the right one."""
    shown = _shown(url)
    if not sys.stdin.isatty():
        raise BadRequest(
            f"the certificate of {url} is signed by nobody whom this machine trusts: --ca FILE, or "
            f"--fingerprint with its SHA-256, says that it is right. It is {shown.fingerprint}"
        )
    certificate = shown.certificate
    _say(
        f"This machine doesn't know who has signed the certificate of {url}:\n\n"
        f"  for      {', '.join(shown.names) or '-'}\n"
        f"  by       {certificate.issuer.rfc4514_string()}\n"
        f"  until    {certificate.not_valid_after_utc:%Y-%m-%d}\n"
        f"  SHA-256  {shown.fingerprint}\n\n"
        "On the box, `llm-gateway tls show` tells the SHA-256 of the right one."
    )
    if _asked("Are they the same? [no] ").lower() not in ("y", "yes"):
        raise BadRequest("not trusted: nothing is written")
    return shown.anchor


def _key_for(url: str, authority: bytes | None) -> tuple[str | None, str]:
    """Return a key that works (``None`` if none is needed), and its rights in words."""
    try:
        return None, _counted(Client(url, None, None, authority=authority), "it asks for no key")
    except Refused as refused:
        if refused.answered != 401:
            raise
    except Untrusted as error:
        if error.verify_code not in _OTHER_NAME:
            raise
        names = ", ".join(_shown(url).names)
        raise BadRequest(
            f"the certificate of {url} is for {names or 'no name'}: use such an address, or make "
            "another there: `llm-gateway tls self-signed --domain NAME`"
        ) from None
    for number in range(1, _TRIES + 1):
        key = _key_given()
        client = Client(url, key, None, authority=authority)
        try:
            return key, _counted(client, "an admin key" if _is_admin(client) else "a key")
        except Refused as refused:
            if refused.answered != 401 or not sys.stdin.isatty() or number == _TRIES:
                raise
            _say(f"error: {refused}")
    raise AssertionError  # the last try has raised


def _key_given() -> str:
    if sys.stdin.isatty():
        key = getpass.getpass("Key (it isn't shown): ").strip()
    else:
        key = sys.stdin.readline().strip()
    if not key:
        raise BadRequest("no key was given: nothing is written")
    if not (key.isascii() and key.isprintable()):
        raise BadRequest("this is no key: it holds characters that no key has")
    return key


def _counted(client: Client, about: str) -> str:
    count = len(client.ask("GET", "/v1/models")["data"])
    return f"{about}, {counted(count, 'model')}"


def _is_admin(client: Client) -> bool:
    try:
        client.ask("GET", "/admin/models")
    except Refused as refused:
        if refused.answered == 403:
            return False
        raise
    return True


def _asked(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError:
        print()
        raise BadRequest("nothing was typed: nothing is written") from None


def _say(text: str) -> None:
    print(text, file=sys.stderr)

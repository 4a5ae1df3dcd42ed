"""``llm-gateway tls``: a certificate for a machine without a public name."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from gateway.cli.options import add_config
from gateway.cli.parser import explain
from gateway.config.load import load_settings
from gateway.errors import BadRequest
from gateway.problems import InvalidFiles
from gateway.tls import (
    DEFAULT_DAYS,
    MAX_DAYS,
    SelfSigned,
    default_domains,
    self_signed,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the commands and their options."""
    explain(parser, "Makes certificates.", examples=["llm-gateway tls self-signed"])
    below = parser.add_subparsers(dest="tls_command", metavar="COMMAND", required=True)
    command = below.add_parser(
        "self-signed",
        help="a small local authority and a certificate signed by it",
    )
    explain(
        command,
        "Writes D-key.pem, D-crt.pem and D-chain.pem, D being the first domain, "
        "and prints the lines for conf/gateway.yaml, and how to make clients "
        "trust it.",
        examples=["llm-gateway tls self-signed --domain box.lan --domain 192.168.1.20"],
    )
    add_config(command)
    command.add_argument(
        "--domain",
        action="append",
        metavar="D",
        help="a host name, *.NAME or IP address; may be given many times "
        "(default: this machine's names)",
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: ssl beside conf)"
    )
    command.add_argument(
        "--days",
        type=int,
        default=DEFAULT_DAYS,
        metavar="N",
        help=f"validity, 1 to {MAX_DAYS} (default: {DEFAULT_DAYS})",
    )
    command.add_argument(
        "--force", action="store_true", help="replace existing files, keeping them as *.bak"
    )
    command.set_defaults(run=make_self_signed)

    showing = below.add_parser("show", help="what clients see: names, end, SHA-256")
    add_config(showing)
    showing.add_argument("--json", action="store_true", help="the same for programs")
    showing.set_defaults(run=show)
    explain(
        showing,
        "Shows the certificate that gateway.yaml names (tls.certificate). Compare"
        " its SHA-256 with the one that `llm-gateway login` shows on another "
        "machine.",
        examples=["llm-gateway tls show"],
        fields={
            "names": "list of host names and addresses it is for",
            "not_after": "its end",
            "sha256": "its fingerprint, 64 hex digits",
            "local": "whether it is signed by itself, or by `tls self-signed`'s authority",
            "file": "the file it is in",
        },
    )


def make_self_signed(args: argparse.Namespace) -> int:
    """Write the files, and print what to do with them. Return 0, or 1 with the reason on stderr."""
    try:
        loaded = load_settings(args.config)
        # Without a configuration, the one that will be written here is meant: ./conf.
        root = loaded.root if loaded.file else Path.cwd()
        out = args.out if args.out is not None else root / "ssl"
        domains = args.domain or default_domains()
        made = self_signed(domains, out, days=args.days, force=args.force)
    except (ValueError, OSError, InvalidFiles) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(_report(made, root.absolute(), loaded.settings.port)))
    return 0


def show(args: argparse.Namespace) -> int:
    """Print the certificate. Return 0, or 1 if there is none."""
    tls = load_settings(args.config).settings.tls
    if not tls.enabled:
        raise BadRequest("tls.enabled is false in gateway.yaml: clients see no certificate")
    if tls.acme is not None:
        raise BadRequest("tls.acme: the authority's certificates are trusted without it")
    from gateway.tls import inspect

    inspection = inspect(tls)
    seen = inspection.certificate
    if seen is None:
        raise InvalidFiles(inspection.errors)
    shown = {
        "names": list(seen.names),
        "not_after": f"{seen.not_after:%Y-%m-%dT%H:%M:%SZ}",
        "sha256": seen.fingerprint,
        "local": seen.local,
        "file": str(tls.certificate) if tls.certificate is not None else None,
    }
    if args.json:
        print(json.dumps(shown, indent=2))
        return 0
    print(f"for      {', '.join(seen.names)}")
    print(f"until    {seen.not_after:%Y-%m-%d}")
    print(f"SHA-256  {seen.fingerprint}")
    for problem in inspection.errors:
        print(f"error: {problem}", file=sys.stderr)
    return 0


def _report(made: SelfSigned, root: Path, port: int) -> list[str]:
    names = ", ".join(made.names)
    authority = "new, made beside it" if made.ca_made else "the one made before"
    chain = shlex.quote(str(made.chain.absolute()))
    host = f"[{made.names[0]}]" if ":" in made.names[0] else made.names[0].replace("*", "www")
    lines = [
        f"A certificate for {names}, valid until {made.not_after:%Y-%m-%d}.",
        f"  private key  {made.private_key}",
        f"  certificate  {made.certificate}",
        f"  CA chain     {made.chain}   (authority: {authority})",
        f"  SHA-256      {made.fingerprint}",
        *(f"  kept before  {backup}" for backup in made.backups),
    ]
    if os.name == "posix" and os.geteuid() == 0:
        key = shlex.quote(str(made.private_key))
        lines += [
            "",
            "Only root can read the key. If the gateway runs as another user:",
            f"  chgrp llm-gateway {key} && chmod 640 {key}",
        ]
    return [
        *lines,
        "",
        "In conf/gateway.yaml:",
        "",
        "tls:",
        "  enabled: true",
        f"  private_key: {_yaml(made.private_key, root)}",
        f"  certificate: {_yaml(made.certificate, root)}",
        f"  ca_chain: {_yaml(made.chain, root)}",
        "",
        "Clients trust it by the CA chain (copy that one file to their machine):",
        "",
        f"  curl --cacert {chain} https://{host}:{port}/ping",
        f"  export SSL_CERT_FILE={chain}         # the openai client (httpx)",
        f"  export REQUESTS_CA_BUNDLE={chain}    # programs that use requests",
        f"  export NODE_EXTRA_CA_CERTS={chain}   # Node.js",
        "  # everything on a Debian or Ubuntu machine:",
        f"  sudo cp {chain} /usr/local/share/ca-certificates/llm-gateway.crt"
        " && sudo update-ca-certificates",
        "  # llm-gateway elsewhere needs no copy: it shows the SHA-256, to compare with the above:",
        f"  llm-gateway login https://{host}:{port}",
    ]


def _yaml(path: Path, root: Path) -> str:
    """Return a path as the settings read it: relative to the project root if possible,
    quoted if needed.
    """
    path = path.absolute()
    text = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    plain = text.replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    # A single-quoted scalar has one escape (YAML 1.2, 7.3.2).
    return text if plain.isalnum() and text[0] not in "-" else "'" + text.replace("'", "''") + "'"

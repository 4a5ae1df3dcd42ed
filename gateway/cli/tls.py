"""``llm-gateway tls self-signed``: a certificate for a box without a public name."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from gateway.cli.options import add_config
from gateway.config import load_settings
from gateway.tls import (
    DEFAULT_DAYS,
    MAX_DAYS,
    SelfSigned,
    default_domains,
    self_signed,
)
from gateway.validation import InvalidFiles


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    below = parser.add_subparsers(dest="tls_command", metavar="COMMAND", required=True)
    command = below.add_parser(
        "self-signed",
        help="a small local authority and a certificate signed by it",
        description="Writes D-key.pem, D-crt.pem and D-chain.pem, D being the first domain, and "
        "prints what to put into conf/gateway.yaml and how clients come to trust it.",
    )
    add_config(command)
    command.add_argument(
        "--domain",
        action="append",
        metavar="D",
        help="a host name, *.NAME or IP address; may be given many times "
        f"(default: {', '.join(default_domains())})",
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


def make_self_signed(args: argparse.Namespace) -> int:
    """Write the files, and say what to do with them. 0, or 1 with the reason on stderr."""
    try:
        loaded = load_settings(args.config)
        # Without a configuration, the one that will be written here is meant: ./conf.
        root = loaded.root if loaded.file else Path.cwd()
        out = args.out if args.out is not None else root / "ssl"
        domains = args.domain or default_domains()
        made = self_signed(domains, out, days=args.days, force=args.force)
    except (ValueError, OSError, InvalidFiles) as error:
        print(f"llm-gateway tls self-signed: {error}", file=sys.stderr)
        return 1
    print("\n".join(_report(made, root.absolute(), loaded.settings.port)))
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
    ]


def _yaml(path: Path, root: Path) -> str:
    """As the settings read it: relative to the project root if it lies below, and quoted if odd."""
    path = path.absolute()
    text = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    plain = text.replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    # A single-quoted scalar has one escape (YAML 1.2, 7.3.2).
    return text if plain.isalnum() and text[0] not in "-" else "'" + text.replace("'", "''") + "'"

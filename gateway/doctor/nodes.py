"""Checks the cluster: Ray here, the head, what nodes know this gateway by, and the nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from gateway import __version__
from gateway.cluster.installed import why_no_ray
from gateway.cluster.ray_command import variables
from gateway.cluster.token import known_token, token_file
from gateway.config.head_address import AUTO, CLIENT
from gateway.doctor.checks import Finding, Level, Subject

_NAME: Final = "cluster"
#: Seconds by which the clocks of two machines may differ without anybody noticing.
_CLOCK: Final = 5.0
#: What is said of a GPU that isn't used.
_UNUSED: Final = "finds no GPU"
#: How long before the end of the authority it is time to tell.
_SOON: Final = timedelta(days=60)


def check_cluster(subject: Subject) -> Iterator[Finding]:
    """Check the cluster in gateway.yaml, if there is one."""
    settings = subject.settings.cluster
    if settings is None:
        return
    if (reason := why_no_ray()) is not None:
        what, _, do = reason.partition(": ")
        yield Finding(_NAME, Level.ERROR, f"a cluster {what}", do)
        return
    folder = subject.settings.data_dir / "cluster"
    yield from _token(subject, settings.address)
    yield from _authority(folder)
    told = subject.running.nodes if subject.running is not None else None
    if told is None or told["cluster"] is None:
        yield from _head(subject, settings.address)
        do = "start the gateway, and ask again"
        yield Finding(_NAME, Level.OK, "the nodes are looked at while the gateway runs", do)
        return
    if (problem := told["cluster"]["problem"]) is None:
        yield Finding(_NAME, Level.OK, f"the head at {settings.address} answers")
    else:
        found = list(_head(subject, settings.address))
        if all(one.level is Level.OK for one in found):
            do = "restart the gateway, if this stays so"
            yield Finding(_NAME, Level.ERROR, f"the head gives no answer: {problem}", do)
        yield from (one for one in found if one.level is not Level.OK)
    if not told["nodes"]:
        do = "on each of them: llm-gateway node join, with the head's address"
        yield Finding(_NAME, Level.WARNING, "no other machine has joined", do)
    spans = sorted(spec.name for spec in subject.catalog.ours if spec.machines > 1)
    for node in told["nodes"]:
        yield from _node(node, spans)


# --- this machine ----------------------------------------------------------------------------


def _token(subject: Subject, address: str) -> Iterator[Finding]:
    file = token_file(subject.settings.data_dir)
    if known_token(file.parent) is None:
        why = "can't be read by this user" if file.exists() else "isn't there"
        what = f"the cluster's token, {file}, {why}: a head of `llm-gateway node head` lets nobody"
        do = f"copy cluster/token from the head's data_dir to {file}"
        if file.exists():
            do = "run doctor as the user that runs the gateway, or give the file to that user"
        level = Level.WARNING if address == AUTO else Level.ERROR
        yield Finding(_NAME, level, f"{what} in without it", do)
    else:
        yield from _private(file, "whoever has it can run programs on every machine")


def _authority(folder: Path) -> Iterator[Finding]:
    """Check the authority by which nodes and gateway know each other. The first start makes it."""
    key, certificate = folder / "ca-key.pem", folder / "ca-crt.pem"
    if not key.exists() and not certificate.exists():
        return
    do = f"end the gateway, move {key.name} and {certificate.name} away, and start it: it makes new"
    try:
        ends = _end_of(key, certificate)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        yield Finding(_NAME, Level.ERROR, f"the authority in {folder} is of no use: {reason}", do)
        return
    yield from _private(key, "whoever has it can pass for a gateway or a node")
    left = ends - datetime.now(UTC)
    what = f"the authority for nodes is valid until {ends:%Y-%m-%d}"
    level = Level.ERROR if left < timedelta(0) else Level.WARNING if left < _SOON else Level.OK
    yield Finding(_NAME, level, what, do if level is not Level.OK else "")


def _end_of(key: Path, certificate: Path) -> datetime:
    """Return when the certificate ends. Raises ValueError where it isn't that of the key."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    found = load_pem_x509_certificate(certificate.read_bytes())
    if load_pem_private_key(key.read_bytes(), None).public_key() != found.public_key():
        raise ValueError("the certificate is not that of the key")
    return found.not_valid_after_utc


def _private(file: Path, why: str) -> Iterator[Finding]:
    if file.stat().st_mode & 0o077:
        what = f"{file} can be read by other users: {why}"
        yield Finding(_NAME, Level.WARNING, what, f"chmod 600 {file}")


# --- the head --------------------------------------------------------------------------------


def _head(subject: Subject, address: str) -> Iterator[Finding]:
    """Ask the head itself whether it lets us in, and which versions it has."""
    from gateway.cluster import joining
    from gateway.cluster.ray_process import CannotJoin

    if address == AUTO or address.startswith(CLIENT):
        return
    token = known_token(subject.settings.data_dir / "cluster")
    environ = {**subject.environ, **variables(token)}
    try:
        known = asyncio.run(joining.ask_head(address, environ))
    except CannotJoin as error:
        what, colon, do = error.message.partition(": ")
        yield Finding(_NAME, Level.ERROR, what, do if colon else "")
        return
    if (reason := joining.why_not(known, "", "")) is not None:
        yield Finding(_NAME, Level.ERROR, reason)
        return
    there = len(known["nodes"]) - 1
    yield Finding(_NAME, Level.OK, f"the head at {address} lets us in; {there} nodes have joined")


# --- nodes -----------------------------------------------------------------------------------


def _node(node: Mapping[str, Any], spans: list[str]) -> Iterator[Finding]:
    """Check one as the running gateway knows it. ``spans``: models that may span machines."""

    def found(level: Level, what: str, do: str = "") -> Finding:
        return Finding("node", level, what, do, node["name"])

    if not node["up"]:
        do = (
            "start it, or `llm-gateway node join` there; `llm-gateway node remove "
            f"{node['name']}` forgets it"
        )
        yield found(Level.WARNING, f"away: {node['problem']}", do)
        return
    wrong = False
    if node["version"] != __version__:
        wrong = True
        do = f"install llm-api-gateway {__version__} there"
        yield found(Level.ERROR, f"it has llm-gateway {node['version']}, not {__version__}", do)
    if abs(ahead := node["clock_off"]) > _CLOCK:
        wrong = True
        how = "ahead of" if ahead > 0 else "behind"
        do = "let NTP keep both right: timedatectl set-ntp true"
        what = f"its clock is {abs(ahead):.0f} s {how} this machine's: certificates may be refused"
        yield found(Level.WARNING, what, do)
    for trouble in node["troubles"]:
        wrong = True
        level = Level.WARNING if _UNUSED in trouble else Level.ERROR
        yield found(level, trouble, _what_helps(trouble))
    if spans and node["no_rpc"] is not None:
        wrong = True
        what = f"it can't take part in {', '.join(spans)}: {node['no_rpc']}"
        yield found(Level.WARNING, what, "install a llama.cpp that is built with GGML_RPC there")
    if not wrong:
        devices = ", ".join(one["name"] for one in node["devices"]) or "no device"
        yield found(Level.OK, f"up, {devices}, llama-server {node['llama_server'] or 'unknown'}")


def _what_helps(trouble: str) -> str:
    if _UNUSED in trouble:
        return "take a llama.cpp that is built for it, and see that its user may use the GPU"
    if "can't be read" in trouble:
        return "let the user of `node join` read it"
    if "doesn't answer" in trouble:
        return "see whether its drive, or the machine that has it, is there"
    return "llama_server in gateway.yaml there says which one to use"

"""Checks the gateway's process, and its service of systemd."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.config.places import skeleton
from gateway.doctor.checks import Finding, Level, Subject
from gateway.runtime import other_gateways

UNIT: Final = "llm-gateway.service"
SOCKETS: Final = ("llm-gateway.socket", "llm-gateway-redirect.socket")
_PATIENCE: Final = 10.0  # seconds
#: A folder that exists if systemd has booted the machine (sd_booted(3)).
BOOTED: Final = Path("/run/systemd/system")
#: Settings of the unit that each machine has its own values for.
_OWN: Final = frozenset(
    "ExecStart ExecReload User Group WorkingDirectory Environment EnvironmentFile "
    "ReadWritePaths ReadOnlyPaths Description Documentation After Wants".split()
)
_ASKED: Final = "LoadState ActiveState UnitFileState NeedDaemonReload FragmentPath Result".split()


def check_gateway(subject: Subject) -> Iterator[Finding]:
    """Check whether a gateway runs on the data folder, and how it is."""
    folder = subject.settings.data_dir
    if subject.silent is not None:
        yield Finding("gateway", Level.ERROR, subject.silent, "see its log, and restart it")
    elif subject.running is None:
        others = other_gateways(folder)
        if others:
            what = f"none runs on {folder}, but one on {others[0]}"
            do = "if that one is meant, use its configuration: --config FILE"
            yield Finding("gateway", Level.WARNING, what, do)
        else:
            yield Finding("gateway", Level.OK, "not running: llm-gateway serve starts it")
    else:
        status, pid = subject.running.status, subject.running.pid
        if broken := status.get("models_file_error"):
            what = f"runs with the models of before: {broken}"
            yield Finding("gateway", Level.ERROR, what, "mend models.json")
        ready = "ready" if status.get("ready") else "starting, or draining"
        loaded = sum(one.get("state") == "ready" for one in status.get("models", ()))
        doing = f"models loaded: {loaded}, requests under way: {status.get('in_flight', 0)}"
        yield Finding("gateway", Level.OK, f"process {pid} is {ready}; {doing}")
    yield from _open_files(subject)


def _open_files(subject: Subject) -> Iterator[Finding]:
    """Check the limit of open files, as ``serve`` does: each connection may need two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = subject.settings.limits.connections
    if 0 <= hard < 2 * connections + 100:
        what = f"only {hard} files may be open at once, too few for {connections} connections"
        yield Finding("open files", Level.WARNING, what, "raise ulimit -Hn (LimitNOFILE=)")


def check_service(subject: Subject) -> Iterator[Finding]:
    """Check the systemd unit: whether it exists, is enabled, runs, and is the one on disk."""
    if not BOOTED.is_dir():
        yield Finding(
            "service", Level.OK, "this machine has no systemd: start the gateway yourself"
        )
        return
    states = {scope: _show(scope) for scope in ("--system", "--user")}
    for scope, state in states.items():
        if state.get("LoadState") in (None, "not-found"):
            continue
        yield from _of_unit(scope, state)
        return
    what = "not installed: `llm-gateway service install` does that"
    yield Finding("service", Level.OK, what)


def socket_unit_at(port: int) -> bool:
    """Return whether systemd listens on ``port`` for the machine's service."""
    try:
        done = subprocess.run(
            ["systemctl", "show", "--property=Listen", *SOCKETS],
            capture_output=True, text=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return f":{port} (Stream)" in done.stdout


def _of_unit(scope: str, state: dict[str, str]) -> Iterator[Finding]:
    user = " --user" if scope == "--user" else ""
    control = f"systemctl{user}"
    if state.get("LoadState") != "loaded":
        what = f"its unit is {state.get('LoadState')}"
        yield Finding("service", Level.ERROR, what, f"{control} status {UNIT}")
        return
    if state.get("NeedDaemonReload") == "yes":
        what = "its unit was changed, and systemd has the old one"
        yield Finding("service", Level.WARNING, what, f"{control} daemon-reload, then restart it")
    if missing := _missing(state.get("FragmentPath", "")):
        what = f"its unit is of another version, without {', '.join(missing)}"
        do = "compare it with systemd/llm-gateway.service of this one"
        yield Finding("service", Level.WARNING, what, do)
    if state.get("ActiveState") == "failed":
        what = f"has failed ({state.get('Result')})"
        yield Finding("service", Level.ERROR, what, f"journalctl{user} -u {UNIT} says why")
    elif state.get("UnitFileState") not in ("enabled", "enabled-runtime"):
        what = f"is {state.get('ActiveState')}, and doesn't start with the machine"
        yield Finding("service", Level.WARNING, what, f"{control} enable {UNIT}")
    elif state.get("ActiveState") == "active":
        yield Finding("service", Level.OK, "active, and starts with the machine")
    else:
        what = f"is {state.get('ActiveState')}"
        yield Finding("service", Level.WARNING, what, f"{control} start {UNIT}")


def _missing(fragment: str) -> list[str]:
    """Return the settings of the unit we ship that the one in ``fragment`` lacks."""
    try:
        installed = Path(fragment).read_text()
        shipped = skeleton(f"systemd/{UNIT}").read_text()
    except OSError:
        return []
    here = settings_of(installed)
    return [name for name in settings_of(shipped) if name not in here and name not in _OWN]


def settings_of(unit: str) -> dict[str, str]:
    """Return the names that a unit's text (systemd.syntax(7)) sets, each with its last value."""
    lines = (line.strip() for line in unit.splitlines())
    return {
        name.strip(): value.strip()
        for line in lines
        if not line.startswith(("#", ";", "["))
        for name, equals, value in (line.partition("="),)
        if equals
    }


def _show(scope: str) -> dict[str, str]:
    """Return properties of the unit; none if systemd doesn't answer."""
    command = ["systemctl", scope, "show", UNIT, "--property", ",".join(_ASKED)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if done.returncode != 0:
        return {}
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

"""``llm-gateway doctor``: checks of the whole machine within a minute, a line for each."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from gateway.cli.check import find_problems
from gateway.cli.control import ControlError, control_request
from gateway.cli.options import add_config
from gateway.cli.paragraphs import print_paragraph
from gateway.cli.parser import explain
from gateway.cli.serve import demo_if_bare
from gateway.config.load import load_partly
from gateway.doctor import conversations, files, llama_server, machine, network, nodes, service
from gateway.doctor.checks import Check, Finding, Level, Running, Subject, examine
from gateway.doctor.report import redactor_for, report, sentence
from gateway.errors import GatewayError
from gateway.library import read_partly
from gateway.plurals import counted

if TYPE_CHECKING:
    from gateway.config.load import Loaded
    from gateway.config.settings import Settings

#: The checks, in the order of the output.
_CHECKS: Final = (
    Check("llama-server", llama_server.check_program),
    Check("flags", llama_server.check_flags),
    Check("devices", machine.check_devices),
    Check("disk", machine.check_disks),
    Check("clock", machine.check_clock),
    Check("port", network.check_ports),
    Check("certificate", network.check_certificate),
    Check("reachable", network.check_reachable),
    Check("permissions", files.check_permissions),
    Check("cache", conversations.check_conversations),
    Check("cluster", nodes.check_cluster),
    Check("gateway", service.check_gateway),
    Check("service", service.check_service),
    Check("model", files.check_models),
)
#: The mark at the beginning of a line (also in plain ASCII), and its style.
_MARKS: Final = {
    Level.OK: ("\u2713 ok      ", "+ ok      ", "green"),
    Level.WARNING: ("! warning ", "! warning ", "yellow"),
    Level.ERROR: ("\u2717 error   ", "x error   ", "red"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_config(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for programs: one JSON object")
    how.add_argument(
        "--report",
        action="store_true",
        help="a text for a bug report, without keys, prompts, hosts and paths of homes",
    )
    parser.set_defaults(run=run)
    explain(
        parser,
        "Checks the whole machine within a minute: llama-server and its flags, "
        "GPUs, memory, disks, ports, the clock, the certificate, names that "
        "should lead here, permissions, saved conversations, the cluster and "
        "its nodes, the service, and whether each model fits."
        " It changes nothing.",
        examples=["llm-gateway doctor", "llm-gateway doctor --report > report.txt"],
        exits={0: "no errors; there may be warnings", 1: "there are errors"},
        fields={
            "level": "the worst of all: ok, warning or error",
            "seconds": "how long it took",
            "checks[].name": "what was looked at, like disk",
            "checks[].subject": "which of several: a model, a port, a folder; or empty",
            "checks[].level": "ok, warning or error",
            "checks[].what": "what is so, a sentence",
            "checks[].do": "what helps; empty if nothing is to be done",
        },
    )


def run(args: argparse.Namespace) -> int:
    """Return 0, or 1 if there is an error. A running gateway is asked, but none has to run."""
    began = time.monotonic()
    quiet = logging.NullHandler()  # what is wrong, the checks say
    logging.getLogger("gateway").addHandler(quiet)
    try:
        return _examined(args, began)
    finally:
        logging.getLogger("gateway").removeHandler(quiet)


def _examined(args: argparse.Namespace, began: float) -> int:
    loaded, _ = load_partly(args.config)
    loaded = demo_if_bare(loaded)
    subject = _subject(loaded.settings)
    checks = (Check("configuration", lambda _: _configuration(args.config)), *_CHECKS)
    found: list[Finding] = []
    for findings in examine(checks, subject):
        found += findings
        if not args.json and not args.report:
            for finding in findings:
                _show(finding)
            sys.stdout.flush()
    took = time.monotonic() - began
    worst = _worst(found)
    if args.json:
        print(json.dumps(_as_json(found, worst, took), indent=2, ensure_ascii=False))
    elif args.report:
        _print_report(loaded, subject, found)
    else:
        _show_sum(found, took)
    return 1 if worst is Level.ERROR else 0


def _subject(settings: Settings) -> Subject:
    from gateway.backends.command import find_program

    program: tuple[str, ...] = ()
    missing = silent = running = None
    try:
        program = find_program(settings.llama_server, os.environ)
    except GatewayError as error:
        missing = error.detail or error.message
    try:
        answer = control_request(settings, "GET", "/admin/status")
        if answer is not None and answer[0] == 200 and isinstance(answer[1], dict):
            others = None if settings.cluster is None else _told(settings, "/admin/nodes")
            saved = _told(settings, "/admin/cache")
            running = Running(_pid(settings), answer[1], saved, others)
        elif answer is not None:
            silent = f"the running gateway has answered {answer[0]}"
    except ControlError as error:
        silent = str(error)
    catalog, _ = read_partly(settings.models_file)
    return Subject(settings, catalog, dict(os.environ), program, missing, running, silent)


def _told(settings: Settings, path: str) -> dict[str, Any] | None:
    """Return what the running gateway answers; an older one may not know what is asked."""
    answer = control_request(settings, "GET", path)
    told = answer[1] if answer is not None and answer[0] == 200 else None
    return told if isinstance(told, dict) else None


def _pid(settings: Settings) -> int | None:
    try:
        return int(json.loads((settings.data_dir / "gateway.json").read_bytes())["pid"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _configuration(config: str | None) -> Iterator[Finding]:
    label, problems, warnings = find_problems(config)
    if problems:
        first = problems[0]
        where = f"{Path(first.file).name}{f': {first.key}' if first.key else ''}"
        what = f"{_count(len(problems), 'problem')}, the first: {where}: {first.message}"
        yield Finding("configuration", Level.ERROR, what, "llm-gateway check lists them all")
    elif warnings:
        what = f"{label}: no problems, {_count(len(warnings), 'warning')}"
        yield Finding("configuration", Level.WARNING, what, "llm-gateway check lists them")
    else:
        yield Finding("configuration", Level.OK, label)


# --- what is said ----------------------------------------------------------------------------


def _show(finding: Finding) -> None:
    fancy, plain, style = _MARKS[finding.level]
    try:
        fancy.encode(sys.stdout.encoding or "ascii")
        mark = fancy
    except UnicodeEncodeError:
        mark = plain
    print_paragraph(sentence(finding), mark=mark, style=style)


def _show_sum(found: Iterable[Finding], took: float) -> None:
    levels = [finding.level for finding in found]
    errors, warnings = levels.count(Level.ERROR), levels.count(Level.WARNING)
    print()
    print_paragraph(
        f"{levels.count(Level.OK)} ok, {_count(warnings, 'warning')}, {_count(errors, 'error')} "
        f"({took:.1f} s)"
    )


def _count(number: int, what: str) -> str:
    return counted(number, what) if number else f"no {what}s"


def _worst(found: Iterable[Finding]) -> Level:
    levels = {finding.level for finding in found}
    return next(one for one in (Level.ERROR, Level.WARNING, Level.OK) if one in {*levels, Level.OK})


def _as_json(found: Iterable[Finding], worst: Level, took: float) -> dict[str, Any]:
    return {
        "level": worst.value,
        "seconds": round(took, 2),
        "checks": [
            {
                "name": finding.name,
                "subject": finding.subject,
                "level": finding.level.value,
                "what": finding.what,
                "do": finding.do,
            }
            for finding in found
        ],
    }


def _print_report(loaded: Loaded, subject: Subject, found: Iterable[Finding]) -> None:
    redactor = redactor_for(subject.settings, subject.catalog, subject.environ)
    logs = {name: _log(subject.settings, name) for name in _loaded(subject)}
    root: Path = loaded.root
    for line in report(subject, found, root=root, redactor=redactor, logs=logs):
        print(line)


def _loaded(subject: Subject) -> Iterator[str]:
    if subject.running is not None:
        yield from (str(one["name"]) for one in subject.running.status.get("models", ()))


def _log(settings: Settings, name: str) -> list[str]:
    """Return the last lines of a model's llama-server, if they can be had."""
    try:
        answer = control_request(
            settings, "GET", f"/admin/models/{quote(name, safe='')}/log?follow=false"
        )
    except ControlError:
        return []
    content = answer[1] if answer is not None and answer[0] == 200 else {}
    return [str(line) for line in content.get("lines", ())] if isinstance(content, dict) else []

"""``llm-gateway migrate DIR``: take over the folder of LLM-API, and report each step.

Nothing in that folder is changed or run. :mod:`gateway.legacy.javascript` reads ``config.js`` as
data; what it doesn't understand is reported and left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.check import find_problems
from gateway.cli.init import with_schema, write_schemas
from gateway.cli.paragraphs import print_paragraph
from gateway.cli.parser import explain
from gateway.config.places import skeleton
from gateway.doctor.configuration import Findings
from gateway.errors import BadRequest
from gateway.legacy.llm_api import MigrationPlan, Step, StepOutcome, plan
from gateway.listen_on import first_free_port
from gateway.plurals import counted
from gateway.private_files import make_folder, write_private
from gateway.problems import InvalidFiles
from gateway.yaml_file import with_settings

if TYPE_CHECKING:
    from gateway.access.keys import ImportReport
    from gateway.access.legacy_keys import LegacyFile

_CONFIG: Final = "conf/gateway.yaml"
_MODELS: Final = "data/models.json"
_DATABASE: Final = "data/gateway.db"
_TARGET: Final = "llm-gateway"
#: The mark at the beginning of a line, and its style.
_MARKS: Final = {
    StepOutcome.TAKEN: ("+ ", "green"),
    StepOutcome.LEFT: ("- ", "dim"),
    StepOutcome.TO_DO: ("! ", "yellow"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options of the command."""
    parser.add_argument("dir", type=Path, metavar="DIR", help="the folder with its config.js")
    parser.add_argument(
        "--to",
        type=Path,
        metavar="FOLDER",
        default=Path(_TARGET),
        help=f"the new folder, as `init` makes it (default: {_TARGET}); nothing is overwritten",
    )
    parser.add_argument("--dry-run", action="store_true", help="only report what it would do")
    parser.add_argument(
        "--no-admin", action="store_true", help="no old key may unload models or manage keys"
    )
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object")
    parser.set_defaults(run=run)
    explain(
        parser,
        "Takes over the settings, models, keys and certificates of LLM-API, the "
        "Node.js program, and reports what became of each. Nothing in its folder "
        "is changed or run.",
        examples=[
            "llm-gateway migrate ~/LLM-api --dry-run",
            "llm-gateway migrate ~/LLM-api --to ~/llm-gateway",
        ],
        exits={
            0: "done, and the new folder can be served as it is",
            1: "nothing was done, or something is left to mend, as `check` says",
        },
        fields={
            "from": "the old folder",
            "to": "the new one",
            "dry_run": "whether nothing was written",
            "steps[].what": "the setting of config.js, or the file",
            "steps[].outcome": "taken, left (not needed here) or to do",
            "steps[].became": "what became of it, in words",
            "steps[].target": "the setting, file or key's id that it is now, or null",
            "steps[].line": "where it stands in config.js, from 1, or null",
            "steps[].column": "the same",
            "problems": "what `check` says of the new folder; null after a dry run",
            "warnings": "the same",
            "to_do": "what remains for you, in sentences",
        },
    )


@dataclass(slots=True)
class _MigrationReport:
    """The report at the end. ``to_do``: sentences."""

    made: MigrationPlan
    target: Path
    dry: bool
    findings: Findings | None = None
    to_do: list[str] = field(default_factory=list)

    @property
    def in_order(self) -> bool:
        """Return whether the new folder can be served as it is."""
        return self.findings is None or not self.findings.problems


def run(args: argparse.Namespace) -> int:
    """Return 0 if it is done and can be served; 1 if something is wrong, or nothing was done."""
    folder, target = args.dir.expanduser().absolute(), args.to.expanduser().absolute()
    try:
        made = _planned(folder, target)
        report = _MigrationReport(made, target, args.dry_run)
        if args.dry_run:
            _say_what_would_be(made, admin=not args.no_admin)
        else:
            _write(made, target, admin=not args.no_admin)
            report.findings = find_problems(target / _CONFIG)
    except OSError as error:
        print(f"error: {error.filename or target}: {error.strerror or error}", file=sys.stderr)
        return 1
    made.steps += made.rest
    report.to_do = _left_to_do(report)
    if args.json:
        print(json.dumps(_as_json(report), indent=2, ensure_ascii=False))
    else:
        _show(report)
    return 0 if report.in_order else 1


def _planned(folder: Path, target: Path) -> MigrationPlan:
    """Return what is to be done. Raises ``BadRequest`` if it can't be done, ``OSError``."""
    if not folder.is_dir():
        raise BadRequest(f"there is no folder {folder}")
    if target.resolve().is_relative_to(folder.resolve()):
        raise BadRequest(
            f"{target} is in {folder}, where nothing is changed: --to names another folder"
        )
    made = plan(folder)
    if made.empty:
        raise BadRequest(
            f"{folder} is no folder of LLM-API: neither config.js nor data/models.json nor "
            "data/authKeys.json is there"
        )
    wanted = [_CONFIG, _MODELS, _DATABASE, *made.copies.values()]
    there = [str(target / name) for name in wanted if (target / name).exists()]
    if there:
        raise BadRequest(
            f"nothing was done, since it is there already: {', '.join(there)}. --to names another "
            "folder"
        )
    return made


# --- what is written -------------------------------------------------------------------------


def _write(made: MigrationPlan, target: Path, *, admin: bool) -> None:
    """Make the new folder, with the configuration last. Raises ``OSError``."""
    for name in ("conf", "data", "ssl"):
        make_folder(target / name)
    (target / "data").chmod(0o700)
    for source, name in made.copies.items():
        write_private(target / name, source.read_bytes())
    if made.models is not None:
        write_private(target / _MODELS, made.models.read_bytes())
        what = _name(made, made.models)
        made.steps.append(
            Step(what, StepOutcome.TAKEN, f"copied to {_MODELS}, word for word", _MODELS)
        )
    else:
        write_private(target / _MODELS, with_schema(_MODELS, b"{\n}\n"))
        made.steps.append(Step(_MODELS, StepOutcome.TO_DO, "is not there: no models yet", _MODELS))
    if made.keys is not None:
        _import_keys(made, made.keys, target / _DATABASE, admin=admin)
    else:
        made.steps.append(Step("data/authKeys.json", StepOutcome.LEFT, "is not there: no keys"))
    text = with_settings(skeleton(_CONFIG).read_text(encoding="utf-8"), made.settings)
    list(write_schemas(target))
    write_private(target / _CONFIG, with_schema(_CONFIG, text.encode()))


def _import_keys(made: MigrationPlan, file: Path, database: Path, *, admin: bool) -> None:
    """Put the old keys into the new database, hashed. Keys that can't be imported are reported."""
    from gateway.access.keys import KeyRing
    from gateway.access.store import Store, StoreError

    async def work() -> ImportReport:
        ring = await KeyRing.open(await Store.open(database))
        try:
            return await ring.import_legacy(file, admin=admin)
        finally:
            await ring.close()

    what = _name(made, file)
    try:
        report = asyncio.run(work())
    except InvalidFiles as error:
        made.steps += [
            _not_imported(what, problem.key, problem.message) for problem in error.problems
        ]
        return
    except StoreError as error:
        made.steps.append(Step(what, StepOutcome.TO_DO, f"no key was imported: {error}"))
        return
    for key in report.imported:
        kind = "an admin key" if key.admin else "a key that may load and chat"
        became = f"key of {key.name!r}: imported as {key.id}, {kind}; only its hash is kept"
        made.steps.append(Step(what, StepOutcome.TAKEN, became, key.id))
    made.steps += [Step(what, StepOutcome.LEFT, f"{text}: not imported") for text in report.skipped]
    made.steps += [Step(what, StepOutcome.TO_DO, text) for text in report.warnings]


def _say_what_would_be(made: MigrationPlan, *, admin: bool) -> None:
    """Report the steps of :func:`_write`, for a dry run."""
    from gateway.access.legacy_keys import read_legacy

    if made.models is not None:
        what = _name(made, made.models)
        became = f"to be copied to {_MODELS}, word for word"
        made.steps.append(Step(what, StepOutcome.TAKEN, became, _MODELS))
    if made.keys is None:
        return
    what = _name(made, made.keys)
    try:
        file: LegacyFile = read_legacy(made.keys)
    except InvalidFiles as error:
        made.steps += [
            _not_imported(what, problem.key, problem.message) for problem in error.problems
        ]
        return
    kind = "an admin key" if admin else "a key"
    for key in file.keys:
        became = f"key of {key.name!r}: to be imported as {kind}"
        made.steps.append(Step(what, StepOutcome.TAKEN, became))
    made.steps += [Step(what, StepOutcome.LEFT, f"{text}: not imported") for text in file.skipped]
    made.steps += [Step(what, StepOutcome.TO_DO, text) for text in file.warnings]


def _not_imported(what: str, entry: str, message: str) -> Step:
    where = f"{entry}: " if entry else ""
    return Step(what, StepOutcome.TO_DO, f"{where}{message}; no key was imported")


def _name(made: MigrationPlan, file: Path) -> str:
    return str(file.relative_to(made.folder))


# --- what is said ----------------------------------------------------------------------------


def _left_to_do(report: _MigrationReport) -> list[str]:
    """Yield what is left for the user to do, besides what ``check`` found."""
    made, target = report.made, report.target
    left = []
    if made.copies and made.settings.get("tls.enabled"):
        left.append(
            "Let the program that renews the certificate (win-acme, say) write to "
            f"{target / 'ssl'} from now on: a running gateway takes new files over by itself."
        )
    if not made.settings.get("tls.enabled") and _open(made):
        left.append(
            "Keys and questions go through the network unencrypted, as before: tls.enabled, with "
            "a certificate (`llm-gateway tls self-signed` makes one), ends that."
        )
    if 0 < made.settings.get("port", 8080) < first_free_port():
        left.append(
            f"Port {made.settings['port']} is for root and services: run it as one, or change port."
        )
    if made.keys is not None and not report.dry:
        left.append(f"When all is well, delete {made.keys}: its keys are plain text.")
    return left


def _open(made: MigrationPlan) -> bool:
    from gateway.listen_on import is_loopback

    host = made.settings.get("host", "127.0.0.1")
    return not all(map(is_loopback, (host,) if isinstance(host, str) else host))


def _show(report: _MigrationReport) -> None:
    made, findings = report.made, report.findings
    print_paragraph(
        f"{made.folder} -> {report.target}{' (nothing is written)' if report.dry else ''}"
    )
    print()
    for step in made.steps:
        between = " ->" if step.outcome is StepOutcome.TAKEN else ":"
        mark, style = _MARKS[step.outcome]
        print_paragraph(f"{_where(step)}{between} {step.became}", mark=mark, style=style)
    print()
    by_hand = sum(step.outcome is StepOutcome.TO_DO for step in made.steps)
    print_paragraph(
        f"+ taken over: {sum(step.outcome is StepOutcome.TAKEN for step in made.steps)}, "
        f"- left: {sum(step.outcome is StepOutcome.LEFT for step in made.steps)}, "
        f"! to look at: {by_hand}"
    )
    if findings is not None:
        print()
        problems, warnings = len(findings.problems), len(findings.warnings)
        print_paragraph(
            f"llm-gateway check: {_count(problems, 'problem')}, {_count(warnings, 'warning')}"
        )
        for problem in findings.problems:
            print_paragraph(_below(str(problem), report.target), mark="! ", style="red")
        for warning in findings.warnings:
            print_paragraph(_below(warning, report.target), mark="- ", style="yellow")
    print()
    if report.dry:
        print_paragraph("Without --dry-run this is done, and then checked.")
    for text in report.to_do:
        print_paragraph(text)
    if not report.dry:
        command = f"llm-gateway serve --config {report.target / _CONFIG}"
        print_paragraph(f"{'Now' if report.in_order else 'When that is mended'}: {command}")


def _where(step: Step) -> str:
    line = f" (line {step.line}, column {step.column})" if step.line is not None else ""
    return f"{step.what}{line if step.outcome is StepOutcome.TO_DO else ''}"


def _below(text: str, target: Path) -> str:
    """Return ``text`` without the folder in front of every file that it names."""
    return text.replace(f"{target}/", "")


def _count(number: int, what: str) -> str:
    return counted(number, what) if number else f"no {what}s"


def _as_json(report: _MigrationReport) -> dict[str, Any]:
    made, findings = report.made, report.findings
    return {
        "from": str(made.folder),
        "to": str(report.target),
        "dry_run": report.dry,
        "steps": [
            {
                "what": step.what,
                "outcome": step.outcome.value,
                "became": step.became,
                "target": step.target,
                "line": step.line,
                "column": step.column,
            }
            for step in made.steps
        ],
        "problems": None if findings is None else [str(problem) for problem in findings.problems],
        "warnings": None if findings is None else findings.warnings,
        "to_do": report.to_do,
    }

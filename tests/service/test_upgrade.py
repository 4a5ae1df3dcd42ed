"""`llm-gateway service upgrade`, and what a machine can't, in one with a real systemd."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.access.schema import SCHEMA_VERSION
from tests.service.conftest import PROGRAM
from tests.service.machine import Machine, why_not
from tests.service.test_install import GATEWAY, UNIT, chat, key_in

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

DROP_IN = f"{UNIT}.d/no-private-users.conf"
DATABASE = "/var/lib/llm-gateway/gateway.db"
#: A later version's database, and that it ends once it has opened it.
LATER_SCHEMA = f"""
from alembic import op

revision, down_revision = "{SCHEMA_VERSION + 1:04}", "{SCHEMA_VERSION:04}"

def upgrade():
    op.execute("CREATE TABLE later (x)")
"""
ENDS = '\nasync def make_first_key(*_):\n    raise RuntimeError("no good")\n'


def changed(venv: Path, name: str, *, old: str = "", new: str = "") -> None:
    """Change a file of the program that is to be installed; ``old=""``: at its end."""
    (file,) = venv.glob(f"lib/python*/site-packages/gateway/{name}")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new) if old else text + new)


def schema(machine: Machine) -> str:
    ask = f"import sqlite3; print(*sqlite3.connect('{DATABASE}').execute('PRAGMA user_version'))"
    return machine.run(f"{PROGRAM}/bin/python", "-c", ask).stdout


def test_later_version_brings_its_unit_and_keeps_an_edited_one(
    bare: tuple[Machine, Path],
) -> None:
    machine, venv = bare
    unit = f"skeleton/systemd/{UNIT.rpartition('/')[2]}"
    key = key_in(machine.run(GATEWAY, "service", "install").stdout)

    changed(venv, unit, old="Description=LLM-API", new="Description=Later LLM-API")
    said = machine.run(GATEWAY, "service", "upgrade", "--dry-run").stdout
    assert f"update   {UNIT}" in said
    assert machine.property("Description").startswith("LLM-API")
    said = machine.run(GATEWAY, "service", "upgrade").stdout
    assert f"updated  {UNIT}" in said
    assert machine.property("Description").startswith("Later LLM-API")

    machine.run("sh", "-c", f"echo '# mine' >> {UNIT}")
    changed(venv, unit, old="Description=Later", new="Description=Latest")
    said = machine.run(GATEWAY, "service", "upgrade").stdout
    assert f"kept     {UNIT}, which was edited; this version's is {UNIT}.new" in said
    assert machine.property("Description").startswith("Later LLM-API")
    machine.run("grep", "-q", "^Description=Latest", f"{UNIT}.new")
    assert chat(machine, key) == "length"


def test_failed_upgrade_puts_back_program_units_and_database(
    bare: tuple[Machine, Path],
) -> None:
    machine, venv = bare
    unit = f"skeleton/systemd/{UNIT.rpartition('/')[2]}"
    key = key_in(machine.run(GATEWAY, "service", "install").stdout)
    program = machine.run("readlink", "/opt/llm-gateway/venv").stdout
    text, before = machine.run("cat", UNIT).stdout, schema(machine)

    changed(venv, unit, old="[Service]\n", new="[Service]\nEnvironment=LATER=1\n")
    changed(venv, "access/schema.py", new="\nSCHEMA_VERSION += 1\n")
    (versions,) = venv.glob("lib/python*/site-packages/gateway/access/migrations/versions")
    (versions / "later.py").write_text(LATER_SCHEMA)
    changed(venv, "first_key.py", new=ENDS)
    failed = machine.run(GATEWAY, "service", "upgrade", check=False)

    assert failed.returncode == 1
    assert "no good" in failed.stderr, failed.stderr
    assert "runs again" in failed.stderr
    assert "which the new version had changed" in failed.stdout
    assert machine.run("cat", UNIT).stdout == text
    assert machine.run("readlink", "/opt/llm-gateway/venv").stdout == program
    assert schema(machine) == before
    assert "LATER" not in machine.property("Environment")
    assert chat(machine, key) == "length"


def test_machine_without_user_namespaces_has_a_service_that_starts(
    bare: tuple[Machine, Path],
) -> None:
    machine, _ = bare
    # As systemd ends a program for which it can't make one (systemd.exec(5), EXIT_USER).
    machine.run("sh", "-c", "printf '#!/bin/sh\\nexit 217\\n' > /root/systemd-run")
    machine.run("chmod", "755", "/root/systemd-run")
    without = ("env", "PATH=/root:/usr/sbin:/usr/bin")

    said = machine.run(*without, GATEWAY, "service", "install").stdout

    assert "PrivateUsers=yes doesn't work on this machine" in said
    assert machine.property("PrivateUsers") == "no"
    assert chat(machine, key_in(said)) == "length"

    said = machine.run(GATEWAY, "service", "install").stdout
    assert f"remove   {DROP_IN}" in said
    assert machine.property("PrivateUsers") == "yes"

"""Which Pythons the suite is run on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def suite(folder: Path, *arguments: str, pyenv: Path | None = None) -> tuple[int, str]:
    """Status and output of ``.ci/suite --print``, where ``folder`` comes first on PATH."""
    done = subprocess.run(
        [REPOSITORY / ".ci/suite", "--print", *arguments],
        env={
            **os.environ,
            "PATH": f"{folder}:/usr/bin:/bin",
            "PYENV_ROOT": str(pyenv or folder / "none"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def python(file: Path, version: str | None) -> None:
    """A Python that says it is ``version``; ``None``: one that isn't there (a shim of pyenv's)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("#!/bin/sh\n" + (f"echo {version}\n" if version else "exit 127\n"))
    file.chmod(0o755)


@pytest.mark.parametrize("where", ["PATH", "pyenv"])
def test_the_newest_python_is_found_and_has_an_environment_of_its_own(
    tmp_path: Path, where: str
) -> None:
    python(tmp_path / "python3", "3.11")
    python(tmp_path / "python3.11", "3.11")
    python(tmp_path / "python3.99", None)
    versions = tmp_path / "pyenv/versions"
    newest = tmp_path / "python3.90" if where == "PATH" else versions / "3.90.1/bin/python3"
    python(newest, "3.90")
    python(versions / "3.9.2/bin/python3", None)
    status, said = suite(tmp_path, pyenv=versions.parent)
    assert status == 0
    (usual,) = re.findall(r"^<!-- test -->\n```sh\n(.*)\n```$", README, re.MULTILINE)
    theirs = usual.replace("python3 -m", f"{newest} -m", 1).replace(".venv", ".venv-3.90")
    assert said == f"+ {theirs}\n"


def test_one_python_is_enough(tmp_path: Path) -> None:
    for name in ("python3", "python3.80"):
        python(tmp_path / name, "3.80")
    assert suite(tmp_path) == (0, "no Python here is newer than python3 (3.80)\n")


def test_suite_runs_on_any_python_by_command(tmp_path: Path) -> None:
    status, said = suite(tmp_path, sys.executable)
    assert status == 0
    assert f".venv-{sys.version_info[0]}.{sys.version_info[1]}/bin/python -m pytest" in said
    python(tmp_path / "python3.99", None)
    status, said = suite(tmp_path, "python3.99")
    assert (status, said) == (2, "python3.99: no Python of 3.11 or newer with venv\n")


#: A Python that says it is 3.90, and whose environments have a pip that says what it is asked.
_MAKES_ENVIRONMENTS = """#!/bin/sh
[ "$2" = venv ] || { echo 3.90; exit; }
mkdir -p "$3/bin"
printf '#!/bin/sh\\necho "pip $*"\\n' >"$3/bin/pip"
chmod +x "$3/bin/pip"
"""


def test_an_environment_can_be_made_without_running_tests_in_it(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    for name in (".ci/suite", "README.md"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    python(tmp_path / "python3", "3.11")
    python(tmp_path / "python3.90", "3.90")
    (tmp_path / "python3.90").write_text(_MAKES_ENVIRONMENTS)
    done = subprocess.run(
        [tmp_path / ".ci/suite", "--install"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYENV_ROOT": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    _, *did = done.stdout.splitlines()
    assert [line.startswith("pip install ") for line in did] == [True, True], done.stdout
    assert did[1].endswith("-e .")
    assert (tmp_path / ".venv-3.90").is_dir()

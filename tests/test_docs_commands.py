"""Every command and every snippet in the documentation is one that works as it stands there.

The pages of the commands themselves (docs/cli) are made from the parsers: see tests/cli.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import yaml

from gateway.cli import COMMANDS, parser_for
from gateway.config.load import load_partly
from gateway.config.settings import Settings
from gateway.web.hatch_build import find_node
from tests.harness import REPOSITORY, Served
from tests.route_table import openapi

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
#: Programs of others, that the documentation may call.
OTHERS = frozenset(
    ".ci/audit .ci/lock .ci/sbom apt-get cd docker eval export llm npm npx pg_dump pg_restore pip "
    "scp unset".split()
)
#: What stands for the address of a gateway.
ADDRESSES = re.compile(r"^(\$URL|https?://(127\.0\.0\.1|localhost|my-box\.lan):\d+)(?=/)")


class Block(NamedTuple):
    """A fenced block of a page."""

    place: str  # page:line
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    """Those of all pages that are in one of these languages."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^( *)```(\w+)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
            indent, language, inner = match.groups()
            if language in languages:
                line = text.count("\n", 0, match.start()) + 1
                inner = re.sub(rf"^{indent}", "", inner, flags=re.MULTILINE)
                found.append(Block(f"{page.relative_to(REPOSITORY)}:{line}", language, inner))
    return found


def place_of(block: Block) -> str:
    return block.place


SHELL = blocks("sh")


def commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command, without redirections; those within ``$(...)``, too."""
    for inner in re.findall(r"\$\(((?:[^()]|\([^()]*\))*)\)", text):
        yield from commands(inner)
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars=";&|<>\n")
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    lexer.commenters = ""  # it would take the end of the line along
    words: list[str] = []
    for token in lexer:
        if set(token) <= set(";&|\n"):
            yield from [simple(words)] if words else []
            words = []
        else:
            words.append(token)
    yield from [simple(words)] if words else []


def simple(words: list[str]) -> list[str]:
    """Without what isn't the command's own: variables before it, and redirections."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    redirected = next((at for at, word in enumerate(words) if set(word) <= set("<>")), len(words))
    return words[:redirected]


def without_comments(text: str) -> str:
    return re.sub(r"(^|\s)#.*$", "", text, flags=re.MULTILINE)


CALLS = [
    (block.place, words)
    for block in SHELL
    for words in commands(without_comments(block.text))
    if words
]


def test_there_is_something_to_check() -> None:
    assert sum(words[0].endswith("llm-gateway") for _, words in CALLS) > 20
    assert sum(words[0] == "curl" for _, words in CALLS) >= 5


@pytest.mark.parametrize("block", SHELL, ids=place_of)
def test_shell_is_well_formed(block: Block) -> None:
    checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    "words",
    [words for _, words in CALLS],
    ids=[f"{place} {' '.join(words)[:60]}" for place, words in CALLS],
)
def test_every_command_is_understood(words: list[str]) -> None:
    program, *arguments = words[1:] if words[0] == "sudo" else words
    name = program.rpartition("/")[2] if program.startswith(".venv/") else program
    if name == "llm-gateway":
        if arguments:
            assert parser_for(arguments[0]).parse_args(arguments).run
    elif name == "curl":
        method, path = asked_by_curl(arguments)
        assert any(path_matches(route, path) for route in PATHS[method]), f"{method} {path}"
    elif name in ("python", "python3"):
        assert runs_something(arguments), arguments
    elif name == ".":
        assert arguments == [".venv/bin/activate"]
    elif program.startswith(".venv/bin/"):
        assert Path(sys.executable).with_name(name).exists()
    else:
        assert program in OTHERS
        assert not program.startswith(".ci/") or (REPOSITORY / program).is_file()


def runs_something(arguments: list[str]) -> bool:
    """Whether ``python`` is told to run a module that is there, on files that are there."""
    assert arguments[0] == "-m"
    files = [word for word in arguments[2:] if word.startswith(("tests/", "docs/"))]
    return bool(importlib.util.find_spec(arguments[1])) and all(
        (REPOSITORY / file).exists() for file in files
    )


# --- curl ------------------------------------------------------------------------------------

#: Method -> the paths of the gateway, with their parameters in braces.
PATHS: dict[str, list[str]] = {}
for _path, _operations in openapi()["paths"].items():
    for _method in _operations:
        PATHS.setdefault(_method.upper(), []).append(_path)


def path_matches(route: str, path: str) -> bool:
    pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(route))
    return re.fullmatch(pattern, path) is not None


def asked_by_curl(arguments: list[str]) -> tuple[str, str]:
    """The method and the path of its request."""
    method, url = None, None
    rest = iter(arguments)
    for word in rest:
        if word in ("-X", "--request"):
            method = next(rest)
        elif word in ("-d", "--data", "-F"):
            method = method or "POST"
            next(rest)
        elif word in ("-H", "--cacert", "-o"):
            next(rest)
        elif not word.startswith("-"):
            assert url is None, f"two addresses: {url} {word}"
            url = word
    assert url is not None
    url = url.replace("$OPENAI_BASE_URL", "$URL/v1")
    path, addressed = ADDRESSES.subn("", url)
    assert addressed, f"{url} is no address of a gateway"
    return method or "GET", urlsplit(path).path


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        ("curl $URL/models?loaded=true -H 'X-Api-Key: k'", ("GET", "/models")),
        ("curl -N http://127.0.0.1:8080/status", ("GET", "/status")),
        ("curl -X PATCH $URL/admin/models/a -d '{}'", ("PATCH", "/admin/models/a")),
        ("curl $OPENAI_BASE_URL/chat/completions -d '{}'", ("POST", "/v1/chat/completions")),
    ],
)
def test_requests_of_curl_are_read(call: str, asked: tuple[str, str]) -> None:
    assert asked_by_curl(shlex.split(call)[1:]) == asked


def test_the_curl_command_of_the_readme_is_answered(demo: Served) -> None:
    (text,) = [one.text for one in SHELL if "README" in one.place and one.text.startswith("curl ")]
    text = text.replace("http://127.0.0.1:8080", demo.url).replace("curl ", "curl -sS ", 1)
    done = subprocess.run(
        ["bash", "-c", text],
        env={**os.environ, "OPENAI_API_KEY": demo.key},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["choices"][0]["message"]["content"].strip()


# --- in a sentence ---------------------------------------------------------------------------

INLINE = [
    pytest.param(words, id=f"{page.name} {words}"[:90])
    for page in PAGES
    for words in dict.fromkeys(
        re.findall(r"(?<!`)`(?:\.venv/bin/)?llm-gateway ([^`]+)`(?!`)", page.read_text())
    )
]


@pytest.mark.parametrize("words", INLINE)
def test_every_command_in_a_sentence_is_there_with_its_options(words: str) -> None:
    name, *rest = words.split()
    if name.isupper():  # COMMAND
        return
    assert name in COMMANDS
    page = (REPOSITORY / "docs/cli" / f"{name}.md").read_text()
    for option in re.findall(r"--[a-z-]+", " ".join(rest)):
        assert f"`{option}" in page or f"-h, {option}" in page, f"{name} has no {option}"
    if rest and rest[0].isalpha() and rest[0].islower() and f"# llm-gateway {name} " in page:
        assert f"# llm-gateway {name} {rest[0]}\n" in page


MODULES = {
    module
    for page in PAGES
    for module in re.findall(r"`(?:\S*/)?python -m ([\w.]+)", page.read_text())
}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_in_a_sentence_is_there(module: str) -> None:
    assert importlib.util.find_spec(module) is not None


# --- other languages -------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("python"), ids=place_of)
def test_python_in_the_docs_compiles(block: Block) -> None:
    compile(block.text, block.place, "exec")


@pytest.mark.parametrize("block", blocks("js", "javascript"), ids=place_of)
def test_javascript_is_well_formed(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "snippet.mjs"
    file.write_text(block.text)
    checked = subprocess.run([find_node()[0], "--check", file], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("block", blocks("json", "toml"), ids=place_of)
def test_json_and_toml_are_well_formed(block: Block) -> None:
    assert (json if block.language == "json" else tomllib).loads(block.text)


@pytest.mark.parametrize("block", blocks("yaml"), ids=place_of)
def test_settings_that_are_shown_are_valid(block: Block, tmp_path: Path) -> None:
    shown = yaml.safe_load(block.text)
    if not (isinstance(shown, dict) and shown.keys() <= {field.name for field in fields(Settings)}):
        return  # it is a client's
    file = tmp_path / "gateway.yaml"
    file.write_text(block.text)
    assert load_partly(file, environ={})[1] == []

"""The built page's files: which there are, in which coding one is sent."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from gateway.web.files import File, Files, is_built


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A page of two files, one of them compressed."""
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text('<html><head lang="en"><title>x</title></head></html>')
    (folder / "index.html.br").write_bytes(b"never sent: it lacks what the gateway adds")
    (folder / ".built-from").write_text("0")
    (folder / "assets/a-1.js").write_text("let a;")
    for ending in (".br", ".gz", ".zst"):
        (folder / f"assets/a-1.js{ending}").write_bytes(ending.encode())
    return folder


def read(files: Files, path: str) -> File:
    found = files.file(path)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", None),
        ("identity", None),
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("GZIP", "gzip"),
        ("zstd;q=0.5, gzip", "zstd"),
        ("br;q=0, gzip;q=1.0", "gzip"),
        ("br; q=0.000, gzip ;q=0", None),
        ("*", "br"),
        ("*;q=0", None),
        ("br;q=0, *", "zstd"),
        ("gzip;q=nonsense", "gzip"),
        (",;,=", None),
    ],
)
def test_smallest_coding_that_is_accepted_is_sent(
    dist: Path, accepted: str, coding: str | None
) -> None:
    body = read(Files(dist), "assets/a-1.js").body(accepted)
    endings = {None: b"let a;", "br": b".br", "zstd": b".zst", "gzip": b".gz"}
    assert (body.coding, body.content) == (coding, endings[coding])


def test_each_coding_has_an_etag_of_its_own(dist: Path) -> None:
    bodies = read(Files(dist), "assets/a-1.js").bodies.values()
    assert len({body.etag for body in bodies}) == 4


def test_the_page_says_that_a_gateway_serves_it(dist: Path) -> None:
    page = Files(dist).page()
    assert page is not None
    plain, packed = page.body(""), page.body("gzip, br")
    assert b'<head lang="en"><meta name="llm-gateway" content="served" /><title>' in plain.content
    assert packed.coding == "gzip"
    assert gzip.decompress(packed.content) == plain.content


@pytest.mark.parametrize(
    "path",
    [
        *("assets/../index.html", "../dist/assets/a-1.js", "/assets/a-1.js", "assets/a-1.js/"),
        *("assets/a-1.js.br", ".built-from", "assets", "", "assets/b.js", "assets/a-1.js\0"),
    ],
)
def test_nothing_but_built_files_is_served(dist: Path, path: str) -> None:
    files = Files(dist)
    assert files.file(path) is None
    assert not files.may_have(path)


def test_a_page_that_is_built_anew_is_taken_up(dist: Path) -> None:
    files = Files(dist)
    assert files.page() is not None
    old = dist / "index.html"
    text = old.read_text()
    old.unlink()  # vite empties the folder first
    assert files.page() is not None
    assert read(files, "assets/a-1.js").kind.startswith("text/javascript")
    (dist / "assets/a-1.js").rename(dist / "assets/b-2.js")
    (dist / "new.html").write_text(text.replace("x", "new"))
    (dist / "new.html").rename(old)
    page = files.page()
    assert page is not None
    assert b"new" in page.body("").content
    assert files.file("assets/a-1.js") is None
    assert files.file("assets/b-2.js") is not None


def test_page_that_is_built_later_is_found(tmp_path: Path) -> None:
    files = Files(tmp_path / "dist")
    assert not is_built(tmp_path / "dist")
    assert files.page() is None
    assert files.file("assets/a-1.js") is None
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/index.html").write_text("<head>")
    assert files.page() is not None

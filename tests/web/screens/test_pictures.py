"""Pictures in a question, by every way, for a model that another server has and that sees them."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.web.axe import violations
from tests.web.upstream import Upstream, upstream
from tests.web.visitors import Box, OpenPage

pytestmark = pytest.mark.slow

QUESTION = "What is this?"
#: A file of a picture, handed over as a clipboard or a mouse does it.
_FILES = """([name, type, content]) => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
  data.items.add(new File([bytes], name, {type}));
  return data;
}"""
#: (width, height) of a picture, as a browser reads it.
_SIZE = """async address => {
  const {width, height} = await createImageBitmap(await (await fetch(address)).blob());
  return [width, height];
}"""


#: A red JPEG of 40x20 pixels, as base64.
_JPEG = """() => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [40, 20];
  const context = canvas.getContext("2d");
  context.fillStyle = "red";
  context.fillRect(0, 0, 40, 20);
  return canvas.toDataURL("image/jpeg").split(",")[1];
}"""
#: What its camera says of it: that it is to be turned by a quarter, and a description.
_WHERE = b"N 52.5200 E 13.4050"
_TURNED = 6


def photo(page: Page) -> bytes:
    """A JPEG of a phone held upright, that says so in its EXIF data, and where it was taken."""
    plain = base64.b64decode(page.evaluate(_JPEG))
    head = b"MM\0*" + struct.pack(">IH", 8, 2)
    turned = struct.pack(">HHIHH", 0x0112, 3, 1, _TURNED, 0)
    words = struct.pack(">HHII", 0x010E, 2, len(_WHERE) + 1, 38)
    exif = b"Exif\0\0" + head + words + turned + struct.pack(">I", 0) + _WHERE + b"\0"
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]


def png(width: int = 40, height: int = 20, *more: bytes) -> bytes:
    """A red picture; `more` are texts that it holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff\0\0" * width) * height)
    start = b"\x89PNG\r\n\x1a\n"
    texts = b"".join(chunk(b"tEXt", b"Comment\0" + one) for one in more)
    return start + chunk(b"IHDR", head) + texts + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Upstream]:
    with upstream() as told:
        told.answer(QUESTION, "A red picture.")
        yield told


@pytest.fixture(scope="module")
def models(elsewhere: Upstream) -> dict[str, Any]:
    return {
        "blind": {"url": elsewhere.url, "modelName": "scripted"},
        "seeing": {
            "url": elsewhere.url,
            "modelName": "scripted",
            "meta": {"capabilities": ["chat", "vision"]},
        },
    }


@pytest.fixture
def page(open_page: OpenPage, box: Box) -> Page:
    page = open_page(key=box.plain)
    choose(page, "seeing")
    return page


def choose(page: Page, model: str) -> None:
    page.get_by_role("button", name="Model:").click()
    page.get_by_role("listbox", name="Model").get_by_role("option", name=model).click()


def question(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message")


def pictures(place: Page | Locator) -> Locator:
    return place.get_by_role("button", name="Show picture")


def handed_over(page: Page, name: str, content: bytes, kind: str = "image/png") -> Any:
    return page.evaluate_handle(_FILES, [name, kind, base64.b64encode(content).decode()])


def paste(page: Page, data: Any) -> None:
    question(page).evaluate(
        """(place, clipboardData) => place.dispatchEvent(
          new ClipboardEvent("paste", {clipboardData, bubbles: true, cancelable: true}))""",
        data,
    )


def hold(page: Page, file: Path) -> Callable[[], None]:
    """Drag a file out of a folder to the middle of the window. Returns how to let it go there."""
    mouse = page.context.new_cdp_session(page)
    size = page.viewport_size
    assert size is not None
    place = {"x": size["width"] / 2, "y": size["height"] / 3}
    data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}

    def move(kind: str) -> None:
        mouse.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})

    move("dragEnter")
    move("dragOver")
    return lambda: move("drop")


def drop(page: Page, file: Path, words: str = "Drop pictures here") -> None:
    let_go = hold(page, file)
    expect(question(page)).to_have_attribute("placeholder", words)
    let_go()
    expect(question(page)).not_to_have_attribute("placeholder", words)


def choose_file(page: Page, name: str, content: bytes, button: str = "Add pictures") -> Locator:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=button).click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})
    return page.locator(".composer input[type=file]")


def sent(page: Page, elsewhere: Upstream) -> list[str]:
    """The pictures that the server elsewhere gets with the question, as addresses."""
    question(page).fill(QUESTION)
    question(page).press("Enter")
    answer = page.get_by_role("article", name="Answer").last
    expect(answer).to_contain_text("A red picture.")
    text, *images = elsewhere.asked[-1]["messages"][-1]["content"]
    assert text == {"type": "text", "text": QUESTION}
    assert {one["type"] for one in images} == {"image_url"}
    return [one["image_url"]["url"] for one in images]


def test_pasted_dropped_and_chosen_pictures_are_sent(
    page: Page, elsewhere: Upstream, tmp_path: Path
) -> None:
    small, other = png(), png(20, 20)
    (tmp_path / "dropped.png").write_bytes(other)
    paste(page, handed_over(page, "pasted.png", small))
    expect(pictures(page)).to_have_count(1)
    drop(page, tmp_path / "dropped.png")
    expect(pictures(page)).to_have_count(2)
    choose_file(page, "chosen.png", small)
    expect(pictures(page)).to_have_count(3)
    assert violations(page, "main") == []
    page.get_by_role("button", name="Remove picture 3").click()
    expect(pictures(page)).to_have_count(2)
    expected = [f"data:image/png;base64,{base64.b64encode(one).decode()}" for one in (small, other)]
    assert sent(page, elsewhere) == expected
    # They stay with the question, also where the page is loaded again.
    page.reload()
    asked = page.get_by_role("article", name="You")
    expect(pictures(asked)).to_have_count(2)
    pictures(asked).first.click()
    whole = page.get_by_role("dialog", name="Picture 1").get_by_role("img", name="Picture 1")
    expect(whole).to_have_js_property("naturalWidth", 40)
    assert violations(page, "dialog") == []


def test_a_large_one_travels_small(page: Page, elsewhere: Upstream) -> None:
    paste(page, handed_over(page, "large.png", png(4000, 1000)))
    expect(pictures(page)).to_have_count(1)
    (address,) = sent(page, elsewhere)
    assert address.startswith("data:image/jpeg;base64,")
    # Read on a page without a Content-Security-Policy, which here forbids to fetch it.
    elsewhere_page = page.context.new_page()
    assert elsewhere_page.evaluate(_SIZE, address) == [1568, 392]


def test_where_it_was_taken_is_not_sent(page: Page, elsewhere: Upstream) -> None:
    taken = photo(page)
    assert _WHERE in taken
    paste(page, handed_over(page, "photo.jpg", taken, "image/jpeg"))
    expect(pictures(page)).to_have_count(1)
    paste(page, handed_over(page, "screenshot.png", png(30, 10, _WHERE)))
    expect(pictures(page)).to_have_count(2)
    elsewhere_page = page.context.new_page()
    for address, kind, size in zip(
        sent(page, elsewhere), ("jpeg", "png"), ([20, 40], [30, 10]), strict=True
    ):
        head, _, content = address.partition(",")
        assert head == f"data:image/{kind};base64"
        assert _WHERE not in base64.b64decode(content)
        assert b"Exif" not in base64.b64decode(content)
        # Upright, though what said so is gone.
        assert elsewhere_page.evaluate(_SIZE, address) == size


def test_camera_of_a_phone_is_offered(open_page: OpenPage, box: Box, elsewhere: Upstream) -> None:
    page = open_page(
        key=box.plain, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    )
    choose(page, "seeing")
    inputs = choose_file(page, "taken.png", png(), "Take a picture")
    expect(inputs.last).to_have_attribute("capture", "environment")
    expect(pictures(page)).to_have_count(1)
    question(page).fill(QUESTION)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("article", name="Answer")).to_contain_text("A red picture.")
    assert len(elsewhere.asked[-1]["messages"][-1]["content"]) == 2


def test_file_that_is_no_picture_is_refused(page: Page, tmp_path: Path) -> None:
    paste(page, handed_over(page, "broken.png", b"no picture"))
    page.get_by_text("broken.png is no picture that this browser can read.").wait_for()
    (tmp_path / "notes.txt").write_text("text")
    drop(page, tmp_path / "notes.txt")
    page.get_by_text("notes.txt is no picture. Only pictures can be added").wait_for()
    expect(pictures(page)).to_have_count(0)
    for number in range(9):
        paste(page, handed_over(page, f"{number}.png", png()))
    page.get_by_text("A question can have 8 pictures.").wait_for()
    expect(pictures(page)).to_have_count(8)


def test_model_that_does_not_see_is_told(page: Page, tmp_path: Path) -> None:
    choose(page, "blind")
    expect(page.get_by_role("button", name="Add pictures")).to_have_count(0)
    words = "blind can't see pictures. Choose a model that can."
    paste(page, handed_over(page, "pasted.png", png()))
    page.get_by_text(words).wait_for()
    page.get_by_role("button", name="Close").click()
    (tmp_path / "dropped.png").write_bytes(png())
    drop(page, tmp_path / "dropped.png", words)
    page.get_by_text(words).wait_for()
    expect(pictures(page)).to_have_count(0)


def test_a_file_dropped_elsewhere_is_not_opened_by_the_browser(page: Page, tmp_path: Path) -> None:
    """It opens what is dropped in place of the page, unless the page says that it sees to it."""
    (tmp_path / "notes.txt").write_text("text")
    page.evaluate("() => { location.hash = '#/usage' }")
    page.get_by_role("heading", name="Usage", level=1).wait_for()
    page.evaluate(
        """() => { addEventListener("dragover", ({defaultPrevented, dataTransfer}) => {
          window.said = [defaultPrevented, dataTransfer.dropEffect];
        }) }"""
    )
    hold(page, tmp_path / "notes.txt")
    page.wait_for_function("() => window.said !== undefined")
    assert page.evaluate("window.said") == [True, "none"]

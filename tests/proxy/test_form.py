"""The model's name in a form, cut anywhere."""

from __future__ import annotations

import pytest

from gateway.errors import BadRequest
from gateway.proxy.form import ModelField, boundary_of


def part(name: str, value: bytes, *, more: str = "", headers: str = "") -> bytes:
    head = f'--XX\r\nContent-Disposition: form-data; name="{name}"{more}\r\n{headers}\r\n'
    return head.encode() + value + b"\r\n"


FILE = part(
    "file",
    b'name="model"\r\n\r\nno\r\n--X\r\n--\r\n\r\n' + bytes(range(256)),
    more='; filename="model"',
    headers="Content-Type: audio/wav\r\n",
)
MODEL = part("model", b"some/model:p")
END = b"--XX--\r\n"


def fed(form: bytes, size: int) -> ModelField:
    field = ModelField(b"XX")
    for start in range(0, len(form), size):
        field.feed(form[start : start + size])
        if field.done:
            break
    return field


@pytest.mark.parametrize(
    ("form", "model"),
    [
        (MODEL + FILE + END, "some/model:p"),
        (FILE + MODEL + END, "some/model:p"),
        (part("empty", b"") + part("language", b"en") + MODEL + END, "some/model:p"),
        (b"preamble\r\n" + FILE + MODEL + END, "some/model:p"),
        (FILE + END, None),
        (END, None),
        (MODEL[:-2], None),
        (part("model", b"") + END, ""),
        (part("model", "ä".encode()) + END, "ä"),
        (b"--XX\r\ncontent-disposition: FORM-DATA;name=model\r\n\r\nm\r\n" + END, "m"),
        (b"--XX\r\nContent-Disposition: form-data; filename=model; x=1\r\n\r\nm\r\n" + END, None),
        (
            b"--XX\r\nX: y\r\nContent-Disposition: form-data; name=model;\r\n\r\nm\r\n" + END,
            "m",
        ),
    ],
)
def test_cut_anywhere(form: bytes, model: str | None) -> None:
    for size in (*range(1, 60), len(form) + 1):
        field = fed(form, size)
        assert field.model == model, size
        assert form.startswith(field.body)
        assert field.done == (field.model is not None or form.endswith(END))


def test_nothing_is_read_beyond_what_is_needed() -> None:
    field = fed(MODEL + FILE * 1000, 64)
    assert len(field.body) < len(MODEL) + 64 * 3


@pytest.mark.parametrize(
    "form",
    [
        b"--XX\r\n" + b"X: y\r\n" * 4000,
        part("model", b"m" * 5000)[:-2],
        part("model", b"\xff") + END,
    ],
)
def test_what_is_no_form(form: bytes) -> None:
    with pytest.raises(BadRequest):
        fed(form, 100)


def test_boundaries() -> None:
    assert boundary_of("multipart/form-data; boundary=abc") == b"abc"
    assert boundary_of('Multipart/Form-Data; charset=x; boundary="a b:c"') == b"a b:c"
    for wrong in ("", "application/json", "multipart/form-data", "text/plain; boundary=x"):
        with pytest.raises(BadRequest):
            boundary_of(wrong)

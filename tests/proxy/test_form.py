"""The model's name in a form, cut anywhere."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from gateway.errors import BadRequest, UnsupportedMediaType
from gateway.proxy.form import ModelField, boundary_of, content_type_of, field_name


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
def test_form_cut_anywhere_gives_the_same_model(form: bytes, model: str | None) -> None:
    for size in (*range(1, 60), len(form) + 1):
        field = fed(form, size)
        assert field.model == model, size
        assert form.startswith(field.body)
        assert field.done == (field.model is not None or form.endswith(END))


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        # What is inside quotes is no parameter.
        ('form-data; name="file"; filename="a; name=model"', "file"),
        ('form-data; filename="a; name=model"; name="file"', "file"),
        ("form-data; filename=\"; name='model'; x=\"; name=file", "file"),
        ('form-data; name="file"; filename="a\\"; name=model; x=\\""', None),
        ('form-data; name="file"; filename="a\\"b; c.wav"', "file"),
        ('form-data; name="file"; filename="a%22; name=%22model%22"', "file"),
        ('form-data; name="a; name=model"', "a; name=model"),
        ("form-data; name=\"file\"; filename*=UTF-8''a%3B%20name%3Dmodel.wav", "file"),
        ("form-data; filename*=UTF-8''name=\"model\"; name=file", None),
        # Quotes and backslashes as RFCs and as browsers write them.
        ('form-data; name="file"; filename="C:\\sounds\\a.wav"', "file"),
        ('form-data; name="file"; filename="a\\"', "file"),
        ('form-data; name="mo\\\\del"', None),
        ('form-data; name="mo\\del"', None),
        ('form-data; name="a\\"; name="model"', None),
        ('form-data; filename="a\\"; name="model"', None),
        # One name, in one header.
        ('form-data; name="file"; name="model"', None),
        ("form-data; name=\"file\"; name*=UTF-8''model", None),
        ("form-data; name*0=mod; name*1=el", None),
        ('form-data; name="file"\r\nContent-Disposition: form-data; name="model"', None),
        ('form-data; filename="\nContent-Disposition: x; name=model"; name=file', None),
        ('form-data; filename="\rx"; name=model', None),
        ('form-data; name="model', None),
        ('form-data; name="model"x', None),
        ("form-data name=model", False),
        # No field at all.
        ('attachment; name="model"', False),
        ("form-data", False),
        ('form-data; filename="model"', False),
        # Folded, spaced, in any case.
        ('form-data;\r\n name="model"', "model"),
        ("Form-Data ; NAME = model ; x", None),
        ("Form-Data ; NAME = model ; x=y", "model"),
        ('form-data; name="MODEL"', "MODEL"),
    ],
)
def test_ambiguous_name_of_a_field_is_refused(disposition: str, name: Any) -> None:
    """``None``: two readers could read it differently, so it is refused. ``False``: no name."""
    headers = f"X: name=model\r\ncontent-Disposition: {disposition}".encode()
    if name is None:
        with pytest.raises(BadRequest, match="RFC 7578"):
            field_name(headers)
    else:
        assert field_name(headers) == (name.encode() if name else None)


def test_what_strangers_write_is_read_quickly() -> None:
    started = time.perf_counter()
    for unit in (b" ", b"\\", b'"', b"; ", b";a=", b'="', b"\t;"):
        for end in (b"", b'"', b"x", b";"):
            with contextlib.suppress(BadRequest):
                field_name(b"Content-Disposition: form-data; name=" + unit * 6000 + end)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_line_that_only_begins_like_the_boundary_is_content(size: int) -> None:
    """RFC 2046, 5.1.1: behind a boundary stand blanks, and the end of the line."""
    inside = b'a\r\n--XXX\r\nContent-Disposition: form-data; name="model"\r\n\r\nno\r\n--XX-\r\n'
    padded = MODEL.replace(b"--XX\r\n", b"--XX \t\r\n")
    assert fed(part("file", inside) + padded + END, size).model == "some/model:p"
    with pytest.raises(BadRequest, match="too many blanks"):
        fed(b"--XX" + b" " * 5000, size)


def pass_by(form: bytes, size: int) -> None:
    """Look for the first model, and through the rest."""
    field = fed(form, size)
    at = len(field.body)
    field.pass_by(b"")
    for start in range(at, len(form), size):
        field.pass_by(form[start : start + size])
        assert len(field.read) < 600 + size  # nothing is kept


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_model_named_twice_is_refused(size: int) -> None:
    """Even by a part of a field; in the file, or behind the form, it's no name."""
    form = MODEL + FILE + part("language", b"en")
    pass_by(form, size)
    pass_by(form + END + MODEL, size)
    for second in (MODEL + END, MODEL[:60]):
        with pytest.raises(BadRequest, match="twice"):
            pass_by(form + second, size)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_field_that_comes_twice_is_refused(size: int, subtests: pytest.Subtests) -> None:
    """Before the model, behind it, and of any name, but for lists."""
    lists = part("granularities[]", b"word") + part("granularities[]", b"segment")
    pass_by(lists + MODEL + lists + FILE + END, size)
    for form in (
        FILE + MODEL + FILE + END,
        FILE + FILE + MODEL + END,
        MODEL + part("stream", b"") + part("stream", b"true") + END,
        part("prompt", b"a") + MODEL + part("prompt", b"a", more='; filename="b"') + END,
    ):
        with subtests.test(f"{form!r:.80}"):
            with pytest.raises(BadRequest, match="twice") as caught:
                pass_by(form, size)
            assert caught.value.param in ("file", "stream", "prompt")


@pytest.mark.parametrize("size", [1, 10_000])
def test_model_that_differs_from_the_requests_is_refused(size: int) -> None:
    for form, alike in ((MODEL + FILE + END, True), (FILE + part("model", b"x") + END, False)):
        field = ModelField(b"XX", "some/model:p")
        with contextlib.nullcontext() if alike else pytest.raises(BadRequest, match="another"):
            for start in range(0, len(form), size):
                field.pass_by(form[start : start + size])


def test_too_many_parts_are_refused() -> None:
    lists = part("a[]", b"")
    pass_by(MODEL + lists * 127 + END, 10_000)
    with pytest.raises(BadRequest, match="more than 128 parts"):
        pass_by(MODEL + lists * 128 + END, 10_000)


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
def test_damaged_form_is_refused(form: bytes) -> None:
    with pytest.raises(BadRequest):
        fed(form, 100)


def test_boundaries_are_those_of_the_rfc(subtests: pytest.Subtests) -> None:
    assert boundary_of("multipart/form-data; boundary=abc") == b"abc"
    assert boundary_of('Multipart/Form-Data; charset=x; boundary="a b:c"') == b"a b:c"
    for boundary in (b"abc", b"a b:c", b"--'()+_,./:=?x"):
        with subtests.test(f"{boundary!r:.80}"):
            assert boundary_of(content_type_of(boundary).decode()) == boundary
    assert content_type_of(b"abc") == b"multipart/form-data; boundary=abc"
    long = "multipart/form-data; boundary=" + "a" * 201
    wrongs = ('multipart/form-data; boundary="a\\"b"', "multipart/form-data; boundary=\u00e4", long)
    for wrong in (*wrongs, "multipart/form-data"):
        with pytest.raises(BadRequest) as caught:
            boundary_of(wrong)
        assert caught.value.status == 400
    for wrong in ("", "application/json", "text/plain; boundary=x"):
        with (
            subtests.test(f"{wrong!r:.80}"),
            pytest.raises(UnsupportedMediaType, match=r"\(multipart/form-data\)"),
        ):
            boundary_of(wrong)

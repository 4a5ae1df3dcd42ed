"""What is chosen where an entry of models.json leaves it open: how much context, which layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.accounts import Accounts
from gateway.backends.capacity import Capacity
from gateway.backends.devices import Device, gpu
from gateway.backends.estimate import USUAL_CONTEXT, estimate
from gateway.backends.machine import Machine
from gateway.backends.memory import Needs
from gateway.backends.options import context_is_open, layers_are_open
from gateway.backends.placement import Demand, Placement, place
from gateway.backends.ram import RAM
from gateway.backends.tuning import Grant, Tuning, choose
from gateway.models.catalog import parse_catalog
from gateway.models.local_model import LocalModel
from tests.gguf_file import Kind, entry, write_gguf
from tests.harness import DEMO_GGUF, MakeGateway
from tests.tiny_model import write_tiny_model

GIB = 2**30
MIB = 2**20
#: 128 KiB of cache for each token of context: 16 GiB for all of it.
LLAMA = {
    "llama.block_count": 32,
    "llama.context_length": 131_072,
    "llama.embedding_length": 4096,
    "llama.feed_forward_length": 14336,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
}


def spec_of(params: dict[str, Any] | None = None, **beside: object) -> LocalModel:
    given = {"params": {"model": "m.gguf", **(params or {})}, **beside}
    spec = parse_catalog(json.dumps({"m": given})).models["m"]
    assert isinstance(spec, LocalModel)
    return spec


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A model of 5 GiB (of holes)."""
    values = [entry(key, Kind.U32, value) for key, value in LLAMA.items()]
    file = tmp_path / "m.gguf"
    write_gguf(file, [entry("general.architecture", Kind.STRING, "llama"), *values], [])
    with file.open("r+b") as stream:
        stream.truncate(5 * GIB)
    return tmp_path


Choose = Callable[..., Tuning | None]


@pytest.fixture
def chosen(storage: Path) -> Choose:
    def choose_in(gib: float, spec: LocalModel, **options: Any) -> Tuning | None:
        at = options.pop("at", ())
        ram = options.pop("ram", None)
        grant = Grant(
            int(gib * GIB), None if ram is None else int(ram * GIB), options.pop("margins", ()), at
        )
        defaults = {"gpu": bool(at), "fits_itself": False}
        return choose(spec, storage, grant, **{**defaults, **options})

    return choose_in


ON_CARD: Placement = (("CUDA0", GIB),)


@pytest.mark.parametrize(
    ("gib", "context", "text"),
    [
        (40, 131_072, "context 131072, all that it was trained with"),
        (20, 98_304, "context 98304 of 131072: what 20.0 GiB free allows"),
        (15, 65_536, "context 65536 of 131072: what 15.0 GiB free allows"),
        (8, 16_384, "context 16384 of 131072: what 8.0 GiB free allows"),
        (2, 4096, "context 4096 of 131072: the least there is, 2.0 GiB free allows no more"),
    ],
)
def test_context_that_fits_is_chosen_and_told(
    chosen: Choose, gib: float, context: int, text: str
) -> None:
    tuning = chosen(gib, spec_of())
    assert tuning is not None
    assert (tuning.context, tuning.text) == (context, text)
    assert tuning.apply(spec_of()).params.ctx_size == context
    assert tuning.apply(spec_of()).params.gpu_layers is None  # RAM has none


@pytest.mark.parametrize("gib", [8, 11, 15, 20])
def test_what_is_chosen_fits(chosen: Choose, storage: Path, gib: int) -> None:
    tuning = chosen(gib, spec_of())
    assert tuning is not None
    assert tuning.needs == estimate(tuning.apply(spec_of()), storage, gpu=False).total
    assert tuning.needs <= gib * GIB


def test_every_slot_has_the_context_that_is_chosen(chosen: Choose) -> None:
    spec = spec_of(parallel=4)
    tuning = chosen(11, spec)
    assert tuning is not None
    assert tuning.context is not None
    assert tuning.context < 65_536 // 2
    assert tuning.apply(spec).params.ctx_size == 4 * tuning.context
    shared = chosen(11, spec_of(parallel=4, extraArgs=["--kv-unified"]))
    assert shared is not None
    assert shared.context is not None
    assert shared.params == {"ctxSize": shared.context}
    assert shared.context > tuning.context


@pytest.mark.parametrize(
    "spec",
    [
        spec_of({"ctxSize": 2048}),
        spec_of({"ctxSize": 0}),
        spec_of(extraArgs=["-c", "2048"]),
        spec_of(extraArgs=["--ctx_size=2048"]),
        spec_of(env={"LLAMA_ARG_CTX_SIZE": "2048"}),
        spec_of(extraArgs=["--fit", "off"]),
        spec_of(env={"LLAMA_ARG_FIT_TARGET": "2048"}),
        spec_of(extraArgs=["--override-kv", "llama.context_length=int:9000"]),
    ],
)
def test_what_is_said_stays(chosen: Choose, spec: LocalModel) -> None:
    assert not context_is_open(spec)
    assert chosen(40, spec) is None


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        (spec_of({"ctxSize": 4096}), True),
        (spec_of({"ctxSize": 4096, "gpuLayers": 80}), False),
        (spec_of({"ctxSize": 4096, "gpuLayers": -1}), False),
        (spec_of({"ctxSize": 4096}, extraArgs=["-ngl", "all"]), False),
        (spec_of({"ctxSize": 4096}, env={"LLAMA_ARG_N_GPU_LAYERS": "3"}), False),
        (spec_of({"ctxSize": 4096}, extraArgs=["--device", "none"]), False),
        (spec_of({"ctxSize": 4096}, extraArgs=["--cpu-moe"]), False),
        (spec_of({"ctxSize": 4096}, extraArgs=["--fit-ctx", "8192"]), False),
    ],
)
def test_layers_that_are_said_stay(chosen: Choose, spec: LocalModel, layers: bool) -> None:
    assert layers_are_open(spec) is layers
    tuning = chosen(40, spec, at=ON_CARD)
    assert (tuning is not None) is layers
    if tuning is not None:
        assert tuning.params == {"gpuLayers": 33}
        assert tuning.text == "all 33 layers on CUDA0"


def test_a_build_without_fit_is_told_how_many_layers(chosen: Choose) -> None:
    """First the context becomes less, then there are fewer layers on the GPU."""
    whole = chosen(24, spec_of(), at=ON_CARD)
    less = chosen(8, spec_of(), at=ON_CARD)
    few = chosen(4, spec_of(), at=ON_CARD, ram=16)
    none = chosen(0.3, spec_of(), at=ON_CARD, ram=16)
    assert whole is not None
    assert whole.params == {"ctxSize": 131_072, "gpuLayers": 33}
    assert less is not None
    assert less.params == {"ctxSize": 16_384, "gpuLayers": 33}
    assert less.text == (
        "context 16384 of 131072: what 8.0 GiB free allows; all 33 layers on CUDA0"
    )
    assert few is not None
    assert few.params["ctxSize"] == 4096
    assert 10 < few.params["gpuLayers"] < 25
    assert f"{few.layers} of 33 layers on CUDA0: what 4.0 GiB free allows" in few.text
    assert none is not None
    assert none.params == {"ctxSize": 4096, "gpuLayers": 0}


def test_a_build_with_fit_is_told_what_to_leave(chosen: Choose) -> None:
    tuning = chosen(8, spec_of(), at=ON_CARD, margins=(1500,), fits_itself=True)
    assert tuning is not None
    assert tuning.params == {}
    assert tuning.apply(spec_of()) == spec_of()
    assert tuning.variables == {"LLAMA_ARG_FIT_TARGET": "1500", "LLAMA_ARG_FIT_CTX": "4096"}
    assert (
        tuning.text == "as much context as fits 8.0 GiB; as many of its 33 layers on CUDA0 as fit"
    )
    # It keeps all layers there as long as there is context to be saved.
    assert tuning.came_out(20_480, None).text == (
        "context 20480 of 131072: what 8.0 GiB free allows; all 33 layers on CUDA0"
    )
    assert tuning.came_out(4096, None).layers is None
    assert tuning.came_out(4096, 20).text.endswith(
        "20 of 33 layers on CUDA0: what 8.0 GiB free allows"
    )
    assert tuning.came_out(None, None).context is None


def test_layers_in_ram_are_no_business_of_fit(chosen: Choose) -> None:
    spec = spec_of({"gpuLayers": 0})
    tuning = chosen(20, spec, at=ON_CARD, margins=(100,), fits_itself=True, ram=3)
    assert tuning is not None
    assert not tuning.variables
    # The weights are pages of the file, the cache is not.
    assert tuning.params == {"ctxSize": 24_576}
    assert tuning.text == "context 24576 of 131072: what 3.0 GiB free allows"


def test_of_a_file_that_says_nothing_nothing_is_chosen(chosen: Choose, storage: Path) -> None:
    (storage / "m.gguf").write_bytes(b"GGUF")
    assert chosen(20, spec_of()) is None
    assert chosen(20, spec_of({"model": "gone.gguf"})) is None


# --- what is granted -----------------------------------------------------------------------


async def accounts_of(storage: Path, machine: Machine, budget: int | None = None) -> Accounts:
    there = Capacity(lambda: machine, budget)
    await there.look()

    async def remember(key: str, size: int) -> None:
        raise AssertionError

    return Accounts(Needs(storage, {}, remember, gpu=machine.gpu), there, {})


def cards(*free: float) -> Machine:
    ram = Device(RAM, "RAM", 64 * GIB, 60 * GIB, 4 * GIB)
    devices = tuple(
        gpu(f"CUDA{i}", "a card", 24 * GIB, int(gib * GIB)) for i, gib in enumerate(free)
    )
    return Machine(devices, "a test", True, True, ram)


async def placed(accounts: Accounts, spec: LocalModel) -> Placement:
    await accounts.need_of(spec)
    assert accounts.capacity is not None
    on = place(accounts.demand(spec), accounts.capacity.memory, {})
    assert on is not None
    return on


async def test_what_is_usual_is_asked_for_and_what_is_left_is_granted(storage: Path) -> None:
    accounts = await accounts_of(storage, cards(20))
    on = await placed(accounts, spec_of())
    usual = spec_of({"ctxSize": USUAL_CONTEXT})
    assert on == (("CUDA0", estimate(usual, storage, gpu=True).total),)
    alone = accounts.grant(spec_of(), on, {}, shared=False, share=1.0)
    assert alone is not None
    assert alone.main == int((20 * GIB - 256 * MIB) * 0.9)
    assert alone.margins == ((20 * GIB - alone.main) // MIB,)
    others = accounts.grant(spec_of(), on, {"CUDA0": 4 * GIB}, shared=True, share=1.0)
    assert others is not None
    assert (others.main, others.shared) == (on[0][1], True)
    full = accounts.grant(spec_of(), on, {"CUDA0": 14 * GIB}, shared=True, share=1.0)
    assert full is not None
    assert full.main == 6 * GIB - 256 * MIB
    assert not full.shared
    assert (
        accounts.grant(spec_of({"ctxSize": 1, "gpuLayers": 1}), on, {}, shared=False, share=1)
        is None
    )


async def test_a_model_on_one_of_two_cards_is_told_of_that_alone(storage: Path) -> None:
    accounts = await accounts_of(storage, cards(20, 22))
    on = await placed(accounts, spec_of())
    assert [name for name, _ in on] == ["CUDA0"]
    grant = accounts.grant(spec_of(), on, {}, shared=False, share=1.0)
    assert grant is not None
    assert len(grant.margins) == 1
    assert grant.placement(on) == (("CUDA0", grant.main),)


async def test_a_budget_and_the_memory_of_the_entry_are_kept_to(storage: Path) -> None:
    accounts = await accounts_of(storage, cards(20), 12 * GIB)
    on = await placed(accounts, spec_of())
    grant = accounts.grant(spec_of(), on, {}, shared=False, share=1.0)
    assert grant is not None
    assert grant.main == int(12 * GIB * 0.9)
    less = accounts.grant(spec_of(), on, {}, shared=False, share=0.5)
    assert less is not None
    assert less.main == int(int(12 * GIB * 0.9) * 0.5)
    limited = spec_of(memory="7GiB")
    on = await placed(accounts, limited)
    grant = accounts.grant(limited, on, {}, shared=False, share=1.0)
    assert grant is not None
    assert grant.main == 7 * GIB


async def test_what_was_taken_with_the_usual_context_is_remembered(storage: Path) -> None:
    accounts = await accounts_of(storage, Machine((Device(RAM, "RAM", 64 * GIB, 60 * GIB),), "RAM"))
    need = await accounts.need_of(spec_of())
    assert need.size == estimate(spec_of({"ctxSize": USUAL_CONTEXT}), storage, gpu=False).total
    assert accounts.demand(spec_of()) == Demand(need.size, need.least)


# --- with a real llama-server --------------------------------------------------------------


async def state_of(running: Any, name: str) -> dict[str, Any]:
    _, answer = await running.json("GET", "/admin/models")
    return next(model for model in answer["models"] if model["name"] == name)


async def test_what_fits_is_loaded_and_told(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """Alone, a model gets what there is; beside others, what is usual; what is said stays."""
    write_tiny_model(tmp_path / "long.gguf", context=2**20)
    models = {
        "long": {"params": {"model": str(tmp_path / "long.gguf")}},
        "said": {"params": {"model": DEMO_GGUF, "ctxSize": 512}},
    }
    budget = "400MiB"
    async with make_gateway(
        models, llama_server="auto", scheduler={"memory_budget": budget}
    ) as running:
        assert (await running.json("POST", "/loadModel", json={"model": "long"}))[0] == 200
        state = await state_of(running, "long")
        chosen = state["chosen"]
        assert USUAL_CONTEXT < chosen["context"] < 2**20
        assert chosen["params"] == {"ctxSize": chosen["context"]}
        assert chosen["text"] == f"context {chosen['context']} of 1048576: what 0.4 GiB free allows"
        assert state["memory"] <= 400 * MIB
        _, listed = await running.json("GET", "/v1/models/long")
        assert listed["context_size"] == chosen["context"]

        # All of the budget was taken: it goes for the others, and then leaves some to them.
        assert (await running.json("POST", "/loadModel", json={"model": "said"}))[0] == 200
        assert (await state_of(running, "said"))["chosen"] is None
        assert (await state_of(running, "long"))["chosen"] is None  # not loaded any more
        assert (await running.json("POST", "/loadModel", json={"model": "long"}))[0] == 200
        assert (await state_of(running, "long"))["chosen"]["context"] == USUAL_CONTEXT
        assert (await state_of(running, "said"))["state"] == "ready"

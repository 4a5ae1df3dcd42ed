"""What is known of a model's needs: fingerprint, what models.json says, measured, estimated."""

import asyncio
import os
from pathlib import Path

import pytest

from gateway.backends import process
from gateway.backends.logring import LogRing
from gateway.backends.memory import Need, Needs, Source, fingerprint
from gateway.errors import GatewayError
from gateway.models.local_model import LocalModel
from gateway.tasks import spawn
from tests.backends.memory.headers import LLAMA, MIB, Kept, gguf, spec_of, total


def test_a_fingerprint_changes_with_what_changes_memory_and_with_nothing_else(
    storage: Path,
) -> None:
    (storage / "p.gguf").write_bytes(b"projector")
    base = spec_of({"ctxSize": 1024})

    def of(spec: LocalModel, gpu: bool = False) -> str:
        return fingerprint(spec, storage, gpu=gpu)

    same = [
        spec_of({"ctxSize": 1024, "temperature": 0.5}, personalities={"a": "b"}, aliases=["x"]),
        spec_of({"ctxSize": 1024}, ttl="5m", pinned=True, memory="3GiB"),
    ]
    assert {of(spec) for spec in same} == {of(base)}
    other = [
        spec_of({"ctxSize": 2048}),
        spec_of({"ctxSize": 1024, "gpuLayers": 3}),
        spec_of({"ctxSize": 1024, "batchSize": 64}),
        spec_of({"ctxSize": 1024}, parallel=2),
        spec_of({"ctxSize": 1024}, mmproj="p.gguf"),
        spec_of({"ctxSize": 1024}, draftModel="p.gguf"),
        spec_of({"ctxSize": 1024}, extraArgs=["-ctk", "q8_0"]),
        spec_of({"ctxSize": 1024}, env={"LLAMA_ARG_UBATCH": "64"}),
    ]
    prints = {of(base), of(base, gpu=True), *map(of, other)}
    assert len(prints) == 2 + len(other)
    before = of(base)
    os.utime(storage / "m.gguf", ns=(1, 1))
    assert of(base) != before
    assert len(of(spec_of({"model": "package:nothing_x/m.gguf"}))) == 64


async def test_models_json_comes_before_what_was_measured_and_that_before_the_estimate(
    storage: Path,
) -> None:
    spec = spec_of({"ctxSize": 1024})
    kept = Kept()
    needs = Needs(storage, kept, kept.remember)
    assert needs.known(spec) is None
    estimated = await needs.need_of(spec)
    assert estimated.size == total(storage, {"ctxSize": 1024})
    assert estimated.source is Source.ESTIMATED
    assert needs.known(spec) == estimated
    measured = {fingerprint(spec, storage, gpu=False): 77 * MIB}
    later = Needs(storage, measured, kept.remember)
    again = await later.need_of(spec)
    assert (again.size, again.source) == (77 * MIB, Source.MEASURED)
    fixed = spec_of({"ctxSize": 1024}, memory="3GiB")
    least = int(0.9 * 3 * 2**30)
    assert later.known(fixed) == Need(3 * 2**30, Source.SET, least=least)
    assert later.known(fixed) == await later.need_of(fixed)


async def test_a_changed_entry_or_file_is_looked_at_again(storage: Path) -> None:
    kept = Kept()
    needs = Needs(storage, kept, kept.remember)
    small = await needs.need_of(spec_of({"ctxSize": 1024}))
    assert needs.known(spec_of({"ctxSize": 4096})) is None
    assert (await needs.need_of(spec_of({"ctxSize": 4096}))).size > small.size
    (storage / "m.gguf").write_bytes(bytes(MIB))
    assert (await needs.need_of(spec_of({"ctxSize": 4096}))).source is Source.GUESSED


async def test_a_logit_bias_is_no_obstacle(storage: Path) -> None:
    kept = Kept()
    needs = Needs(storage, kept, kept.remember)
    spec = spec_of({"logitBias": {"5": 1.0}})  # an entry that cannot be hashed
    assert await needs.need_of(spec) == needs.known(spec)


async def test_nothing_is_measured_of_a_group_that_is_gone(storage: Path) -> None:
    kept = Kept()
    needs = Needs(storage, kept, kept.remember)
    child = await process.start(("true",), {}, log=LogRing(), name="gone")
    await child.wait()
    assert await needs.measure(spec_of(), child.pid) is None
    assert not kept


async def test_a_store_that_fails_costs_only_the_memory_of_it(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(key: str, size: int) -> None:
        raise GatewayError("disk full")

    needs = Needs(storage, {}, broken)
    child = await process.start(("sleep", "30"), {}, log=LogRing(), name="sleeper")
    try:
        need = await needs.measure(spec_of(), child.pid)
    finally:
        await child.stop(5)
    assert need is not None
    assert needs.known(spec_of()) == need
    assert "disk full" in caplog.text


async def test_a_big_vocabulary_does_not_hold_up_the_loop(storage: Path) -> None:
    values = {**LLAMA, "tokenizer.ggml.tokens": [f"token {i}" for i in range(300_000)]}
    (storage / "m.gguf").write_bytes(gguf(values))
    kept = Kept()
    looking = spawn(Needs(storage, kept, kept.remember).need_of(spec_of()), name="look")
    turns = 0
    while not looking.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await looking).source is Source.ESTIMATED
    assert turns > 10  # 2, if it were read in the loop

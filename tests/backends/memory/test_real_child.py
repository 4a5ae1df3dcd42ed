"""Estimates beside what a real llama-server takes."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.backends import process
from gateway.backends.command import build_command, bundled_program
from gateway.backends.estimate import estimate
from gateway.backends.logring import LogRing
from gateway.backends.memory import Needs, Source, fingerprint
from gateway.backends.usage import memory_used
from gateway.models.local_model import LocalModel
from tests.backends.memory.headers import MIB, SMOLLM2, Kept, spec_of, with_real_model


@asynccontextmanager
async def running(spec: LocalModel, address: Path) -> AsyncIterator[process.Child]:
    command = build_command(
        spec,
        program=bundled_program(),
        socket=str(address),
        llm_storage=Path(),
        environ=os.environ,
    )
    log, listening = LogRing(), asyncio.Event()
    log.listen(lambda: listening.set() if "listening on" in log.tail(1)[0] else None)
    child = await process.start(command.argv, command.env, log=log, name="demo")
    try:
        async with asyncio.timeout(30):
            await listening.wait()
        yield child
    finally:
        await child.stop(10)


@with_real_model
async def test_a_real_child_is_measured_and_the_estimate_is_near_and_above(tmp_path: Path) -> None:
    spec = spec_of({"model": SMOLLM2, "ctxSize": 4096, "threads": 2})
    kept = Kept()
    needs = Needs(tmp_path, {}, kept.remember)
    guess = await needs.need_of(spec)
    async with running(spec, tmp_path / "a.sock") as child:
        resident = memory_used(child.pid, gpu=False)
        need = await needs.measure(spec, child.pid)
    assert need is not None
    assert need.source is Source.MEASURED
    # Weights are 94 MiB, the cache for 4096 tokens 90 MiB.
    assert 184 * MIB < resident < need.size
    assert resident < guess.size < 1.25 * resident
    assert need.size == pytest.approx(guess.size, rel=0.1)
    assert kept == {fingerprint(spec, tmp_path, gpu=False): need.size}
    assert needs.known(spec) == await needs.need_of(spec) == need
    assert await Needs(tmp_path, kept, kept.remember).need_of(spec) == need


@with_real_model
@pytest.mark.parametrize("arguments", [[], ["--kv-unified"], ["-c", "2048"]])
async def test_the_estimate_of_several_slots_is_near_and_above(
    tmp_path: Path, arguments: list[str]
) -> None:
    """The bundled server gives each slot as many tokens as the model was trained with."""
    spec = spec_of({"model": SMOLLM2, "threads": 2}, parallel=3, extraArgs=arguments)
    guess = estimate(spec, tmp_path, gpu=False)
    async with running(spec, tmp_path / "a.sock") as child:
        resident = memory_used(child.pid, gpu=False)
    assert resident < guess.total < 1.25 * resident

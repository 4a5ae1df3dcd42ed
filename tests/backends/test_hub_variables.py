"""The hub and its token, as they are told to a machine that pulls for this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.backends.hub_variables import hub_variables, with_hub


def test_nothing_is_set(tmp_path: Path) -> None:
    assert hub_variables({"HOME": str(tmp_path)}) == {}
    environ = {"HF_TOKEN": "hf_here", "PATH": "/bin"}
    assert with_hub(environ, {}) == environ


def test_token_and_mirror_are_variables(tmp_path: Path) -> None:
    environ = {"HF_TOKEN": " hf_one\n", "HF_ENDPOINT": "https://mirror", "HOME": str(tmp_path)}
    assert hub_variables(environ) == {"HF_TOKEN": "hf_one", "HF_ENDPOINT": "https://mirror"}


@pytest.mark.parametrize(
    ("variable", "place"),
    [
        ("HOME", ".cache/huggingface/token"),
        ("XDG_CACHE_HOME", "huggingface/token"),
        ("HF_HOME", "token"),
        ("HF_TOKEN_PATH", ""),
    ],
)
def test_a_login_is_found_where_the_client_keeps_it(
    tmp_path: Path, variable: str, place: str
) -> None:
    file = tmp_path / "kept" / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("hf_kept\n")
    assert hub_variables({variable: str(tmp_path / "kept")}) == {"HF_TOKEN": "hf_kept"}


@pytest.mark.parametrize("given", [{"HF_TOKEN": "hf_there"}, {"HF_ENDPOINT": "https://mirror"}])
def test_a_token_is_for_one_hub(given: dict[str, str]) -> None:
    own = {
        "HF_TOKEN": "hf_own",
        "HUGGING_FACE_HUB_TOKEN": "hf_own",
        "HF_ENDPOINT": "https://own",
        "HF_TOKEN_PATH": "/own",
        "PATH": "/bin",
    }
    assert with_hub(own, given) == {"PATH": "/bin", "HF_TOKEN_PATH": "/dev/null", **given}

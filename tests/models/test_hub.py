"""What a repository has, from the names that people give their files."""

from __future__ import annotations

import pytest

from gateway.errors import BadRequest, NotFound
from gateway.models.hub import (
    HubFile,
    Repository,
    check_revision,
    choose,
    parse_reference,
    recommended,
    repository,
    safe_path,
)


def of(*paths: str, size: int = 100) -> Repository:
    files = [HubFile(path, size + place, "00") for place, path in enumerate(paths)]
    return repository("me/repo", "abc", files)


def labels(found: Repository) -> list[str]:
    return [one.label for one in found.variants]


def test_quantisations_are_told_apart() -> None:
    found = of(
        "Qwen3-4B-Q4_K_M.gguf",
        "Qwen3-4B-UD-Q4_K_XL.gguf",
        "Qwen3-4B-IQ4_XS.gguf",
        "Qwen3-4B-BF16.gguf",
        "README.md",
        "imatrix_unsloth.gguf",
        "ggml-vocab-qwen.gguf",
    )
    assert labels(found) == ["Q4_K_M", "UD-Q4_K_XL", "IQ4_XS", "BF16"]
    assert {one.name for one in found.variants} == {"Qwen3-4B"}


def test_parts_of_a_split_model_are_one_in_their_order() -> None:
    found = of(
        "Q8_0/big-Q8_0-00002-of-00003.gguf",
        "Q8_0/big-Q8_0-00001-of-00003.gguf",
        "Q8_0/big-Q8_0-00003-of-00003.gguf",
        "big-Q2_K.gguf",
    )
    (split,) = (one for one in found.variants if one.label == "Q8_0")
    assert [file.path[-19:-5] for file in split.files] == [
        "00001-of-00003",
        "00002-of-00003",
        "00003-of-00003",
    ]
    assert split.size == 303
    assert split.missing == 0


def test_a_quantisation_may_stand_in_the_folder_alone() -> None:
    found = of("Q4_K_M/model-00001-of-00002.gguf", "Q4_K_M/model-00002-of-00002.gguf")
    assert [(one.label, one.name) for one in found.variants] == [("Q4_K_M", "model")]


def test_a_split_model_with_a_part_missing_is_not_fetched() -> None:
    found = of("big-Q8_0-00001-of-00003.gguf", "big-Q8_0-00003-of-00003.gguf")
    assert found.variants[0].missing == 1
    with pytest.raises(BadRequest, match="lacks 1 part"):
        choose(found, "Q8_0")
    assert recommended(found, lambda one: True) is None


def test_several_models_in_one_repository_go_by_their_files() -> None:
    found = of("one-Q4_K_M.gguf", "two-Q4_K_M.gguf", "two-Q8_0.gguf", "a/x.gguf", "b/x.gguf")
    assert labels(found) == ["one-Q4_K_M", "two-Q4_K_M", "Q8_0", "a/x", "b/x"]
    assert choose(found, "two-q4_k_m.gguf").files[0].path == "two-Q4_K_M.gguf"
    assert choose(found, "b/x").files[0].path == "b/x.gguf"
    with pytest.raises(BadRequest, match="one-Q4_K_M, two-Q4_K_M"):
        choose(found, "Q4_K_M")


def test_what_there_is_not_is_told_with_what_there_is() -> None:
    found = of("m-Q4_K_M.gguf", "m-Q8_0.gguf")
    assert choose(found, "q4_k_m").label == "Q4_K_M"
    with pytest.raises(NotFound, match="did you mean 'Q4_K_M'"):
        choose(found, "Q4_K_N")
    with pytest.raises(NotFound, match="there are: Q4_K_M, Q8_0"):
        choose(found, "zzz")


def test_a_projector_belongs_to_the_model_of_its_name() -> None:
    found = of(
        "gemma-3-4b-it-Q4_K_M.gguf", "mmproj-F32.gguf", "mmproj-F16.gguf", "mmproj-BF16.gguf"
    )
    (model,) = found.variants
    projector = found.projector_for(model)
    assert projector is not None
    assert projector.path == "mmproj-F16.gguf"


def test_of_two_models_each_has_its_own_projector() -> None:
    found = of("a-7b-Q4_0.gguf", "b-7b-Q4_0.gguf", "b-7b.mmproj-Q8_0.gguf", "mmproj-a-7b-f16.gguf")
    projectors = [found.projector_for(one) for one in found.variants]
    assert [one and one.path for one in projectors] == [
        "mmproj-a-7b-f16.gguf",
        "b-7b.mmproj-Q8_0.gguf",
    ]
    assert of("a-7b-Q4_0.gguf").projector_for(of("a-7b-Q4_0.gguf").variants[0]) is None


@pytest.mark.parametrize(
    ("paths", "most", "best"),
    [
        (("m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q4_0.gguf"), 999, "Q4_K_M"),
        (("m-Q8_0.gguf", "m-UD-Q4_K_XL.gguf"), 999, "UD-Q4_K_XL"),
        (("m-Q2_K.gguf", "m-Q3_K_M.gguf", "m-Q4_K_M.gguf"), 101, "Q3_K_M"),
        (("m-Q6_K.gguf", "m-Q8_0.gguf", "m-F16.gguf"), 999, "Q6_K"),
        (("m-Q2_K.gguf", "m-F16.gguf"), 999, "F16"),
        (("m-Q4_K_M.gguf",), 10, None),
        (("model.gguf",), 999, "model"),
    ],
)
def test_best_quantisation_that_fits_is_recommended(
    paths: tuple[str, ...], most: int, best: str | None
) -> None:
    found = recommended(of(*paths), lambda one: one.size <= most)
    assert (found and found.label) == best


@pytest.mark.parametrize(
    "path",
    [
        "../x.gguf",
        "a/../../x.gguf",
        "/etc/x.gguf",
        "a//x.gguf",
        ".hidden.gguf",
        "a/.ssh/x.gguf",
        "..\\x.gguf",
        "C:x.gguf",
        "x\n.gguf",
        "x\x1b[2J.gguf",
        "\u202efugg.gguf",
        " /x.gguf",
        "x" * 300 + ".gguf",
        "/".join("abcdefghij") + ".gguf",
    ],
)
def test_hostile_names_are_left_out(path: str) -> None:
    found = of("good-Q4_0.gguf", path)
    assert labels(found) == ["Q4_0"]
    assert found.left_out == 1
    assert safe_path(path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "me",
        "me/",
        "/repo",
        "me/repo/more",
        "../repo",
        "me/..",
        ".me/repo",
        "me/a..b",
        "me/.r",
        "me/repo:",
        "me/re po",
        "https://huggingface.co/me/repo",
        "me/repo\n",
        "me/repo:Q4\nforged",
        "me/" + "r" * 97,
    ],
)
def test_wrong_reference_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_reference(text)


def test_references_name_a_repository_and_a_quantisation(subtests: pytest.Subtests) -> None:
    assert parse_reference("me/My.Repo_1-GGUF:Q4_K_M") == ("me", "My.Repo_1-GGUF", "Q4_K_M")
    assert parse_reference("me/r").repository == "me/r"
    assert str(parse_reference("me/r:a/b.gguf")) == "me/r:a/b.gguf"
    assert check_revision("refs/pr/1") == "refs/pr/1"
    for text in ("", "../main", "a b", "main?x=1", "-x"):
        with subtests.test(f"{text!r:.80}"), pytest.raises(BadRequest):
            check_revision(text)

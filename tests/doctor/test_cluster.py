"""What `check` and `doctor` say of a cluster, and of models that other machines may run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import load_partly, load_settings
from gateway.doctor import configuration, files
from gateway.doctor.checks import Level, Subject
from gateway.doctor.configuration import Findings
from gateway.library import read_partly
from tests.harness import DEMO_GGUF, project

ENTRIES = {
    "anywhere": {"params": {"model": "gone.gguf"}},
    "attic": {"params": {"model": "gone.gguf"}, "nodes": "attic", "requireGpu": True},
    "here": {"params": {"model": "gone.gguf"}, "nodes": "here", "replicas": 2},
    "fits": {"params": {"model": DEMO_GGUF, "ctxSize": 512}},
}


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have a Ray of this version installed, as far as a look at what is installed tells."""

    def install(version: str) -> None:
        folder = tmp_path / f"ray-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ray\nVersion: {version}\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


def found(tmp_path: Path, models: Any = (), **settings: Any) -> Findings:
    file = project(tmp_path / "p", dict(models), **settings)
    return configuration.find_problems(*load_partly(file, environ={}), look=False)


def of_the_cluster(findings: Findings) -> list[tuple[str, str]]:
    return [(one.key, one.message) for one in findings.problems if "cluster" in one.key]


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_a_cluster_without_ray_is_a_problem_that_says_what_to_install(tmp_path: Path) -> None:
    ((key, message),) = of_the_cluster(found(tmp_path, cluster={"engine": "ray"}))
    assert key == "cluster"
    assert message == "needs Ray, which isn't installed: pip install 'ray>=2.60'"


@pytest.mark.parametrize("version", ["2.9.3", "1.13.0"])
def test_an_old_ray_is_a_problem(tmp_path: Path, ray: Any, version: str) -> None:
    ray(version)
    ((_, message),) = of_the_cluster(found(tmp_path, cluster={"engine": "ray"}))
    assert f"{version} is installed" in message


@pytest.mark.skipif(importlib.util.find_spec("grpc") is not None, reason="grpcio is installed")
def test_ray_client_is_more_than_ray(tmp_path: Path, ray: Any) -> None:
    ray("2.60.0")
    assert not of_the_cluster(found(tmp_path, cluster={"address": "attic"}))
    ((key, message),) = of_the_cluster(found(tmp_path / "two", cluster={"address": "ray://attic"}))
    assert key == "cluster.address"
    assert "pip install 'ray[client]'" in message


def test_what_needs_a_cluster_is_warned_of_without_one(tmp_path: Path) -> None:
    big = {"big": {"params": {"model": "gone.gguf"}, "machines": 2}}
    warnings = "\n".join(found(tmp_path, ENTRIES | big).warnings)
    assert "attic: nodes has no effect: there is no cluster in gateway.yaml" in warnings
    assert "here: replicas has no effect" in warnings
    assert "big: machines has no effect" in warnings
    assert "has no effect" not in "".join(
        found(tmp_path / "two", ENTRIES, cluster={"engine": "ray"}).warnings
    )


def test_a_file_that_another_machine_may_have_need_not_be_here(tmp_path: Path, ray: Any) -> None:
    ray("2.60.0")
    alone = found(tmp_path, ENTRIES)
    assert {one.key for one in alone.problems} == {
        f"{name}.params.model" for name in ("anywhere", "attic", "here")
    }
    together = found(tmp_path / "two", ENTRIES, cluster={"engine": "ray"})
    assert {one.key for one in together.problems} == {"here.params.model"}
    (told,) = [one for one in together.warnings if "gone.gguf" in one]
    assert "anywhere.params.model" in told
    assert "(on this machine)" in told


def test_doctor_asks_no_gpu_and_file_of_what_another_machine_may_run(tmp_path: Path) -> None:
    file = project(tmp_path / "p", ENTRIES, cluster={"engine": "ray"})
    settings = load_settings(file, environ={}).settings
    subject = Subject(settings, read_partly(settings.models_file)[0], {}, ())
    levels = {
        name: {one.level for one in files.check_models(subject) if one.subject == name}
        for name in ENTRIES
    }
    assert levels == {
        "anywhere": {Level.WARNING, Level.OK},
        "attic": {Level.OK},
        "here": {Level.ERROR},
        "fits": {Level.OK},
    }
    assert json.loads(settings.models_file.read_text()) == ENTRIES

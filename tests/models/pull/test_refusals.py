"""Fetching from a hub that refuses, or lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import GatewayError, NotFound
from gateway.models.fetching import WrongHash
from gateway.models.hub_client import Hub, HubFailed, HubRefuses
from gateway.models.part_file import NotStored
from gateway.models.pull import pull
from tests.hub_server import HubServer
from tests.models.pull.fetching import NAME, REFERENCE, fetched, files, planned

pytestmark = pytest.mark.slow


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "kind", "says"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, NotFound, "no repository me/thing-GGUF, or it is"),
        (404, {}, NotFound, "no repository me/thing-GGUF"),
        (401, {"X-Error-Code": "GatedRepo"}, HubRefuses, "gated: accept its terms at http.*HF_TOK"),
        (403, {}, HubRefuses, "without a token: set HF_TOKEN"),
        (429, {"Retry-After": "9"}, HubFailed, "too many requests"),
        (503, {}, HubFailed, "busy or down"),
        (418, {}, HubFailed, "has answered 418"),
        (404, {"X-Error-Code": "RevisionNotFound"}, NotFound, "has no revision"),
    ],
)
def test_refusal_of_a_list_is_told_with_the_reason(
    server: HubServer, status: int, headers: dict[str, str], kind: type[GatewayError], says: str
) -> None:
    server.refusals = [("/api/", status, headers)] * 9
    with pytest.raises(kind, match=says):
        Hub(server.url).repository(REFERENCE)


def test_gated_repository_is_told(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos[NAME].gated = "manual"
    with pytest.raises(HubRefuses, match="is gated: accept its terms"):
        fetched(server, tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HubRefuses, match="this token has no access") as refused:
        fetched(server, tmp_path)
    assert "hf_other" not in str(refused.value)
    assert files(tmp_path) == {}
    monkeypatch.setenv("HF_TOKEN", "hf_let_in")
    fetched(server, tmp_path)
    # What delivers the files is another host: it never sees the token.
    tokens = {one.token for one in server.asked if one.path.startswith("/cdn/")}
    assert tokens == {None}


def test_wrong_token_is_told_and_not_shown(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    message = {"X-Error-Message": "Invalid credentials in Authorization header"}
    server.refusals = [("/api/", 401, message)]
    with pytest.raises(HubRefuses, match="does not take this token") as refused:
        Hub(server.url).repository(REFERENCE)
    assert "hf_wrong" not in str(refused.value)


@pytest.mark.parametrize("token", ["hf_sec\x01ret", "hf_s\u00e9cret"])
def test_malformed_token_is_refused_without_repeating_it(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(GatewayError) as refused:
        Hub(server.url).repository(REFERENCE)
    assert "hf_s" not in str(refused.value)
    assert "HF_TOKEN" in str(refused.value)


def test_server_that_is_no_hub_is_told(server: HubServer) -> None:
    server.repos[NAME].files = {"README.md": b""}
    assert Hub(server.url).repository(REFERENCE).variants == ()
    hub = Hub(f"{server.url}/cdn/{NAME}/resolve/README.md?")
    with pytest.raises(HubFailed, match="cannot be understood"):
        hub.repository(REFERENCE)


# --- lies ----------------------------------------------------------------------------------


def test_wrong_bytes_get_no_name(server: HubServer, tmp_path: Path) -> None:
    server.damage = lambda path, data: data[:-1] + b"?"
    with pytest.raises(WrongHash, match="deleted: the same again fetches it anew"):
        fetched(server, tmp_path)
    assert files(tmp_path) == {}


def test_more_than_there_should_be_is_not_written(server: HubServer, tmp_path: Path) -> None:
    listed = {"size": 1000}
    server.repos[NAME].listed = {"thing-Q4_0.gguf": listed}
    with pytest.raises(WrongHash, match="more of thing"):
        fetched(server, tmp_path)
    assert sum(files(tmp_path).values()) == 0


def test_file_without_a_hash_is_not_fetched(server: HubServer, tmp_path: Path) -> None:
    server.repos[NAME].listed = {"thing-Q4_0.gguf": {"lfs": None, "blobId": None}}
    with pytest.raises(HubFailed, match="does not say what hash"):
        fetched(server, tmp_path)
    assert files(tmp_path) == {}


def test_hostile_names_lead_nowhere(server: HubServer, tmp_path: Path) -> None:
    server.repos[NAME].files["../../../evil-Q8_0.gguf"] = b"x"
    found = Hub(server.url).repository(REFERENCE)
    assert [one.label for one in found.variants] == ["Q4_0"]


def test_a_link_in_the_place_of_a_part_is_not_followed(server: HubServer, tmp_path: Path) -> None:
    plan, hub = planned(server, tmp_path)
    part = plan.part(plan.files[0])
    part.parent.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    part.symlink_to(elsewhere)
    with pytest.raises(NotStored):
        pull(plan, hub, lambda _: None)
    assert not elsewhere.exists()

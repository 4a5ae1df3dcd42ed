"""Chromium, and a gateway without keys on the same machine: what pages of others can make it do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.chromium import PATIENCE, chromium, needs_chromium, web_server
from tests.harness import FAKE, Served, fake_model, project, wait_until
from tests.test_demo import get

pytestmark = [pytest.mark.slow, needs_chromium]

#: Every way in which a page makes a request without asking first; resolves when each has ended.
BY_ALL_MEANS = """async url => {
  const ends = element => new Promise(done => {
    element.onload = element.onerror = done;
    document.body.append(element);
  });
  const image = new Image();
  image.src = `${url}/unloadModel`;
  const script = document.createElement("script");
  script.src = `${url}/unloadModel`;
  const frame = document.createElement("iframe");
  frame.src = `${url}/unloadModel`;
  const target = document.createElement("iframe");
  target.name = "target";
  await Promise.all([ends(image), ends(script), ends(frame)]);
  const form = document.createElement("form");
  form.method = "POST";
  form.enctype = "text/plain";
  form.action = `${url}/unloadModel`;
  form.target = "target";
  form.innerHTML = `<input name='{"model": "m", "x": "' value='"}'>`;
  await ends(target);
  const sent = ends(target);
  document.body.append(form);
  form.submit();
  await sent;
  const statuses = [];
  for (const options of [
    {mode: "no-cors"},
    {mode: "no-cors", method: "POST", body: '{"model": "m"}'},
    {mode: "no-cors", referrerPolicy: "no-referrer"},
    {method: "POST"},
    {method: "POST", body: '{"model": "m"}', headers: {"Content-Type": "application/json"}},
  ]) {
    const answer = await fetch(`${url}/unloadModel`, options);
    statuses.push(answer.type === "opaque" ? null : answer.status);
  }
  return statuses;
}"""
ASK = """async ([path, options]) => {
  const answer = await fetch(path, options);
  return [answer.status, await answer.text()];
}"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    config = project(
        tmp_path / "p",
        {"m": fake_model(tmp_path)},
        llama_server=str(FAKE),
        auth={"enabled": False},
        allowed_hosts=["*"],  # so that nothing else stands in the way of a name that leads here
    )
    served = Served(tmp_path, "--config", str(config))
    yield served
    assert served.stop() == 0


def page(browser: Browser, address: str) -> Page:
    opened = browser.new_page()
    opened.set_default_timeout(PATIENCE)
    opened.goto(address)
    return opened


LOAD = {
    "method": "POST",
    "headers": {"Content-Type": "application/json"},
    "body": '{"model": "m"}',
}


def loaded(served: Served) -> bool:
    return get(served, "/models?loaded=true", "none") == (200, ["m"])


def test_pages_of_others_can_administrate_nothing(served: Served, browser: Browser) -> None:
    own = page(browser, f"{served.url}/ping")
    status, text = own.evaluate(ASK, ["/loadModel", LOAD])
    assert status == 200, text
    with web_server() as port:
        for host in ("evil.example", "localhost"):  # the second is the same site, for a browser
            theirs = page(browser, f"http://{host}:{port}/")
            assert theirs.evaluate(BY_ALL_MEANS, served.url) == [None, None, None, 403, 403]
            assert loaded(served), host
    # The gateway's own page may, and so may the user, by the address bar.
    status, text = own.evaluate(ASK, ["/admin/models", {}])
    assert status == 200, text
    status, text = own.evaluate(ASK, ["/unloadModel", {"method": "POST"}])
    assert status == 200, text
    assert not loaded(served)
    own.evaluate(ASK, ["/loadModel", LOAD])
    page(browser, f"{served.url}/unloadModel")
    assert not loaded(served)


def test_name_that_was_rebound_to_this_machine_is_refused(
    served: Served, browser: Browser, subtests: pytest.Subtests
) -> None:
    """DNS rebinding: for the browser, page and gateway are of one origin."""
    port = served.url.rpartition(":")[2]
    page(browser, f"{served.url}/ping").evaluate(ASK, ["/loadModel", LOAD])
    theirs = page(browser, f"http://evil.example:{port}/ping")
    for path, options in (
        ("/unloadModel", {}),
        ("/unloadModel", {"method": "POST"}),
        ("/admin/keys", {**LOAD, "body": '{"name": "mine", "admin": true}'}),
    ):
        with subtests.test(f"{path!r:.80}"):
            status, text = theirs.evaluate(ASK, [path, options])
            assert status == 403
            assert "local_only" in text
    assert loaded(served)


@pytest.fixture
def open_box(tmp_path: Path) -> Iterator[Served]:
    """A gateway whose user's programs need no key for Ollama's API, nor the pages of a friend."""
    config = project(
        tmp_path / "p",
        {"m": fake_model(tmp_path)},
        llama_server=str(FAKE),
        auth={"ollama_open_to": ["127.0.0.1"]},
        allowed_hosts=["*"],
        cors={"origins": ["*", "http://friend.example:*"]},
    )
    served = Served(tmp_path, "--config", str(config))
    yield served
    assert served.stop() == 0


CHAT = '{"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": false}'
#: A chat as a page may send it without asking first, and as it may only if it is allowed to.
CHATS: tuple[dict[str, object], ...] = (
    {"method": "POST", "body": CHAT, "mode": "no-cors"},
    {"method": "POST", "body": CHAT, "headers": {"Content-Type": "application/json"}},
)


def test_pages_of_others_get_nothing_by_what_is_open_to_programs(
    open_box: Served, browser: Browser
) -> None:
    port = open_box.url.rpartition(":")[2]
    with web_server() as elsewhere:
        theirs = page(browser, f"http://evil.example:{elsewhere}/")
        told = [theirs.evaluate(ASK, [f"{open_box.url}/api/chat", chat]) for chat in CHATS]
        assert [status for status, _ in told] == [0, 401]  # of the first it is told nothing
        assert theirs.evaluate(ASK, [f"{open_box.url}/api/tags", {}])[0] == 401
        rebound = page(browser, f"http://evil.example:{port}/ping")
        for path, options in (("/api/tags", {}), *(("/api/chat", chat) for chat in CHATS)):
            assert rebound.evaluate(ASK, [path, options])[0] == 401
        asked = "/admin/requests?key=ollama"
        assert get(open_box, asked)[1]["ended"] == []
        friend = page(browser, f"http://friend.example:{elsewhere}/")
        assert friend.evaluate(ASK, [f"{open_box.url}/api/chat", CHATS[1]])[0] == 200
        wait_until(lambda: get(open_box, asked)[1]["ended"], 10, "its record")
        assert len(get(open_box, asked)[1]["ended"]) == 1

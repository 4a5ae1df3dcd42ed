"""A real browser, and pages of other origins in it: what they may ask, and what they get to see."""

from __future__ import annotations

import json
import os
import ssl
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page

from gateway.tls import SelfSigned, self_signed
from tests.chromium import (
    CERTUTIL,
    PATIENCE,
    chromium,
    needs_certutil,
    needs_chromium,
    trust,
    web_server,
)
from tests.harness import FAKE, Served, fake_model, project

pytestmark = [pytest.mark.slow, needs_chromium]

#: What a page does: ask for a stream, keep its reader, tell the head and what came with the first
#: word (comments come before it, while a model loads).
BEGIN = """async ([url, key]) => {
  const answer = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: {"Authorization": `Bearer ${key}`, "Content-Type": "application/json"},
    body: JSON.stringify(
      {model: "m", stream: true, messages: [{role: "user", content: "hi"}]}),
  });
  window.reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const names = ["X-Request-Id", "X-Gateway-Model", "X-RateLimit-Remaining-Requests", "Server"];
  const headers = Object.fromEntries(names.map(name => [name, answer.headers.get(name)]));
  let first = "";
  while (answer.ok && !first.includes("word0")) first += (await window.reader.read()).value;
  return {status: answer.status, headers, first};
}"""
#: And the rest of it.
GO_ON = """async () => {
  let text = "";
  for (;;) {
    const {value, done} = await window.reader.read();
    if (done) return text;
    text += value;
  }
}"""
ASK = """async ([url, options]) => {
  const answer = await fetch(url, options);
  return [answer.status, await answer.text()];
}"""
#: Collect what a stream of events brings.
LISTEN = """url => {
  window.events = [];
  window.source = new EventSource(url);
  window.source.onmessage = event => window.events.push(JSON.parse(event.data));
}"""


@dataclass
class World:
    """A gateway that lets pages of ``*.pages.example`` in, and a browser to open them in."""

    served: Served
    browser: Browser
    port: int  # of the pages
    secure_port: int  # of pages on https, which the browser takes for ones on the internet
    gate: Path
    record: Path

    @property
    def asked(self) -> int:
        """How many requests have reached llama-server."""
        return len(self.record.read_text().splitlines()) if self.record.exists() else 0

    def page(self, host: str) -> Page:
        return page(self.browser, f"http://{host}:{self.port}")

    def limited_key(self) -> str:
        return limited_key(self.served)


def page(browser: Browser | BrowserContext, origin: str) -> Page:
    opened = browser.new_page()
    opened.set_default_timeout(PATIENCE)
    opened.goto(origin)
    return opened


def limited_key(served: Served) -> str:
    """A key whose answers tell how many requests are left."""
    request = urllib.request.Request(
        f"{served.url}/admin/keys",
        json.dumps({"name": "page", "limits": {"rpm": 100}}).encode(),
        {"Authorization": f"Bearer {served.key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        key: str = json.load(answer)["key"]
        return key


@dataclass
class Home:
    """The home folder of a user whose Chromium trusts a local authority, if it can be told to."""

    folder: Path
    certificate: SelfSigned


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    made = self_signed(["my-app.web.app", "127.0.0.1"], folder / "ssl")
    if CERTUTIL is not None:
        trust(folder, made.chain)
    return Home(folder, made)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, home: Home) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    gate, record = root / "gate", root / "record"
    os.mkfifo(gate)
    config = project(
        root / "p",
        {"m": fake_model(root, gate=gate, record=record)},
        llama_server=str(FAKE),
        cors={"origins": ["http://*.pages.example:*"]},
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home.certificate.certificate, home.certificate.private_key)
    with web_server() as port, web_server(context) as secure_port:
        on_the_internet = f"--ip-address-space-overrides=127.0.0.1:{secure_port}=public"
        with chromium(home.folder, on_the_internet) as browser:
            served = Served(root, "--config", str(config))
            yield World(served, browser, port, secure_port, gate, record)
            assert served.stop() == 0
            assert "Traceback" not in "".join(served.log)


def test_page_of_an_allowed_origin_reads_a_stream(world: World) -> None:
    """A preflight, because of the key; headers and the first piece while the rest is to come."""
    mine = world.page("my-app.pages.example")
    began = mine.evaluate(BEGIN, [world.served.url, world.limited_key()])
    assert began["status"] == 200
    assert began["headers"].pop("X-Request-Id").startswith("req_")
    # One is given back in 0.6 s, in which a busy machine has not started the model.
    assert began["headers"].pop("X-RateLimit-Remaining-Requests") in ("99", "100")
    assert began["headers"] == {
        "X-Gateway-Model": "m",
        "Server": None,  # not among those that the page may see
    }
    assert "word0" in began["first"]
    assert "word1" not in began["first"]
    with world.gate.open("w"):  # now the model goes on
        rest = mine.evaluate(GO_ON)
    assert "word4" in rest
    assert rest.endswith("data: [DONE]\n\n")


def test_a_page_can_read_what_went_wrong(world: World, subtests: pytest.Subtests) -> None:
    mine = world.page("my-app.pages.example")
    for path, key, expected in (
        ("/v1/models", "llmgw_wrong", (401, "invalid_api_key")),
        ("/nowhere", world.served.key, (404, "route_not_found")),
        ("/admin/keys", world.limited_key(), (403, "admin_key_required")),
    ):
        with subtests.test(f"{path!r:.80}"):
            options = {"headers": {"X-Api-Key": key}}
            status, text = mine.evaluate(ASK, [world.served.url + path, options])
            assert (status, json.loads(text)["error"]["code"]) == expected


@pytest.mark.parametrize("host", ["evil.example", "my-app.pages.example.evil.example"])
def test_a_page_of_any_other_origin_gets_nothing(world: World, host: str) -> None:
    asked = world.asked
    theirs = world.page(host)
    told: list[str] = []
    theirs.on("console", lambda message: told.append(message.text))
    with pytest.raises(Error, match="Failed to fetch"):
        theirs.evaluate(BEGIN, [world.served.url, world.served.key])
    # Without a preflight the request is made, and its answer withheld.
    with pytest.raises(Error, match="Failed to fetch"):
        theirs.evaluate(ASK, [f"{world.served.url}/ping", {}])
    assert any("CORS policy" in line for line in told)
    assert world.asked == asked


def test_event_source_reads_status_with_its_key_in_the_query(world: World) -> None:
    """It cannot send headers: its key is in the query."""
    mine = world.page("my-app.pages.example")
    mine.evaluate(LISTEN, f"{world.served.url}/status?authKey={world.served.key}")
    mine.wait_for_function("events.length > 0")
    first = mine.evaluate("events[0]")
    assert {"status", "info", "models"} <= first.keys()
    for path, condition in (
        ("/loadModel", "events.at(-1).status == 'Idle' && events.at(-1).models.includes('m')"),
        ("/unloadModel", "events.at(-1).status == 'Terminated' && !events.at(-1).models.length"),
    ):
        options = {
            "method": "POST",
            "headers": {"Authorization": f"Bearer {world.served.key}"},
            "body": json.dumps({"model": "m"}),
        }
        status, text = mine.evaluate(ASK, [world.served.url + path, options])
        assert status == 200, text
        mine.wait_for_function(condition)
    mine.evaluate(LISTEN, f"{world.served.url}/status?authKey=llmgw_wrong")
    mine.wait_for_function("source.readyState == EventSource.CLOSED")
    assert mine.evaluate("events") == []


@needs_certutil
def test_page_on_the_internet_reaches_the_gateway_over_tls(
    world: World, home: Home, tmp_path: Path
) -> None:
    """A page on the internet, of Firebase's say, and a gateway at home, both on https.

    Chromium asks its user whether the page may call into the local network.
    """
    files = home.certificate
    config = project(
        tmp_path / "p",
        {"m": fake_model(tmp_path)},
        llama_server=str(FAKE),
        cors={"origins": ["https://*.web.app:*"]},
        tls={
            "enabled": True,
            "private_key": str(files.private_key),
            "certificate": str(files.certificate),
            "ca_chain": str(files.chain),
        },
    )
    served = Served(tmp_path, "--config", str(config))
    context = world.browser.new_context()
    try:
        assert served.url.startswith("https://")
        mine = page(context, f"https://my-app.web.app:{world.secure_port}")
        with pytest.raises(Error, match="Failed to fetch"):
            mine.evaluate(ASK, [f"{served.url}/ping", {}])
        context.grant_permissions(["local-network-access"])
        began = mine.evaluate(BEGIN, [served.url, served.key])
        assert began["status"] == 200
        assert began["headers"]["X-Gateway-Model"] == "m"
        assert (began["first"] + mine.evaluate(GO_ON)).endswith("data: [DONE]\n\n")
        mine.evaluate(LISTEN, f"{served.url}/status?authKey={served.key}")
        mine.wait_for_function("events.length > 0 && events[0].models.includes('m')")
    finally:
        context.close()
        assert served.stop() == 0

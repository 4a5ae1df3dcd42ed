"""States of the models: in memory, loading, failed."""

from __future__ import annotations

import contextlib
import re
import urllib.error

from tests.web.look.acts import ask, at, choose, go
from tests.web.look.camera import Shots
from tests.web.look.gateways import BUSY, CUT, LOADING, SPARE, Gateways
from tests.web.look.meanwhile import loads
from tests.web.look.state import state


@state("Models")
def _models(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.house, "#/models") as page:
            page.get_by_text("For everyday questions.").wait_for()
            visit.take(page)
            page.get_by_role("button", name="Add a model").click()
            page.get_by_label(f"Name: {SPARE}").wait_for()
            visit.take(page, "add")
            for way in ("hub", "another server"):
                page.get_by_role("button", name=f"From {'the ' * (way == 'hub')}{way}").click()
                page.get_by_role("dialog").get_by_role("textbox").first.wait_for()
                visit.take(page, f"add.{way.split()[0]}")


@state("One model: what it is, its settings, its personalities")
def _model(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.house, f"#/models/{BUSY}") as page:
            for tab, sign in (
                ("", "What it is"),
                ("settings", "As JSON"),
                ("personalities", "Try it"),
            ):
                go(page, "/".join(filter(None, ("#/models", BUSY, tab))))
                page.get_by_role("main").get_by_text(sign).first.wait_for()
                visit.take(page, tab)
                if tab == "personalities":
                    page.get_by_role("button", name="pirate").click()
                    page.get_by_label("Reasoning").wait_for()
                    visit.take(page, "personality")
                if tab == "settings":
                    page.get_by_label("Description").fill("For questions of every day.")
                    page.get_by_text("1 change").wait_for()
                    visit.take(page, "settings.changed", whole=False)


@state("A model loads")
def _loading(all_of_them: Gateways, shots: Shots) -> None:
    house = all_of_them.house
    with loads(house):
        for visit in shots:
            with at(visit, house, "#/chat") as page:
                choose(page, LOADING)
                ask(page, "What can you do?")
                page.get_by_text(re.compile(rf"Loading {LOADING}, \d+%")).wait_for()
                visit.take(page)
                go(page, "#/models")
                page.get_by_text("For longer texts.").wait_for()
                visit.take(page, "models", whole=False)


@state("A model that failed, and its log")
def _failed(all_of_them: Gateways, shots: Shots) -> None:
    small = all_of_them.small
    with contextlib.suppress(urllib.error.HTTPError):
        small.ask("POST", "/loadModel", {"model": CUT})
    for visit in shots:
        with at(visit, small, "#/models") as page:
            page.locator(".state.failed").first.wait_for()
            visit.take(page, "models")
            go(page, f"#/models/{CUT}")
            page.get_by_label(f"Log of {CUT}").first.wait_for()
            visit.take(page)
            go(page, f"#/models/{CUT}/log")
            page.locator(".log-line").first.wait_for()
            visit.take(page, "log")
            go(page, "#/chat")
            choose(page, CUT)
            ask(page, "What can you do?")
            page.get_by_role("article", name="Answer").get_by_role("alert").wait_for()
            visit.take(page, "chat")

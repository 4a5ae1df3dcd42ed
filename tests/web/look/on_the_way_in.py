"""States of who is not in yet, or no longer."""

from __future__ import annotations

import socket

from tests.web.look.camera import Shots
from tests.web.look.gateways import Gateways
from tests.web.look.state import state
from tests.web.upstream import Line

_WRONG = "llmgw_" + "x" * 43


@state("First start, without a key")
def _sign_in(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with visit.open(all_of_them.small.url) as page:
            page.get_by_label("API key").wait_for()
            visit.take(page)


@state("A wrong key")
def _wrong_key(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with visit.open(all_of_them.small.url) as page:
            page.get_by_label("API key").fill(_WRONG)
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("alert").wait_for()
            visit.take(page)


@state("Hosted elsewhere: which box?")
def _hosted(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with visit.open(all_of_them.pages) as page:
            page.get_by_label("Address of the box").wait_for()
            visit.take(page)


@state("Hosted elsewhere: the box is not reachable")
def _not_reachable(all_of_them: Gateways, shots: Shots) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    for visit in shots:
        with visit.open(all_of_them.pages) as page:
            page.get_by_label("Address of the box").fill(address)
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("alert").wait_for()
            visit.take(page)


@state("The box goes away while somebody is at it")
def _gone(all_of_them: Gateways, shots: Shots) -> None:
    house = all_of_them.house
    for visit in shots:
        line = Line(int(house.url.rpartition(":")[2]))
        try:
            with visit.open(all_of_them.pages) as page:
                page.get_by_label("Address of the box").fill(f"http://127.0.0.1:{line.port}")
                page.get_by_label("Name for it").fill("Kitchen")
                page.get_by_label("API key").fill(house.admin)
                page.get_by_role("button", name="Sign in").click()
                page.get_by_role("textbox", name="Message").wait_for()
                line.close()
                page.get_by_text("Connection lost.").wait_for()
                visit.take(page)
        finally:
            line.close()

"""States of what happens on the box: requests, keys, usage, the system."""

from __future__ import annotations

from tests.web.look.acts import at, go
from tests.web.look.camera import Shots
from tests.web.look.gateways import Gateways
from tests.web.look.meanwhile import running
from tests.web.look.state import state


@state("Activity: 3 run, 200 are done")
def _activity(all_of_them: Gateways, shots: Shots) -> None:
    with running(all_of_them):
        for visit in shots:
            with at(visit, all_of_them.house, "#/activity") as page:
                page.get_by_role("button", name="Cancel").nth(2).wait_for()
                rows = page.get_by_role("region", name="Ended").locator("tr[data-request]")
                rows.first.wait_for()
                visit.take(page)
                rows.nth(1).get_by_role("button", name="Show details").click()
                rows.nth(1).scroll_into_view_if_needed()
                visit.take(page, "details", whole=False)


@state("Nothing runs, and nothing has run")
def _idle(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.bare, "#/activity") as page:
            page.get_by_text("Nothing runs now.").wait_for()
            visit.take(page)
            go(page, "#/usage")
            page.get_by_text("Nothing was used in this time").wait_for()
            visit.take(page, "usage")


@state("Keys")
def _keys(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.house, "#/keys") as page:
            page.get_by_role("row").filter(has_text="laptop").wait_for()
            visit.take(page)
            page.get_by_role("button", name="Create a key").click()
            page.get_by_role("dialog", name="Create a key").wait_for()
            visit.take(page, "form")
            page.get_by_label("Only metrics").check()
            visit.take(page, "form-metrics")


@state("A key was just made")
def _key_made(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.small, "#/keys") as page:
            page.get_by_role("button", name="Create a key").click()
            form = page.get_by_role("dialog", name="Create a key")
            form.get_by_label("Name", exact=False).first.fill("laptop")
            form.get_by_role("button", name="Create a key").click()
            made = page.get_by_role("dialog", name="Your new key: laptop")
            made.get_by_role("region").first.wait_for()
            visit.take(page)


@state("Usage of 30 days; and what a plain key sees of it")
def _usage(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.house, "#/usage") as page:
            page.get_by_role("region", name="Totals by model").wait_for()
            visit.take(page)
        with at(visit, all_of_them.house, "#/usage", all_of_them.keys["laptop"]) as page:
            page.get_by_role("region", name="Totals by model").wait_for()
            visit.take(page, "plain")


@state("System")
def _system(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.house, "#/system") as page:
            page.locator(".log-line").first.wait_for()
            page.locator(".chart canvas").first.wait_for()
            page.get_by_role("region", name="About this box").wait_for()
            visit.take(page)


@state("The API's page")
def _docs(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with visit.open(f"{all_of_them.house.url}/docs") as page:
            page.locator(".opblock").first.wait_for()
            visit.take(page, whole=False)

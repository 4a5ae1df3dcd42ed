"""What is told of metrics is so: the page, the dashboard, the alerts, the scrape example."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics.described import ALL
from gateway.tls.selfsigned import self_signed
from tests.harness import REPOSITORY, MakeGateway, fake_model

PROMETHEUS = REPOSITORY / "conf" / "prometheus"
DASHBOARD: dict[str, Any] = json.loads(
    (REPOSITORY / "conf" / "grafana" / "llm-gateway.json").read_text()
)
#: Names in a query of one of our metrics, or of one of the library's or Prometheus's own.
NAMES = re.compile(r"\b(?:llm_gateway|process|python)_\w+\b")
#: Those of a Python process that are used: see the page.
PROCESS = {
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
}


def stored() -> dict[str, tuple[str, ...]]:
    """Every name by which Prometheus keeps one of our metrics, with its labels."""
    names: dict[str, tuple[str, ...]] = dict.fromkeys(PROCESS, ())
    for one in ALL:
        if one.kind == "histogram":
            names[f"{one.name}_bucket"] = (*one.labels, "le")
            names |= {f"{one.name}_sum": one.labels, f"{one.name}_count": one.labels}
        else:
            names[one.name] = one.labels
    return names


STORED = stored()


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard, by the title of its panel."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def alerts() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def promtool(*arguments: str | Path) -> None:
    """Run Prometheus's own checks."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: apt-get install prometheus, or see .ci/run")
    done = subprocess.run(
        [program, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- what is exposed, and the page ---


async def test_every_metric_is_exposed_as_it_is_described(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    made = self_signed(["127.0.0.1"], tmp_path / "project" / "ssl")
    tls = {
        "enabled": True,
        "private_key": str(made.private_key),
        "certificate": str(made.certificate),
        "ca_chain": str(made.chain),
    }
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    models = {"m": fake_model(tmp_path)}
    async with make_gateway(models, cache={"enabled": True}, tls=tls) as running:
        path = "/v1/chat/completions"
        assert (await running.json("POST", path, json=asked, ssl=False))[0] == 200
        async with running.request("GET", "/metrics?backends=1", ssl=False) as response:
            text = await response.text()
    families = {
        family.name: family
        for family in text_string_to_metric_families(text)
        if family.name.startswith("llm_gateway_")
    }
    assert families.keys() == {one.family for one in ALL}
    for one in ALL:
        family = families[one.family]
        assert (family.type, family.documentation) == (one.kind, one.about), one.name
        labels = {*one.labels, "le"} if one.kind == "histogram" else {*one.labels}
        for sample in family.samples:
            assert sample.name in STORED
            assert sample.labels.keys() <= labels, one.name


def test_the_page_has_every_metric() -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{name}`' for name in one.labels)} "
        f"| {one.about} |"
        for one in ALL
    ]
    table = page.partition("<!-- metrics -->\n")[2].partition("\n<!-- end -->")[0]
    assert table.splitlines()[2:] == rows


def test_names_follow_the_conventions() -> None:
    names = [one.name for one in ALL]
    assert len({*names}) == len(names) > 25
    for one in ALL:
        assert one.name.endswith("_total") == (one.kind == "counter")
        assert one.about.endswith(".")


# --- the dashboard ---


def lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """What of ``given`` isn't in ``kept`` as well."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key not in kept:
                yield f"{path}/{key}"
            else:
                yield from lost(value, kept[key], f"{path}/{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{path}/{number}")
    elif given != kept:
        yield path


def read_by_grafana(dashboard: dict[str, Any]) -> Any:
    """What Grafana's own types make of it, as JSON again."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def test_grafanas_types_know_all_of_the_dashboard() -> None:
    assert [*lost(DASHBOARD, read_by_grafana(DASHBOARD))] == []
    wrong = json.loads(json.dumps(DASHBOARD))
    wrong["panels"][1]["fieldConfig"]["defaults"]["untis"] = "s"
    assert [*lost(wrong, read_by_grafana(wrong))] == ["/panels/1/fieldConfig/defaults/untis"]


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len({*cells}) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_every_metric_is_on_the_dashboard_but_two() -> None:
    shown = {name for _, query in queries() for name in NAMES.findall(query)}
    told = {
        one.name
        for one in ALL
        if not {one.name, f"{one.name}_bucket"} & shown and one.name != "llm_gateway_ready"
    }
    assert told == {"llm_gateway_backend_metrics_up"}


# --- dashboard and alerts ---


@pytest.mark.parametrize(("name", "query"), [*queries(), *alerts()])
def test_queries_name_metrics_and_labels_that_exist(name: str, query: str) -> None:
    found = NAMES.findall(query)
    if found or not query.startswith("up{"):
        assert found, name
    assert {*found} <= STORED.keys(), name
    labels = {label for metric in found for label in STORED[metric]} | {"instance", "job"}
    used = set(re.findall(r'([a-z_]+)\s*[=!]~?\s*"', query))
    for names in re.findall(r"\bby \(([^)]*)\)", query):
        used |= {*re.split(r",\s*", names)}
    assert used <= labels, name


def test_promtool_accepts_the_scrape_example() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_promtool_accepts_the_alerts() -> None:
    promtool("check", "rules", PROMETHEUS / "rules.yml")


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", PROMETHEUS / "rules_test.yml")
    tested = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    names = {name for name, _ in alerts()}
    for test in tested:
        assert {one["alertname"] for one in test["alert_rule_test"]} == names
    well, ill = tested
    assert not any(one.get("exp_alerts") for one in well["alert_rule_test"])
    assert all(one["exp_alerts"] for one in ill["alert_rule_test"])


def test_promtool_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, (_, query) in enumerate(queries())
        if not query.startswith("label_values(")
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


async def test_promtool_finds_nothing_wrong_with_a_scrape(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        assert (await running.chat("m"))[0] == 200
        async with running.request("GET", "/metrics") as response:
            scraped = await response.read()
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: apt-get install prometheus, or see .ci/run")
    done = subprocess.run(
        [program, "check", "metrics"], input=scraped, check=False, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

"""The figures of a run as a table, as JSON, and against the budgets."""

from __future__ import annotations

import statistics
from typing import Any

#: Row name -> measure name -> one value for each round.
Figures = dict[str, dict[str, list[float]]]

_COLUMNS = (
    ("cpu_request", "CPU/request us", "{:.1f}"),
    ("cpu_chunk_64", "CPU/chunk us (64)", "{:.2f}"),
    ("cpu_chunk_200", "CPU/chunk us (200)", "{:.2f}"),
    ("requests_per_second", "req/s", "{:.0f}"),
    ("added_p50", "added p50 us", "{:.0f}"),
    ("added_p99", "added p99 us", "{:.0f}"),
    ("ttfb_p50", "1st byte p50 us", "{:.0f}"),
    ("ttfb_p99", "1st byte p99 us", "{:.0f}"),
    ("chunk_p50", "chunk p50 us", "{:.0f}"),
    ("chunk_p99", "chunk p99 us", "{:.0f}"),
    ("idle_mb", "idle MB", "{:.1f}"),
    ("streams_mb", "+1000 streams MB", "{:+.1f}"),
    ("peak_mb", "peak MB", "{:.1f}"),
    ("start_ms", "start ms", "{:.0f}"),
)
#: Measures that are shown (and kept) as what a proxy adds to no proxy at all.
_ADDED = ("added_p50", "added_p99", "ttfb_p50", "ttfb_p99", "chunk_p50", "chunk_p99")

#: (measure, what it is divided by or None, limit, what it is).
_BUDGETS = (
    ("cpu_request", "go", 0.85, "CPU per request, to Go ReverseProxy's"),
    ("cpu_chunk_200", "go", 0.85, "CPU per chunk (200 streams), to Go ReverseProxy's"),
    ("cpu_chunk_64", "go", 0.85, "CPU per chunk (64 streams), to Go ReverseProxy's"),
    ("cpu_chunk_200", "nginx", 1.35, "CPU per chunk (200 streams), to nginx's"),
    ("cpu_chunk_64", "nginx", 1.35, "CPU per chunk (64 streams), to nginx's"),
    ("idle_mb", None, 80.0, "idle memory, MB"),
    ("streams_mb", None, 20.0, "memory more at 1,000 open streams, MB"),
    ("start_ms", None, 1000.0, "start to the first 200 of /health, ms"),
)


def summary(figures: Figures) -> dict[str, dict[str, float]]:
    """The median of the rounds, latencies less those without a proxy."""
    result: dict[str, dict[str, float]] = {}
    direct = {name: statistics.median(v) for name, v in figures.get("direct", {}).items()}
    for row, measures in figures.items():
        medians = {name: statistics.median(values) for name, values in measures.items()}
        for name in _ADDED:
            if name in medians and name in direct and row != "direct":
                medians[name] -= direct[name]
        result[row] = medians
    return result


def ratios(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """``gateway/nginx cpu_request`` and so on."""
    found = {}
    gateway = rows.get("gateway", {})
    for other in ("nginx", "go", "aiohttp"):
        for measure in ("cpu_request", "cpu_chunk_64", "cpu_chunk_200"):
            if measure in gateway and rows.get(other, {}).get(measure):
                value = gateway[measure] / rows[other][measure]
                found[f"gateway/{other} {measure}"] = round(value, 3)
    return found


def budgets(rows: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Each budget: what it is, its limit, the value (None: not measured), and whether it holds."""
    lines = []
    gateway = rows.get("gateway", {})
    for measure, other, limit, text in _BUDGETS:
        value = gateway.get(measure)
        if value is not None and other is not None:
            base = rows.get(other, {}).get(measure)
            value = value / base if base else None
        held = None if value is None else value <= limit
        lines.append({"budget": text, "limit": limit, "value": value, "holds": held})
    return lines


def table(rows: dict[str, dict[str, float]]) -> str:
    """Measures down, proxies across: it fits a terminal."""
    shown = [column for column in _COLUMNS if any(column[0] in row for row in rows.values())]
    lines = [["", *rows]]
    for name, title, form in shown:
        cells = [form.format(row[name]) if name in row else "-" for row in rows.values()]
        lines.append([title, *cells])
    return aligned(lines)


def aligned(lines: list[list[str]]) -> str:
    """Return ``lines`` of cells with each column as wide as it has to be."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def budget_lines(lines: list[dict[str, Any]]) -> str:
    """One line each: pass, FAIL, or not measured."""
    texts = []
    for line in lines:
        word = {True: "pass", False: "FAIL", None: "not measured"}[line["holds"]]
        value = "" if line["value"] is None else f" {line['value']:.2f}"
        texts.append(f"  {word:12}  {line['budget']}:{value} (at most {line['limit']:g})")
    return "\n".join(texts)

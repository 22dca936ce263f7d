"""The page of the results: one screen of Markdown from the files of the output folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.store.files import write_text

PAGE = "gpu.md"

UNITS = ("images/s", "peak MiB")
"""Units of the table of nets."""


def write_page(out: Path) -> None:
    """Write the page of the files that are in the output folder so far."""
    content = json.loads((out / "parts.json").read_text())
    lines = ["# On a GPU", "", *machine_lines(content), "", *part_lines(content["parts"])]
    if (out / "tests.json").is_file():
        lines += ["", "## Tests", "", *lines_of_tests(json.loads((out / "tests.json").read_text()))]
    sections = {
        "models.csv": ("Nets", model_lines),
        "attention.csv": ("Attention", attention_lines),
        "grid.csv": ("Grids of cells", grid_lines),
        "study.csv": ("Study", study_lines),
    }
    for file, (title, describe) in sections.items():
        if not (out / file).is_file():
            continue
        try:
            described = describe(pd.read_csv(out / file))
        except (ValueError, KeyError, IndexError) as error:  # the other results must not depend on one damaged file
            described = [f"{file} cannot be read: {error}"]
        lines += ["", f"## {title}", "", *described]
    write_text(out / PAGE, "\n".join(lines) + "\n")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a Markdown table.

    >>> table(["way", "s"], [("eager", 2)])
    ['| way | s |', '| --- | --- |', '| eager | 2 |']
    """
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines]


def number(value: float, digits: int = 3) -> str:
    """Format a number with some significant digits, and with separators if it is large.

    >>> number(12345.6), number(0.012345), number(float("nan"))
    ('12,346', '0.0123', '')
    """
    if pd.isna(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g}"


def machine_lines(content: dict[str, Any]) -> list[str]:
    """Return lines with the device, versions and the revision."""
    machine = content["machine"]
    gpus = "; ".join(machine["gpus"]) or f"no GPU ({content['device']}: every part in its small form)"
    revision = (machine.get("git") or {}).get("revision", "unknown")
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [
        f"- Device: {gpus}; {machine['usable_cores']} cores",
        f"- CUDA of torch: {machine['cuda']}; {versions}",
        f"- Revision: {revision}",
    ]


def part_lines(parts: dict[str, dict[str, Any]]) -> list[str]:
    """Return the table of the parts and the last output of those that failed."""
    rows = [
        (name, part["state"], number(part["seconds"]), number(part["limit_s"]), part["detail"])
        for name, part in parts.items()
    ]
    lines = table(["part", "state", "seconds", "limit", ""], rows)
    for name, part in parts.items():
        if part["tail"] and part["state"] != "unfinished":
            lines += ["", f"Last output of {name}:", "", "```", *part["tail"][-8:], "```"]
    return lines


def lines_of_tests(results: dict[str, Any]) -> list[str]:
    """Return the counts of the tests, and each one that did not pass."""
    tests = pd.DataFrame(results["tests"], columns=["name", "outcome", "seconds", "detail"])
    counts = tests["outcome"].value_counts()
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "none ran"
    lines = [f"{said}; {tests['seconds'].sum():.0f} s in all."]
    others = tests[tests["outcome"] != "passed"]
    if len(others):
        lines += ["", *table(["test", "", "detail"], others[["name", "outcome", "detail"]].values.tolist())]
    return lines


def model_lines(rows: pd.DataFrame) -> list[str]:
    """Return the table of the nets: images a second, and peak memory."""
    lines = []
    for (px, images, part, model), own in rows.groupby(["px", "images", "part", "model"], sort=False):
        of = own.groupby("quantity")["value"].median()
        rates = [images / of[what] if what in of else float("nan") for what in ("inference_s", "training_s")]
        peaks = [of.get(f"{step}_peak_bytes", float("nan")) / 2**20 for step in ("inference", "training")]
        way = "compiled" if part == "compiled" else "eager"
        lines.append((px, images, str(model).removeprefix("timm:"), way, *map(number, (*rates, *peaks))))
    head = ["px", "batch", "net", "way", *(f"{step}, {unit}" for unit in UNITS for step in ("inference", "training"))]
    return [*table(head, lines), "", "Peak memory is without weights and optimiser state."]


def attention_lines(rows: pd.DataFrame) -> list[str]:
    """Return tables of the nanoseconds a token, by normaliser and number of tokens."""
    rows = rows.assign(cost=rows["value"] / (rows["tokens"] * rows["images"]))
    lines: list[str] = []
    steps = {"time_s": "Inference", "training_s": "Forward and backward pass"}
    for quantity, title in steps.items():
        own = rows[rows["quantity"] == quantity]
        if own.empty:
            continue
        cost = own.pivot_table(index="norm", columns="tokens", values="cost", aggfunc="median", sort=False)
        cost = cost[sorted(cost.columns)]
        lines += [*[""] * bool(lines), f"{title}, ns a token, by number of tokens:", ""]
        cells = [(norm, *(number(1e9 * value) for value in line)) for norm, line in zip(cost.index, cost.values)]  # noqa: B905
        lines += table(["normaliser", *(f"{tokens:,}" for tokens in cost.columns)], cells)
    return lines


def grid_lines(rows: pd.DataFrame) -> list[str]:
    """Return the table of cells an hour, what was refused, and the table of kernels."""
    values = rows.pivot_table(index=["way", "cells"], columns="quantity", values="value", sort=False)
    lines = []
    if "epoch_s" in values:
        runs = values.dropna(subset="epoch_s")
        columns = ["cells_per_hour", "cells_per_hour_running", "epoch_s"]
        cells = [(*key, *map(number, line)) for key, line in zip(runs.index, runs[columns].values, strict=True)]
        head = ["way", "cells at once", "cells an hour", "without start and test", "epoch of a cell, or its share, s"]
        lines += table(head, cells)
    notes = rows[rows["note"].notna() & (rows["note"] != "")]
    said = [f"- {row.way}, {row.cells} at once: {row.quantity}: {row.note}" for row in notes.itertuples()]
    lines += ["", *said] if said else []
    if "wall_s" in values:
        values["kernel_s"] = values.get("kernel_s", float("nan"))  # the profiler may be forbidden
        steps = values.dropna(subset="wall_s")
        cells = [
            (way, number(1e3 * wall), number(1e3 * kernel), number(wall / kernel))
            for (way, _), wall, kernel in zip(steps.index, steps["wall_s"], steps["kernel_s"], strict=True)
        ]
        lines += ["", *table(["way", "training step, ms", "its kernels, ms", "step / kernels"], cells)]
    return lines


def study_lines(cells: pd.DataFrame) -> list[str]:
    """Return the table of the study's arms."""
    rows = []
    for arm, own in cells.groupby("arm_label", sort=False):
        scores = own.loc[own["outcome"] == "ok", "test_accuracy_pct"]
        counts = [int((own["outcome"] == outcome).sum()) for outcome in ("ok", "diverged", "failed")]
        rows.append((arm, *counts, number(scores.mean(), 4), number(scores.std(), 2), number(own["seconds"].median())))
    head = ["arm", "ok", "diverged", "failed", "test accuracy, %", "its standard deviation", "median seconds of a cell"]
    return table(head, rows)

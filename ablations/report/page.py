"""Report as one self-contained HTML file, with every text escaped."""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass
from pathlib import Path

import jinja2

from ablations.analysis.results import Results
from ablations.analysis.strata import Stratum
from ablations.config import Study
from ablations.config.escape import shortened, visible_lines
from ablations.config.privacy import placeless, private
from ablations.report.again import command
from ablations.report.checklist import held_fixed
from ablations.report.drawing import DrawnFigure
from ablations.report.gallery import probes_without_figure
from ablations.report.text import TextTable
from ablations.store.reading import read_lines

LOG_LINES = 15
"""Number of last log lines on the page."""

LINES_SHOWN = 100
"""Largest number of lines of a history, and of arms with missing seeds, on the page."""

LOGS_SHOWN = 60
"""Largest number of logs on the page; the first cell of each arm, condition and kind has priority."""

TEMPLATE = Path(__file__).with_name("page.html.j2")
"""Template of the page."""

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("ablations.report", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: _shown(value) if type(value) is str else value,
)
"""Environment of the page's template, which escapes every text: controls, and what HTML would read as its own."""


def _shown(text: str) -> str:
    """Write controls as escapes, and leave out what is the user's and the machine's; an image is neither."""
    return text if text.startswith("data:image/") else visible_lines(private(text))


@dataclass(frozen=True)
class Page:
    """Contents of a page.

    Args:
        results: the results.
        tables: name to table, for tables with rows.
        notes: notes of the main table, which may have no row yet.
        checklist: pairs of item and text.
        figures: written figures.
        is_full: whether every figure is drawn, or only those that every run draws.
        num_left_out: number of figures that are not drawn, since there are so many.
    """

    results: Results
    tables: dict[str, TextTable]
    notes: list[str]
    checklist: list[tuple[str, str]]
    figures: list[DrawnFigure]
    is_full: bool
    num_left_out: int = 0


def render(page: Page) -> str:
    """Render a page as HTML."""
    results = page.results
    missing: dict[str, list[int]] = {}
    for condition, arm, seed in results.missing.itertuples(index=False, name=None):
        missing.setdefault(f"{arm}, {condition}" if condition else arm, []).append(seed)
    num_unsuccessful = int((results.cells["outcome"] != "ok").sum())
    return ENVIRONMENT.get_template(TEMPLATE.name).render(
        title=results.name,
        questions=[study.question for study in results.studies if study.question],
        several=len(results.studies) > 1,
        num_cells=len(results.cells),
        last=results.cells["started"].dropna().max() if len(results.cells) else None,
        tables=page.tables,
        notes=page.notes,
        has_claims=any(study.claims for study in results.studies),
        probes_without_figure=shortened(", ".join(probes_without_figure(results) if page.is_full else [])),
        num_figures_left_out=page.num_left_out,
        is_full=page.is_full,
        figures=[(figure, f"data:image/png;base64,{base64.b64encode(figure.png).decode()}") for figure in page.figures],
        missing={name: shortened(", ".join(map(str, missing[name]))) for name in [*missing][:LINES_SHOWN]},
        num_missing_left_out=max(0, len(missing) - LINES_SHOWN),
        problems=results.problems,
        caveats=results.caveats,
        fixed=[(study.name, held_fixed(study), _history(study)) for study in results.studies],
        unsuccessful=unsuccessful(results),
        num_left_out=max(0, num_unsuccessful - LOGS_SHOWN),
        checklist=page.checklist,
        commands=commands(results),
        is_tuning=results.is_tuning,
        again=rebuild_command(results),
    )


def _history(study: Study) -> list[str]:
    """Return the last lines of a study's history."""
    num_earlier = max(0, len(study.history) - LINES_SHOWN)
    earlier = [f"earlier extensions, which study.yaml has: {num_earlier}"] if num_earlier else []
    return earlier + [shortened(line) for line in study.history[num_earlier:]]


def commands(results: Results) -> list[tuple[str, str]]:
    """Return the name of each study and the command that runs it again."""
    return [(stratum.study.name, _command(stratum)) for stratum in results.strata]


def _command(stratum: Stratum) -> str:
    num_trials = 0 if stratum.trials is None else len(stratum.trials.study.axes["seed"])
    return command(stratum.study, stratum.folder, num_trials=num_trials)


def rebuild_command(results: Results) -> str:
    """Return the command that rebuilds the report."""
    parts = [
        "python -m ablations report",
        *(shlex.quote(placeless(stratum.folder, "STUDY")) for stratum in results.strata),
    ]
    if any(study.ref != results.reference for study in results.studies):
        parts.append(f"--ref {shlex.quote(str(results.reference))}")
    return " ".join([*parts, *(["--to FOLDER"] if len(results.strata) > 1 else [])])


def unsuccessful(results: Results) -> list[dict[str, str]]:
    """Return title, detail and end of log of some diverged and failed cells; the first of each kind come first."""
    cells = results.cells[results.cells["outcome"] != "ok"]
    order = cells.groupby(["condition", "arm", "kind"], sort=False).cumcount()
    folders = {
        condition: stratum.folder
        for stratum in results.strata
        for condition in results.of_study(cells, stratum.study)["condition"]
    }
    found = []
    for row in cells.loc[order.sort_values(kind="stable").index[:LOGS_SHOWN]].to_dict("records"):
        where = f", {row['condition']}" if row["condition"] else ""
        title = f"{row['arm']}, seed {row['seed']}{where}: {row['outcome']}, {row['kind']}"
        path = folders[row["condition"]] / "cells" / str(row["folder"]) / "log.txt"
        log = "\n".join(read_lines(path)[-LOG_LINES:])
        found.append({"title": title, "detail": str(row["detail"]), "log": log})
    return found

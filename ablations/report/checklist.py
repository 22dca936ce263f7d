"""Checklist of a study, and the command that reproduces it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ablations.analysis.caveats import eval_limits, other_differences
from ablations.analysis.results import Results
from ablations.config import Study
from ablations.config.effects import effective_fields
from ablations.config.grid import grid_text
from ablations.config.seeds import seed_ranges
from ablations.config.task import ACCURACY, BOX_AP, MASK_AP
from ablations.config.values import plural, value_name
from ablations.report.notes import pairing_text, tuned_notes

MEASURED = {
    ACCURACY: "top-1 accuracy on the test images",
    MASK_AP: "average precision of masks on the test images, as COCO computes it",
    BOX_AP: "average precision of boxes on the test images, as COCO computes it",
}
"""Metric that runs are compared by to its description."""


def checklist(results: Results) -> list[tuple[str, str]]:
    """Return the items of a reproducibility checklist for these runs.

    After J. Pineau et al., "Improving reproducibility in machine learning research", JMLR 22 (2021), and J. Dodge et
    al., "Show your work", EMNLP 2019: runs, hyperparameters with their bounds and how they were chosen, what was
    measured and how it varies, hardware, time, and where the code is.
    """
    cells = results.cells
    outcomes = cells["outcome"].value_counts()
    counted = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()) or "none"
    items = [
        ("Runs", f"{len(cells)} ended ({counted}), {len(results.missing)} missing"),
        ("Arms", f"{', '.join(cells['arm'].unique()) or 'none yet'}; reference: {results.reference or 'none'}"),
        ("Seeds", seed_ranges(cells["seed"]) or "none yet"),
    ]
    for study in results.studies:
        name = f" of {study.name}" if len(results.studies) > 1 else ""
        varied = {field: ", ".join(map(value_name, values)) for field, values in study.axes.items() if field != "seed"}
        axes = [f"{field}: {values}" for field, values in varied.items()]
        items += [
            (f"Axes{name}", "; ".join(axes)),
            *((f"Grid {number}{name}", grid_text(grid)) for number, grid in enumerate(study.grids, start=1)),
            (f"Recipe{name}, of what was not named", study.recipe or "not recorded"),
            (f"Hyperparameters{name}, the same for every arm", held_fixed(study)),
        ]
        items += [(f"{study.compare} {arm}{name}", _fields(own)) for arm, own in study.per_arm.items()]
        items += [(f"Decided by {point}{name}", _fields(own)) for point, own in study.per_data.items()]
    return [
        *items,
        *_selection(results),
        (
            "Which weights are tested",
            "those of the last epoch, once; the validation part draws the curves and tells who did not learn",
        ),
        *([("Test images", _distinct(results.correct["correct"].map(len)))] if len(results.correct) else []),
        ("Parameters", _parameters(cells)),
        ("Measure", f"{_measured(results)}; mean, sd and 95 % intervals are over seeds"),
        ("Initial weights and batches", f"by the hashes in each outcome.json: {pairing_text(results)}"),
        ("Hours", _hours(cells)),
        ("Hardware", _distinct(cells["processor"].fillna("unknown") + ", " + cells["device"])),
        ("Software", _distinct(cells["software"])),
        ("Revision of the code", _distinct(cells["revision"].fillna("unknown")) + _dirty(cells["revision"])),
    ]


def _measured(results: Results) -> str:
    """Describe the metric, and the number of images that it is measured on if that is limited."""
    limits = sorted({limit for study in results.studies for limit in eval_limits(study)})
    limited = f" (eval_limit: at most {' or '.join(f'{limit:,}' for limit in limits)})" if limits else ""
    return MEASURED[results.studies[0].metric].replace(" on the test images", f" on the test images{limited}")


def _selection(results: Results) -> list[tuple[str, str]]:
    """Describe how the values of the arms were chosen."""
    if not any(study.search for study in results.studies):
        if any(map(other_differences, results.studies)):
            return [("Selection", "none by these results: the arms' own values were given beforehand")]
        return [("Selection", "none: every arm has the same values, and none was chosen by these results")]
    trials = results.trials
    hours = f"{float(trials['seconds'].sum()) / 3600:.2f}"
    seeds = seed_ranges(trials["seed"]) or "none yet"
    return [
        ("Selection", "; ".join(tuned_notes(results)) or "no trial has ended yet"),
        ("Trials", f"{len(trials)} ended, seeds {seeds}, {hours} hours in them, which are no part of the hours below"),
    ]


def held_fixed(study: Study) -> str:
    """Write every field of a study that does not vary and has an effect; those without a value come last."""
    effective = effective_fields(study)
    fixed = {name: value for name, value in study.fixed.items() if name in effective}
    given = {field: value for field, value in fixed.items() if value is not None}
    left = [field for field in fixed if field not in given]
    return _fields(given) + (f"; left to the model or the data set: {', '.join(left)}" if left else "")


def _fields(fields: dict[str, Any]) -> str:
    return ", ".join(f"{field} {value_name(value)}" for field, value in fields.items())


def _distinct(values: pd.Series[Any]) -> str:
    counts = values.value_counts()
    if len(counts) < 2:
        return str(counts.index[0]) if len(counts) else "unknown"
    return "; ".join(f"{value} ({plural(count, 'cell')})" for value, count in counts.items())


def _dirty(revisions: pd.Series[str]) -> str:
    changed = revisions.fillna("").str.endswith("+").any()
    return "; +: with changes that were not committed" if changed else ""


def _parameters(cells: pd.DataFrame) -> str:
    known = cells.dropna(subset="num_parameters")
    each = known.groupby("arm", sort=False)["num_parameters"].agg(["min", "max"]).astype(int)
    counts = {arm: dict.fromkeys([f"{low:,}", f"{high:,}"]) for arm, low, high in each.itertuples(name=None)}
    return "; ".join(f"{arm} {' to '.join(own)}" for arm, own in counts.items()) or "unknown"


def _hours(cells: pd.DataFrame) -> str:
    """Sum the hours of all cells; a resumed attempt is counted twice, hence "at most"."""
    last, before = float(cells["seconds"].sum()) / 3600, float(cells["attempts_seconds"].sum()) / 3600
    overlap = "at most " if (cells["is_resumed"] & (cells["num_attempts"] > 1)).any() else ""
    failed = float(cells.loc[cells["outcome"] == "failed", "seconds"].sum()) / 3600
    return (
        f"{overlap}{last + before:.2f} in cells, {failed + before:.2f} of them in failed ones, earlier attempts and "
        "results since replaced; what a runner lost when it was killed is not in it"
    )

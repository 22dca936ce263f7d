"""Figures that results have, with their frames per condition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from ablations.analysis import settings_of
from ablations.analysis.results import Results
from ablations.config.types import Task
from ablations.figures.cost import AXES as COSTS
from ablations.figures.cost import arm_costs
from ablations.figures.probes import probe_name
from ablations.report.arm_rows import arm_rows
from ablations.report.kinds import FIGURES, IN_ROWS, FigureSpec
from ablations.report.map_figures import map_figures
from ablations.report.step_figures import spread, step_figures

PLURALS = {"box": "boxes", "mask": "masks"}


class Names(NamedTuple):
    """Names of a task's figures of test score, validation score and cost."""

    test: str
    validation: str
    cost: str


NAMES: dict[Task, Names] = {
    "classify": Names("test_accuracy", "validation_accuracy", "accuracy_against_cost"),
    "detect": Names("test_ap", "validation_ap", "ap_against_cost"),
}

MOST_SQUARE = 17
"""Rows whose height is about the width of a figure, for figures that are as wide as high."""

LAYERS_SHOWN = 4
"""Number of layers in a probe over time, evenly spaced from the first to the last."""

MOST_LAYERS, MOST_PROBES = 200, 12
"""Largest number of layers in a probe over depth, evenly spaced too, and of probes that have figures."""


def core_figures(results: Results) -> list[FigureSpec]:
    """Return the figures that every run draws, condition by condition."""
    own = [figure for condition in results.conditions for figure in _core(results, condition)]
    return _with_rows([figure for figure in (*own, *_trials(results)) if FIGURES[figure.name].after_run], results)


def all_figures(results: Results) -> list[FigureSpec]:
    """Return every figure of the results, condition by condition, in the order of a report."""
    found = [
        figure
        for condition in results.conditions
        for figure in (*_core(results, condition), *(_others(results, condition) if not results.is_tuning else ()))
    ]
    over_settings = () if results.is_tuning else map_figures(results)
    return _with_rows([*found, *over_settings, *_sensitivity(results), *_trials(results)], results)


def _with_rows(specs: list[FigureSpec], results: Results) -> list[FigureSpec]:
    rows = arm_rows(results)
    return [replace(spec, arm_rows=rows) if spec.name in IN_ROWS else spec for spec in specs]


def _at(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
    return frame[frame["condition"] == condition].reset_index(drop=True)


def _core(results: Results, condition: str) -> Iterator[FigureSpec]:
    names = NAMES[results.studies[0].task]
    cells, curves = _at(results.cells, condition), _at(results.curves, condition)
    num_arms = cells["arm"].nunique()
    if results.is_tuning:  # means over trials at different points have no meaning
        if (cells["outcome"] != "ok").any():
            yield FigureSpec("failures", "", condition, "outcomes of the trials", cells, num_arms)
        return
    yield FigureSpec(names.test, "", condition, f"test {results.measure}", cells, num_arms)
    if len(pairs := _at(results.paired(), condition)):
        yield FigureSpec("paired_differences", "", condition, f"differences to {results.reference}", pairs, num_arms)
    yield FigureSpec("training_loss", "", condition, "training loss", curves)
    yield FigureSpec(names.validation, "", condition, f"validation {results.measure}", curves)
    yield from _of_detectors(results, condition)
    if (cells["outcome"] != "ok").any():
        yield FigureSpec("failures", "", condition, "outcomes of the runs", cells, num_arms)


def _of_detectors(results: Results, condition: str) -> Iterator[FigureSpec]:
    """Yield detections in a few images, precision over recall, and average precision by object size."""
    precision, cells = _at(results.precision, condition), _at(results.cells, condition)
    for kind, own in precision.groupby("kind_of_ap", sort=False):
        yield FigureSpec("precision_recall", str(kind), condition, f"precision and recall of {PLURALS[str(kind)]}", own)
        sized, title = cells.assign(kind_of_ap=kind), f"average precision of {PLURALS[str(kind)]} by size"
        yield FigureSpec("ap_by_size", str(kind), condition, title, sized)
    for image, own in _at(results.examples, condition).groupby("image_id", sort=False):
        title = f"annotations in test image {image}, and each arm's detections (first seed, scores of 0.5 or more)"
        annotated = own[own["is_truth"] & (own["cell"] == own["cell"].iloc[0])]
        yield FigureSpec("found_objects", str(image), condition, title, annotated, panel="annotated")
        for label, of_arm in own[~own["is_truth"].astype(bool)].groupby("arm_label", sort=False):
            yield FigureSpec("found_objects", str(image), condition, title, of_arm, panel=str(label))


def _trials(results: Results) -> Iterator[FigureSpec]:
    """Yield the figures of a tuning's trials, study by study."""
    searches = {each.field: each for study in results.studies if study.search for each in study.search.ranges}
    for name, own in results.trials.groupby("condition", sort=False):
        condition, num_arms = str(name), own["arm"].nunique()
        for field in results.searched:
            frame = own.dropna(subset=field).assign(field=field, is_log=searches[field].log).reset_index(drop=True)
            title = f"validation {results.measure} of the trials over {field}"
            yield FigureSpec("tuning_sensitivity", field, condition, title, frame, 1.3 * num_arms)
        points = own[results.searched].apply(lambda row: ", ".join(f"{f} {v:g}" for f, v in row.items()), axis=1)
        frame = own.assign(point=points).reset_index(drop=True)
        title = "trials of each arm and the best of them"
        yield FigureSpec("tuning_isolation", "", condition, title, frame, num_arms * (1 + 0.4 * len(results.searched)))
        if results.has_drawn_points:
            yield FigureSpec("tuning_best_of_k", "", condition, "expected best of k trials", frame)


def _others(results: Results, condition: str) -> Iterator[FigureSpec]:
    def here(frame: pd.DataFrame) -> pd.DataFrame:
        return _at(frame, condition)

    names, cells = NAMES[results.studies[0].task], here(results.cells)
    num_arms = cells["arm"].nunique()
    if len(pairs := here(results.contrast_pairs)):
        yield FigureSpec("contrasts", "", condition, "contrasts", pairs, 1.3 * pairs["comparison"].nunique())
    if (agreed := here(results.agreement))["disagreement_pct"].notna().any():
        yield FigureSpec(
            "agreement", "", condition, "images on which two runs differ", agreed, min(num_arms, MOST_SQUARE)
        )
    for quantity, frame in arm_costs(here(results.table), cells, here(results.costs)).groupby("quantity", sort=False):
        words = COSTS[str(quantity)].lower()
        yield FigureSpec(names.cost, str(quantity), condition, f"{results.measure} against {words}", frame)
    undrawn = set(probes_without_figure(results))
    for probe, own in here(results.probes).groupby("probe", sort=False):
        if probe in undrawn:
            continue
        words, layers = probe_name(str(probe)), list(own.sort_values("layer_order")["layer"].unique())
        some = own[own["layer"].isin(spread(layers, MOST_LAYERS))] if len(layers) > MOST_LAYERS else own
        shown = f", {MOST_LAYERS} of {len(layers):,} layers" if len(layers) > MOST_LAYERS else ""
        yield FigureSpec("probes_over_depth", str(probe), condition, f"{words} over depth{shown}", some)
        for layer in spread(layers, LAYERS_SHOWN):
            of_layer, title = own[own["layer"] == layer], f"{words} over the epochs"
            yield FigureSpec("probes_over_time", str(probe), condition, title, of_layer, panel=layer)
    yield from step_figures(here(results.steps), condition, results.reference)


def probes_without_figure(results: Results) -> list[str]:
    """Return the probes without a figure: parameters of single normalisers, except the first gains."""
    known = results.probes["probe"].unique()
    drawn = [probe for probe in known if probe in ("output_rms", "grad_norm") or "gain" in probe][:MOST_PROBES]
    return [probe for probe in known if probe not in drawn]


def _sensitivity(results: Results) -> Iterator[FigureSpec]:
    """Yield the sensitivity to the learning rate per combination of the other axes, if it is an axis."""
    for study in results.studies:
        if "lr" not in study.conditions:
            continue
        cells = results.cells
        if len(results.studies) > 1:
            cells = cells[cells["condition"].str.startswith(f"study={study.name}, ")]
        for condition, own in cells.assign(condition=settings_of(cells)).groupby("condition", sort=False):
            if own["lr"].nunique() < 2 and study.grids:  # a grid with one learning rate, or one zipped with the rest
                continue
            yield FigureSpec("lr_sensitivity", "", str(condition), "sensitivity to the learning rate", own)

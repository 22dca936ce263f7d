"""Which figures results have: what draws each, on which frame, condition by condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis.results import Results
from ablations.config.types import Task
from ablations.figures.agreement import agreement
from ablations.figures.arms import accuracy_per_arm
from ablations.figures.canvas import measure_of
from ablations.figures.cost import AXES as COSTS
from ablations.figures.cost import accuracy_against_cost
from ablations.figures.curves import accuracy_curves, loss_curves
from ablations.figures.detection import found_objects, precision_by_size, precision_recall
from ablations.figures.differences import contrasts, paired_differences
from ablations.figures.failures import failures_by_kind
from ablations.figures.probes import probe_name, probes_over_depth, probes_over_time
from ablations.figures.sensitivity import lr_sensitivity
from ablations.figures.trials import best_of_k, isolation, trials_over_range

DRAW: dict[str, Callable[[pd.DataFrame, Axes], Axes]] = {
    "test_accuracy": accuracy_per_arm,
    "paired_differences": paired_differences,
    "contrasts": contrasts,
    "training_loss": loss_curves,
    "validation_accuracy": accuracy_curves,
    "test_ap": accuracy_per_arm,
    "validation_ap": accuracy_curves,
    "found_objects": found_objects,
    "precision_recall": precision_recall,
    "ap_by_size": precision_by_size,
    "failures": failures_by_kind,
    "agreement": agreement,
    "accuracy_against_cost": accuracy_against_cost,
    "ap_against_cost": accuracy_against_cost,
    "probes_over_depth": probes_over_depth,
    "probes_over_time": probes_over_time,
    "lr_sensitivity": lr_sensitivity,
    "tuning_sensitivity": trials_over_range,
    "tuning_isolation": isolation,
    "tuning_best_of_k": best_of_k,
}
"""Name of a figure, of its files, and of the method of `Plot` that draws it, to what draws it."""

CORE = (
    *("test_accuracy", "test_ap", "paired_differences", "training_loss", "validation_accuracy", "validation_ap"),
    "failures",
    *("found_objects", "precision_recall", "ap_by_size", "tuning_sensitivity", "tuning_isolation"),
)
"""Figures that every run ends with; the others take longer to draw than a short run, and come with `report`."""


PLURALS = {"box": "boxes", "mask": "masks"}


class Names(NamedTuple):
    """Names of the figures of what runs are compared by."""

    test: str
    validation: str
    cost: str


NAMES: dict[Task, Names] = {
    "classify": Names("test_accuracy", "validation_accuracy", "accuracy_against_cost"),
    "detect": Names("test_ap", "validation_ap", "ap_against_cost"),
}

WIDTH, HEIGHT = 7.0, 4.2
"""Inches."""

ROW, MARGIN = 0.36, 1.2
"""Inches of a row of a figure, and of what stands above and below them: with many rows it is higher."""

LAYERS_SHOWN = 4
"""Of the probes over time: the first, the last, and as many between, evenly spaced."""


@dataclass(frozen=True)
class Picture:
    """A figure of one condition.

    Args:
        name: one of `DRAW`.
        part: which of several figures of that name: a probe, a kind of cost; empty where there is one.
        condition: its condition.
        title: what it shows, in a few words.
        frame: what it is drawn from.
        num_rows: rows that stand under one another.
        panel: which of several pictures that stand side by side: a layer.
    """

    name: str
    part: str
    condition: str
    title: str
    frame: pd.DataFrame
    num_rows: float = 0
    panel: str = ""

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        return WIDTH, max(HEIGHT, MARGIN + ROW * self.num_rows)

    def draw(self, axes: Axes) -> Axes:
        """Draw it into axes."""
        return DRAW[self.name](self.frame, axes)


def core_pictures(results: Results) -> list[Picture]:
    """Return the figures of `CORE`, condition by condition."""
    own = [picture for condition in results.conditions for picture in _core(results, condition)]
    return [picture for picture in (*own, *_trials(results)) if picture.name in CORE]


def all_pictures(results: Results) -> list[Picture]:
    """Return every figure that these results can have, condition by condition, in the order of a report."""
    found = [
        picture
        for condition in results.conditions
        for picture in (*_core(results, condition), *(_more(results, condition) if not results.is_tuning else ()))
    ]
    return [*found, *_sensitivity(results), *_trials(results)]


def _at(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
    return frame[frame["condition"] == condition].reset_index(drop=True)


def _core(results: Results, condition: str) -> Iterator[Picture]:
    names = NAMES[results.studies[0].task]
    cells, curves = _at(results.cells, condition), _at(results.curves, condition)
    num_arms = cells["arm"].nunique()
    if results.is_tuning:  # means over trials, which have a point each, would say nothing
        if (cells["outcome"] != "ok").any():
            yield Picture("failures", "", condition, "how the trials ended", cells, num_arms)
        return
    yield Picture(names.test, "", condition, f"test {results.measure}", cells, num_arms)
    if len(pairs := _at(results.paired(), condition)):
        yield Picture("paired_differences", "", condition, f"differences to {results.reference}", pairs, num_arms)
    yield Picture("training_loss", "", condition, "training loss", curves)
    yield Picture(names.validation, "", condition, f"validation {results.measure}", curves)
    yield from _of_detectors(results, condition)
    if (cells["outcome"] != "ok").any():
        yield Picture("failures", "", condition, "how the runs ended", cells, num_arms)


def _of_detectors(results: Results, condition: str) -> Iterator[Picture]:
    """Give what detectors found in a few images, their precision by recall, and by the size of objects."""
    precision, cells = _at(results.precision, condition), _at(results.cells, condition)
    for kind, own in precision.groupby("kind_of_ap", sort=False):
        yield Picture("precision_recall", str(kind), condition, f"precision and recall of {PLURALS[str(kind)]}", own)
        sized = cells.assign(kind_of_ap=kind)
        yield Picture("ap_by_size", str(kind), condition, f"average precision of {PLURALS[str(kind)]} by size", sized)
    for image, own in _at(results.examples, condition).groupby("image_id", sort=False):
        title = f"what is in test image {image}, and what each arm's first seed finds with a score of one half or more"
        annotated = own[own["is_truth"] & (own["cell"] == own["cell"].iloc[0])]
        yield Picture("found_objects", str(image), condition, title, annotated, panel="annotated")
        for label, of_arm in own[~own["is_truth"].astype(bool)].groupby("arm_label", sort=False):
            yield Picture("found_objects", str(image), condition, title, of_arm, panel=str(label))


def _trials(results: Results) -> Iterator[Picture]:
    """Give the figures of a tuning's trials, study by study."""
    searches = {each.field: each for study in results.studies if study.search for each in study.search.ranges}
    for name, own in results.trials.groupby("condition", sort=False):
        condition, num_arms = str(name), own["arm"].nunique()
        for field in results.searched:
            frame = own.dropna(subset=field).assign(field=field, is_log=searches[field].log)
            title = f"validation {results.measure} of the trials over {field}"
            yield Picture("tuning_sensitivity", field, condition, title, frame.reset_index(drop=True), 1.3 * num_arms)
        points = own[results.searched].apply(lambda row: ", ".join(f"{f} {v:g}" for f, v in row.items()), axis=1)
        frame = own.assign(point=points).reset_index(drop=True)
        title = "each arm's best trial beside the others"
        yield Picture("tuning_isolation", "", condition, title, frame, num_arms * (1 + 0.4 * len(results.searched)))
        if results.has_drawn_points:
            yield Picture("tuning_best_of_k", "", condition, "what k trials come to", frame)


def _more(results: Results, condition: str) -> Iterator[Picture]:
    def here(frame: pd.DataFrame) -> pd.DataFrame:
        return _at(frame, condition)

    names, cells = NAMES[results.studies[0].task], here(results.cells)
    num_arms = cells["arm"].nunique()
    if len(pairs := here(results.contrast_pairs)):
        yield Picture("contrasts", "", condition, "contrasts", pairs, 1.3 * pairs["comparison"].nunique())
    if (agreed := here(results.agreement))["disagreement_pct"].notna().any():
        yield Picture("agreement", "", condition, "images on which two runs differ", agreed, num_arms)
    for quantity, frame in _costs(here(results.table), cells, here(results.costs)).groupby("quantity", sort=False):
        words = COSTS[str(quantity)].lower()
        yield Picture(names.cost, str(quantity), condition, f"{results.measure} against {words}", frame)
    for probe, own in here(results.probes).groupby("probe", sort=False):
        if probe in undrawn_probes(results):
            continue
        words = probe_name(str(probe))
        yield Picture("probes_over_depth", str(probe), condition, f"{words} over depth", own)
        for layer in _spread(list(own.sort_values("layer_order")["layer"].unique())):
            of_layer, title = own[own["layer"] == layer], f"{words} over the epochs"
            yield Picture("probes_over_time", str(probe), condition, title, of_layer, panel=layer)


def undrawn_probes(results: Results) -> list[str]:
    """Return the probes that have no figure: what one normaliser alone has, but for gains."""
    known = results.probes["probe"].unique()
    return [probe for probe in known if probe not in ("output_rms", "grad_norm") and "gain" not in probe]


def _costs(table: pd.DataFrame, cells: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return each arm's mean and its costs: the parameters of its cells, and what `bench cost` has measured."""
    parameters = cells.assign(quantity="parameters", value=cells["num_parameters"])
    known = [frame[["arm", "quantity", "value"]] for frame in (parameters, costs[costs["tokens"].isna()])]
    values = pd.concat([frame for frame in known if len(frame)] or known).astype({"value": np.float64}).dropna()
    each = values.groupby(["quantity", "arm"], sort=False)["value"]
    bounds = {"cost_low": each.quantile(0.25), "cost_high": each.quantile(0.75)}
    summary = each.median().rename("cost").to_frame().assign(**bounds).reset_index()
    is_counted = ~summary["quantity"].str.endswith("_s")
    summary.loc[is_counted, ["cost_low", "cost_high"]] = np.nan
    columns = ["condition", "arm", "arm_label", "arm_order", "mean_pct", "low_pct", "high_pct"]
    return summary.merge(table[columns].dropna(subset="mean_pct"), on="arm").assign(measure=measure_of(cells))


def _spread(layers: list[str]) -> list[str]:
    """Return a few layers, evenly spaced, the first and the last among them.

    >>> _spread([str(layer) for layer in range(12)])
    ['0', '4', '7', '11']
    """
    if len(layers) <= LAYERS_SHOWN:
        return layers
    return [layers[round(i * (len(layers) - 1) / (LAYERS_SHOWN - 1))] for i in range(LAYERS_SHOWN)]


def _sensitivity(results: Results) -> Iterator[Picture]:
    """Give the sensitivity to the learning rate for each combination of the other axes, where it is an axis."""
    for study in results.studies:
        if "lr" not in study.conditions:
            continue
        cells = results.cells
        if len(results.studies) > 1:
            cells = cells[cells["condition"].str.startswith(f"study={study.name}, ")]
        others = cells["condition"].str.replace(r"(^|, )lr=[^,]+", "", regex=True).str.removeprefix(", ")
        for condition, own in cells.assign(condition=others).groupby("condition", sort=False):
            yield Picture("lr_sensitivity", "", str(condition), "sensitivity to the learning rate", own)

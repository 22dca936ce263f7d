"""Figures of results: their names, functions and frames per condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis.results import Results
from ablations.config.types import Task
from ablations.figures.agreement import agreement
from ablations.figures.arms import accuracy_per_arm
from ablations.figures.cost import AXES as COSTS
from ablations.figures.cost import accuracy_against_cost, arm_costs
from ablations.figures.curves import accuracy_curves, loss_curves
from ablations.figures.detection import found_objects, precision_by_size, precision_recall
from ablations.figures.differences import contrasts, paired_differences
from ablations.figures.failures import failures_by_kind
from ablations.figures.probes import probe_name, probes_over_depth, probes_over_time
from ablations.figures.sensitivity import lr_sensitivity
from ablations.figures.steps import failure_explained, probes_over_steps
from ablations.figures.trials import best_of_k, isolation, trials_over_range
from ablations.report.arm_rows import MOST_TOGETHER, ArmRow, arm_rows
from ablations.report.step_figures import spread, step_panels
from ablations.report.text import figure_label


@dataclass(frozen=True)
class Kind:
    """A kind of figure, which is a method of `Plot`, and one or several files of a report.

    Args:
        draw: function that draws it.
        help: one sentence.
        part: name and default of the method's argument that selects one of several figures.
        panel: name and default of the method's argument that selects a panel.
        after_run: whether every run draws it at its end; the others take longer than a short run.
    """

    draw: Callable[[pd.DataFrame, Axes], Axes]
    help: str
    part: tuple[str, str | None] | None = None
    panel: tuple[str, str | None] | None = None
    after_run: bool = False


IN_ROWS = (
    *("training_loss", "validation_accuracy", "validation_ap", "precision_recall", "ap_by_size"),
    *("accuracy_against_cost", "ap_against_cost", "probes_over_depth", "probes_over_time"),
    "failure_explained",
    *("lr_sensitivity", "tuning_sensitivity", "tuning_best_of_k"),
)
"""Figures that have a few arms in each row of panels if there are many."""

OBJECTS = ("kind", "mask")
COST = ("quantity", "parameters")
PROBE = ("probe", "output_rms")

FIGURES: dict[str, Kind] = {
    "test_accuracy": Kind(accuracy_per_arm, "Test accuracy of every seed, with means and intervals.", after_run=True),
    "paired_differences": Kind(paired_differences, "Paired differences to the reference, with p.", after_run=True),
    "contrasts": Kind(contrasts, "Contrasts: differences between arms that differ in one thing."),
    "training_loss": Kind(loss_curves, "Training loss over the epochs.", after_run=True),
    "validation_accuracy": Kind(accuracy_curves, "Validation accuracy over the epochs.", after_run=True),
    "test_ap": Kind(accuracy_per_arm, "Mask AP, or box AP with masks=off, of every seed.", after_run=True),
    "validation_ap": Kind(accuracy_curves, "Mask AP, or box AP with masks=off, on validation.", after_run=True),
    "found_objects": Kind(
        found_objects,
        "A test image with its annotations, or with what the first seed of an arm found.",
        ("image", None),
        ("panel", "annotated"),
        after_run=True,
    ),
    "precision_recall": Kind(
        precision_recall, "Precision over recall, of ``box`` or ``mask``.", OBJECTS, after_run=True
    ),
    "ap_by_size": Kind(
        precision_by_size, "AP of small, medium and large objects, of ``box`` or ``mask``.", OBJECTS, after_run=True
    ),
    "failures": Kind(failures_by_kind, "Outcomes of the cells.", after_run=True),
    "agreement": Kind(agreement, "Share of test images on which two cells differ."),
    "accuracy_against_cost": Kind(accuracy_against_cost, f"Test accuracy against {' or '.join(COSTS)}.", COST),
    "ap_against_cost": Kind(
        accuracy_against_cost, f"Mask AP, or box AP with masks=off, against {' or '.join(COSTS)}.", COST
    ),
    "probes_over_depth": Kind(probes_over_depth, "A probe over the layers at the last epoch.", PROBE),
    "probes_over_time": Kind(probes_over_time, "A probe of one layer over the epochs.", PROBE, ("layer", None)),
    "failure_explained": Kind(
        failure_explained, "Loss, output or gradient over the first steps.", panel=("quantity", "training loss")
    ),
    "probes_over_steps": Kind(probes_over_steps, "A probe of an arm over steps and depth.", PROBE, ("arm", None)),
    "lr_sensitivity": Kind(
        lr_sensitivity, "Test accuracy over the learning rate; a condition is that of the other axes."
    ),
    "tuning_sensitivity": Kind(
        trials_over_range, "Validation accuracy of the trials over a searched field.", ("field", "lr"), after_run=True
    ),
    "tuning_isolation": Kind(isolation, "The best trial of each arm beside the others.", after_run=True),
    "tuning_best_of_k": Kind(best_of_k, "Expected best validation accuracy of k trials."),
}
"""Kinds of figures by the name of their files and methods."""

OF_ALL_CONDITIONS = ("lr_sensitivity", "tuning_sensitivity", "tuning_isolation", "tuning_best_of_k")
"""Figures that are not of one condition each."""

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

WIDTH, HEIGHT, MOST_HEIGHT = 7.0, 4.2, 300.0
"""Width, least height and largest height of a figure, in inches."""

ROW, MARGIN = 0.36, 1.2
"""Height of a row, and of the space above and below the rows, in inches."""

SHORT_LABEL, CHARACTER = 30, 0.08
"""Length of a label beside the axes for which `WIDTH` has room, and width of each further character, in inches."""

MOST_SQUARE = 17
"""Rows whose height is about the width of a figure, for figures that are as wide as high."""

LAYERS_SHOWN = 4
"""Number of layers in a probe over time, evenly spaced from the first to the last."""

MOST_LAYERS, MOST_PROBES = 200, 12
"""Largest number of layers in a probe over depth, evenly spaced too, and of probes that have figures."""


@dataclass(frozen=True)
class FigureSpec:
    """A figure of one condition, or one of its panels.

    Args:
        name: a key of `FIGURES`.
        part: probe, quantity, field, image, or box or mask, which distinguishes figures of one name; empty for a single
            figure.
        condition: name of the condition.
        title: short title.
        frame: data to draw.
        num_rows: number of rows, which sets the height.
        panel: name of the panel, such as a layer; empty for a single panel.
        arm_rows: rows of panels that a figure of many arms has in a report; empty if it always has one panel.
    """

    name: str
    part: str
    condition: str
    title: str
    frame: pd.DataFrame
    num_rows: float = 0
    panel: str = ""
    arm_rows: tuple[ArmRow, ...] = ()

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches of the figure in one panel."""
        num_arms = self.frame["arm"].nunique() if self.name in IN_ROWS and "arm" in self.frame else 0
        num_rows = max(self.num_rows, num_arms if num_arms > MOST_TOGETHER else 0)  # for the legend
        height = min(max(HEIGHT, MARGIN + ROW * num_rows), MOST_HEIGHT)
        return WIDTH + self.label_room, height + (self.label_room if self.name == "agreement" else 0)

    @property
    def label_room(self) -> float:
        """Room that the longest label of an arm takes beyond `SHORT_LABEL`, in inches."""
        labels = self.frame.get("arm_label", pd.Series(dtype=object)).unique()
        longest = max((len(figure_label(str(label))) for label in labels), default=0)
        return CHARACTER * max(0, longest - SHORT_LABEL)

    def draw(self, axes: Axes) -> Axes:
        """Draw the figure into axes."""
        return FIGURES[self.name].draw(_with_plain_texts(self.frame), axes)


def _with_plain_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose names matplotlib draws as they are; paths and outlines are not drawn."""
    escaped = {}
    for name in frame.select_dtypes(exclude=["number", "bool"]).columns.difference(["path", "outline"]):
        texts = {text for text in frame[name] if isinstance(text, str)}
        if any(figure_label(text) != text for text in texts):
            escaped[str(name)] = frame[name].map(lambda value: figure_label(value) if isinstance(value, str) else value)
    return frame.assign(**escaped) if escaped else frame


def importance(name: str) -> int:
    """Return the place of a figure where there are too many: those of all conditions first, then kind by kind.

    Args:
        name: a key of `FIGURES`.

    Returns:
        A small number for an important figure.
    """
    return -1 if name in OF_ALL_CONDITIONS else list(FIGURES).index(name)


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
    return _with_rows([*found, *_sensitivity(results), *_trials(results)], results)


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
    for one in step_panels(here(results.steps), results.reference):
        yield FigureSpec(one.name, one.part, condition, one.title, one.frame, panel=one.panel)


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
        others = cells["condition"].str.replace(r"(^|, )lr=[^,]+", "", regex=True).str.removeprefix(", ")
        for condition, own in cells.assign(condition=others).groupby("condition", sort=False):
            if own["lr"].nunique() < 2 and study.grids:  # a grid with one learning rate, or one zipped with the rest
                continue
            yield FigureSpec("lr_sensitivity", "", str(condition), "sensitivity to the learning rate", own)

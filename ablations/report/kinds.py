"""Kinds of figures: their names, functions and sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes

from ablations.config.escape import figure_label
from ablations.figures.agreement import agreement
from ablations.figures.arms import accuracy_per_arm
from ablations.figures.cost import AXES as COSTS
from ablations.figures.cost import accuracy_against_cost
from ablations.figures.curves import accuracy_curves, loss_curves
from ablations.figures.detection import found_objects, precision_by_size, precision_recall
from ablations.figures.differences import contrasts, paired_differences
from ablations.figures.failure_map import failure_map
from ablations.figures.failures import failures_by_kind
from ablations.figures.frontier import frontier_over_depth
from ablations.figures.probes import probes_over_depth, probes_over_time
from ablations.figures.scale import scale_difference
from ablations.figures.sensitivity import lr_sensitivity
from ablations.figures.steps import failure_explained, probes_over_steps
from ablations.figures.trials import best_of_k, isolation, trials_over_range
from ablations.report.arm_rows import MOST_TOGETHER, ArmRow


@dataclass(frozen=True)
class Kind:
    """A kind of figure, which is a method of `Plot`, and one or several files of a report.

    Args:
        draw: function that draws it.
        help: one sentence.
        part: name and default of the method's argument that selects one of several figures.
        panel: name and default of the method's argument that selects a panel.
        after_run: whether every run draws it at its end; the others take longer than a short run.
        across: largest number of small panels in each row of a figure of normal width; None for panels of normal size.
    """

    draw: Callable[[pd.DataFrame, Axes], Axes]
    help: str
    part: tuple[str, str | None] | None = None
    panel: tuple[str, str | None] | None = None
    after_run: bool = False
    across: int | None = None


IN_ROWS = (
    *("training_loss", "validation_accuracy", "validation_ap", "precision_recall", "ap_by_size"),
    *("accuracy_against_cost", "ap_against_cost", "probes_over_depth", "probes_over_time", "failure_explained"),
    *("lr_sensitivity", "frontier", "tuning_sensitivity", "tuning_best_of_k"),
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
    "probes_over_steps": Kind(
        probes_over_steps, "A probe of an arm over steps and depth.", PROBE, ("arm", None), across=4
    ),
    "lr_sensitivity": Kind(
        lr_sensitivity, "Test accuracy over the learning rate; a condition is that of the other axes."
    ),
    "failure_map": Kind(
        failure_map,
        "Where an arm learns, over settings and learning rates, and its loss above the best arm's.",
        panel=("arm", None),
        across=4,
    ),
    "frontier": Kind(
        frontier_over_depth,
        "The largest learning rate at which each arm learns, over the depth.",
        panel=("setting", ""),
    ),
    "scale_difference": Kind(
        scale_difference, "Paired differences to the reference, at the normalisers' own scale and at matched scale."
    ),
    "tuning_sensitivity": Kind(
        trials_over_range, "Validation accuracy of the trials over a searched field.", ("field", "lr"), after_run=True
    ),
    "tuning_isolation": Kind(isolation, "The best trial of each arm beside the others.", after_run=True),
    "tuning_best_of_k": Kind(best_of_k, "Expected best validation accuracy of k trials."),
}
"""Kinds of figures by the name of their files and methods."""

OF_ALL_CONDITIONS = (
    "failure_map",
    "frontier",
    "scale_difference",
    "lr_sensitivity",
    "tuning_sensitivity",
    "tuning_isolation",
    "tuning_best_of_k",
)
"""Figures that are not of one condition each."""

WIDTH, HEIGHT, MOST_HEIGHT = 7.0, 4.2, 300.0
"""Width, least height and largest height of a figure, in inches."""

ROW, MARGIN = 0.36, 1.2
"""Height of a row, and of the space above and below the rows, in inches."""

SHORT_LABEL, CHARACTER = 30, 0.08
"""Length of a label beside the axes for which `WIDTH` has room, and width of each further character, in inches."""


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

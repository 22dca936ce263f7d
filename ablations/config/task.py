"""Tasks and the metrics by which their cells are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablations.config.cell import FIELDS, CellConfig
from ablations.config.errors import UsageError
from ablations.config.traits import Cell
from ablations.config.types import TASKS, Task
from ablations.config.values import value_name


@dataclass(frozen=True)
class Metric:
    """Metric by which cells are compared, from 0 to 100.

    Args:
        column: column in metrics.csv and outcome.json, without the split's prefix.
        name: name in tables and figures.
    """

    column: str
    name: str

    @property
    def columns(self) -> tuple[str, str]:
        """Columns of the test split and of validation."""
        return f"test_{self.column}", f"val_{self.column}"


ACCURACY = Metric("accuracy_pct", "accuracy")
MASK_AP = Metric("mask_ap_pct", "mask AP")
BOX_AP = Metric("box_ap_pct", "box AP")

METRICS = (ACCURACY, MASK_AP, BOX_AP)
"""Metrics of classifiers, of detectors, and of detectors without masks."""

METRIC_FIELDS = ("task", "masks")
"""Fields that determine the metric; a study has one value of each."""


def metric_of(cell: Cell) -> Metric:
    """Return the metric by which a cell is compared.

    >>> metric_of({"task": "detect", "masks": False}).name
    'box AP'
    """
    if cell["task"] == "classify":
        return ACCURACY
    return MASK_AP if cell["masks"] else BOX_AP


def score_column(config: CellConfig) -> str:
    """Return the key of outcome.json by which a cell is compared."""
    return f"{config.run.scored_on}_{metric_of(config).column}"


AP_METRICS = ("ap_pct", "ap50_pct", "ap75_pct", "ap_small_pct", "ap_medium_pct", "ap_large_pct")
"""Mean over IoU 0.5 to 0.95; at 0.5; at 0.75; mean for objects below 32^2, up to 96^2, and above, in pixels."""


def average_precisions(metric: Metric) -> tuple[str, ...]:
    """Return the average precisions of a detector in outcome.json, without the split's prefix.

    Args:
        metric: metric by which the detector is compared.
    """
    kinds = ("box", "mask") if metric == MASK_AP else ("box",)
    return tuple(f"{kind}_{each}" for kind in kinds for each in AP_METRICS)


def task_of(asked: Mapping[str, list[Any]]) -> Task:
    """Return the task of a study.

    Args:
        asked: values of each field that was named.

    Raises:
        UsageError: several tasks.
    """
    tasks: list[Task] = asked.get("task", [TASKS[0]])
    if len(tasks) > 1:
        raise UsageError(f"task={','.join(tasks)}: give one task, since their metrics cannot be compared")
    return tasks[0]


def masks_of(asked: Mapping[str, list[Any]]) -> bool:
    """Tell whether the detectors of a study find masks.

    Args:
        asked: values of each field that was named.

    Raises:
        UsageError: detectors with masks and without.
    """
    masks: list[bool] = asked.get("masks", [FIELDS["masks"].default])
    if len(masks) > 1:
        written = ",".join(map(value_name, masks))
        raise UsageError(f"masks={written}: give one value, since mask AP and box AP cannot be compared")
    return masks[0]

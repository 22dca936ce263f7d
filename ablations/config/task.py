"""Tasks and the metric by which the cells of each are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablations.config.cell import CellConfig
from ablations.config.errors import UsageError
from ablations.config.types import TASKS, Task


@dataclass(frozen=True)
class Metric:
    """Metric by which a task's cells are compared, from 0 to 100.

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


METRICS: Mapping[Task, Metric] = {
    "classify": Metric("accuracy_pct", "accuracy"),
    "detect": Metric("mask_ap_pct", "mask AP"),
}


def score_column(config: CellConfig) -> str:
    """Return the key of outcome.json by which a cell is compared."""
    return f"{config.run.scored_on}_{METRICS[config.task].column}"


AP_METRICS = ("ap_pct", "ap50_pct", "ap75_pct", "ap_small_pct", "ap_medium_pct", "ap_large_pct")
"""Mean over IoU 0.5 to 0.95; at 0.5; at 0.75; mean for objects below 32^2, up to 96^2, and above, in pixels."""

AVERAGE_PRECISIONS = tuple(f"{kind}_{metric}" for kind in ("box", "mask") for metric in AP_METRICS)
"""Average precisions of a detector in outcome.json, without the split's prefix."""


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

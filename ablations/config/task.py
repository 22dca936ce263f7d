"""What a cell learns: which fields mean something to which task, and what each task is scored by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations.config.cell import CellConfig, Task
from ablations.config.errors import UsageError
from ablations.config.values import value_name

TASKS: tuple[Task, ...] = ("classify", "detect")


@dataclass(frozen=True)
class Measure:
    """What a task is scored by, of 0 to 100.

    Args:
        column: in metrics.csv and outcome.json, after the split's name.
        name: for people.
    """

    column: str
    name: str

    @property
    def columns(self) -> tuple[str, str]:
        """In outcome.json, of the test and of validation."""
        return f"test_{self.column}", f"val_{self.column}"


MEASURES: Mapping[Task, Measure] = {
    "classify": Measure("accuracy_pct", "accuracy"),
    "detect": Measure("mask_ap_pct", "mask AP"),
}
"""Task to what its cells are compared by."""


def score_column(config: CellConfig) -> str:
    """Return the field of outcome.json by which a cell is compared."""
    return f"{config.scored_on}_{MEASURES[config.task].column}"


AP_FIGURES = ("ap_pct", "ap50_pct", "ap75_pct", "ap_small_pct", "ap_medium_pct", "ap_large_pct")
"""Average over IoU 0.5 to 0.95; at 0.5; at 0.75; over the same for objects below 32^2, up to 96^2, above, in pixels."""

AVERAGE_PRECISIONS = tuple(f"{kind}_{figure}" for kind in ("box", "mask") for figure in AP_FIGURES)
"""Of a detector, in outcome.json after the split's name."""

FOREIGN: Mapping[Task, frozenset[str]] = {
    "classify": frozenset(
        {
            *("train_sides", "eval_side", "longest_side"),
            *("batch_norm", "fpn_dim", "box_dim", "mask_dim", "anchor_scale"),
            *("proposals", "rois", "most_found", "init"),
        }
    ),
    "detect": frozenset(
        {
            *("classes", "policy", "policy_magnitude", "policy_magnitude_std", "policy_ops", "color_jitter"),
            *("mixup", "cutmix", "mix_probability", "erasing", "repeats", "eval_crop"),
            *("class_attention", "class_norm", "label_smoothing", "compile"),
        }
    ),
}
"""Task to the fields that mean nothing to it: no images are mixed where objects are found, and no class token is read;
and a detector's shapes hang on what it finds, so that there is no one graph to compile."""

AUGMENTS: Mapping[Task, tuple[str, ...]] = {
    "classify": ("crop_flip", "shift", "none", "resized_crop_flip"),
    "detect": ("flip", "none"),
}
"""Task to what can become of its images."""


def task_of(asked: Mapping[str, list[Any]]) -> Task:
    """Return the one task of a study.

    Args:
        asked: values of each field that was named.

    Raises:
        UsageError: several tasks.
    """
    tasks: list[Task] = asked.get("task", [TASKS[0]])
    if len(tasks) > 1:
        raise UsageError(f"task {','.join(tasks)}: a study has one task, since accuracies compare with nothing else")
    return tasks[0]


def check_meaning(
    task: Task, asked: Mapping[str, list[Any]], *, usual: Mapping[str, Any], searched: Sequence[str] = ()
) -> None:
    """Refuse what would have no effect on a task's cells.

    Args:
        task: of a study.
        asked: values of each field that was named.
        usual: values that the recipe gives; to name them is no mistake.
        searched: fields of a tuning.

    Raises:
        UsageError: a field, a search or a change of a field that means nothing to the task; or an augmentation that it
            has not.
    """
    for field in sorted(FOREIGN[task] & asked.keys()):
        if asked[field] != [usual.get(field, CellConfig.model_fields[field].default)]:
            values = ",".join(map(value_name, asked[field]))
            raise UsageError(f"{field}={values} means nothing to --task {task}: leave it out")
    for field in searched:
        if field in FOREIGN[task]:
            raise UsageError(f"--search {field}: it means nothing to --task {task}")
    for change in asked.get("change", []):
        if change.partition("=")[0] in FOREIGN[task]:
            raise UsageError(f"change {change} means nothing to --task {task}: leave it out")
    for augment in asked.get("augment", []):
        if augment not in AUGMENTS[task]:
            raise UsageError(f"augment={augment} is none of --task {task}; give {' or '.join(AUGMENTS[task])}")

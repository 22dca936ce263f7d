"""Fields that do nothing in any cell of a study: asking for them is a mistake."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ablations.config.cell import COSINE, CellConfig
from ablations.config.errors import UsageError
from ablations.config.values import value_name

NEEDS: Mapping[str, tuple[str, Callable[[CellConfig], bool]]] = {
    "policy_magnitude": ("policy=rand_augment", lambda cell: cell.policy == "rand_augment"),
    "policy_magnitude_std": ("policy=rand_augment", lambda cell: cell.policy == "rand_augment"),
    "policy_ops": ("policy=rand_augment", lambda cell: cell.policy == "rand_augment"),
    "min_lr_share": ("schedule=cosine", lambda cell: cell.schedule == COSINE),
    "warmup_lr_share": ("a warm-up", lambda cell: cell.warmup_epochs > 0 or cell.warmup_steps > 0),
    "mix_probability": ("mixup or cutmix above 0", lambda cell: cell.mixup > 0 or cell.cutmix > 0),
}
"""Field to what gives it an effect, in words and as a test of a cell."""


def check_effects(asked: Collection[str], cells: Collection[CellConfig], *, usual: Mapping[str, Any]) -> None:
    """Refuse a field that was asked for and has an effect in no cell; some are enough, as where an axis has both.

    Args:
        asked: fields that were named.
        cells: of the study.
        usual: values that the recipe gives; to name them is no mistake.

    Raises:
        UsageError: such a field, its value, and what would give it an effect.
    """
    for field, (need, has_effect) in NEEDS.items():
        if field not in asked or any(map(has_effect, cells)):
            continue
        own = {getattr(cell, field) for cell in cells}
        if own != {usual.get(field, CellConfig.model_fields[field].default)}:
            values = ",".join(map(value_name, sorted(own)))
            raise UsageError(f"{field}={values} has no effect without {need}; leave it out, or give that too")

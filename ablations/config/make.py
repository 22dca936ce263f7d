"""Make a validated cell from field values."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ablations.config.cell import GROUPS, CellConfig
from ablations.config.change import check_change
from ablations.config.errors import UsageError, first_error
from ablations.config.types import COSINE, JOINT


def make_config(values: dict[str, Any]) -> CellConfig:
    """Validate a cell.

    Raises:
        UsageError: a missing field, a value that a field cannot have, or values that contradict each other.
    """
    try:
        config = CellConfig(**values)
    except ValidationError as error:
        raise UsageError(first_error(error, groups=tuple(GROUPS))) from None
    optim, augmentation = config.optimisation, config.augmentation
    if optim.warmup_epochs > optim.epochs:
        raise UsageError(f"warmup_epochs={optim.warmup_epochs} exceeds epochs={optim.epochs}; give fewer")
    if augmentation.eval_crop != 1 and not config.images.streamed:
        raise UsageError(
            f"eval_crop={augmentation.eval_crop:g} is for streamed images; images in memory are already cropped: "
            "give 1, or --in-memory off"
        )
    if optim.schedule != COSINE and int(optim.schedule.rpartition(JOINT)[2]) >= optim.epochs:
        raise UsageError(f"schedule={optim.schedule} decays after the last of {optim.epochs} epochs; give earlier ones")
    check_change(config)
    return config

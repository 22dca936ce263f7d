"""From the values of its fields to a cell that can be run."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ablations.config.cell import COSINE, JOINT, CellConfig, first_error
from ablations.config.change import check_change
from ablations.config.errors import UsageError


def make_config(values: dict[str, Any]) -> CellConfig:
    """Validate a cell.

    Raises:
        UsageError: a field with a value that it cannot have, or values that do not go together.
    """
    try:
        config = CellConfig(**values)
    except ValidationError as error:
        raise UsageError(first_error(error)) from None
    if config.warmup_epochs > config.epochs:
        raise UsageError(f"warmup_epochs {config.warmup_epochs} exceeds epochs {config.epochs}; give fewer")
    if config.eval_crop != 1 and not config.streamed:
        raise UsageError(
            f"eval_crop {config.eval_crop:g} is for streamed images: in memory they are cropped already; "
            "give 1, or --in-memory off"
        )
    if config.schedule != COSINE and int(config.schedule.rpartition(JOINT)[2]) >= config.epochs:
        raise UsageError(
            f"schedule {config.schedule} falls after the last of {config.epochs} epochs; give earlier ones"
        )
    check_change(config)
    return config

"""Traits of a cell's field, beside its type, default and description: metadata of its annotation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ablations.config.types import COSINE, TASKS, Task


class Cell(Protocol):
    """A cell, as far as effects depend on it."""

    def __getitem__(self, field: str) -> Any:
        """Return the value of a field."""


@dataclass(frozen=True)
class Effect:
    """What gives a field an effect.

    Args:
        needs: setting that the field needs, in words.
        holds: whether a cell has that setting.
    """

    needs: str
    holds: Callable[[Cell], bool]


RAND_AUGMENT = Effect("policy=rand_augment", lambda cell: cell["policy"] == "rand_augment")
MIXING = Effect("mixup or cutmix above 0", lambda cell: cell["mixup"] > 0 or cell["cutmix"] > 0)
STREAMED = Effect("streamed images", lambda cell: cell["streamed"])
COSINE_SCHEDULE = Effect("schedule=cosine", lambda cell: cell["schedule"] == COSINE)
MASKS = Effect("masks=on", lambda cell: cell["masks"])
AUTOCAST = Effect("precision=bf16-mixed or 16-mixed", lambda cell: cell["precision"] in ("bf16-mixed", "16-mixed"))
WARMUP = Effect("a warm-up", lambda cell: cell["warmup_epochs"] > 0 or cell["warmup_steps"] > 0)


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Traits of a field.

    Args:
        tasks: tasks that the field applies to.
        ufo_only: whether it applies only to UFO-ViT, and not to nets of other libraries.
        effect: what gives it an effect; None: it always has one.
        costs_time: whether the time of a step depends on it.
        one_change: whether ``change`` may name it.
        is_derived: whether it follows from other fields and cannot be asked for.
        searchable: whether a tuning may search it, if it is a number.
        selects_data: whether another value is another data set, with defaults of its own.
        has_flag: whether the command line has an option of its own for it.
        choices: values that each task allows, if that is fewer than the type allows.
        joins: function that joins the parts of a comma list, or of a list, that are one value; None: each part is one.
    """

    tasks: tuple[Task, ...] = TASKS
    ufo_only: bool = False
    effect: Effect | None = None
    costs_time: bool = True
    one_change: bool = False
    is_derived: bool = False
    searchable: bool = True
    selects_data: bool = False
    has_flag: bool = False
    choices: Mapping[Task, tuple[str, ...]] | None = None
    joins: Callable[[Sequence[str]], list[str]] | None = None

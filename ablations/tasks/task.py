"""What a task is to the engine: a cell's data and net, a loss for each step, and what it is scored by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from ablations.data import CellData

Evaluate = Callable[[Iterable[Any], Callable[[Any], None]], None]
"""Takes every batch through a step, with the net in evaluation mode."""


class Steps(Protocol):
    """The steps of a training, and what an evaluation measures; nothing is synchronised or logged in a step.

    Attributes:
        epoch_hashes: of what the steps of each epoch see.
    """

    epoch_hashes: list[str]

    def start_epoch(self, epoch: int) -> None:
        """Draw what an epoch (from 0) needs, and start its means anew."""

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Return the loss, a scalar, of the epoch's batch number ``index``."""

    def validation_step(self, batch: Any) -> None:
        """Take a batch into validation's means."""

    def test_step(self, batch: Any) -> None:
        """Take a batch into what the test comes to."""

    def epoch_metrics(self) -> dict[str, float]:
        """Return the means of the epoch that has just ended."""


S = TypeVar("S", bound=Steps)


class Workload(Protocol[S]):
    """What a cell trains, on what, and how it is judged.

    Attributes:
        net: with its first weights.
        data: what it trains and is measured on.
        facts: what its record says of it before the first step.
        chance_loss: training loss of a net that guesses.
        losses: names of the epoch's means that must be numbers.
    """

    net: nn.Module
    data: CellData[Any, Any]
    facts: dict[str, Any]
    chance_loss: float
    losses: tuple[str, ...]

    def steps(self, *, net: Callable[..., Any], train_net: Callable[..., Any]) -> S:
        """Return the steps of its training.

        Args:
            net: on the device, for evaluations.
            train_net: for training steps; it may be compiled.
        """

    def match_scale(self) -> None:
        """Match the attention outputs' scale to xnorm's, on the device and before the first step.

        Raises:
            UnmatchableError: an attention output is zero throughout or no number.
        """

    def no_learning(self, rows: list[dict[str, Any]]) -> str:
        """Say what in the rows of metrics.csv shows that it has learned nothing; empty where it has learned."""

    def validated(self, last: dict[str, Any]) -> dict[str, float]:
        """Return what the last row of metrics.csv says of validation, as the record has it."""

    def test(self, steps: S, evaluate: Evaluate, folder: Path) -> dict[str, float]:
        """Look at the test images, once; write what was seen into the cell's folder, and return what it comes to.

        A cell that is scored on the validation split has no test images, and nothing comes of them.
        """

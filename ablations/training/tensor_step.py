"""What a module has whose training step is made of tensors alone, as a captured step or a stack needs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class TensorStep(Protocol):
    """Parts of a training step; none has an effect that a replayed graph would not repeat, except `record_loss`."""

    def loss(self, batch: Any, index: int | Tensor) -> Tensor:
        """Return the loss, a scalar, of a batch.

        Args:
            batch: batch of the epoch.
            index: its index, an integer or a tensor (1,) on the device.
        """

    def net_inputs(
        self, batch: Any, index: int | Tensor, *, others: Sequence[Any] | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return images, targets, and which samples keep which branch, if any is dropped.

        Args:
            batch: batch of the epoch, or those of several modules in a row.
            index: its index, an integer or a tensor (1,) on the device.
            others: the other modules of a stack; None: there is no stack.
        """

    def loss_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a scalar, of the net's outputs."""

    def record_loss(self, loss: Tensor) -> None:
        """Add a step's loss to the epoch's metrics."""

    def step_generators(self) -> list[torch.Generator]:
        """Return the generators that a step draws from."""


def as_tensor_step(module: object) -> TensorStep:
    """Return a module that has such a step.

    Raises:
        TypeError: it has none.
    """
    if not isinstance(module, TensorStep):
        raise TypeError(f"{type(module).__name__} has no training step made of tensors alone")
    return module

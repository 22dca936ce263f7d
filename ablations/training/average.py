"""Moving average of a net's weights, which replaces them in evaluation and at the end of training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn


class MovingAverage(WeightAveraging):
    """Lightning's average of weights, including BatchNorm's means and variances, from the initial weights on.

    Its decay rises with the number u of updates, min(decay, (1 + u) / (10 + u)), as in TensorFlow's
    ExponentialMovingAverage: otherwise the initial weights would dominate a short training.

    Args:
        decay: limit of the decay, below 1.

    Attributes:
        is_in_step: whether the training step updates the average by `blend`, as one captured in a graph must.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True)
        self.decay = decay
        self.is_in_step = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start from the weights before the first step, on their device."""
        assert self._average_model is not None
        average = self._average_model
        average.to(pl_module.device)  # it was copied before the trainer moved the module
        average.n_averaged = average.n_averaged.cpu()  # it is read in each step, which would wait for a GPU
        if average.n_averaged == 0:
            average.update_parameters(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average with the weights after a step, unless the step itself has done so."""
        if not self.is_in_step:
            self.blend(pl_module, self.share(trainer.global_step))
        assert self._average_model is not None
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the averages to the module, even if a checkpoint left nothing to train."""
        self._copy_average_to_current(pl_module)

    def share(self, step: int) -> float:
        """Return the share of the weights after a step, counted from 1, in the average."""
        return 1 - min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def blend(self, module: nn.Module, share: float | Tensor) -> None:
        """Move the average towards a module's weights; integers, such as BatchNorm's count of batches, are unchanged.

        AveragedModel would copy its count to the device, which waits for a GPU.

        Args:
            module: module with the weights after a step.
            share: share of the weights; a tensor of one value on their device if a graph captures the step.
        """
        assert self._average_model is not None
        pairs = zip(_floats(self._average_model.module), _floats(module), strict=True)
        averages, weights = (list(tensors) for tensors in zip(*pairs, strict=True))
        if isinstance(share, float):
            torch._foreach_lerp_(averages, weights, share)
            return
        steps = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(steps, share)
        torch._foreach_add_(averages, steps)


def _floats(module: nn.Module) -> Iterator[Tensor]:
    """Yield parameters and buffers of floating point."""
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            yield tensor.detach()

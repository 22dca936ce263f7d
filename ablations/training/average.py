"""Moving average of a net's weights, which replaces them in evaluation and at the end of training."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Lightning's average of weights, including BatchNorm's means and variances, from the initial weights on.

    Its decay rises with the number u of updates, min(decay, (1 + u) / (10 + u)), as in TensorFlow's
    ExponentialMovingAverage: otherwise the initial weights would dominate a short training.

    Args:
        decay: limit of the decay, below 1.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=self._blend)
        self.decay = decay
        self._num_updates = 0

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
        """Update the average with the weights after a step."""
        self._num_updates = trainer.global_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the averages to the module, even if a checkpoint left nothing to train."""
        self._copy_average_to_current(pl_module)

    def _blend(self, averages: list[Tensor], weights: list[Tensor], _num_averaged: Tensor | int) -> None:
        """Move averages towards weights; integers, such as BatchNorm's count of batches, are unchanged."""
        if averages[0].is_floating_point():
            share = 1 - min(self.decay, (1 + self._num_updates) / (10 + self._num_updates))
            with torch.no_grad():
                torch._foreach_lerp_(averages, weights, share)

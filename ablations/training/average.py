"""The moving average of a net's weights, which is evaluated in their place, and kept when the training ends."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Lightning's average of weights, with BatchNorm's means and variances, from the first weights on.

    Its decay rises with the number u of updates, min(decay, (1 + u) / (10 + u)), as TensorFlow's
    ExponentialMovingAverage has it: else a short training would be judged by its first weights.

    Args:
        decay: in the long run, below 1.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=self._take_in)
        self.decay = decay
        self._num_updates = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the weights before the first step, where they are."""
        assert self._average_model is not None
        average = self._average_model
        average.to(pl_module.device)  # it was copied before the trainer had moved the module
        average.n_averaged = average.n_averaged.cpu()  # it is looked at in each step, which would wait for a GPU
        if average.n_averaged == 0:
            average.update_parameters(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the weights after a step."""
        self._num_updates = trainer.global_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the averages in the module, also where a checkpoint was of the last epoch and nothing was trained."""
        self._copy_average_to_current(pl_module)

    def _take_in(self, averages: list[Tensor], weights: list[Tensor], _num_averaged: Tensor | int) -> None:
        """Move averages towards weights; whole numbers, such as BatchNorm's count of batches, stay as they were."""
        if averages[0].is_floating_point():
            share = 1 - min(self.decay, (1 + self._num_updates) / (10 + self._num_updates))
            with torch.no_grad():
                torch._foreach_lerp_(averages, weights, share)

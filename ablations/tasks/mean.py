"""Mean of a loss over the samples of an evaluation, from its means over batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import SumMetric


class SampleMean(nn.Module):
    """Mean over samples, also if batches differ in size.

    torchmetrics' ``MeanMetric`` drops the weights of its updates if it does not look for NaN (1.9.0,
    ``aggregation.py``), and looking for NaN would wait for the device and drop NaN from the mean. Weights are relative
    to a full batch, whose mean thus enters unchanged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total, self.weight = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")

    def update(self, mean: Tensor, *, num_samples: int, of: int) -> None:
        """Add a batch.

        Args:
            mean: mean over the batch, scalar.
            num_samples: number of samples in the batch.
            of: number of samples in a full batch, the same for all updates.
        """
        weight = num_samples / of
        self.total.update(mean * weight)
        self.weight.update(torch.full_like(mean, weight))

    def compute(self) -> Tensor:
        """Return the mean over all samples of all processes."""
        mean: Tensor = self.total.compute() / self.weight.compute()
        return mean

    def reset(self) -> None:
        """Forget all batches."""
        self.total.reset()
        self.weight.reset()

"""The order of an epoch's samples: the same for images in memory and for streamed ones."""

from __future__ import annotations

import torch
from torch import Tensor

from ablations.data.streams import epoch_generator


def epoch_order(n: int, *, repeats: int, seed: int, epoch: int) -> Tensor:
    """Draw an epoch's order from the stream keyed by (seed, epoch).

    With repeated augmentation (arXiv 1901.09335) an epoch has ``n // repeats`` of the samples, another choice in each
    epoch, and each of them ``repeats`` times in a row, so in one batch where the batch size is a multiple of it.

    Args:
        n: samples of the split.
        repeats: how often each sample comes; 1: plain epochs.
        seed: the cell's.
        epoch: from 0.

    Returns:
        (n // repeats * repeats,) int64, positions in the split.

    >>> epoch_order(7, repeats=3, seed=0, epoch=0).unique(return_counts=True)[1].tolist()
    [3, 3]
    """
    order = torch.randperm(n, generator=epoch_generator(seed, "order", epoch))
    return order if repeats == 1 else order[: n // repeats].repeat_interleave(repeats)


def num_batches(n: int, *, batch_size: int, repeats: int = 1) -> int:
    """Count the batches of an epoch; the samples that do not fill a last one are left out.

    >>> num_batches(100, batch_size=32), num_batches(100, batch_size=33, repeats=3)
    (3, 3)
    """
    return n // repeats * repeats // batch_size

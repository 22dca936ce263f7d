"""Order of an epoch's samples, the same for images in memory and streamed images."""

from __future__ import annotations

import torch
from torch import Tensor

from ablations.data.streams import epoch_generator


def epoch_order(n: int, *, repeats: int, seed: int, epoch: int) -> Tensor:
    """Draw an epoch's order from the stream keyed by (seed, epoch).

    With repeated augmentation (arXiv 1901.09335) an epoch has ``n // repeats`` of the samples, drawn again for each
    epoch. Each occurs ``repeats`` times in a row, hence in one batch if the batch size is a multiple of ``repeats``.

    Args:
        n: number of samples in the split.
        repeats: occurrences of each sample; 1: plain epochs.
        seed: seed of the cell.
        epoch: epoch, from 0.

    Returns:
        (n // repeats * repeats,) int64 positions in the split.

    >>> epoch_order(7, repeats=3, seed=0, epoch=0).unique(return_counts=True)[1].tolist()
    [3, 3]
    """
    order = torch.randperm(n, generator=epoch_generator(seed, "order", epoch))
    return order if repeats == 1 else order[: n // repeats].repeat_interleave(repeats)


def num_batches(n: int, *, batch_size: int, repeats: int = 1) -> int:
    """Return the number of batches in an epoch, without an incomplete last one.

    >>> num_batches(100, batch_size=32), num_batches(100, batch_size=33, repeats=3)
    (3, 3)
    """
    return n // repeats * repeats // batch_size

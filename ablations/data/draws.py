"""Draws of an epoch as tensors on the device of the images, one entry for each batch.

Dimension letters: n samples of an epoch, B samples of a batch that are this process's share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

EpochDraws = dict[str, Tensor]
"""Name of a draw to (steps, B, ...), with one batch in each step."""


def by_batch(draws: Mapping[str, Tensor], *, num_batches: int, batch_size: int, own: slice | Tensor) -> EpochDraws:
    """Group draws by batch, without those of an incomplete last one.

    Args:
        draws: name to (n, ...), in the epoch's order.
        num_batches: number of batches in the epoch.
        batch_size: number of samples in a batch, over all processes.
        own: positions of this process's samples in a batch, as in `Rank.mirrored`.

    >>> draws = {"rows": torch.arange(7)}
    >>> by_batch(draws, num_batches=3, batch_size=2, own=slice(0, 2))["rows"].tolist()
    [[0, 1], [2, 3], [4, 5]]
    """
    n, shape = num_batches * batch_size, (num_batches, batch_size)
    return {name: drawn[:n].view(*shape, *drawn.shape[1:])[:, own] for name, drawn in draws.items()}


def pick(draws: Mapping[str, Tensor], index: int | Tensor) -> dict[str, Tensor]:
    """Select the draws of one batch, name to (B, ...).

    Args:
        draws: draws of an epoch.
        index: index of the batch in the epoch. With an integer the result is views; a tensor, (1,) int64 on the device
            of the draws, is read on the device, so that a captured step can be replayed for every batch.

    >>> pick({"rows": torch.arange(6).view(3, 2)}, torch.tensor([1]))["rows"].tolist()
    [2, 3]
    """
    if isinstance(index, int):
        return {name: drawn[index] for name, drawn in draws.items()}
    return {name: drawn.index_select(0, index)[0] for name, drawn in draws.items()}


def joined(picks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate the draws of several batches, name to (S B, ...) of S batches."""
    return {name: torch.cat([each[name] for each in picks]) for name in picks[0]}


def refill(old: Mapping[str, Tensor], new: Mapping[str, Tensor], device: torch.device) -> EpochDraws:
    """Move an epoch's draws to the device, in place of those of the epoch before where shape and dtype allow it.

    Args:
        old: draws of the epoch before, whose tensors are overwritten and returned; a captured step reads their memory.
        new: draws of the epoch.
        device: device of the result.
    """
    moved = {}
    for name, drawn in new.items():
        kept = old.get(name)
        if kept is not None and (kept.shape, kept.dtype) == (drawn.shape, drawn.dtype) and is_on(kept.device, device):
            moved[name] = kept.copy_(drawn)
        else:
            moved[name] = drawn.to(device, copy=True)
    return moved


def is_on(place: torch.device, device: torch.device) -> bool:
    """Return whether a tensor's place is a device, of which an index may be left out.

    >>> is_on(torch.device("cuda:0"), torch.device("cuda")), is_on(torch.device("cuda:0"), torch.device("cuda:1"))
    (True, False)
    """
    return place.type == device.type and device.index in (None, place.index)

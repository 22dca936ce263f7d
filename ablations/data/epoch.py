"""What every training's batches have in common: an epoch to draw, a place in it to keep, and a share of each batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

AnyBatch = TypeVar("AnyBatch")


@dataclass(frozen=True)
class Rank:
    """Which of the processes that share a training, or an evaluation, this one is.

    Args:
        number: from 0.
        world_size: how many there are.
    """

    number: int = 0
    world_size: int = 1

    def mirrored(self, batch_size: int) -> slice | Tensor:
        """Return the places of this process's samples in a batch, among which is each one's partner in mixing.

        The partner is as far from the batch's end as the sample is from its beginning.

        Args:
            batch_size: samples of the whole batch.

        Raises:
            ValueError: they cannot be shared out in pairs.

        >>> Rank(0, 2).mirrored(8).tolist(), Rank(1, 2).mirrored(8).tolist()
        ([0, 1, 6, 7], [2, 3, 4, 5])
        """
        if self.world_size == 1:
            return slice(0, batch_size)
        pairs, left = divmod(batch_size, 2 * self.world_size)
        if left:
            raise ValueError(
                f"batches of {batch_size} cannot be shared by {self.world_size} processes: "
                f"batch_size must be a multiple of {2 * self.world_size}"
            )
        front = torch.arange(self.number * pairs, (self.number + 1) * pairs)
        return torch.cat((front, batch_size - 1 - front.flip(0)))


class EpochBatches(ABC, Generic[AnyBatch]):
    """The batches of a training, drawn anew for each epoch from the seed, wherever the images come from.

    Lightning's Trainer tells a loader the epoch through ``sampler.set_epoch``, and saves and restores its place by
    ``state_dict`` and ``load_state_dict``; so does whoever else drives it.

    Args:
        batch_size: samples of a batch, of all processes together.
        rank: whose part of each batch is given.

    Attributes:
        hash: of what the epoch's whole batches hold, known before the first of them.
    """

    def __init__(self, *, batch_size: int, rank: Rank) -> None:
        self.batch_size, self.rank = batch_size, rank
        self.hash = ""
        self._epoch: int | None = None
        self._given = 0
        self._resumed: tuple[int, int] | None = None

    @property
    def sampler(self) -> Self:
        """Itself, which is told the epoch where a DataLoader's sampler is."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Draw an epoch (from 0), unless it is drawn already."""
        if epoch != self._epoch:
            self._draw(epoch)
            self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, and how many of its batches have been given."""
        return {"epoch": 0 if self._epoch is None else self._epoch, "batches": self._given}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin behind the batches that were given, when that epoch is asked for next."""
        self._resumed = (state_dict["epoch"], state_dict["batches"])

    def first(self) -> AnyBatch:
        """Return the first batch of the first epoch, whole in every process."""
        rank, self.rank = self.rank, Rank()
        try:
            self.set_epoch(0)
            return next(self._batches(0))
        finally:
            self.rank = rank

    def __iter__(self) -> Iterator[AnyBatch]:
        if self._epoch is None:
            self.set_epoch(0)
        resumed, self._resumed = self._resumed, None
        self._given = resumed[1] if resumed is not None and resumed[0] == self._epoch else 0
        for batch in self._batches(self._given):
            self._given += 1
            yield batch

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of the epoch's batches."""

    @abstractmethod
    def _draw(self, epoch: int) -> None:
        """Draw an epoch, and set its hash."""

    @abstractmethod
    def _batches(self, first: int) -> Iterator[AnyBatch]:
        """Give the epoch's batches from number ``first`` on."""


def moved(places: slice | Tensor, start: int) -> slice | Tensor:
    """Return places in a batch as places in the epoch.

    Args:
        places: of samples in the batch.
        start: place of the batch's first sample.
    """
    if isinstance(places, slice):
        return slice(places.start + start, places.stop + start)
    return places + start

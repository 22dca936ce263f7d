"""Base of all training batches: drawing an epoch, resuming within it, and sharing each batch among processes."""

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
    """Rank of this process among those that share a training or an evaluation.

    Args:
        number: rank, from 0.
        world_size: number of processes.
    """

    number: int = 0
    world_size: int = 1

    def mirrored(self, batch_size: int) -> slice | Tensor:
        """Return the positions of this process's samples in a batch, each with its mixing partner's.

        A partner is as far from the batch's end as the sample is from its start.

        Args:
            batch_size: number of samples in a batch, over all processes.

        Raises:
            ValueError: batch that cannot be shared in pairs.

        >>> Rank(0, 2).mirrored(8).tolist(), Rank(1, 2).mirrored(8).tolist()
        ([0, 1, 6, 7], [2, 3, 4, 5])
        """
        if self.world_size == 1:
            return slice(0, batch_size)
        pairs, left = divmod(batch_size, 2 * self.world_size)
        if left:
            raise ValueError(
                f"batch_size={batch_size}: must be a multiple of {2 * self.world_size} for {self.world_size} processes"
            )
        front = torch.arange(self.number * pairs, (self.number + 1) * pairs)
        return torch.cat((front, batch_size - 1 - front.flip(0)))


class EpochBatches(ABC, Generic[AnyBatch]):
    """Training batches, drawn again for each epoch from the seed, for any source of images.

    Lightning's Trainer sets the epoch through ``sampler.set_epoch``, and saves and restores the position with
    ``state_dict`` and ``load_state_dict``. Any other training loop must do the same.

    Args:
        batch_size: number of samples in a batch, over all processes.
        rank: process whose share of each batch is yielded.

    Attributes:
        hash: hash of the epoch's whole batches, set before the first is yielded.
    """

    def __init__(self, *, batch_size: int, rank: Rank) -> None:
        self.batch_size, self.rank = batch_size, rank
        self.hash = ""
        self._epoch: int | None = None
        self._num_yielded = 0
        self._resumed: tuple[int, int] | None = None

    @property
    def sampler(self) -> Self:
        """Return the object itself: the Trainer calls ``set_epoch`` on a data loader's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Draw an epoch (from 0), unless it is already drawn."""
        if epoch != self._epoch:
            self._draw(epoch)
            self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the number of its batches that were yielded."""
        return {"epoch": 0 if self._epoch is None else self._epoch, "batches": self._num_yielded}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Skip the batches that were yielded, when that epoch is requested next."""
        self._resumed = (state_dict["epoch"], state_dict["batches"])

    def first(self) -> AnyBatch:
        """Return the first batch of the first epoch, unsplit in every process.

        An epoch is drawn for this process's share, so with several processes it is drawn again when it is set.
        """
        rank, self.rank = self.rank, Rank()
        if rank.world_size > 1:
            self._epoch = None
        try:
            self.set_epoch(0)
            return next(self._batches(0))
        finally:
            self.rank = rank
            if rank.world_size > 1:
                self._epoch = None

    def __iter__(self) -> Iterator[AnyBatch]:
        self._start()
        for batch in self._batches(self._num_yielded):
            self._num_yielded += 1
            yield batch

    def indices(self) -> Iterator[int]:
        """Yield the indices of the batches that remain in the epoch, instead of the batches, and count them as such."""
        self._start()
        for index in range(self._num_yielded, len(self)):
            self._num_yielded += 1
            yield index

    def _start(self) -> None:
        """Set the position to the first batch, or to that of a checkpoint."""
        if self._epoch is None:
            self.set_epoch(0)
        resumed, self._resumed = self._resumed, None
        self._num_yielded = resumed[1] if resumed is not None and resumed[0] == self._epoch else 0

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    @abstractmethod
    def _draw(self, epoch: int) -> None:
        """Draw an epoch and set its hash."""

    @abstractmethod
    def _batches(self, first: int) -> Iterator[AnyBatch]:
        """Yield the epoch's batches from index ``first``."""

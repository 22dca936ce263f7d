"""Batches from a split that lies in memory: no workers, no copies of the data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.data.augment import Draws, draw, gather
from ablations.data.epoch import EpochBatches, Rank, moved
from ablations.data.order import epoch_order, num_batches
from ablations.data.per_sample import SampleDraws
from ablations.data.streams import epoch_generator
from ablations.data.transforms import Augmentation

Batch = tuple[Tensor, Tensor]
"""Images (B, C, H, W), normalised, channels last in memory; labels (B,)."""

EVAL_BATCH = 500
"""Images of a validation or test batch: the same for every cell, since it can change the last bits."""


@dataclass(frozen=True)
class Split:
    """Some rows of an array of images, on a device.

    Args:
        images: (m, H, W, C) uint8, of which the split takes ``rows``.
        labels: (n,) int64, of the rows taken.
        rows: (n,) where the split's samples are in ``images``.
        original_rows: (n,) where they are in the data set's part, on the CPU.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    original_rows: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Scale:
    """Normalises images; a channel that never varies keeps a scale of 1.

    Args:
        mean: of each channel, of 0 to 1.
        std: of each channel, of 0 to 1.
        device: where the images are.
    """

    def __init__(self, mean: list[float], std: list[float], *, device: torch.device) -> None:
        divisor = torch.tensor([s if s > 0 else 1.0 for s in std], device=device)
        self.factor = 1 / (255 * divisor)  # (C,)
        self.shift = torch.tensor(mean, device=device) / divisor  # (C,)

    def __call__(self, images: Tensor) -> Tensor:
        """Map (B, H, W, C) uint8 to (B, C, H, W) float32, as a channels-last view."""
        return (images * self.factor - self.shift).permute(0, 3, 1, 2)


class TrainBatches(EpochBatches[Batch]):
    """The batches of an epoch: order and augmentation from streams keyed by (seed, epoch).

    The samples that do not fill a last batch are left out of that epoch; each epoch leaves out others.

    Args:
        split: the training split.
        scale: normalisation.
        batch_size: samples of a batch, at most the split's.
        augmentation: of each sample.
        seed: the cell's.
        repeats: how often each sample of an epoch comes in it, as in `epoch_order`.
        rank: whose part of each batch is given.

    Raises:
        ValueError: batches that the processes cannot share.
    """

    def __init__(
        self,
        split: Split,
        *,
        scale: Scale,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        repeats: int = 1,
        rank: Rank = Rank(),  # noqa: B008  # frozen
    ) -> None:
        super().__init__(batch_size=batch_size, rank=rank)
        rank.mirrored(batch_size)
        self.split = split
        self.scale = scale
        self.augmentation = augmentation
        self.seed = seed
        self.repeats = repeats

    def __len__(self) -> int:
        return num_batches(len(self.split), batch_size=self.batch_size, repeats=self.repeats)

    def _draw(self, epoch: int) -> None:
        """Draw the order and the augmentation of an epoch, and move them to the device once."""
        device = self.split.labels.device
        order = epoch_order(len(self.split), repeats=self.repeats, seed=self.seed, epoch=epoch)
        H, W = self.split.images.shape[1:3]
        generator = epoch_generator(self.seed, "augment", epoch)
        draws = draw(self.augmentation.move, len(order), image_side=min(H, W), generator=generator)
        self._by_sample: SampleDraws | None = None
        if self.augmentation.is_drawn_by_sample:
            self._by_sample = SampleDraws(self.augmentation, len(order), size=(H, W), seed=self.seed, epoch=epoch)
        more = b"" if self._by_sample is None else self._by_sample.tobytes()
        self.hash = epoch_hash(self.split.original_rows[order], draws, batch_size=self.batch_size, more=more)
        self._order, self._draws = order.to(device), draws.to(device)

    def _batches(self, first: int) -> Iterator[Batch]:
        own = self.rank.mirrored(self.batch_size)
        for start in range(first * self.batch_size, len(self) * self.batch_size, self.batch_size):
            places = moved(own, start)
            picked = self._order[places]
            images = gather(self.split.images, self.split.rows[picked], self._draws.part(places))
            if self._by_sample is not None:
                images = self._by_sample.apply(images, places)
            yield self.scale(images), self.split.labels[picked]


class EvalBatches:
    """A split in its own order, in batches of `EVAL_BATCH`, without augmentation.

    Args:
        split: the split.
        scale: normalisation.
        rank: which images are given: of W processes, each takes every W-th.
    """

    def __init__(self, split: Split, *, scale: Scale, rank: Rank = Rank()) -> None:  # noqa: B008  # frozen
        self.split = split
        self.scale = scale
        self._own = slice(rank.number, None, rank.world_size)

    def __len__(self) -> int:
        return -(-len(self.split.labels[self._own]) // EVAL_BATCH)

    def __iter__(self) -> Iterator[Batch]:
        rows, labels = (torch.split(x[self._own], EVAL_BATCH) for x in (self.split.rows, self.split.labels))
        for batch_rows, batch_labels in zip(rows, labels, strict=True):
            yield self.scale(self.split.images[batch_rows]), batch_labels


def epoch_hash(rows: Tensor, draws: Draws, *, batch_size: int, more: bytes = b"") -> str:
    """Hash what an epoch's batches hold: which images in which order, and what was drawn for each.

    Args:
        rows: (n,) of the data set's part, in the epoch's order, on the CPU.
        draws: of the n samples, on the CPU.
        batch_size: samples of a batch.
        more: what decides what is drawn beside the draws.
    """
    text = f"{batch_size} ".encode() + rows.numpy().tobytes() + draws.tobytes() + more
    return hashlib.sha256(text).hexdigest()[:12]

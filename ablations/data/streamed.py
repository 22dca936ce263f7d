"""Batches of streamed images: the counterparts of those in memory, from the same streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from ablations.data.augment import Draws, draw, gather
from ablations.data.batches import EVAL_BATCH, Batch, Scale, epoch_hash
from ablations.data.order import epoch_order, num_batches
from ablations.data.splits import Rows
from ablations.data.streaming import ImageStream
from ablations.data.transforms import Augmentation
from ablations.streams import epoch_generator


@dataclass(kw_only=True)
class StreamedTrainBatches:
    """The batches of an epoch, decoded as they are needed.

    The order is that of images in memory. So are ``crop_flip`` and ``shift``, which move whole batches on the device;
    what is drawn sample by sample comes from a stream keyed by (seed, epoch, place in the epoch).

    Args:
        stream: of the images.
        split: the training split.
        scale: normalisation.
        batch_size: samples of a batch, at most the split's.
        augmentation: of the images, as the stream applies it.
        image_side: pixels of the shorter side.
        seed: the cell's.
        repeats: how often each sample of an epoch comes in it, as in `epoch_order`.
    """

    stream: ImageStream
    split: Rows
    scale: Scale
    batch_size: int
    augmentation: Augmentation
    image_side: int
    seed: int
    repeats: int = 1
    hash: str = field(default="", init=False)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order and the augmentation of an epoch (from 0)."""
        self._epoch = epoch
        self._order = epoch_order(len(self.split.rows), repeats=self.repeats, seed=self.seed, epoch=epoch)
        kind = self.augmentation.move
        generator = epoch_generator(self.seed, "augment", epoch)
        draws = draw(kind, len(self._order), image_side=self.image_side, generator=generator)
        more = f"{self.augmentation} {self.seed} {epoch}".encode() if self.augmentation.is_drawn_by_sample else b""
        self.hash = epoch_hash(self.split.rows[self._order], draws, batch_size=self.batch_size, more=more)
        self._draws: Draws | None = None if kind == "none" else draws.to(self.stream.device)

    def __len__(self) -> int:
        return num_batches(len(self.split.rows), batch_size=self.batch_size, repeats=self.repeats)

    def __iter__(self) -> Iterator[Batch]:
        device = self.stream.device
        rows, labels = self.split.rows[self._order], self.split.labels[self._order].to(device)
        batches = self.stream.batches(self.split.part, rows, batch_size=self.batch_size, epoch=self._epoch, whole=True)
        everyone = torch.arange(self.batch_size, device=device)
        for i, images in enumerate(batches):
            start, stop = i * self.batch_size, (i + 1) * self.batch_size
            moved = images if self._draws is None else gather(images, everyone, self._draws.part(start, stop))
            yield self.scale(moved), labels[start:stop]


@dataclass(frozen=True, kw_only=True)
class StreamedEvalBatches:
    """A split in its own order, in batches of `EVAL_BATCH`, without augmentation.

    Args:
        stream: of the images.
        split: the split.
        scale: normalisation.
    """

    stream: ImageStream
    split: Rows
    scale: Scale

    def __iter__(self) -> Iterator[Batch]:
        labels = torch.split(self.split.labels.to(self.stream.device), EVAL_BATCH)
        batches = self.stream.batches(self.split.part, self.split.rows, batch_size=EVAL_BATCH, epoch=None, whole=False)
        for images, own in zip(batches, labels, strict=True):
            yield self.scale(images), own

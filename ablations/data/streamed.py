"""Batches of streamed images: counterparts of those in memory, from the same random streams."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ablations.data.augment import Draws, draw, gather
from ablations.data.batches import EVAL_BATCH, Batch, Scale, epoch_hash
from ablations.data.epoch import EpochBatches, Rank
from ablations.data.order import epoch_order, num_batches
from ablations.data.splits import Rows
from ablations.data.streaming import ImageStream
from ablations.data.streams import epoch_generator
from ablations.data.transforms import Augmentation


class StreamedTrainBatches(EpochBatches[Batch]):
    """Training batches, decoded on demand.

    The order equals that of images in memory. So do ``crop_flip`` and ``shift``, which transform whole batches on the
    device; per-sample augmentation comes from a stream keyed by (seed, epoch, position in the epoch).

    Args:
        stream: stream of the images.
        split: training split.
        scale: normalisation of the images.
        batch_size: number of samples in a batch, at most the size of the split.
        augmentation: augmentation of the images, as the stream applies it.
        image_side: shorter side of the images, in pixels.
        seed: seed of the cell.
        repeats: occurrences of each sample in an epoch, as in `epoch_order`.
        rank: process whose share of each batch is yielded.

    Raises:
        ValueError: batch size that the processes cannot share.
    """

    def __init__(
        self,
        *,
        stream: ImageStream,
        split: Rows,
        scale: Scale,
        batch_size: int,
        augmentation: Augmentation,
        image_side: int,
        seed: int,
        repeats: int = 1,
        rank: Rank = Rank(),  # noqa: B008  # frozen
    ) -> None:
        super().__init__(batch_size=batch_size, rank=rank)
        rank.mirrored(batch_size)
        self.stream, self.split, self.scale = stream, split, scale
        self.augmentation, self.image_side = augmentation, image_side
        self.seed, self.repeats = seed, repeats

    def __len__(self) -> int:
        return num_batches(len(self.split.rows), batch_size=self.batch_size, repeats=self.repeats)

    def _draw(self, epoch: int) -> None:
        """Draw the order and augmentation of an epoch."""
        self._order = epoch_order(len(self.split.rows), repeats=self.repeats, seed=self.seed, epoch=epoch)
        kind = self.augmentation.move
        generator = epoch_generator(self.seed, "augment", epoch)
        draws = draw(kind, len(self._order), image_side=self.image_side, generator=generator)
        extra = f"{self.augmentation} {self.seed} {epoch}".encode() if self.augmentation.is_drawn_by_sample else b""
        self.hash = epoch_hash(self.split.rows[self._order], draws, batch_size=self.batch_size, extra=extra)
        self._draws: Draws | None = None if kind == "none" else draws

    def _batches(self, first: int) -> Iterator[Batch]:
        device, size = self.stream.device, self.batch_size // self.rank.world_size
        places = torch.arange(first * self.batch_size, len(self) * self.batch_size)
        places = places.view(-1, self.batch_size)[:, self.rank.mirrored(self.batch_size)].flatten()
        picked = self._order[places]
        rows, labels = self.split.rows[picked], self.split.labels[picked].to(device)
        draws = None if self._draws is None else self._draws.part(places).to(device)
        epoch, part = self._epoch, self.split.part
        batches = self.stream.batches(part, rows, places=places, batch_size=size, epoch=epoch, drop_last=True)
        everyone = torch.arange(size, device=device)
        for i, images in enumerate(batches):
            own = slice(i * size, (i + 1) * size)
            changed = images if draws is None else gather(images, everyone, draws.part(own))
            yield self.scale(changed), labels[own]


class StreamedEvalBatches:
    """Batches of `EVAL_BATCH` images of a split, in order, without augmentation.

    Args:
        stream: stream of the images.
        split: validation or test split.
        scale: normalisation of the images.
        rank: process whose share is yielded: of W processes, each takes every W-th image.
    """

    def __init__(self, *, stream: ImageStream, split: Rows, scale: Scale, rank: Rank = Rank()) -> None:  # noqa: B008
        self.stream, self.split, self.scale = stream, split, scale
        self._own = slice(rank.number, None, rank.world_size)

    def __len__(self) -> int:
        return -(-len(self.split.labels[self._own]) // EVAL_BATCH)

    def __iter__(self) -> Iterator[Batch]:
        rows = self.split.rows[self._own]
        labels = torch.split(self.split.labels[self._own].to(self.stream.device), EVAL_BATCH)
        batches = self.stream.batches(self.split.part, rows, batch_size=EVAL_BATCH, epoch=None, drop_last=False)
        for images, own in zip(batches, labels, strict=True):
            yield self.scale(images), own

"""Batches from a split in memory, without workers or copies of the data set."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.data.augment import Draws, draw, gather
from ablations.data.draws import EpochDraws, by_batch, pick, refill
from ablations.data.epoch import EpochBatches, Rank
from ablations.data.order import epoch_order, num_batches
from ablations.data.per_sample import SampleDraws, augment
from ablations.data.streams import epoch_generator
from ablations.data.transforms import Augmentation

Batch = tuple[Tensor, Tensor]
"""Normalised images (B, C, H, W), channels last in memory; labels (B,)."""

EVAL_BATCH = 500
"""Batch size of validation and test on a CPU: the same for every cell, since it can change the last bits."""

CUDA_EVAL_VALUES = 2**24
"""Number of values, H W C of each image, that make an evaluation batch large enough for a GPU."""


def eval_batch(image_shape: tuple[int, int, int], device: torch.device) -> int:
    """Return the batch size of validation and test: as many small images as occupy a GPU, else `EVAL_BATCH`.

    Args:
        image_shape: height, width and channels of the images.
        device: device of the net.

    >>> eval_batch((32, 32, 3), torch.device("cuda")), eval_batch((32, 32, 3), torch.device("cpu"))
    (5461, 500)
    """
    if device.type != "cuda":
        return EVAL_BATCH
    return max(EVAL_BATCH, CUDA_EVAL_VALUES // math.prod(image_shape))


@dataclass(frozen=True)
class Split:
    """Rows of an image array that form a split, on one device.

    Args:
        images: (m, H, W, C) uint8, a superset of the split's images.
        labels: (n,) int64 labels of the split.
        rows: (n,) indices of the split's samples in ``images``.
        original_rows: (n,) their indices in the data set's part, on the CPU.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    original_rows: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Scale:
    """Normalisation of images; a constant channel keeps a scale of 1.

    Args:
        mean: mean of each channel, for pixels from 0 to 1.
        std: standard deviation of each channel, for pixels from 0 to 1.
        device: device of the images.
    """

    def __init__(self, mean: list[float], std: list[float], *, device: torch.device) -> None:
        divisor = torch.tensor([s if s > 0 else 1.0 for s in std], device=device)
        self.factor = 1 / (255 * divisor)  # (C,)
        self.shift = torch.tensor(mean, device=device) / divisor  # (C,)

    def __call__(self, images: Tensor) -> Tensor:
        """Map (B, H, W, C) pixels from 0 to 255 to (B, C, H, W) float32, as a view of the same order in memory."""
        if images.shape[3] == 1 or not images.is_contiguous():
            return (images * self.factor - self.shift).permute(0, 3, 1, 2)
        W, lines = images.shape[2], images.flatten(2)  # (B, H, WC): longer rows, a fifth of the time on a CPU
        scaled = (lines * self.factor.repeat(W)).sub_(self.shift.repeat(W))
        return scaled.view_as(images).permute(0, 3, 1, 2)


class TrainBatches(EpochBatches[Batch]):
    """Training batches, with order and augmentation from streams keyed by (seed, epoch).

    Samples that do not fill a last batch are dropped, other ones in each epoch.

    Args:
        split: training split.
        scale: normalisation of the images.
        batch_size: number of samples in a batch, at most the size of the split.
        augmentation: augmentation of the images.
        seed: seed of the cell.
        repeats: occurrences of each sample in an epoch, as in `epoch_order`.
        rank: process whose share of each batch is yielded.

    Attributes:
        draws: draws of the epoch on the device of the images, for this process's share of each batch: ``rows`` in the
            image array, ``labels``, and those of the augmentation. An epoch's draws overwrite those of the one before.

    Raises:
        ValueError: batch size that the processes cannot share.
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
        self.draws: EpochDraws = {}

    def __len__(self) -> int:
        return num_batches(len(self.split), batch_size=self.batch_size, repeats=self.repeats)

    def batch(self, index: int | Tensor) -> Batch:
        """Return a batch of the epoch by its index, as of `pick`."""
        return self.make(pick(self.draws, index))

    def make(self, picked: Mapping[str, Tensor]) -> Batch:
        """Return a batch from its draws; its shapes depend on theirs only, and nothing waits for the device.

        Args:
            picked: draws of B samples, as `pick` selects them from ``draws``; those of several seeds whose splits share
                an image array may be concatenated.
        """
        rows = picked["rows"]
        if "down" in picked:
            moves = Draws(picked["down"], picked["right"], picked["flip"])
            images = gather(self.split.images, rows, moves)
        else:
            images = self.split.images[rows]
        if self.augmentation.is_drawn_by_sample:
            images = augment(images, picked)
        return self.scale(images), picked["labels"].clone()  # the next epoch overwrites its draws

    def _draw(self, epoch: int) -> None:
        """Draw the order and augmentation of an epoch, and move them to the device once."""
        order = epoch_order(len(self.split), repeats=self.repeats, seed=self.seed, epoch=epoch)
        H, W, channels = self.split.images.shape[1:]
        generator = epoch_generator(self.seed, "augment", epoch)
        move = draw(self.augmentation.move, len(order), image_side=min(H, W), generator=generator)
        drawn = {} if self.augmentation.move == "none" else {"down": move.down, "right": move.right, "flip": move.flip}
        extra = b""
        if self.augmentation.is_drawn_by_sample:
            by_sample = SampleDraws(self.augmentation, len(order), size=(H, W), seed=self.seed, epoch=epoch)
            drawn |= by_sample.tensors(channels=channels)
            extra = by_sample.tobytes()
        self.hash = epoch_hash(self.split.original_rows[order], move, batch_size=self.batch_size, extra=extra)
        device = self.split.labels.device
        placed = order.to(device)
        drawn |= {"rows": self.split.rows[placed], "labels": self.split.labels[placed]}
        own = self.rank.mirrored(self.batch_size)
        batches = by_batch(drawn, num_batches=len(self), batch_size=self.batch_size, own=own)
        self.draws = refill(self.draws, batches, device)

    def _batches(self, first: int) -> Iterator[Batch]:
        for index in range(first, len(self)):
            yield self.batch(index)


class EvalBatches:
    """Batches of `eval_batch` images of a split, in order, without augmentation.

    Args:
        split: validation or test split.
        scale: normalisation of the images.
        rank: process whose share is yielded: of W processes, each takes every W-th image.
    """

    def __init__(self, split: Split, *, scale: Scale, rank: Rank = Rank()) -> None:  # noqa: B008  # frozen
        self.split = split
        self.scale = scale
        self._own = slice(rank.number, None, rank.world_size)
        H, W, channels = split.images.shape[1:]
        self.batch_size = eval_batch((H, W, channels), split.images.device)

    def __len__(self) -> int:
        return -(-len(self.split.labels[self._own]) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        rows, labels = (torch.split(x[self._own], self.batch_size) for x in (self.split.rows, self.split.labels))
        for batch_rows, batch_labels in zip(rows, labels, strict=True):
            yield self.scale(self.split.images[batch_rows]), batch_labels


def epoch_hash(rows: Tensor, draws: Draws, *, batch_size: int, extra: bytes = b"") -> str:
    """Hash the order and the augmentation of an epoch's samples.

    Args:
        rows: (n,) rows of the data set's part, in the epoch's order, on the CPU.
        draws: augmentation of the n samples, on the CPU.
        batch_size: number of samples in a batch.
        extra: bytes that determine further random draws.
    """
    text = f"{batch_size} ".encode() + rows.numpy().tobytes() + draws.tobytes() + extra
    return hashlib.sha256(text).hexdigest()[:12]

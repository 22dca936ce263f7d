"""Batches of a detector's training: images of like aspect together, at scales drawn by (seed, epoch)."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ablations.data.epoch import EpochBatches, Rank
from ablations.data.objects.annotations import Annotations, Ints
from ablations.data.objects.sample import ImageReader, Target, View, collate, load_view
from ablations.data.order import epoch_order
from ablations.data.streaming import Current
from ablations.data.streams import epoch_generator

ObjectBatch = tuple[list[Tensor], list[Target]]
"""Images (3, H, W) float32 from 0 to 1, each of its own size; targets of the images."""


class ObjectTrainBatches(EpochBatches[ObjectBatch]):
    """Training batches, with order, scales and mirroring from streams keyed by (seed, epoch).

    Portrait images are batched together, and so are the others, in the order drawn; the last batch mixes the rest.
    Samples that do not fill a last batch are dropped, other ones in each epoch.

    Args:
        annotations: annotations of the part.
        read_image: reader of the part's images.
        rows: (n,) rows of the part to train on.
        batch_size: number of images in a batch, at most n.
        sides: values in pixels that an image's shorter side is drawn from.
        longest: limit of an image's longer side, in pixels.
        mirrors: whether images are mirrored left to right with probability 1/2.
        seed: seed of the cell.
        workers: number of decoding processes; the batches do not depend on it.
        device: device of the batches.
        rank: process whose share of each batch is yielded.
        masks: whether the targets have masks.

    Raises:
        ValueError: batch size that the processes cannot share.
    """

    def __init__(
        self,
        *,
        annotations: Annotations,
        read_image: ImageReader,
        rows: Ints,
        batch_size: int,
        sides: Sequence[int],
        longest: int,
        mirrors: bool,
        seed: int,
        workers: int,
        device: torch.device,
        rank: Rank = Rank(),  # noqa: B008  # frozen
        masks: bool = True,
    ) -> None:
        super().__init__(batch_size=batch_size, rank=rank)
        if batch_size % rank.world_size:
            raise ValueError(f"batch_size={batch_size}: must be a multiple of {rank.world_size} (processes)")
        self.rows, self.sides, self.seed = rows, tuple(sides), seed
        self.mirrors, self.device = mirrors, device
        self._is_upright = annotations.heights[rows] > annotations.widths[rows]
        self._views: list[list[View]] = []
        self._drawn = Current[list[View]]()
        read = partial(load_view, read_image=read_image, annotations=annotations, longest=longest, masks=masks)
        self._loader = _load(read, self._drawn, collate, workers=workers)

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def _draw(self, epoch: int) -> None:
        """Draw the order, scales and mirroring of an epoch."""
        n = len(self.rows)
        order = epoch_order(n, repeats=1, seed=self.seed, epoch=epoch).tolist()
        generator = epoch_generator(self.seed, "augment", epoch)
        sides = torch.randint(len(self.sides), (n,), generator=generator).tolist()  # of each sample of the split
        mirrored = (torch.rand(n, generator=generator) < (0.5 if self.mirrors else 0.0)).tolist()
        batches = by_aspect(order, self._is_upright.tolist(), batch_size=self.batch_size)
        self._views = [[View(int(self.rows[i]), self.sides[sides[i]], mirrored[i]) for i in batch] for batch in batches]
        self.hash = hashlib.sha256(repr(self._views).encode()).hexdigest()[:12]

    def _batches(self, first: int) -> Iterator[ObjectBatch]:
        own = slice(self.rank.number, None, self.rank.world_size)
        self._drawn.items = [views[own] for views in self._views[first:]]
        for images, targets in self._loader:
            yield (
                [image.to(self.device, non_blocking=True) for image in images],
                [{name: x.to(self.device, non_blocking=True) for name, x in target.items()} for target in targets],
            )


class ObjectEvalBatches:
    """Images of a split, in order, one at a time and unscaled, so that none is padded to another's size.

    Args:
        annotations: annotations of the part.
        read_image: reader of the part's images.
        rows: (n,) rows of the part to evaluate.
        workers: number of decoding processes.
        device: device of the images.
        rank: process whose share is yielded: of W processes, each takes every W-th image.
    """

    def __init__(
        self,
        *,
        annotations: Annotations,
        read_image: ImageReader,
        rows: Ints,
        workers: int,
        device: torch.device,
        rank: Rank = Rank(),  # noqa: B008  # frozen
    ) -> None:
        self.annotations, self.read_image, self.rows = annotations, read_image, rows
        self.device = device
        read = partial(_read_unscaled, read_image=read_image)
        self._own = [[int(row)] for row in rows[rank.number :: rank.world_size]]
        self._loader = _load(read, self._own, operator.itemgetter(0), workers=workers)

    def __len__(self) -> int:
        return len(self._own)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        for row, image in self._loader:
            yield row, image.to(self.device, non_blocking=True)


def by_aspect(order: Sequence[int], is_upright: Sequence[bool], *, batch_size: int) -> list[list[int]]:
    """Split an order into full batches of one orientation, by the place of their last image; the rest forms one.

    >>> by_aspect([0, 1, 2, 3, 4, 5], [True, False, True, True, False, False], batch_size=2)
    [[0, 2], [1, 4], [3, 5]]
    """
    waiting: dict[bool, list[int]] = {True: [], False: []}
    batches = []
    for i in order:
        group = waiting[is_upright[i]]
        group.append(i)
        if len(group) == batch_size:
            batches.append(group.copy())
            group.clear()
    left = waiting[True] + waiting[False]
    return batches + ([left[:batch_size]] if len(left) >= batch_size else [])


class _Read(Dataset[Any]):
    """Data set of what a function reads, indexed by its argument."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self.read = read

    def __getitem__(self, wanted: Any) -> Any:
        return self.read(wanted)


def _read_unscaled(row: int, read_image: ImageReader) -> tuple[int, Tensor]:
    return row, torch.from_numpy(read_image(row).copy()).permute(2, 0, 1).float() / 255


def _load(
    read: Callable[[Any], Any], batches: Any, collate: Callable[[list[Any]], Any], *, workers: int
) -> DataLoader[Any]:
    return DataLoader(
        _Read(read),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="fork" if workers else None,  # forked workers notice when the cell's process ends
        generator=torch.Generator(),  # of worker seeds, which have no effect; otherwise the global one is used
    )

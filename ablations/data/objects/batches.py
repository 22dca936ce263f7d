"""The batches of a detector's training: images of like aspect together, at scales drawn by (seed, epoch)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ablations.data.epoch import EpochBatches, Rank
from ablations.data.objects.annotations import Annotations, Ints
from ablations.data.objects.sample import Pictures, Target, View, see, whole_batch
from ablations.data.order import epoch_order
from ablations.data.streams import epoch_generator

ObjectBatch = tuple[list[Tensor], list[Target]]
"""Images (3, H, W) float32 of 0 to 1, each of its own size; the objects of each."""


class ObjectTrainBatches(EpochBatches[ObjectBatch]):
    """The batches of an epoch: order, scales and mirroring from streams keyed by (seed, epoch).

    Upright images are batched with upright ones, others with others, in the order drawn; what is left of the two at the
    end is put together. The samples that do not fill a last batch are left out of that epoch; each epoch leaves out
    others.

    Args:
        annotations: of the part.
        pictures: of the part.
        rows: (n,) of the part that are trained on.
        batch_size: images of a batch, at most n.
        sides: pixels, of which each image's shorter side gets one.
        longest: pixels that a longer side may have.
        mirrors: whether half of the images are mirrored, left and right.
        seed: the cell's.
        workers: processes that decode; any number gives the same batches.
        device: of the batches.
        rank: whose part of each batch is given.

    Raises:
        ValueError: batches that the processes cannot share.
    """

    def __init__(
        self,
        *,
        annotations: Annotations,
        pictures: Pictures,
        rows: Ints,
        batch_size: int,
        sides: Sequence[int],
        longest: int,
        mirrors: bool,
        seed: int,
        workers: int,
        device: torch.device,
        rank: Rank = Rank(),  # noqa: B008  # frozen
    ) -> None:
        super().__init__(batch_size=batch_size, rank=rank)
        if batch_size % rank.world_size:
            raise ValueError(f"batches of {batch_size} cannot be shared by {rank.world_size} processes alike")
        self.rows, self.sides, self.seed = rows, tuple(sides), seed
        self.mirrors, self.device = mirrors, device
        self._is_upright = annotations.heights[rows] > annotations.widths[rows]
        self._views: list[list[View]] = []
        self._drawn = _Drawn()
        self._loader = _load(_Views(annotations, pictures, longest), self._drawn, whole_batch, workers=workers)

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def _draw(self, epoch: int) -> None:
        """Draw the order, scales and mirroring of an epoch."""
        n = len(self.rows)
        order = epoch_order(n, repeats=1, seed=self.seed, epoch=epoch).tolist()
        generator = epoch_generator(self.seed, "augment", epoch)
        sides = torch.randint(len(self.sides), (n,), generator=generator).tolist()  # of each sample of the part
        mirrored = (torch.rand(n, generator=generator) < (0.5 if self.mirrors else 0.0)).tolist()
        batches = by_aspect(order, self._is_upright.tolist(), batch_size=self.batch_size)
        self._views = [[View(int(self.rows[i]), self.sides[sides[i]], mirrored[i]) for i in batch] for batch in batches]
        self.hash = hashlib.sha256(repr(self._views).encode()).hexdigest()[:12]

    def _batches(self, first: int) -> Iterator[ObjectBatch]:
        own = slice(self.rank.number, None, self.rank.world_size)
        self._drawn.views = [views[own] for views in self._views[first:]]
        for images, targets in self._loader:
            yield (
                [image.to(self.device, non_blocking=True) for image in images],
                [{name: x.to(self.device, non_blocking=True) for name, x in target.items()} for target in targets],
            )


class ObjectEvalBatches:
    """Images of a split in their order, one by one and as they are, so that none is padded to its neighbours' size.

    Args:
        annotations: of the part.
        pictures: of the part.
        rows: (n,) of the part that are looked at.
        workers: processes that decode.
        device: of the images.
        rank: which images are given: of W processes, each takes every W-th.
    """

    def __init__(
        self,
        *,
        annotations: Annotations,
        pictures: Pictures,
        rows: Ints,
        workers: int,
        device: torch.device,
        rank: Rank = Rank(),  # noqa: B008  # frozen
    ) -> None:
        self.annotations, self.pictures, self.rows = annotations, pictures, rows
        self.device = device
        self._own = [[int(row)] for row in rows[rank.number :: rank.world_size]]
        self._loader = _load(_Plain(pictures), self._own, _only, workers=workers)

    def __len__(self) -> int:
        return len(self._own)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        for row, image in self._loader:
            yield row, image.to(self.device, non_blocking=True)


def by_aspect(order: Sequence[int], is_upright: Sequence[bool], *, batch_size: int) -> list[list[int]]:
    """Part an order into full batches of one aspect, each where its last image comes; at the end, of what is left.

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


class _Views(Dataset[Any]):
    """Gives samples by their views."""

    def __init__(self, annotations: Annotations, pictures: Pictures, longest: int) -> None:
        self.annotations, self.pictures, self.longest = annotations, pictures, longest

    def __getitem__(self, view: View) -> tuple[Tensor, Target]:
        return see(view, self.pictures, self.annotations, longest=self.longest)


class _Plain(Dataset[Any]):
    """Gives images by their rows, as they are."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __getitem__(self, row: int) -> tuple[int, Tensor]:
        return row, torch.from_numpy(self.pictures(row).copy()).permute(2, 0, 1).float() / 255


class _Drawn:
    """The views that the loader is to give, batch by batch, since it keeps its sampler for good."""

    def __init__(self) -> None:
        self.views: list[list[View]] = []

    def __iter__(self) -> Iterator[list[View]]:
        return iter(self.views)

    def __len__(self) -> int:
        return len(self.views)


def _load(dataset: Dataset[Any], batches: Any, collate: Callable[[list[Any]], Any], *, workers: int) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="fork" if workers else None,  # whose children know when the cell is gone
        generator=torch.Generator(),  # of seeds for the workers, who draw nothing; else the global one would be moved
    )


def _only(samples: list[Any]) -> Any:
    return samples[0]

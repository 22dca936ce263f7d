"""Images decoded on demand by worker processes, in an order independent of the workers.

Dimension letters: B batch, H height, W width, C channels.

A request names files and their positions in an epoch. Its result depends only on the request, so any number of workers
gives the same batches. Workers are forked from the cell's process and belong to its process group, so they end with it.
They write images into a ring buffer that the cell reads: allocating memory for each batch costs a tenth of their time,
and nothing has to be transferred.
"""

from __future__ import annotations

import importlib
import math
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ablations.config import UsageError
from ablations.data.files import FileList
from ablations.data.image import allow_large_images, fit, read_image
from ablations.data.info import DataInfo
from ablations.data.location import data_folder
from ablations.data.transforms import Augmentation
from ablations.data.tree import size_error

LARGEST_PIECE, PIECES_AHEAD = 16, 2
"""Largest number of images in a request, small so that workers finish an epoch at about the same time; smallest number
of requests queued for each worker, so that none waits."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Request:
    """Request for images of a part.

    Args:
        part: part of the data set.
        rows: rows of the part's file list.
        epoch: training epoch, from 0; None: evaluation.
        places: position of each image in the epoch.
    """

    part: str
    rows: list[int]
    epoch: int | None
    places: list[int]


class Images:
    """Reader of requested images.

    Args:
        info: description of a streamed data set.
        side: side to which images are resized, in pixels; None: all have one size.
        augmentation: augmentation of training images.
        eval_crop: share of the centred square's side that evaluation keeps.
        seed: seed of the cell.
    """

    def __init__(
        self, info: DataInfo, *, side: int | None, augmentation: Augmentation, eval_crop: float, seed: int
    ) -> None:
        self.root, self.shape, self.side = Path(info.root), info.image_shape, side
        self.augmentation, self.eval_crop, self.seed = augmentation, eval_crop, seed
        if augmentation.is_drawn_by_sample:
            importlib.import_module("torchvision.transforms.v2")  # once, instead of in each worker
        folder = data_folder(info.name, info.fingerprint, streamed=True)
        parts = [part for part in ("train", "val", "test") if (folder / f"{part}_names.npy").exists()]
        self.files = {part: FileList.load(folder, part) for part in parts}

    def read(self, request: Request, out: Tensor | None = None) -> Tensor:
        """Read the requested images: (m, H, W, C) uint8.

        Args:
            request: images to read.
            out: tensor to write to; None: a new one.

        Raises:
            UsageError: unreadable image; the message names its file.
        """
        images = torch.empty(len(request.rows), *self.shape, dtype=torch.uint8) if out is None else out
        for i, (row, place) in enumerate(zip(request.rows, request.places, strict=True)):
            images[i] = torch.from_numpy(self._read(request, row, place))
        return images

    def _read(self, request: Request, row: int, position: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        path = self.files[request.part].path(row)
        image, _ = read_image(self.root / path)
        if self.side is None and (image.height, image.width) != self.shape[:2]:
            raise size_error(str(self.root / path), image.size, like=self.shape[:2])
        if request.epoch is not None:
            image = self.augmentation(image, self.side, seed=self.seed, epoch=request.epoch, position=position)
        elif self.side is not None:
            image = fit(image, self.side, crop=self.eval_crop)
        return np.array(image)


class ImageStream:
    """Stream of requested images, in order, from persistent workers.

    Args:
        images: reader of the images.
        workers: number of decoding processes; 0: the cell's process decodes between its steps.
        batch_size: number of images in a training batch; two batches are decoded during a step.
        largest_batch: number of images in the largest batch.
        device: device of the batches; a GPU receives images from pinned memory.
    """

    def __init__(
        self, images: Images, *, workers: int, batch_size: int, largest_batch: int, device: torch.device
    ) -> None:
        self.device = device
        self._piece = piece_size(batch_size)
        each = max(PIECES_AHEAD, -(-2 * batch_size // (self._piece * workers))) if workers else 0
        self._ring = _Ring(
            each * workers * self._piece, shape=images.shape, largest_batch=max(batch_size, largest_batch)
        )
        self._requests = Current[tuple[Request, int]]()
        self._loader = DataLoader(
            _Writer(images, self._ring.images),
            batch_sampler=self._requests,  # type: ignore[arg-type]  # its items are passed to the data set unchanged
            num_workers=workers,
            collate_fn=lambda answer: answer,  # forked workers need not pickle it
            prefetch_factor=each or None,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,  # forked workers notice when the cell's process ends
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # otherwise the global one is used
        )

    def batches(
        self,
        part: str,
        rows: Tensor,
        *,
        batch_size: int,
        epoch: int | None,
        drop_last: bool,
        places: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Yield batches (B, H, W, C) uint8 on the device; each is overwritten after the next is requested.

        Args:
            part: part of the data set.
            rows: (n,) rows of the part's file list, in order.
            batch_size: number of images in a batch.
            epoch: training epoch, from 0; None: evaluation.
            drop_last: whether an incomplete last batch is dropped.
            places: (n,) positions of the images in the epoch; None: their order.

        Raises:
            UsageError: unreadable image; the message names its file.
        """
        stop = len(rows) // batch_size * batch_size if drop_last else len(rows)
        where = torch.arange(len(rows)) if places is None else places
        sizes = [min(batch_size, stop - start) for start in range(0, stop, batch_size)]
        slots = [self._ring.take(size) for size in sizes]
        self._requests.items = (
            (Request(part, rows[piece].tolist(), epoch, where[piece].tolist()), slot + piece.start - start)
            for start, size, slot in zip(range(0, stop, batch_size), sizes, slots, strict=True)
            for first in range(start, start + size, self._piece)
            for piece in [slice(first, min(first + self._piece, start + size))]
        )
        answers = iter(self._loader)
        for size, slot in zip(sizes, slots, strict=True):
            for _ in range(0, size, self._piece):
                if (problem := next(answers)) is not None:
                    raise UsageError(problem)
            yield self._moved(self._ring.images[slot : slot + size])

    def close(self) -> None:
        """End the workers."""
        iterator = self._loader._iterator
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):  # torch 2.14 has no public method
            iterator._shutdown_workers()
        self._loader._iterator = None

    def _moved(self, images: Tensor) -> Tensor:
        if self.device.type == "cuda":
            return images.pin_memory().to(self.device, non_blocking=True)
        return images.to(self.device)


def piece_size(batch_size: int) -> int:
    """Return the number of images in a request: that of equal parts of a batch, since workers take turns.

    >>> piece_size(64), piece_size(100), piece_size(5)
    (16, 15, 5)
    """
    return -(-batch_size // -(-batch_size // LARGEST_PIECE))


class _Ring:
    """Ring buffer of batches, in memory shared with workers that are forked later.

    ``ahead`` is the number of images requested before the current batch is released.
    """

    def __init__(self, ahead: int, *, shape: tuple[int, ...], largest_batch: int) -> None:
        # Besides the images ahead: the current batch, the one being filled, and the unused rest at the end.
        self._size = ahead + 3 * largest_batch
        memory = mmap.mmap(-1, self._size * math.prod(shape))  # not in /dev/shm, which is small in containers
        self.images = torch.frombuffer(memory, dtype=torch.uint8).view(self._size, *shape)
        self._next = 0

    def take(self, size: int) -> int:
        """Return the position of the next batch."""
        place = self._next if self._next + size <= self._size else 0
        self._next = place + size
        return place


class _Writer(Dataset[None]):
    """Data set that answers a request by writing its images, or with a one-line error that names the file.

    The error is returned, not raised: a loader hides the message of a worker's exception in a traceback.
    """

    def __init__(self, images: Images, ring: Tensor) -> None:
        self._images, self._ring = images, ring

    def __getitems__(self, wanted: tuple[Request, int]) -> str | None:
        request, place = wanted
        try:
            self._images.read(request, self._ring[place : place + len(request.rows)])
        except UsageError as error:
            return str(error)
        return None


class Current(Generic[Item]):
    """Sampler of the current items, since a loader keeps its sampler for its lifetime."""

    def __init__(self) -> None:
        self.items: Iterable[Item] = ()

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


def _begin_worker(_: int) -> None:
    allow_large_images()

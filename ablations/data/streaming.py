"""Images decoded as they are needed, by worker processes, in an order that they do not decide.

Dimension letters: B batch, H height, W width, C channels.

A request says which files are wanted and for which place in which epoch; what comes of it depends on that alone, so
that any number of workers gives the same batches. Workers are forked from the cell's process and are in its process
group, so that they end with it. They write images where the cell reads them, in one piece of memory that goes round:
new memory for each batch costs them a tenth of their time, and nothing has to be handed over.
"""

from __future__ import annotations

import importlib
import math
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from ablations.data.tree import another_size

LARGEST_PIECE, PIECES_AHEAD = 16, 2
"""Images of a request at most, few so that workers end an epoch at about the same time; requests that each worker has
before it at least, so that none waits."""


@dataclass(frozen=True)
class Request:
    """Some images of a part.

    Args:
        part: of the data set.
        rows: in the part's list of files.
        epoch: of training, from 0; None: as evaluation sees them.
        places: of each in the epoch.
    """

    part: str
    rows: list[int]
    epoch: int | None
    places: list[int]


class Images:
    """Reads requests.

    Args:
        info: of a streamed data set.
        side: pixels to which images are brought; None: they have one size already.
        augmentation: of training images.
        eval_crop: share of the side of the centred square that evaluation sees.
        seed: the cell's.
    """

    def __init__(
        self, info: DataInfo, *, side: int | None, augmentation: Augmentation, eval_crop: float, seed: int
    ) -> None:
        self.root, self.shape, self.side = Path(info.root), info.image_shape, side
        self.augmentation, self.eval_crop, self.seed = augmentation, eval_crop, seed
        if augmentation.is_drawn_by_sample:
            importlib.import_module("torchvision.transforms.v2")  # once, and not in each worker
        folder = data_folder(info.name, info.fingerprint, streamed=True)
        parts = [part for part in ("train", "val", "test") if (folder / f"{part}_names.npy").exists()]
        self.files = {part: FileList.load(folder, part) for part in parts}

    def read(self, request: Request, out: Tensor | None = None) -> Tensor:
        """Read the images of a request: (m, H, W, C) uint8.

        Args:
            request: which.
            out: where they are written; None: into memory of their own.

        Raises:
            UsageError: one of them cannot be read; the message names its file.
        """
        images = torch.empty(len(request.rows), *self.shape, dtype=torch.uint8) if out is None else out
        for i, (row, place) in enumerate(zip(request.rows, request.places, strict=True)):
            images[i] = torch.from_numpy(self._read(request, row, place))
        return images

    def _read(self, request: Request, row: int, position: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        path = self.files[request.part].path(row)
        image, _ = read_image(self.root / path)
        if self.side is None and (image.height, image.width) != self.shape[:2]:
            raise another_size(str(self.root / path), image.size, like=self.shape[:2])
        if request.epoch is not None:
            image = self.augmentation(image, self.side, seed=self.seed, epoch=request.epoch, position=position)
        elif self.side is not None:
            image = fit(image, self.side, crop=self.eval_crop)
        return np.array(image)


class ImageStream:
    """Serves requests in their order, with workers that stay from epoch to epoch.

    Args:
        images: that answers them.
        workers: processes that decode; 0: the cell's own does, between its steps.
        batch_size: images of a training batch; two of them are decoded while a step runs.
        largest_batch: images of the largest batch of all.
        device: to which images are moved, from pinned memory where it is a GPU.
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
        self._requests = _Requests()
        self._loader = DataLoader(
            _Writer(images, self._ring.images),
            batch_sampler=self._requests,  # type: ignore[arg-type]  # what it gives goes to the data set as it is
            num_workers=workers,
            collate_fn=_as_it_is,
            prefetch_factor=each or None,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,  # whose children know when the cell is gone
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # else it draws from the global one
        )

    def batches(
        self,
        part: str,
        rows: Tensor,
        *,
        batch_size: int,
        epoch: int | None,
        whole: bool,
        places: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Give batches (B, H, W, C) uint8, on the device; each is overwritten after the next has been asked for.

        Args:
            part: of the data set.
            rows: (n,) in the part's list, in their order.
            batch_size: images of a batch.
            epoch: of training, from 0; None: as evaluation sees them.
            whole: whether a last batch that is not full is left out.
            places: (n,) of the images in the epoch; None: their order.

        Raises:
            UsageError: an image that cannot be read; the message names its file.
        """
        stop = len(rows) // batch_size * batch_size if whole else len(rows)
        where = torch.arange(len(rows)) if places is None else places
        sizes = [min(batch_size, stop - start) for start in range(0, stop, batch_size)]
        slots = [self._ring.take(size) for size in sizes]
        self._requests.current = (
            (
                Request(part, rows[piece].tolist(), epoch, where[piece].tolist()),
                slot + piece.start - start,
            )
            for start, size, slot in zip(range(0, stop, batch_size), sizes, slots, strict=True)
            for piece in _pieces(start, start + size, self._piece)
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
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):  # torch 2.14 has no public way
            iterator._shutdown_workers()
        self._loader._iterator = None

    def _moved(self, images: Tensor) -> Tensor:
        if self.device.type == "cuda":
            return images.pin_memory().to(self.device, non_blocking=True)
        return images.to(self.device)


def piece_size(batch_size: int) -> int:
    """Return the images of a request: of the equal parts of a batch, since workers take turns.

    >>> piece_size(64), piece_size(100), piece_size(5)
    (16, 15, 5)
    """
    return -(-batch_size // -(-batch_size // LARGEST_PIECE))


def _pieces(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, stop)) for first in range(start, stop, size))


class _Ring:
    """Memory shared with workers that are forked later, in which batches lie one after another, round and round.

    Args:
        ahead: images that are asked for before the batch in hand is given back.
        shape: of an image, (H, W, C).
        largest_batch: images of the largest batch.
    """

    def __init__(self, ahead: int, *, shape: tuple[int, ...], largest_batch: int) -> None:
        # Beside what is ahead: the batch in hand, the one that is being filled, and what is left over at the end.
        self._size = ahead + 3 * largest_batch
        memory = mmap.mmap(-1, self._size * math.prod(shape))  # not of /dev/shm, which containers keep small
        self.images = torch.frombuffer(memory, dtype=torch.uint8).view(self._size, *shape)
        self._next = 0

    def take(self, size: int) -> int:
        """Return the place of the next batch."""
        place = self._next if self._next + size <= self._size else 0
        self._next = place + size
        return place


class _Writer(Dataset[None]):
    """Answers a request by writing its images; with one line if that fails, which names the file.

    The line is returned and not raised, for a loader hides the message of what a worker raises within a traceback.
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


class _Requests:
    """What the loader asks its workers for: the requests of the moment, since it keeps its sampler for good."""

    def __init__(self) -> None:
        self.current: Iterable[tuple[Request, int]] = ()

    def __iter__(self) -> Iterator[tuple[Request, int]]:
        return iter(self.current)


def _as_it_is(answer: Any) -> Any:
    return answer


def _begin_worker(_: int) -> None:
    allow_large_images()

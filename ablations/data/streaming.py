"""Images decoded as they are needed, by worker processes, in an order that they do not decide.

Dimension letters: B batch, H height, W width, C channels.

A request says which files are wanted and for which place in which epoch; what comes of it depends on that alone, so
that any number of workers gives the same batches. Workers are forked from the cell's process and are in its process
group, so that they end with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ablations.data.files import FileList
from ablations.data.image import allow_large_images, fit, read_image
from ablations.data.info import DataInfo
from ablations.data.location import data_folder
from ablations.data.transforms import Augmentation
from ablations.data.tree import another_size
from ablations.study import UsageError

LARGEST_PIECE, SMALLEST_PIECE, PIECES_EACH = 128, 16, 8
"""Images of a request, and requests of an epoch that each worker gets at least where it can: large pieces are handed
over with fewer copies, and with small ones the workers end an epoch at about the same time."""


@dataclass(frozen=True)
class Request:
    """Some images of a part.

    Args:
        part: of the data set.
        rows: in the part's list of files.
        epoch: of training, from 0; None: as evaluation sees them.
        first: place of the first in the epoch.
    """

    part: str
    rows: list[int]
    epoch: int | None
    first: int


class Images(Dataset[Tensor]):
    """Answers a request: (m, H, W, C) uint8, or one line that says which file cannot be read.

    The line is returned and not raised, for a loader hides the message of what a worker raises within a traceback.

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

    def __getitems__(self, request: Request) -> Tensor | str:
        """Read the images of a request."""
        images = torch.empty(len(request.rows), *self.shape, dtype=torch.uint8)
        try:
            for i, row in enumerate(request.rows):
                images[i] = torch.from_numpy(self._read(request, row, request.first + i))
        except UsageError as error:
            return str(error)
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
        epoch_size: images of an epoch.
        device: to which images are moved, from pinned memory where it is a GPU.
    """

    def __init__(self, images: Images, *, workers: int, batch_size: int, epoch_size: int, device: torch.device) -> None:
        self.device = device
        self._piece = piece_size(batch_size, epoch_size=epoch_size, workers=workers)
        self._requests = _Requests()
        self._loader = DataLoader(
            images,
            batch_sampler=self._requests,  # type: ignore[arg-type]  # what it gives goes to the data set as it is
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=device.type == "cuda",
            prefetch_factor=1 + -(-2 * batch_size // (self._piece * workers)) if workers else None,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,  # whose children know when the cell is gone
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # else it draws from the global one
        )

    def batches(self, part: str, rows: Tensor, *, batch_size: int, epoch: int | None, whole: bool) -> Iterator[Tensor]:
        """Give batches (B, H, W, C) uint8, on the device.

        Args:
            part: of the data set.
            rows: (n,) in the part's list, in their order.
            batch_size: images of a batch.
            epoch: of training, from 0; None: as evaluation sees them.
            whole: whether a last batch that is not full is left out.

        Raises:
            UsageError: an image that cannot be read; the message names its file.
        """
        stop = len(rows) // batch_size * batch_size if whole else len(rows)
        starts = range(0, stop, batch_size)
        self._requests.current = (
            Request(part, rows[first : min(first + self._piece, start + batch_size, stop)].tolist(), epoch, first)
            for start in starts
            for first in range(start, min(start + batch_size, stop), self._piece)
        )
        answers = iter(self._loader)
        for start in starts:
            count = min(stop, start + batch_size) - start
            pieces = [self._take(answers) for _ in range(0, count, self._piece)]
            yield pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def close(self) -> None:
        """End the workers."""
        iterator = self._loader._iterator
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):  # torch 2.14 has no public way
            iterator._shutdown_workers()
        self._loader._iterator = None

    def _take(self, answers: Iterator[Tensor | str]) -> Tensor:
        answer = next(answers)
        if isinstance(answer, str):
            raise UsageError(answer)
        return answer.to(self.device, non_blocking=True)


def piece_size(batch_size: int, *, epoch_size: int, workers: int) -> int:
    """Return the images of a request: of the equal parts of a batch, since workers take turns.

    >>> piece_size(64, epoch_size=10**6, workers=2), piece_size(64, epoch_size=640, workers=2)
    (64, 32)
    """
    most = min(LARGEST_PIECE, max(SMALLEST_PIECE, epoch_size // (PIECES_EACH * max(1, workers))))
    return -(-batch_size // -(-batch_size // most))


class _Requests:
    """What the loader asks its workers for: the requests of the moment, since it keeps its sampler for good."""

    def __init__(self) -> None:
        self.current: Iterable[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.current)


def _as_it_is(answer: Any) -> Any:
    return answer


def _begin_worker(_: int) -> None:
    allow_large_images()

"""Images that two splits of a data set share: equal pixels if they are decoded, otherwise files of equal bytes."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ablations.config import UsageError
from ablations.data.files import shown

SAMPLE_BYTES = 4096
"""Number of bytes, from the middle of a file, that are compared before the whole file."""

READERS, BATCH = 16, 4096
"""Number of threads that read files: they wait for the disk; number of files that are given to them at once."""

BLOCK_BYTES = 2**18
"""Size of a read of a whole file: a thread holds no more of it."""

Ints = npt.NDArray[np.int64]

Splits = Mapping[str, tuple[str, Ints]]
"""Part, and rows (n,) in the part, of each split, in the order train, val, test."""


class Files(Protocol):
    """Files of a part."""

    @property
    def sizes(self) -> Ints:
        """(n,) size of each file, in bytes."""

    def path(self, row: int) -> str:
        """Return the path of a file below the root."""


def assign(counts: Mapping[str, int], val_rows: Ints | None) -> dict[str, tuple[str, Ints]]:
    """Return the part and rows of each split.

    Args:
        counts: number of images in each part.
        val_rows: (n,) rows of train that are validation; None: the data set has a part ``val``.
    """
    rows = {part: np.arange(count) for part, count in counts.items()}
    parts = {split: split for split in rows}
    if val_rows is not None:
        rows |= {"train": np.setdiff1d(rows["train"], val_rows, assume_unique=True), "val": val_rows}
        parts["val"] = "train"
    return {split: (parts[split], rows[split]) for split in ("train", "val", "test")}


def equal_pixels(
    images: Mapping[str, npt.NDArray[np.uint8]], splits: Splits, *, name: Callable[[str, int], str]
) -> list[str]:
    """Return a line for each pair of splits that share images, by their pixels.

    Args:
        images: (n, height, width, channels) images of each part.
        splits: part and rows of each split.
        name: function from part and row to the name of an image.

    >>> images = {part: np.zeros((1, 2, 2, 1), np.uint8) for part in ("train", "val", "test")}
    >>> images["val"][0] = 1
    >>> splits = assign({"train": 1, "val": 1, "test": 1}, None)
    >>> equal_pixels(images, splits, name=lambda part, row: f"{part}/{row}.png")
    ['leak from train to test: 1 of 1 images with equal pixels, first test/0.png and train/0.png']
    """
    keys = {
        part: _numbers(hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in own)
        for part, own in images.items()
    }
    return _lines(keys, splits, "equal pixels", name)


def equal_files(root: Path, files: Mapping[str, Files], splits: Splits) -> list[str]:
    """Return a line for each pair of splits that share images, by the bytes of their files.

    Of files whose size is found in two splits, `SAMPLE_BYTES` are read, and the whole of those that agree in them.

    Args:
        root: folder of the files.
        files: files of each part.
        splits: part and rows of each split.

    Raises:
        UsageError: unreadable file.
    """
    keys = {part: np.array(own.sizes) for part, own in files.items()}
    with ThreadPoolExecutor(READERS) as pool:
        for is_whole in (False, True):
            shared = _in_two_splits(keys, splits)
            for part, own in files.items():
                rows = np.flatnonzero(np.isin(keys[part], shared))
                for start in range(0, len(rows), BATCH):
                    batch = rows[start : start + BATCH]
                    paths = [os.path.join(root, own.path(row)) for row in batch.tolist()]  # noqa: PTH118  # a million
                    keys[part][batch] = _numbers(pool.map(lambda path, whole=is_whole: _read(path, whole), paths))
    return _lines(keys, splits, "equal files", lambda part, row: shown(files[part].path(row)))


def _numbers(digests: Iterable[bytes]) -> Ints:
    """Keep 64 bits of each digest: among ten million, any two different ones agree with probability 3e-6."""
    return np.frombuffer(b"".join(digest[:8] for digest in digests), dtype=np.int64)


def _read(path: str, is_whole: bool) -> bytes:
    """Return the digest of the size of a file and a sample, or of its whole content."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # Path objects are slow for a million paths
            digest = hashlib.sha256()
            if is_whole:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
                return digest.digest()
            size = os.fstat(file.fileno()).st_size
            digest.update(str(size).encode())
            digest.update(os.pread(file.fileno(), SAMPLE_BYTES, max(0, size - SAMPLE_BYTES) // 2))
            return digest.digest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; repair or remove it") from error


def _in_two_splits(keys: Mapping[str, Ints], splits: Splits) -> Ints:
    own = [np.unique(keys[part][rows]) for part, rows in splits.values()]
    values, counts = np.unique(np.concatenate(own), return_counts=True)
    return values[counts > 1]


def _lines(keys: Mapping[str, Ints], splits: Splits, what: str, name: Callable[[str, int], str]) -> list[str]:
    lines = []
    for one, other in itertools.combinations(splits, 2):
        (part, rows), (other_part, other_rows) = splits[one], splits[other]
        is_shared = np.isin(keys[other_part][other_rows], keys[part][rows])
        if is_shared.any():
            row = int(other_rows[is_shared.argmax()])
            twin = int(rows[(keys[part][rows] == keys[other_part][row]).argmax()])
            example = f"{name(other_part, row)} and {name(part, twin)}"
            count = f"{is_shared.sum():,} of {len(other_rows):,} images"
            lines.append(f"leak from {one} to {other}: {count} with {what}, first {example}")
    return lines

"""File lists of data set parts: a million files take some tens of MB."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ablations.config import UsageError
from ablations.data.cached_files import load_array

CLUTTER = ("__MACOSX", "@eaDir")
"""Folders that macOS adds to archives and Synology's systems to folders; a leading dot marks all others."""

CLUTTER_FILES = "hidden and system files"
"""Name of clutter in notes."""


@dataclass(frozen=True)
class FileList:
    """Files with their labels; memory-mapped if loaded from the cache.

    Args:
        names: bytes of all paths below the root, concatenated.
        ends: (n,) end of each path in ``names``.
        labels: (n,) label of each file.
        sizes: (n,) size of each file, in bytes.
    """

    names: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def path(self, row: int) -> str:
        """Return the path of a file below the root."""
        start = int(self.ends[row - 1]) if row else 0
        return os.fsdecode(self.names[start : int(self.ends[row])].tobytes())

    def paths(self) -> Iterator[str]:
        """Yield the path of each file below the root."""
        return (self.path(row) for row in range(len(self)))

    def difference(self, other: FileList) -> str | None:
        """Return the name of the first array in which another list differs, or None if it is equal."""
        names = [field.name for field in fields(self)]
        return next((n for n in names if not np.array_equal(getattr(self, n), getattr(other, n))), None)

    def save(self, folder: Path, part: str) -> None:
        """Save the list as ``<part>_{names,ends,labels,sizes}.npy``."""
        for field in fields(self):
            np.save(folder / f"{part}_{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path, part: str) -> FileList:
        """Memory-map a list that `save` wrote; processes share the memory.

        Raises:
            DamagedFile: it cannot be read.
        """
        return cls(*(load_array(folder / f"{part}_{field.name}.npy", mapped=True) for field in fields(cls)))


class FileListBuilder:
    """Builder of a `FileList`, which holds each file in a few dozen bytes."""

    def __init__(self) -> None:
        self._names = bytearray()
        self._ends, self._labels, self._sizes = array("q"), array("q"), array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, path: str, *, label: int, size: int) -> None:
        """Add a file.

        Args:
            path: path below the root, with slashes.
            label: label of its class.
            size: size in bytes.
        """
        self._names += os.fsencode(path)
        self._ends.append(len(self._names))
        self._labels.append(label)
        self._sizes.append(size)

    def build(self) -> FileList:
        """Return the list of the added files."""
        ends, labels, sizes = (np.array(column, dtype=np.int64) for column in (self._ends, self._labels, self._sizes))
        return FileList(np.frombuffer(bytes(self._names), dtype=np.uint8), ends, labels, sizes)


def is_clutter(name: str) -> bool:
    """Tell whether a file or folder is left by a system or an editor, and holds no data.

    >>> [is_clutter(name) for name in ("._0.png", ".ipynb_checkpoints", "__MACOSX", "@eaDir", "0.png")]
    [True, True, True, True, False]
    """
    return name.startswith(".") or name in CLUTTER


def walk(
    folder: str, clutter: list[str], *, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[os.DirEntry[str]]:
    """Yield every file below a folder, sorted by name within each folder.

    Args:
        folder: path of the folder.
        clutter: list that receives the path of each file and folder that is left out (`is_clutter`).
        above: device and inode of each folder that the walk is in.

    Raises:
        UsageError: folder that links lead back to.
    """
    status = os.stat(folder)  # noqa: PTH116  # as entries are
    own = status.st_dev, status.st_ino
    if own in above:
        raise UsageError(f"{folder} is within itself: links lead in a circle; remove the link")
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if is_clutter(entry.name):
            clutter.append(entry.path)
        elif entry.is_dir():
            yield from walk(entry.path, clutter, above=above | {own})
        else:
            yield entry


def file_size(entry: os.DirEntry[str]) -> int:
    """Return the size of a file in bytes.

    Raises:
        UsageError: broken link, or no regular file: reading a pipe would block.
    """
    try:
        status = entry.stat()
    except OSError as error:
        raise UsageError(f"{entry.path} cannot be read: {error.strerror}; repair or remove it") from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{entry.path} cannot be read: it is not a regular file; repair or remove it")
    return status.st_size


def note_ignored(folder: str, paths: dict[str, list[str]], notes: list[str]) -> None:
    """Add a note on each kind of ignored files and folders, with their paths by kind."""
    for what, own in paths.items():
        if own:
            notes.append(f"{folder}/: ignored {what}: {len(own)}, first {shown(own[0])}")


def shown(path: str | Path) -> str:
    """Format a path for display, with a question mark for each undecodable byte."""
    return os.fsencode(path).decode(errors="replace")

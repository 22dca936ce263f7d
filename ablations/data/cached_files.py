"""Opening files of the cache: whatever is wrong with one is said in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.config import UsageError


class DamagedFile(UsageError):
    """Report a damaged file of the cache.

    Args:
        path: path of the file.
        problem: what is wrong with it.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"{self.path} in the cache cannot be used: {self.problem}; give the command again, which replaces it"


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of reading a file of the cache into one line.

    Parsers raise nearly anything at a damaged file, as numpy does ``TokenError`` and ``MemoryError`` at a header.

    Args:
        path: path of the file.

    Raises:
        DamagedFile: the file is missing, is no regular file, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise DamagedFile(path, "it is not a regular file")
        yield
    except DamagedFile:
        raise
    except Exception as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DamagedFile(path, (said or type(error).__name__).splitlines()[0]) from error


def load_array(path: Path, *, mapped: bool = False) -> npt.NDArray[Any]:
    """Load an array of the cache.

    Args:
        path: path of the ``.npy`` file.
        mapped: whether it is memory-mapped, read-only, so that processes share the memory.

    Raises:
        DamagedFile: the file cannot be read.
    """
    with reading(path):
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None)
        return array

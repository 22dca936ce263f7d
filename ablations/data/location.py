"""Where decoded data lie: one folder per machine, one in it for each data set."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablations.config import UsageError

VERSION = 2
"""Of decoding and of the cut of validation: another one decodes anew. It does not enter a cell's id, since a change
makes every finished cell stale. 2: the orientation that a camera notes (EXIF) is applied."""


def cache_root() -> Path:
    """Return the folder of decoded data: ``ABLATIONS_CACHE``, or ``ablations`` in the user's cache folder."""
    if folder := os.environ.get("ABLATIONS_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ablations"


def cached(fingerprint: str) -> list[Path]:
    """Return the folders of a data set's decoded data, and of its list of files where it is streamed."""
    return sorted(cache_root().glob(f"*-{fingerprint}-v*"))


def data_folder(name: str, fingerprint: str, *, streamed: bool) -> Path:
    """Return the folder of a data set in the cache.

    Args:
        name: as configurations have it.
        fingerprint: of the files.
        streamed: whether it holds the list of files instead of the images.
    """
    return cache_root() / f"{name.partition(':')[0]}-{fingerprint}-v{VERSION}{'-streamed' * streamed}"


@contextmanager
def filled(folder: Path) -> Iterator[Path]:
    """Give a folder to be filled, which then takes the place of the one that is wanted, whole, or is removed.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    except OSError as error:
        raise UsageError(f"the cache {folder.parent} cannot be written: {error}; set ABLATIONS_CACHE") from error
    try:
        yield scratch
        scratch.rename(folder)
    except OSError as error:
        if not (folder / "info.json").exists():  # else another process wrote the same data first
            raise UsageError(f"the cache {folder} cannot be written: {error}; set ABLATIONS_CACHE") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

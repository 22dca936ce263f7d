"""Where decoded data lie: one folder per machine, one in it for each data set."""

from __future__ import annotations

import os
from pathlib import Path

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

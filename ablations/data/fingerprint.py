"""Fingerprints of image files: hashes of their paths, with their contents or sizes."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ablations.config import UsageError
from ablations.config.paths import real_path
from ablations.data.cached_files import DamagedFile, reading
from ablations.data.files import FileList
from ablations.data.location import SCRATCH, cache_root

LOG = logging.getLogger(__name__)

MIN_AGE_NS = 2 * 10**9
"""Smallest age of a file whose digest is cached: file times have a grain of milliseconds (two seconds on FAT), so a
second change soon after the first can leave them unchanged."""

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, times of content and status change (ns): a change of the file changes one of them."""

DIGEST_BYTES = 32


def of_sizes(parts: Mapping[str, FileList], *, image_size: int | None) -> str:
    """Hash paths and sizes, without reading the files.

    Data sets that differ only in pixels get the same hash: compressed images rarely agree in every size.
    """
    digest = _begin(image_size)
    for part, files in sorted(parts.items()):
        for column in (files.names, files.ends, files.labels, files.sizes):
            digest.update(f"{part} {len(column)} ".encode() + column.tobytes())
    return digest.hexdigest()[:16]


def of_contents(parts: Mapping[str, FileList], *, root: Path, image_size: int | None) -> str:
    """Hash paths and contents. A file is read once: its digest is cached until the file changes.

    Raises:
        UsageError: unreadable file.
    """
    digest = _begin(image_size)
    kept = _Digests(root)
    for part, files in sorted(parts.items()):
        for path, content in zip(files.paths(), kept.of_files(files), strict=True):
            digest.update(f"{part} {path} ".encode(errors="surrogateescape") + content)
    kept.save()
    return digest.hexdigest()[:16]


class _Digests:
    """Cached digests of a data set's files, keyed by file status: an unchanged file is not read again."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        name = hashlib.sha256(os.fsencode(real_path(root))).hexdigest()[:16]
        self._place = cache_root() / "digests" / f"{name}.npz"
        self._known = self._load()
        self._used: dict[Stamp, bytes] = {}
        self._now = time.time_ns()

    def of_files(self, files: FileList) -> Iterator[bytes]:
        """Yield the digest of each file."""
        paths = [f"{self._root}/{path}" for path in files.paths()]
        stamps = [_stamp(path) for path in paths]
        unread = [path for path, stamp in zip(paths, stamps, strict=True) if stamp not in self._known]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            read = pool.map(_digest, unread)
            for stamp in stamps:
                content = self._known[stamp] if stamp in self._known else next(read)
                self._used[stamp] = content
                yield content

    def save(self) -> None:
        """Save the digests; if the cache cannot be written, the files are read again next time."""
        old = {stamp: digest for stamp, digest in self._used.items() if max(stamp[3:]) < self._now - MIN_AGE_NS}
        if not old or old.keys() == self._known.keys():
            return
        stamps = np.array(list(old), dtype=np.uint64)
        digests = np.frombuffer(b"".join(old.values()), dtype=np.uint8).reshape(-1, DIGEST_BYTES)
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=cache_root()) as scratch:
                path = Path(scratch) / self._place.name
                np.savez(path, stamps=stamps, digests=digests)
                path.replace(self._place)
        except OSError:
            return

    def _load(self) -> dict[Stamp, bytes]:
        if not os.path.lexists(self._place):
            return {}
        try:
            with reading(self._place), np.load(self._place) as kept:
                stamps, digests = kept["stamps"], kept["digests"]
                if stamps.shape != (len(digests), 5) or digests.shape[1:] != (DIGEST_BYTES,):
                    raise ValueError("its arrays have other shapes")
                stamps = stamps.tolist()
                return {tuple(stamp): digest.tobytes() for stamp, digest in zip(stamps, digests, strict=True)}
        except DamagedFile as damage:
            LOG.warning("%s cannot be read, so every image is read again: %s", self._place, damage.problem)
            return {}


def _begin(image_size: int | None) -> hashlib._Hash:
    return hashlib.sha256(f"image_size {image_size}\n".encode())


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)  # noqa: PTH116  # Path objects are slow for a million paths
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; repair or remove it") from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest(path: str) -> bytes:
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; repair or remove it") from error

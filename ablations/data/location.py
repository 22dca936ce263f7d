"""Location of the cache: one folder per machine, with one folder per data set."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablations.config import UsageError

VERSION = 2
"""Version of decoding and of the validation cut; another one decodes again. It is not part of a cell's id, since a
change makes every finished cell stale. 2: the EXIF orientation is applied."""

ANNOTATIONS_VERSION = {"coco": 3}
"""Version of the reader of annotations, for the kinds that have them in files; another one reads them again."""

SCRATCH = ".partial-"
"""Prefix of the folders of unfinished entries."""

LOCK = "lock"
"""File in the folder of an unfinished entry, which the process that fills it holds locked."""

ABANDONED_S = 24 * 60 * 60
"""Age at which an unfinished entry that no process fills is removed, in seconds."""


def cache_root() -> Path:
    """Return the cache folder: ``ABLATIONS_CACHE``, or ``ablations`` in the user's cache folder."""
    if folder := os.environ.get("ABLATIONS_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ablations"


def cached(fingerprint: str) -> list[Path]:
    """Return the cache folders of a data set: decoded images and, if it is streamed, file lists."""
    own = re.compile(rf".+-{re.escape(fingerprint)}-v[0-9.]+(-streamed)?")  # a study's text: no pattern, no path
    return sorted(path for path in cache_root().glob("*") if own.fullmatch(path.name))


def data_folder(name: str, fingerprint: str, *, streamed: bool) -> Path:
    """Return the folder of a data set in the cache.

    Args:
        name: name in configurations.
        fingerprint: hash of the files.
        streamed: whether it holds file lists instead of images.
    """
    kind = name.partition(":")[0]
    version = f"{VERSION}.{ANNOTATIONS_VERSION[kind]}" if kind in ANNOTATIONS_VERSION else str(VERSION)
    return cache_root() / f"{kind}-{fingerprint}-v{version}{'-streamed' * streamed}"


@contextmanager
def filled(folder: Path, *, is_replaced: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill, then rename it to ``folder``; remove it if that fails.

    Args:
        folder: folder in the cache.
        is_replaced: whether there is such a folder, whose files are then replaced one by one. Each is renamed, so that
            other runs find it at every moment, and keep what they have mapped.

    Raises:
        UsageError: unwritable cache, or a file elsewhere that cannot be read while the folder is filled.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.parent)
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder.parent))
        entry = scratch / "entry"  # with the permissions that the user gives new folders, as `mkdtemp` does not
        entry.mkdir()
    except OSError as error:
        raise UsageError(f"the cache {folder.parent} cannot be written: {error}; set ABLATIONS_CACHE") from error
    try:
        with _locked(scratch):
            yield entry
            if is_replaced:
                _replace(entry, folder, old=scratch)
            else:
                entry.rename(folder)
    except OSError as error:
        if error.filename is not None and not _is_within(error.filename, folder.parent):
            raise UsageError(f"{os.fsdecode(error.filename)} cannot be read: {error.strerror}") from error
        if is_replaced or not (folder / "info.json").exists():  # else another process wrote the same data first
            raise UsageError(f"the cache {folder} cannot be written: {error}; set ABLATIONS_CACHE") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_within(path: str | bytes | int, folder: Path) -> bool:
    """Tell whether an error's file is in a folder; a descriptor is of a file that is open, which might be anywhere."""
    return isinstance(path, int) or Path(os.fsdecode(path)).is_relative_to(folder)


def _replace(entry: Path, folder: Path, *, old: Path) -> None:
    """Move the files of an entry to its folder, and folders in their places to the folder ``old``."""
    if not folder.is_dir():
        folder.unlink(missing_ok=True)
        entry.rename(folder)
        return
    for number, path in enumerate(sorted(entry.iterdir())):
        target = folder / path.name
        if target.is_dir() and not target.is_symlink():
            target.rename(old / f".{number}")
        path.replace(target)


@contextmanager
def _locked(scratch: Path) -> Iterator[bool]:
    """Lock the folder of an unfinished entry; yield whether it could be locked."""
    with (scratch / LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_locked = True
        except OSError:  # another process fills it, or the file system has no locks
            is_locked = False
        yield is_locked


def _remove_abandoned(root: Path) -> None:
    """Remove what killed processes have left: unfinished entries that none fills, with nothing written for a day."""
    for scratch in root.glob(f"{SCRATCH}*"):
        try:
            newest = max(path.stat().st_mtime for path in (scratch, *scratch.rglob("*")))
            if newest > time.time() - ABANDONED_S:
                continue
            with _locked(scratch) as is_locked:
                if is_locked:
                    shutil.rmtree(scratch, ignore_errors=True)
        except OSError:  # another user's, in which no lock can be made, or one that was finished meanwhile
            continue

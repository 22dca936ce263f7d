"""Entries of the cache with checksums: a damaged one is made again before a run uses it.

``checksums.json`` names every other file of an entry, with its size and a CRC-32 of each `PIECE_BYTES`. CRC-32 finds
every flip of up to 32 bits in a row, and misses any other damage with probability 2^-32. Of what Python has, it is the
fastest: 4.2 GB a second and core, where SHA-256 has 1.8; with reading from the page cache, 2.7 (AMD EPYC, zlib 1.2.13).
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from ablations.config import UsageError
from ablations.data.cached_files import DamagedFile, reading
from ablations.data.info import DataInfo
from ablations.data.location import SCRATCH, filled

CHECKSUMS, INFO = "checksums.json", "info.json"

PIECE_BYTES, CHUNK_BYTES = 2**26, 2**18
"""Length of file of one CRC, so that the pieces can be read at once; size of a read."""

Stamp = tuple[str, int, int, int, int]
"""Name, inode, size, times of content and status change (ns) of a file."""

_SEEN: dict[Path, set[Stamp]] = {}
"""Files whose checksums this process has compared: of a tuning's many plans, the first reads them."""


_EXAMINED: dict[Path, tuple[set[Stamp], DataInfo]] = {}
"""Files and description of entries that this process has examined, but could not give checksums."""


class Checksum(TypedDict):
    """Size of a file, and the CRC-32 of each of its pieces as hexadecimal numbers."""

    bytes: int
    crc32: list[str]


def open_entry(
    folder: Path,
    *,
    fill: Callable[[Path], None],
    examine: Callable[[Path, DataInfo], list[str]],
    with_test: bool = True,
) -> DataInfo:
    """Return the description of an entry that is there and whole; make it if it is missing or damaged.

    Damaged files are replaced by renaming: other runs keep the files that they have mapped.

    Args:
        folder: folder of the entry.
        fill: function that writes the files of the entry to an empty folder.
        examine: function that checks the description and the shapes of an entry without checksums, which an earlier
            version has made, and returns notes that its description lacks.
        with_test: whether the checksums of the files of ``test`` are compared too. These files are opened anyway to
            make an entry, and to examine one without checksums.

    Returns:
        Description; its notes say whether the entry was damaged, or had no checksums.

    Raises:
        UsageError: an entry that cannot be made or written, or that the user may neither read nor replace.
    """
    if not os.path.lexists(folder):
        with filled(folder) as scratch:
            _fill(scratch, fill)
        return DataInfo.load(folder)
    try:
        if not os.path.lexists(folder / CHECKSUMS):
            return _adopt(folder, examine)
        _check(folder, with_test=with_test)
        return DataInfo.load(folder)
    except DamagedFile as damage:
        if isinstance(damage.__cause__, PermissionError) and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            fix = "ask its owner for permission, or set ABLATIONS_CACHE to a folder of your own"
            raise UsageError(f"{damage.path} in the cache cannot be read: {damage.problem}; {fix}") from damage
        what = f"{damage.path.name}: {damage.problem}"
    try:
        with filled(folder, is_replaced=True) as scratch:
            _fill(scratch, fill)
    except UsageError as error:
        raise UsageError(f"the data in the cache are damaged ({what}) and cannot be made again: {error}") from error
    info = DataInfo.load(folder)
    return replace(info, notes=[f"the data in the cache were damaged ({what}) and have been made again", *info.notes])


def _fill(scratch: Path, fill: Callable[[Path], None]) -> None:
    fill(scratch)
    (scratch / CHECKSUMS).write_text(json.dumps(_checksums(scratch), indent=1))


def _checksums(folder: Path) -> dict[str, Checksum]:
    """Sum the files of an entry, without those that a system leaves there: their names start with a dot."""
    return {path.name: _checksum(path, path.stat().st_size) for path in _files(folder)}


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.name != CHECKSUMS and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return path.name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _checksum(path: Path, size: int) -> Checksum:
    with path.open("rb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        pieces = pool.map(lambda start: _crc(file.fileno(), start), range(0, size, PIECE_BYTES))
        return {"bytes": size, "crc32": [f"{piece:08x}" for piece in pieces]}


def _crc(file: int, start: int) -> int:
    crc, buffer = 0, memoryview(bytearray(CHUNK_BYTES))
    place, end = start, start + PIECE_BYTES
    while count := os.preadv(file, [buffer[: end - place]], place):  # which may be fewer than asked for
        crc = zlib.crc32(buffer[:count], crc)
        place += count
    return crc


def _check(folder: Path, *, with_test: bool) -> None:
    """Compare the files of an entry with their checksums.

    Raises:
        DamagedFile: a file that is missing, differs, or cannot be read.
    """
    own = folder / CHECKSUMS
    with reading(own):
        recorded = _read_checksums(own)
        names = sorted(name for name in recorded if with_test or not name.startswith("test"))
        if INFO not in names:
            raise DamagedFile(own, f"it does not name {INFO}")
    seen = _SEEN.setdefault(folder, set())
    for name in names:
        path = folder / name
        with reading(path):
            stamp = _stamp(path)
            if stamp in seen:
                continue
            size, wanted = path.stat().st_size, recorded[name]["bytes"]
            if size != wanted:
                raise DamagedFile(path, f"{size:,} bytes instead of {wanted:,}")
            if _checksum(path, wanted) != recorded[name]:
                raise DamagedFile(path, "its checksum differs")
            seen.add(stamp)


def _read_checksums(path: Path) -> dict[str, Checksum]:
    recorded = json.loads(path.read_text())
    if not isinstance(recorded, dict):
        raise DamagedFile(path, "it does not hold the checksums of files")
    for name, own in recorded.items():
        if not isinstance(own, dict) or type(own.get("bytes")) is not int or not isinstance(own.get("crc32"), list):
            raise DamagedFile(path, f"it does not hold the size and the checksums of {name!r:.60}")
        if name != Path(name).name:
            raise DamagedFile(path, f"it names {name!r:.60}, which is no file of its folder")
    return recorded


def _adopt(folder: Path, examine: Callable[[Path, DataInfo], list[str]]) -> DataInfo:
    """Add checksums and missing notes to an entry of an earlier version.

    Raises:
        DamagedFile: a file with another shape than the description says, or a description of other data.
    """
    info = DataInfo.load(folder)
    stamps = {_stamp(path) for path in _files(folder)}
    if folder in _EXAMINED and _EXAMINED[folder][0] == stamps:
        return _EXAMINED[folder][1]
    try:
        lacking = examine(folder, info)
    except DamagedFile:
        raise
    except Exception as error:  # of labels that cannot be split, an image that is gone, arrays that do not fit
        problem = f"{type(error).__name__ * (not isinstance(error, UsageError))} {error}".strip().splitlines()[0]
        raise DamagedFile(folder / INFO, problem) from error
    info = replace(info, notes=[*info.notes, *(note for note in lacking if note not in info.notes)])
    said = "the data in the cache had no checksums; their shapes are right, and checksums have been added"
    try:
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder.parent) as scratch:
            info.save(Path(scratch))
            (Path(scratch) / INFO).replace(folder / INFO)
            (Path(scratch) / CHECKSUMS).write_text(json.dumps(_checksums(folder), indent=1))
            (Path(scratch) / CHECKSUMS).replace(folder / CHECKSUMS)
    except OSError as error:
        said = f"the data in the cache have no checksums, and none can be written ({error}); their shapes are right"
        info = replace(info, notes=[said, *info.notes])
        _EXAMINED[folder] = (stamps, info)
        return info
    return replace(info, notes=[said, *info.notes])

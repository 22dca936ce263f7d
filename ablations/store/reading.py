"""Read files of a study's folder, which may be damaged or made by anyone.

Only regular files of bounded size are read, and none through a symbolic link.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.config import UsageError
from ablations.config.errors import one_line

MOST_BYTES = 256 * 2**20
"""Largest file that is read, in bytes; a study's files are far smaller."""

MOST_RECORD_BYTES = 4 * 2**20
"""Largest config.json or outcome.json."""

MOST_DIGITS = 20
"""Digits of the largest integers in JSON: those of 64 bits have at most 20."""

MOST_VALUES, MOST_CONTAINERS = 20_000_000, 5_000_000
"""Values, and lists and objects, of a JSON file; the detections of 5,000 photographs have a tenth of that."""

MOST_DEPTH = 200
"""Depth of lists and objects in a short JSON file, whose readers may recurse."""

LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MOST_DIGITS + 1))

BRACKETS = re.compile(r'"(?:[^"\\]|\\.?)*+"?|[][{}]', re.DOTALL)
"""Texts, in which brackets mean nothing, and brackets; a text without an end is matched without going back."""

TAIL_BYTES = 64 * 2**10
"""Bytes at the end of a log that are read to show its last lines."""

KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
KINDS |= {stat.S_IFDIR: "a folder"}


class NotRead(OSError):
    """Report a file that is not read; ``strerror`` says why, without its name."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EINVAL, reason)


def exists(path: Path) -> bool:
    """Tell whether a path names anything, be it a link that leads nowhere.

    Raises:
        UsageError: this cannot be known, since one of its folders cannot be read.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason_of(error)}") from error
    return True


def read_bytes(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """Read a regular file.

    Args:
        path: path of the file.
        most: largest size, in bytes.

    Raises:
        NotRead: it is a link, a pipe, a device or a folder, or larger.
        OSError: it does not exist or cannot be read.
    """
    with _opened(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise NotRead(f"it is larger than {most / 2**20:g} MiB")
        return file.readall()


def read_text(path: Path) -> str:
    """Read a regular file as UTF-8.

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path).decode()


def read_lines(path: Path) -> list[str]:
    """Read the last lines of a log, as far as its last `TAIL_BYTES` go; say why if it cannot be read.

    Args:
        path: path of the log.
    """
    try:
        with _opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return [f"(no {path.name})"]
    except OSError as error:
        return [f"({path.name} cannot be read: {reason_of(error)})"]
    return lines[1:] if size > TAIL_BYTES else lines


def read_json(path: Path, *, most: int = MOST_RECORD_BYTES) -> Any:
    """Read a JSON file.

    Raises:
        OSError: as `read_bytes`.
        ValueError: it is not JSON in UTF-8, has too many values, is nested too deeply, or has an integer of more than
            `MOST_DIGITS` digits.
    """
    return parse_json(read_bytes(path, most=most))


def parse_json(content: bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: as `read_json`.

    >>> parse_json(b"[1, 1e3]")
    [1, 1000.0]
    """
    if content.count(b",") > MOST_VALUES or content.count(b"[") + content.count(b"{") > MOST_CONTAINERS:
        raise ValueError(f"it has more than {MOST_VALUES:,} values, or {MOST_CONTAINERS:,} lists and objects")
    try:
        text = content.decode()
        _check_depth(text)
        checked = _integer if LONG_NUMBER.search(content) else None  # a function takes half of the time
        return json.loads(text, parse_int=checked)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_flags(path: Path) -> npt.NDArray[np.bool_]:
    """Read a one-dimensional array of truth values from an npy file.

    Raises:
        OSError: as `read_bytes`.
        ValueError: it is no such array, or has fewer values than its header says.
    """
    content = read_bytes(path)
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its npy format is {version[0]}.{version[1]}, not 1.0 or 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(file)
    except Exception as error:  # numpy reads it as Python, which fails in many ways
        raise ValueError("its header cannot be parsed") from error
    if dtype != np.bool_ or len(shape) != 1:
        raise ValueError(f"it has values {dtype} in the shape {shape}, not truth values in one dimension")
    values = np.frombuffer(content, np.uint8, offset=file.tell())
    if len(values) != shape[0]:
        raise ValueError(f"its header says {shape[0]} values, and it has {len(values)}")
    if num_other := int((values > 1).sum()):
        raise ValueError(f"it has values that are neither true nor false: {num_other}")
    return values.astype(np.bool_)


def reason_of(error: Exception) -> str:
    """Say in one line why a file was not read, without its path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error)


def check_inside(path: Path, root: Path) -> None:
    """Check that a path of a study does not lead out of its folder.

    Args:
        path: path to read or write, which may be missing.
        root: folder of the study.

    Raises:
        UsageError: it leads elsewhere.
    """
    target = os.path.realpath(path)
    within = os.path.realpath(root)
    if target != within and not target.startswith(within.rstrip(os.sep) + os.sep):
        raise UsageError(f"{path} leads outside {root}, to {target}: remove the link, or put the files in its place")


def links(folder: Path, *, folders_only: bool = False) -> list[Path]:
    """Return the symbolic links in a folder and in its folders.

    Args:
        folder: folder, which may be missing.
        folders_only: whether links to files are left out.
    """
    found = (
        f"{inner}/{name}"
        for inner, folders, files in os.walk(folder)
        for name in (folders if folders_only else [*folders, *files])
    )
    return [Path(path) for path in found if os.path.islink(path)]  # noqa: PTH114  # a Path takes longer to make


def _opened(path: Path) -> io.FileIO:
    """Open a regular file; opening a pipe does not wait for its writer."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        number = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotRead("it is a symbolic link; put the file in its place") from None
        raise
    kind = stat.S_IFMT(os.fstat(number).st_mode)
    if kind != stat.S_IFREG:
        os.close(number)
        raise NotRead(f"it is {KINDS.get(kind, 'of another kind')}, not a file")
    return io.FileIO(number)


def _check_depth(text: str) -> None:
    """Refuse a record that is nested too deeply; Python's own limit is another in each of its versions."""
    if len(text) > MOST_RECORD_BYTES or text.count("[") + text.count("{") <= MOST_DEPTH:
        return
    depth = 0
    for sign in BRACKETS.findall(text):
        depth += 1 if sign in "[{" else -1 if sign in "]}" else 0
        if depth > MOST_DEPTH:
            raise ValueError("it is nested too deeply")


def _integer(digits: str) -> int:
    if (length := len(digits.lstrip("-"))) > MOST_DIGITS:
        raise ValueError(f"it has an integer of {length} digits")
    return int(digits)

"""Write files atomically, also in a power failure and with concurrent writers."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

from ablations.config.privacy import private


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path to write to, which then replaces a file.

    Args:
        path: path of the file, which is unchanged if the block raises.
    """
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        yield scratch
        sync(scratch)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as scratch:
        scratch.write_text(text)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def clean_log(path: Path) -> None:
    """Remove the folders and names of user and machine from a log, to which libraries write as they like."""
    if not path.is_file():
        return
    with _bytes(path, "r") as file:
        is_clean = all(private(line) == line for line in file)
    if not is_clean:
        with replacing(path) as scratch, _bytes(path, "r") as file, _bytes(scratch, "w") as cleaned:
            cleaned.writelines(map(private, file))


def _bytes(path: Path, mode: Literal["r", "w"]) -> TextIO:
    """Open a file whose bytes stay what they are, also those that are no text."""
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)

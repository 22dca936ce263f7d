"""Files that are whole or not there, also when the power fails, and whoever else writes them at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a scratch file beside a file to write into, and then put it in that file's place.

    Args:
        path: of the file; where the block raises, it stays as it was.
    """
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        yield scratch
        sync(scratch)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    with replacing(path) as scratch:
        scratch.write_text(text)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON for people, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)

"""Temporary folders that name their process, so that those of processes that were killed can be removed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil


def scratch_folder(kind: str) -> Path:
    """Make a temporary folder, and remove those of the same kind whose processes are gone.

    Args:
        kind: what it is for, as a part of its name.
    """
    prefix = f"ablations-{kind}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        number = folder.name.removeprefix(prefix).partition("-")[0]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))

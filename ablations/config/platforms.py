"""Platforms that the harness supports."""

from __future__ import annotations

import sys

UNSUPPORTED = (
    "Windows is not supported, because it lacks the process groups, file locks and limits (fcntl, resource) that "
    "isolate cells: use WSL, the Windows Subsystem for Linux"
)


def is_supported() -> bool:
    """Tell whether this platform can isolate cells: Linux and macOS can."""
    return sys.platform != "win32"

"""The platforms that the harness runs on."""

from __future__ import annotations

import sys

UNSUPPORTED = (
    "Windows is not supported, for it lacks the process groups, file locks and limits (fcntl, resource) that isolate "
    "cells: use WSL, the Windows Subsystem for Linux"
)


def is_supported() -> bool:
    """Tell whether this platform has what isolates cells: Linux and macOS do."""
    return sys.platform != "win32"

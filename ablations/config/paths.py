"""The place that a path leads to."""

from __future__ import annotations

import os
from pathlib import Path


def real_path(path: Path) -> Path:
    """Return an absolute path without symbolic links, as far as it exists.

    A link in a circle stays as it is. ``Path.resolve`` raises RuntimeError there up to Python 3.12.

    >>> real_path(Path("/no-such-folder/../a"))
    PosixPath('/a')
    """
    return Path(os.path.realpath(path))

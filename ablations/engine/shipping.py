"""Files of a cell's folder as bytes, for nodes that share no folder with the runner."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ablations.store.leases import LEASE, RESUMED

Files = dict[str, bytes]
"""Contents of files by their path in a folder, with ``/``."""

UNFINISHED = ".partial"
"""End of the names of files that are being written."""


class FilesAt:
    """The files of a folder, read when they have changed.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: dict[str, tuple[int, int, int]] = {}

    def changed(self) -> Files:
        """Return the files that are new or have changed since the last call; of a file being written, what is there."""
        found: Files = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.name == LEASE or path.name.endswith(UNFINISHED) or path.name.startswith(f".{RESUMED}"):
                continue
            with contextlib.suppress(FileNotFoundError):  # a file that was replaced or removed meanwhile
                stat = path.stat()
                stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
                if path.is_file() and self._seen.get(name) != stamp:
                    found[name] = path.read_bytes()
                    self._seen[name] = stamp
        return found


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files into a folder, each whole or not at all.

    Raises:
        ValueError: a path leads out of the folder.
        OSError: a file cannot be written, or the folder is gone.
    """
    for name, content in files.items():
        parts = PurePosixPath(name).parts
        if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
            raise ValueError(f"{name} leads out of the folder")
        path = folder.joinpath(*parts)
        if len(parts) > 1:
            folder.stat()  # a folder that is gone is not made again
            path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(path.name + UNFINISHED)
        scratch.write_bytes(content)
        scratch.replace(path)

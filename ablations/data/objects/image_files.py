"""Files of a part's images, found by what an annotation file calls them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ablations.config import UsageError

ABSOLUTE = re.compile(r"/|[A-Za-z]:[/\\]")
"""Start of an absolute path; of Windows' too."""


def is_within(name: str) -> bool:
    r"""Tell whether a file name is a path that stays within its folder.

    >>> is_within("0.jpg"), is_within("a/0.jpg"), is_within("../0.jpg"), is_within("/etc/0.jpg")
    (True, True, False, False)
    >>> is_within("a\\..\\..\\0.jpg"), is_within("C:\\0.jpg")
    (False, False)
    """
    plain = name.replace("\\", "/")
    return not ABSOLUTE.match(plain) and ".." not in plain.split("/")


def find_image(name: str, folder: Path) -> str | None:
    """Return the path of an image file relative to its folder; None if there is no such file.

    The path is the name itself; or the name with slashes for Windows' separators, without the name of the folder, or
    in a folder of the same name within it.

    Args:
        name: ``file_name`` of the image, within the folder (`is_within`).
        folder: folder of the part.

    Raises:
        UsageError: the system refuses to look for it, as for a name that is too long.
    """
    try:
        return next((path for path in _spellings(name, folder.name) if (folder / path).is_file()), None)
    except OSError as error:
        raise UsageError(f"{folder / name} cannot be read: {error.strerror}; repair or rename it") from error


def _spellings(name: str, folder: str) -> Iterator[str]:
    r"""Yield the paths that a name may stand for, relative to the folder.

    >>> list(_spellings("train\\0.jpg", "train"))
    ['train\\0.jpg', 'train/0.jpg', '0.jpg']
    >>> list(_spellings("0.jpg", "train"))
    ['0.jpg', 'train/0.jpg']
    """
    plain = name.replace("\\", "/")
    inner = plain.removeprefix(f"{folder}/")
    yield from dict.fromkeys((name, plain, inner, f"{folder}/{inner}"))

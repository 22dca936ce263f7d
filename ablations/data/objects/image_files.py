"""Files of a part's images: found by what an annotation file calls them, and compared with the sizes that it gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ablations.config import UsageError
from ablations.data.image import allow_large_images, opened
from ablations.data.objects.annotations import ImageRecord

READERS, BATCH = 16, 256
"""Number of threads that read headers: they wait for the disk; number of files that are given to a thread at once."""

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


def check_headers(images: Iterable[ImageRecord], folder: Path, file: str) -> None:
    """Compare the sizes of images with the headers of their files.

    Args:
        images: images of the part, whose files exist.
        folder: folder of the part.
        file: name of the annotation file.

    Raises:
        UsageError: another size, an unreadable file, or one in a mode without an exact 8-bit form.
    """
    from PIL import Image

    rows = list(images)
    Image.init()  # now, since a thread that comes while another does it has only a part of the formats
    allow_large_images()
    with ThreadPoolExecutor(READERS) as pool:
        batches = pool.map(partial(_sizes, folder=folder), (rows[at : at + BATCH] for at in range(0, len(rows), BATCH)))
        sizes = [size for batch in batches for size in batch]
    differing = [(row, size) for row, size in zip(rows, sizes, strict=True) if size != (row.height, row.width)]
    if not differing:
        return
    row, (height, width) = differing[0]
    more = f", and {len(differing) - 1:,} more" if len(differing) > 1 else ""
    swapped = sum(size == (row.width, row.height) for row, size in differing)
    exif = f" (in {swapped:,} the sides are swapped: an EXIF orientation is not applied)" if swapped else ""
    raise UsageError(
        f"{file}: image {row.id}: {row.name!r:.60} has {height} x {width} pixels, but its record says {row.height} x "
        f"{row.width}{more}; height and width must be those of the pixels as they are stored{exif}"
    )


def _sizes(rows: Sequence[ImageRecord], folder: Path) -> list[tuple[int, int]]:
    """Return height and width of image files."""
    sizes = []
    for row in rows:
        with opened(folder / row.name) as image:
            sizes.append((image.height, image.width))
    return sizes


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

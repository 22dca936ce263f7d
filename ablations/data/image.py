"""Decoding of image files, the same for in-memory and streamed data; unusable files are rejected."""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.config import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
GREY_MODES = ("1", "L")
COLOUR_MODES = ("RGB", "RGBA", "P", "CMYK", "YCbCr", "LA")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image]:
    """Open an image file, of which only the header is read.

    Sixteen-bit greyscale and floating-point images have no exact 8-bit form and are rejected.

    Raises:
        UsageError: unreadable file, now or while it is open, or no exact 8-bit form; the message names the file.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in (*GREY_MODES, *COLOUR_MODES):
                raise UsageError(f"{path} is in mode {image.mode}, which has no exact 8-bit form; convert it first")
            yield image
    except UsageError:
        raise
    except (OSError, EOFError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise UsageError(f"{path} cannot be read: {error}; repair or remove it") from error


def read_image(path: Path) -> tuple[Image, str]:
    """Read an image file as 8-bit RGB, rotated by its EXIF orientation.

    Returns:
        Image, and its mode in the file.

    Raises:
        UsageError: as in `opened`.
    """
    from PIL import ImageOps

    with opened(path) as image:
        mode = image.mode
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return (image if mode == "RGB" else image.convert("RGB")), mode


def fit(image: Image, side: int, *, crop: float = 1.0) -> Image:
    """Crop the largest centred square of an image and resize it.

    Args:
        image: RGB image.
        side: side of the result, in pixels.
        crop: share of the square's side that is kept, above 0 and at most 1.
    """
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC, bleed=(1 - crop) / 2)


@contextlib.contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Yield a list that receives a note on what Pillow warns of meanwhile, in any thread; large images are allowed."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        allow_large_images()
        yield notes
    if caught:
        example = min(str(each.message) for each in caught)
        notes.append(f"warnings while images were read: {len(caught):,}, such as '{example}'")


def allow_large_images() -> None:
    """Silence Pillow's warning on large images; twice that size still raises an error."""
    from PIL import Image

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)

"""One image file, read right or refused: the one way in which in-memory and streamed data decode."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.config import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
GREY_MODES = ("1", "L")
COLOUR_MODES = ("RGB", "RGBA", "P", "CMYK", "YCbCr", "LA")


def read_image(path: Path) -> tuple[Image, str]:
    """Read an image file in 8-bit RGB, turned as its EXIF orientation says.

    Sixteen-bit greyscale and floating point have no exact 8-bit form, and are refused.

    Returns:
        The image, and the mode that it has in its file.

    Raises:
        UsageError: it cannot be read, or has no exact 8-bit form; the message names the file.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode not in (*GREY_MODES, *COLOUR_MODES):
                raise UsageError(f"{path} is in mode {mode}, which has no exact 8-bit form; convert it first")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return (image if mode == "RGB" else image.convert("RGB")), mode
    except (OSError, EOFError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise UsageError(f"{path} cannot be read: {error}; repair or remove it") from error
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} cannot be read: {error}; repair or remove it") from error


def fit(image: Image, side: int, *, crop: float = 1.0) -> Image:
    """Take the largest centred square of an image, and bring it to a size.

    Args:
        image: RGB.
        side: pixels of the result.
        crop: share of that square's side that is taken: 1 to its border, less leaves a border out on each side.
    """
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC, bleed=(1 - crop) / 2)


def allow_large_images() -> None:
    """Say nothing of images above Pillow's first limit; above the second, twice as large, they are refused."""
    from PIL import Image

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)

"""Choice between decoding a data set into memory and streaming it."""

from __future__ import annotations

from ablations.config import UsageError
from ablations.config.options import InMemory
from ablations.data.sources import Source
from ablations.data.tree import ImageTree

IN_MEMORY_BYTES = 4 * 2**30
"""Largest size of decoded images in memory under ``auto``: the same on every machine, since it decides a cell's id.

Decoding takes that much memory at once, and cells that share the images need it to stay available, so it is half the
memory of an 8 GiB machine. Two cores decode that much in 50 to 105 s: 40 MiB/s of images of 64 px, 86 MiB/s of
500 x 375 px resized to 224 px (measured with Pillow 13).
"""


def place(source: Source, in_memory: InMemory) -> tuple[bool, str]:
    """Return whether to stream a data set, and why; the reason is empty if it cannot be streamed.

    Raises:
        UsageError: ``off`` for a data set that is not a folder of images.
    """
    if not isinstance(source, ImageTree):
        if in_memory == "off":
            raise UsageError(f"--in-memory off: {source.name} cannot be streamed, only folders of images; omit it")
        return False, ""
    height, width = source.image_side
    size = f"{source.num_images:,} images of {height} x {width} px are {_bytes(source.decoded_bytes)} decoded"
    if in_memory != "auto":
        return in_memory == "off", f"{'streamed' if in_memory == 'off' else 'in memory'}, as requested: {size}"
    if source.decoded_bytes > IN_MEMORY_BYTES:
        return True, f"streamed: {size}, above the limit of {_bytes(IN_MEMORY_BYTES)}"
    return False, f"in memory: {size}, within the limit of {_bytes(IN_MEMORY_BYTES)}"


def _bytes(count: int) -> str:
    """Format a number of bytes.

    >>> _bytes(3_000_000), _bytes(4 * 2**30)
    ('2.9 MiB', '4.0 GiB')
    """
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"

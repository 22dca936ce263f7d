"""Whether a data set is decoded once and kept in memory, or streamed."""

from __future__ import annotations

from typing import NamedTuple

from ablations.config import UsageError
from ablations.config.options import InMemory
from ablations.data.sources import Source
from ablations.data.tree import ImageTree

IN_MEMORY_BYTES = 4 * 2**30
"""Decoded images that are kept in memory under ``auto``: the same on every machine, since it decides a cell's id.

Preparing them takes this much memory at once, and cells that share them want it to stay in the machine's, so it is half
of a machine of 8 GiB. Two cores decode as much in 50 to 105 s: 40 MiB/s of images of 64 px, 86 MiB/s of 500 x 375 px
brought to 224 px (measured with Pillow 13).
"""


class Placement(NamedTuple):
    """Whether a data set is streamed, and why; empty where it is never streamed."""

    streamed: bool
    why: str


def place(source: Source, in_memory: InMemory) -> Placement:
    """Choose.

    Raises:
        UsageError: ``off`` for a data set that is no folder of image files.
    """
    if not isinstance(source, ImageTree):
        if in_memory == "off":
            raise UsageError(f"--in-memory off: {source.name} is always in memory; folders of images can be streamed")
        return Placement(False, "")
    height, width = source.image_side
    size = f"{source.num_images:,} images of {height} x {width} px are {_bytes(source.decoded_bytes)} decoded"
    if in_memory != "auto":
        streamed = in_memory == "off"
        return Placement(streamed, f"{'streamed' if streamed else 'in memory'}, as asked for: {size}")
    if source.decoded_bytes > IN_MEMORY_BYTES:
        return Placement(True, f"streamed: {size}, above the limit of {_bytes(IN_MEMORY_BYTES)}")
    return Placement(False, f"in memory: {size}, within the limit of {_bytes(IN_MEMORY_BYTES)}")


def _bytes(count: int) -> str:
    """Write a number of bytes.

    >>> _bytes(3_000_000), _bytes(4 * 2**30)
    ('2.9 MiB', '4.0 GiB')
    """
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"

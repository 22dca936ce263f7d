"""Numbers of objects of which no mask can be made, in all parts of a detection data set: kept in its cache entry."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np

from ablations.config import UsageError
from ablations.data.cached_files import reading
from ablations.data.objects.annotations import Annotations, Bools
from ablations.data.objects.outlines import FARTHEST_SIDES

OUTLINED = "outlines.json"
"""File of the numbers of `count_outlined`, so that trials need not open the test split."""


class Outlined(TypedDict):
    """Number of a part's objects; numbers and first ids of those without an outline, and with a polygon far outside."""

    objects: int
    without: int
    first: int | None
    far: int
    first_far: int | None


def count_outlined(parts: Mapping[str, Annotations]) -> dict[str, Outlined]:
    """Count the objects of each part without outlines, and those with polygons far outside of their images."""
    found: dict[str, Outlined] = {}
    for part, own in parts.items():
        without, far = own.ids[~own.is_outlined].tolist(), own.ids[_is_far(own)].tolist()
        found[part] = {
            "objects": len(own.ids),
            "without": len(without),
            "first": without[0] if without else None,
            "far": len(far),
            "first_far": far[0] if far else None,
        }
    return found


def _is_far(annotations: Annotations) -> Bools:
    """Tell of each object, (m,), whether a polygon reaches beyond `FARTHEST_SIDES`."""
    longest = np.maximum(annotations.heights, annotations.widths)
    longest = np.repeat(longest, np.diff(annotations.first_object))  # (m,)
    counts, starts = np.diff(annotations.first_outline), annotations.first_number[:-1]
    low, high = np.minimum.reduceat(annotations.numbers, starts), np.maximum.reduceat(annotations.numbers, starts)
    is_beyond = np.maximum(-low, high) > FARTHEST_SIDES * np.repeat(longest, counts)  # (p,)
    owners = np.repeat(np.arange(len(counts)), counts)
    return (np.bincount(owners[is_beyond], minlength=len(counts)) > 0) & ~annotations.is_mask


def load_outlined(folder: Path) -> dict[str, Outlined]:
    """Return what `count_outlined` found in all parts; in an entry of an earlier version, it looks for it now.

    Args:
        folder: folder of the data set in the cache.

    Raises:
        DamagedFile: a file that cannot be read.
    """
    path = folder / OUTLINED
    if path.exists():
        with reading(path):
            found: dict[str, Outlined] = json.loads(path.read_text())
            for counts in found.values():  # of earlier versions, which refused polygons far outside
                counts.setdefault("far", 0)
                counts.setdefault("first_far", None)
            return found
    parts = ("train", "val", "test")
    return count_outlined({part: Annotations.load(own) for part in parts if (own := folder / f"{part}.npz").exists()})


def check_outlines(found: Mapping[str, Outlined], file_of: Callable[[str], str]) -> None:
    """Reject objects of which no mask can be made.

    Args:
        found: numbers of each part.
        file_of: function from a part to the name of its annotation file.

    Raises:
        UsageError: an object without an outline, or with a polygon that reaches far beyond its image.
    """
    boxes = "give --set masks=off to train a detector of boxes alone"
    for part, own in found.items():
        if num := own["without"]:
            more = f", and {num - 1:,} of the other {own['objects'] - 1:,} have none" if num > 1 else ""
            raise UsageError(
                f"{file_of(part)}: annotation {own['first']} has no outline: its segmentation is empty{more}; "
                f"give polygons or run lengths, or {boxes}"
            )
        if num := own["far"]:
            more = f", and {num - 1:,} of the other {own['objects'] - 1:,} have one" if num > 1 else ""
            raise UsageError(
                f"{file_of(part)}: annotation {own['first_far']} has a polygon with a coordinate beyond "
                f"{FARTHEST_SIDES} times the longer side of its image{more}; cut it off at the image, or {boxes}"
            )

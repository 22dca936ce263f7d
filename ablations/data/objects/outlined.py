"""Number of objects without outlines, in all parts of a detection data set: kept in its entry of the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

from ablations.config import UsageError
from ablations.data.cached_files import reading
from ablations.data.objects.annotations import Annotations

OUTLINED = "outlines.json"
"""File of the number of objects without outlines in each part, so that trials need not open the test split."""


class Outlined(TypedDict):
    """Number of a part's objects, number of those without an outline, and the id of the first of these."""

    objects: int
    without: int
    first: int | None


def count_outlined(parts: Mapping[str, Annotations]) -> dict[str, Outlined]:
    """Count the objects without outlines in each part."""
    found: dict[str, Outlined] = {}
    for part, own in parts.items():
        without = own.ids[~own.is_outlined].tolist()
        found[part] = {"objects": len(own.ids), "without": len(without), "first": without[0] if without else None}
    return found


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
            return json.loads(path.read_text())
    parts = ("train", "val", "test")
    return count_outlined({part: Annotations.load(own) for part in parts if (own := folder / f"{part}.npz").exists()})


def check_outlines(found: Mapping[str, Outlined], file_of: Callable[[str], str]) -> None:
    """Reject objects without outlines.

    Args:
        found: numbers of each part.
        file_of: function from a part to the name of its annotation file.

    Raises:
        UsageError: an object without an outline.
    """
    for part, own in found.items():
        if num := own["without"]:
            more = f", and {num - 1:,} of the other {own['objects'] - 1:,} have none" if num > 1 else ""
            raise UsageError(
                f"{file_of(part)}: annotation {own['first']} has no outline: its segmentation is empty{more}; "
                f"give polygons or run lengths, or give --set masks=off to train a detector of boxes alone"
            )

"""Outlines of objects: read from an annotation file, and compared with the boxes of their objects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ablations.config import UsageError
from ablations.data.objects.values import Values, is_number

MIN_POLYGON = 6
"""Smallest number of coordinates in a polygon: three points."""

MIN_OVERLAP = 0.5
"""Smallest intersection over union of a box and the box around its mask, below which they do not fit. COCO makes a box
from its mask: of 1,944 of its objects, 22 of them crowds, the lowest overlap is 0.94, of a small crowd. A box of the
hidden parts too has less, and corners in place of sides far less."""

TOLERANCE_PX = 2.0
"""Distance up to which the sides of a box may lie elsewhere: a mask of pixels is wider than a small box by rounding."""

Corners = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""

FARTHEST_SIDES = 10
"""Largest coordinate of a polygon of which a mask is made, in longer sides of its image: filling takes memory for all
of its outline."""

SEGMENTATION = "a list of polygons, or run lengths with size and counts"


def read_outline(
    segmentation: Any, values: Values, entry: str, size: tuple[int, int]
) -> tuple[list[list[float]], bool]:
    """Return polygons or one list of run lengths, and whether it is run lengths; no polygon if it is empty.

    Args:
        segmentation: value of an annotation.
        values: values of the file, which count run lengths that are floats or text.
        entry: name of the annotation, such as ``annotation 7``.
        size: height and width of the image, in pixels.

    Raises:
        UsageError: invalid value.
    """
    name = f"{values.file}: {entry}"
    if segmentation in (None, [], [[]], {}):
        return [], False
    if isinstance(segmentation, dict):
        return [_read_runs(segmentation, values, entry, size)], True
    if not isinstance(segmentation, list):
        raise UsageError(f"{name}: invalid segmentation: {segmentation!r:.60}; must be {SEGMENTATION}")
    for polygon in segmentation:
        if not isinstance(polygon, list) or not all(map(is_number, polygon)):
            raise UsageError(
                f"{name}: a polygon is not a list of numbers: {polygon!r:.60}; must be x, y, x, y, ... below 2**63"
            )
        if len(polygon) < MIN_POLYGON or len(polygon) % 2:
            raise UsageError(
                f"{name}: a polygon has {len(polygon) / 2:g} points; it needs at least three, each x and y"
            )
    return segmentation, False


def _read_runs(segmentation: Mapping[str, Any], values: Values, entry: str, size: tuple[int, int]) -> list[float]:
    """Return the uncompressed run lengths of a mask."""
    name, counts, given = f"{values.file}: {entry}", segmentation.get("counts"), segmentation.get("size")
    if not isinstance(given, list) or values.integers(given, "size", entry) != list(size):
        found = f"{given!r:.60}"
        raise UsageError(f"{name}: the size of its mask is {found}, that of its image {list(size)}; must be equal")
    if isinstance(counts, str):
        from faster_coco_eval.core import mask

        try:
            return run_lengths(mask.decode({"size": list(size), "counts": counts.encode()}))
        except (ValueError, RuntimeError) as error:
            problem = f"{name}: the counts of its mask cannot be read: {error}"
            raise UsageError(f"{problem}; must be COCO's compressed text, or a list of run lengths") from error
    if counts is None:
        raise UsageError(f"{name}: its mask has no counts; must be a list of run lengths, or COCO's compressed text")
    lengths = values.integers(counts, "counts", entry) if isinstance(counts, list) else [None]
    runs = [float(length) for length in lengths if length is not None and length >= 0]
    if len(runs) < len(lengths):
        raise UsageError(f"{name}: the counts of its mask are {counts!r:.60}; must be whole numbers from 0")
    if sum(runs) != math.prod(size):
        raise UsageError(f"{name}: its mask has {sum(runs):g} pixels, its image {math.prod(size)}; must be equal")
    return runs


def run_lengths(bits: Any) -> list[float]:
    """Return a mask's run lengths, column by column, starting with background.

    >>> run_lengths(np.array([[0, 1], [1, 1]]))
    [1, 3]
    >>> run_lengths(np.array([[1, 0], [1, 0]]))
    [0, 2, 2]
    """
    flat = np.asarray(bits).astype(bool).flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def extent(outline: Sequence[Sequence[float]], *, is_mask: bool, height: int) -> Corners | None:
    """Return the box around an outline; None if no pixel is in it.

    Args:
        outline: polygons, or one list of run lengths.
        is_mask: whether it is run lengths.
        height: height of the image in pixels.

    >>> extent([[1, 2, 5, 2, 5, 4]], is_mask=False, height=6)
    (1, 2, 5, 4)
    >>> extent([[8, 2, 4, 2, 32]], is_mask=True, height=6)
    (1.0, 2.0, 3.0, 4.0)
    """
    if not is_mask:
        xs = [x for polygon in outline for x in polygon[::2]]
        ys = [y for polygon in outline for y in polygon[1::2]]
        return (min(xs), min(ys), max(xs), max(ys)) if xs else None
    ends = np.cumsum(np.asarray(outline[0], dtype=np.int64))
    first, last = ends[:-1:2], ends[1::2] - 1  # of each run in the mask
    first, last = first[last >= first], last[last >= first]
    if not len(first):
        return None
    left, right = first[0] // height, last[-1] // height + 1
    is_whole = (first // height != last // height).any()  # a run from the bottom of a column to the top of the next
    top, bottom = (0, height) if is_whole else ((first % height).min(), (last % height).max() + 1)
    return float(left), float(top), float(right), float(bottom)


def overlap(one: Corners, other: Corners) -> float:
    """Return the intersection over union of two boxes.

    >>> overlap((0, 0, 2, 2), (1, 0, 3, 2)), overlap((0, 0, 1, 1), (5, 5, 6, 6))
    (0.3333333333333333, 0.0)
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    total = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared
    return shared / total if total > 0 else 0.0


def fits(box: Corners, around: Corners | None) -> bool:
    """Tell whether a box fits the box around its mask.

    Args:
        box: box of an object.
        around: box around the mask; None if no pixel is in it.

    >>> fits((10, 10, 30, 20), (10, 10, 30, 20)), fits((10, 10, 40, 30), (10, 10, 30, 20))
    (True, False)
    >>> fits((10.4, 10.4, 11.2, 11.2), (10, 10, 12, 12))
    True
    """
    if around is None:
        return False
    is_near = all(abs(one - other) <= TOLERANCE_PX for one, other in zip(box, around, strict=True))
    return is_near or overlap(box, around) >= MIN_OVERLAP

"""Entries of an annotation file that are odd but valid: they are counted, and each kind has a line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ablations.data.objects.annotations import MIN_SIDE_PX, ImageRecord, ObjectRecord
from ablations.data.objects.outlines import TOLERANCE_PX, Corners, extent, fits
from ablations.data.objects.values import count_text


@dataclass
class Odd:
    """Entries of an annotation file that are odd but valid.

    Args:
        first: the first of them, in words.
        count: number of them.
        as_corners: number of them whose boxes would be right as left, top, right and bottom.
    """

    first: str = ""
    count: int = 0
    as_corners: int = 0

    def add(self, words: str, *, as_corners: bool = False) -> None:
        """Count an entry."""
        self.first = self.first or words
        self.count += 1
        self.as_corners += as_corners


@dataclass
class Oddities:
    """Odd entries by kind.

    Args:
        renamed: images whose file is found under another name.
        misfits: boxes that do not fit their masks.
        outside: boxes that reach beyond their images.
        below_1: annotation ids of 0 and below.
    """

    renamed: Odd = field(default_factory=Odd)
    misfits: Odd = field(default_factory=Odd)
    outside: Odd = field(default_factory=Odd)
    below_1: Odd = field(default_factory=Odd)

    def notes(self, where: str, *, folder: str, num_objects: int) -> list[str]:
        """Return a line for each kind of which there are any.

        Args:
            where: name of the annotation file.
            folder: name of the images' folder.
            num_objects: number of annotations.
        """
        notes = []
        if self.renamed.count:
            what = f"file_name of {count_text(self.renamed.count, 'image')} is no file of {folder}"
            notes.append(f"{where}: {what} as it is written, but one is found (the first is {self.renamed.first})")
        if self.below_1.count:
            what = (
                f"annotation ids below 1: {self.below_1.count:,} of {num_objects:,} (the first is {self.below_1.first})"
            )
            notes.append(
                f"{where}: {what}; the scores number objects from 1, pycocotools takes an object of id 0 as not found"
            )
        kinds = (
            (self.misfits, "boxes that do not fit the box around their mask"),
            (self.outside, f"boxes that reach more than {TOLERANCE_PX:g} px beyond their image"),
        )
        for odd, what in kinds:
            if odd.count:
                corners = f"; as left, top, right, bottom {odd.as_corners:,} would be right" if odd.as_corners else ""
                notes.append(
                    f"{where}: {what}: {odd.count:,} of {num_objects:,} (the first is {odd.first}){corners}; a bbox "
                    "must be left, top, width, height in pixels"
                )
        return notes


def count_odd_box(obj: ObjectRecord, image: ImageRecord, odd: Oddities) -> None:
    """Count a box that is not around its mask, or not within its image.

    Args:
        obj: object of the box.
        image: its image.
        odd: counts.
    """
    left, top, width, height = obj.box
    if min(width, height) < MIN_SIDE_PX:
        return
    box, corners = (left, top, left + width, top + height), (left, top, width, height)
    whole = (0.0, 0.0, float(image.width), float(image.height))
    words = f"annotation {obj.id}: bbox {_written(obj.box)}"
    if not _is_inside(box, whole):
        odd.outside.add(f"{words} in {image.width} x {image.height} px", as_corners=_is_inside(corners, whole))
    if not obj.outline:
        return
    around = extent(obj.outline, is_mask=obj.is_mask, height=image.height)
    if not fits(box, around):
        mask = "an empty mask" if around is None else f"a mask from {_written(around[:2])} to {_written(around[2:])}"
        odd.misfits.add(f"{words}, {mask}", as_corners=fits(corners, around))


def _is_inside(box: Corners, whole: Corners) -> bool:
    low = all(one >= least - TOLERANCE_PX for one, least in zip(box[:2], whole[:2], strict=True))
    high = all(one <= most + TOLERANCE_PX for one, most in zip(box[2:], whole[2:], strict=True))
    return low and high and box[0] < box[2] and box[1] < box[3]


def _written(numbers: Any) -> str:
    return ", ".join(f"{number:g}" for number in numbers)

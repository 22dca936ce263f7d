"""Entries of an annotation file that are odd but valid: they are counted, and each kind has a line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ablations.data.objects.annotations import MIN_SIDE_PX, ImageRecord, ObjectRecord
from ablations.data.objects.outlines import TOLERANCE_PX, Corners, extent, fits
from ablations.data.objects.values import count_text

BBOX = "a bbox must be left, top, width, height in pixels"


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
        shares: boxes of numbers from 0 to 1.
        below_1: annotation ids of 0 and below.
        same_file: images with the file of another.
        repeated: objects with the image, the category and the box of another.
    """

    renamed: Odd = field(default_factory=Odd)
    misfits: Odd = field(default_factory=Odd)
    outside: Odd = field(default_factory=Odd)
    shares: Odd = field(default_factory=Odd)
    below_1: Odd = field(default_factory=Odd)
    same_file: Odd = field(default_factory=Odd)
    repeated: Odd = field(default_factory=Odd)

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
        if self.same_file.count:
            what = f"the file of {count_text(self.same_file.count, 'image')} is that of an image before"
            notes.append(f"{where}: {what} (the first is {self.same_file.first}); each counts as an image of its own")
        kinds = (
            (
                self.below_1,
                "annotation ids below 1",
                "scores number objects from 1; pycocotools never finds one of id 0, and cells scored by earlier "
                "versions have too low AP: --rerun all repeats them",
            ),
            (self.repeated, "objects with image, category and box of one before", "each counts as one of its own"),
            (self.misfits, "boxes that do not fit the box around their mask", BBOX),
            (self.outside, f"boxes that reach more than {TOLERANCE_PX:g} px beyond their image", BBOX),
            (self.shares, "boxes of numbers from 0 to 1, like shares of the image", BBOX),
        )
        for odd, what, consequence in kinds:
            if odd.count:
                corners = f"; as left, top, right, bottom {odd.as_corners:,} would be right" if odd.as_corners else ""
                first = f"{odd.count:,} of {num_objects:,} (the first is {odd.first}){corners}"
                notes.append(f"{where}: {what}: {first}; {consequence}")
        return notes


def count_repeated(objects: Iterable[ObjectRecord], odd: Oddities) -> None:
    """Count the objects of an image that are listed again.

    Args:
        objects: objects of the image.
        odd: counts.
    """
    seen: dict[tuple[float, ...], int] = {}
    for obj in objects:
        before = seen.setdefault((obj.label, obj.is_crowd, *obj.box), obj.id)
        if before != obj.id:
            odd.repeated.add(f"annotation {obj.id}, as annotation {before}")


def count_odd_box(obj: ObjectRecord, image: ImageRecord, odd: Oddities) -> None:
    """Count a box that is not around its mask, not within its image, or not in pixels.

    Args:
        obj: object of the box.
        image: its image.
        odd: counts.
    """
    left, top, width, height = obj.box
    words = f"annotation {obj.id}: bbox {_written(obj.box)}"
    if min(left, top) >= 0 < min(width, height) and max(obj.box) <= 1 < max(image.width, image.height):
        odd.shares.add(f"{words} in {image.width} x {image.height} px")
    if min(width, height) < MIN_SIDE_PX:
        return
    box, corners = (left, top, left + width, top + height), (left, top, width, height)
    whole = (0.0, 0.0, float(image.width), float(image.height))
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

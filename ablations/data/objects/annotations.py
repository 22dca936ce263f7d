"""Annotations of a part of a detection data set, as arrays: images, and objects with boxes and outlines.

Arrays, because COCO's 860,000 training objects take gigabytes as Python dictionaries, in every process. Numbers are
those of the annotation file, in float64, so that scores against them equal scores against the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.data.cached_files import reading

MIN_SIDE_PX = 0.01
"""Smallest side of a box within its image: a smaller one is no example, since in float32 its side might be zero."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ObjectRecord:
    """Object of an annotation file.

    Args:
        id: id of the annotation.
        label: label of its category, from 1; 0 is the background.
        box: left, top, width and height, in pixels.
        area: area of its outline in square pixels, as in the file.
        is_crowd: whether it stands for many objects that are not annotated one by one.
        outline: polygons, each x, y, x, y, ...; or the run lengths of a mask, column by column, background first; or
            empty: only its box is annotated.
        is_mask: whether the outline is run lengths.
    """

    id: int
    label: int
    box: Sequence[float]
    area: float
    is_crowd: bool
    outline: Sequence[Sequence[float]]
    is_mask: bool


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """Images and objects of a part: n images, m objects, p outlines, c numbers of outlines.

    Args:
        image_ids: (n,) ids of the images, as in the file.
        names: (n,) file names, relative to the part's folder; empty if images are drawn.
        heights: (n,) heights in pixels.
        widths: (n,) widths in pixels.
        first_object: (n + 1,) offsets: image i has the objects ``first_object[i]`` up to ``first_object[i + 1]``.
        ids: (m,) ids of the annotations.
        labels: (m,) labels, from 1.
        boxes: (m, 4) left, top, width and height, in pixels.
        areas: (m,) areas in square pixels.
        is_crowd: (m,) whether an object is a crowd.
        is_mask: (m,) whether an outline is run lengths instead of polygons.
        first_outline: (m + 1,) offsets of an object's outlines, like ``first_object``.
        first_number: (p + 1,) offsets of an outline's numbers, like ``first_object``.
        numbers: (c,) numbers of all outlines.
        category_ids: (K,) ids of labels 1, 2, ..., as in the file.
        category_names: (K,) names of labels 1, 2, ....
    """

    image_ids: Ints
    names: npt.NDArray[np.str_]
    heights: Ints
    widths: Ints
    first_object: Ints
    ids: Ints
    labels: Ints
    boxes: Floats
    areas: Floats
    is_crowd: Bools
    is_mask: Bools
    first_outline: Ints
    first_number: Ints
    numbers: Floats
    category_ids: Ints
    category_names: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def classes(self) -> list[str]:
        """Names of the categories, by label minus 1."""
        return [str(name) for name in self.category_names]

    @cached_property
    def is_flat(self) -> Bools:
        """(m,) whether an object's box has no width or no height within its image."""
        image = np.repeat(np.arange(len(self)), np.diff(self.first_object))
        ends = np.stack((self.widths[image], self.heights[image]), axis=1)  # (m, 2)
        low = self.boxes[:, :2].clip(0, ends)
        high = (self.boxes[:, :2] + self.boxes[:, 2:]).clip(0, ends)
        return ((high - low) < MIN_SIDE_PX).any(axis=1)

    @cached_property
    def is_outlined(self) -> Bools:
        """(m,) whether an object has an outline."""
        return np.diff(self.first_outline) > 0

    def objects(self, image: int) -> range:
        """Return the rows of an image's objects."""
        return range(int(self.first_object[image]), int(self.first_object[image + 1]))

    def has_objects(self, images: Ints) -> bool:
        """Return whether any of the images (n,) has an object that is not a crowd, as scores need."""
        return any(not self.is_crowd[self.objects(int(image))].all() for image in images)

    def outlines(self, obj: int) -> list[Floats]:
        """Return an object's polygons, or its single list of run lengths, as views; empty without an outline."""
        rows = range(int(self.first_outline[obj]), int(self.first_outline[obj + 1]))
        return [self.numbers[self.first_number[row] : self.first_number[row + 1]] for row in rows]

    def as_coco(self, images: Iterable[int], *, outlines: bool = True) -> dict[str, Any]:
        """Return some images and their objects in COCO's file format.

        Args:
            images: rows of the images.
            outlines: whether the objects have their outlines, or empty lists in their place.
        """
        kept = list(images)
        return {
            "images": [
                {
                    "id": int(self.image_ids[i]),
                    "file_name": str(self.names[i]),
                    "height": int(self.heights[i]),
                    "width": int(self.widths[i]),
                }
                for i in kept
            ],
            "annotations": [
                {
                    "id": int(self.ids[row]),
                    "image_id": int(self.image_ids[i]),
                    "category_id": int(self.category_ids[self.labels[row] - 1]),
                    "bbox": self.boxes[row].tolist(),
                    "area": float(self.areas[row]),
                    "iscrowd": int(self.is_crowd[row]),
                    "segmentation": self._segmentation(i, row) if outlines else [],
                }
                for i in kept
                for row in self.objects(i)
            ],
            "categories": [
                {"id": int(number), "name": str(name)}
                for number, name in zip(self.category_ids, self.category_names, strict=True)
            ],
        }

    def numbered(self) -> Annotations:
        """Return the annotations with images and objects numbered from 1, in their order."""
        return replace(self, image_ids=np.arange(1, len(self) + 1), ids=np.arange(1, len(self.ids) + 1))

    def save(self, path: Path) -> None:
        """Write all arrays to one file."""
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Annotations:
        """Load a file that `save` wrote.

        Raises:
            DamagedFile: it cannot be read.
        """
        with reading(path), np.load(path) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    def _segmentation(self, image: int, obj: int) -> Any:
        outlines = [numbers.tolist() for numbers in self.outlines(obj)]
        if not self.is_mask[obj]:
            return outlines
        size = [int(self.heights[image]), int(self.widths[image])]
        return {"size": size, "counts": [int(count) for count in outlines[0]]}


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """Image of an annotation file.

    Args:
        id: id of the image.
        name: file name, relative to the part's folder; empty if the image is drawn.
        height: height in pixels.
        width: width in pixels.
        objects: objects in the image.
    """

    id: int
    name: str
    height: int
    width: int
    objects: Sequence[ObjectRecord]


def pack(images: Sequence[ImageRecord], *, categories: dict[int, str]) -> Annotations:
    """Pack images and their objects into arrays.

    Args:
        images: images, in the order of their rows.
        categories: id to name, in the order of their labels.

    >>> square = ObjectRecord(
    ...     id=7, label=1, box=[1, 1, 2, 2], area=4, is_crowd=False, outline=[[1, 1, 3, 1, 3, 3, 1, 3]], is_mask=False
    ... )
    >>> image = ImageRecord(id=5, name="a.jpg", height=4, width=6, objects=[square])
    >>> packed = pack([image], categories={18: "dog"})
    >>> packed.as_coco([0])["annotations"][0]["category_id"]
    18
    """
    objects = [obj for image in images for obj in image.objects]
    outlines = [outline for obj in objects for outline in obj.outline]
    numbers = [np.asarray(outline, dtype=np.float64) for outline in outlines]
    return Annotations(
        image_ids=np.array([image.id for image in images], dtype=np.int64),
        names=np.array([image.name for image in images], dtype=np.str_),
        heights=np.array([image.height for image in images], dtype=np.int64),
        widths=np.array([image.width for image in images], dtype=np.int64),
        first_object=_starts(len(image.objects) for image in images),
        ids=np.array([obj.id for obj in objects], dtype=np.int64),
        labels=np.array([obj.label for obj in objects], dtype=np.int64),
        boxes=np.array([obj.box for obj in objects], dtype=np.float64).reshape(len(objects), 4),
        areas=np.array([obj.area for obj in objects], dtype=np.float64),
        is_crowd=np.array([obj.is_crowd for obj in objects], dtype=np.bool_),
        is_mask=np.array([obj.is_mask for obj in objects], dtype=np.bool_),
        first_outline=_starts(len(obj.outline) for obj in objects),
        first_number=_starts(len(outline) for outline in outlines),
        numbers=np.concatenate(numbers) if numbers else np.empty(0),
        category_ids=np.array(list(categories), dtype=np.int64),
        category_names=np.array(list(categories.values()), dtype=np.str_),
    )


def _starts(counts: Iterable[int]) -> Ints:
    """Return the start of each run, and the end of the last.

    >>> _starts([2, 0, 3]).tolist()
    [0, 2, 2, 5]
    """
    return np.concatenate([[0], np.cumsum(np.fromiter(counts, dtype=np.int64))]).astype(np.int64)

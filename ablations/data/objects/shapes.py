"""Shapes: overlapping circles, rectangles and triangles, drawn on demand from a seed; nothing to download.

An image depends only on (its part, its row). Outlines, boxes and areas are those of the visible pixels of a shape, as
in COCO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from ablations.config import UsageError
from ablations.data.objects.annotations import Annotations, ImageRecord, ObjectRecord, pack
from ablations.data.objects.outlines import run_lengths
from ufo.init import keyed_generator

CATEGORIES = {1: "circle", 2: "rectangle", 3: "triangle"}
"""Category id to name."""

SIDE = 128
"""Default side of an image, in pixels."""

MIN_SIDE = 32
"""Smallest side of an image, in pixels; below, a small triangle is a few dots."""

PARTS = {"train": 1000, "val": 100, "test": 200}
"""Number of images in each part."""

MAX_SHAPES = 6
"""Largest number of shapes in an image; the smallest is 1."""

RADII = (0.08, 0.3)
"""Smallest and largest radius of the circle around a shape, as a share of the image's side; log-uniform."""

MIN_VISIBLE = 0.4
"""Smallest visible share of a shape: one that would hide more of another is drawn again."""

TRIES = 20
"""Number of draws of a shape, after which it is omitted."""

VERSION = 1
"""Version of the drawing; another one is another data set."""


@dataclass(frozen=True)
class Shapes:
    """Data set of shapes.

    Args:
        side: side of an image, in pixels.
    """

    side: int = SIDE
    name: ClassVar[str] = "shapes"
    root: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if self.side < MIN_SIDE:
            raise UsageError(f"image_size={self.side}: must be at least {MIN_SIDE} px for shapes")

    @property
    def fingerprint(self) -> str:
        """Identifier of the images."""
        return f"shapes-v{VERSION}-{self.side}"

    def read(self, notes: list[str]) -> dict[str, Annotations]:
        """Draw every image and return the annotations of each part."""
        return {part: self.annotations(part) for part in PARTS}

    def file_of(self, part: str) -> str:
        """Return the name of a part, which has no file."""
        return f"{self.name}, {part}"

    def image(self, part: str, row: int) -> npt.NDArray[np.uint8]:
        """Draw an image: (side, side, 3)."""
        return _draw(self.side, part, row)[0]

    def annotations(self, part: str) -> Annotations:
        """Draw every image of a part and return their annotations."""
        images, number = [], 0
        for row in range(PARTS[part]):
            objects = []
            for label, mask in _draw(self.side, part, row)[1]:
                number += 1
                objects.append(_record(number, label, mask))
            images.append(ImageRecord(id=row + 1, name="", height=self.side, width=self.side, objects=objects))
        return pack(images, categories=CATEGORIES)


def _record(number: int, label: int, mask: npt.NDArray[np.bool_]) -> ObjectRecord:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = float(columns[0]), float(rows[0])
    return ObjectRecord(
        id=number,
        label=label,
        box=[left, top, float(columns[-1]) + 1 - left, float(rows[-1]) + 1 - top],
        area=float(mask.sum()),
        is_crowd=False,
        outline=[run_lengths(mask)],
        is_mask=True,
    )


def _draw(side: int, part: str, row: int) -> tuple[npt.NDArray[np.uint8], list[tuple[int, npt.NDArray[np.bool_]]]]:
    """Draw an image, and return it with the label and visible mask of each shape."""
    generator = keyed_generator(0, "shapes", VERSION, part, row)
    visible: list[tuple[int, npt.NDArray[np.bool_]]] = []
    colors: list[npt.NDArray[np.float64]] = []
    areas: list[int] = []
    background = _numbers(generator, 3)
    for _ in range(1 + int(torch.randint(MAX_SHAPES, (), generator=generator))):
        for _ in range(TRIES):
            label = 1 + int(torch.randint(len(CATEGORIES), (), generator=generator))
            mask, color = _shape(side, label, generator), _numbers(generator, 3)
            left = [old & ~mask for _, old in visible]
            is_covering = any(old.sum() < MIN_VISIBLE * size for old, size in zip(left, areas, strict=True))
            if not is_covering and mask.any() and np.abs(color - background).max() > 0.25:
                visible = [(old_label, old) for (old_label, _), old in zip(visible, left, strict=True)]
                visible.append((label, mask))
                colors.append(color)
                areas.append(int(mask.sum()))
                break
    noise = 0.05 * torch.randn((side, side, 3), generator=generator, dtype=torch.float64).numpy()
    image = np.broadcast_to(background, (side, side, 3)) + noise
    for (_, mask), color in zip(visible, colors, strict=True):
        image[mask] += color - background
    return (255 * image.clip(0, 1)).round().astype(np.uint8), visible


def _shape(side: int, label: int, generator: torch.Generator) -> npt.NDArray[np.bool_]:
    """Draw the mask of one shape, entirely within the image."""
    size, turn, aspect, *place = _numbers(generator, 5).tolist()
    low, high = (math.log(radius) for radius in RADII)
    radius = side * math.exp(low + (high - low) * size)
    x, y = (radius + (side - 2 * radius) * share for share in place)
    canvas = Image.new("1", (side, side))
    pen = ImageDraw.Draw(canvas)
    if label == 1:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
        return np.asarray(canvas)
    if label == 2:
        half = math.radians(25 + 40 * aspect)  # half the diagonals' angle: sides of 1 : 0.47 to 1 : 2.1
        angles = [half, math.pi - half, math.pi + half, -half]
    else:
        angles = [0, math.radians(120), math.radians(240)]
    corners = [
        (x + radius * math.cos(angle + 2 * math.pi * turn), y + radius * math.sin(angle + 2 * math.pi * turn))
        for angle in angles
    ]
    pen.polygon(corners, fill=1)
    return np.asarray(canvas)


def _numbers(generator: torch.Generator, count: int) -> npt.NDArray[np.float64]:
    return torch.rand(count, generator=generator, dtype=torch.float64).numpy()

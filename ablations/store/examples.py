"""Schema of a detector's examples: images, annotated objects and what was found in them, in COCO's format."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    FailFast,
    Field,
    FiniteFloat,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ablations.config.limits import MOST_NAME

MOST_PIXELS = 2**24
"""Largest image that is drawn, in pixels."""

MOST_IMAGES = 10
"""Largest number of example images; a run writes three."""

Side = Annotated[int, Field(ge=1, le=2**16)]
FARTHEST_SIDES = 10
"""Largest coordinate of a polygon, in longer sides of its image, as in the annotation files that are read."""

Id = Annotated[int, Field(gt=-(2**63), lt=2**63)]
Run = Annotated[int, Field(ge=0, lt=2**63)]
Polygon = Annotated[list[FiniteFloat], Field(min_length=6)]


class ExampleImage(BaseModel):
    """An image, whose file is named by its id."""

    id: Id
    height: Side
    width: Side

    @model_validator(mode="after")
    def _is_drawable(self) -> ExampleImage:
        if self.height * self.width > MOST_PIXELS:
            raise ValueError(f"an image of {self.height} x {self.width} pixels is too large")
        return self


class Category(BaseModel):
    """A category."""

    id: Id
    name: Annotated[StrictStr, Field(max_length=MOST_NAME)]


class Runs(BaseModel):
    """A mask as run lengths, column by column, in numbers or in COCO's text."""

    size: tuple[Side, Side]
    counts: list[Run] | StrictStr

    @field_validator("counts")
    @classmethod
    def _fill_the_mask(cls, counts: list[int] | str, info: ValidationInfo) -> list[int] | str:
        """Check the runs, since the decoder, in C, trusts them."""
        height, width = info.data.get("size", (0, 0))
        runs = counts if isinstance(counts, list) else _runs_of(counts)
        if min(runs, default=0) < 0 or sum(runs) != height * width:
            raise ValueError("the run lengths do not fill the mask")
        return counts


class Found(BaseModel):
    """An object that was annotated, or found with a score."""

    image_id: Id
    category_id: Id
    bbox: Annotated[tuple[FiniteFloat, ...], Field(min_length=4, max_length=4)]
    score: Annotated[float, Field(ge=0, le=1)] | None = None
    segmentation: list[Polygon] | Runs | None = None


class Truth(BaseModel):
    """Content of truth.json."""

    images: Annotated[list[ExampleImage], Field(max_length=MOST_IMAGES), FailFast()]
    annotations: Annotated[list[Found], FailFast()]
    categories: Annotated[list[Category], FailFast()]

    @field_validator("images")
    @classmethod
    def _are_distinct(cls, images: list[ExampleImage]) -> list[ExampleImage]:
        if len({image.id for image in images}) < len(images):
            raise ValueError("two images have one id")
        return images


def check_outline(outline: list[list[float]] | dict[str, Any], *, height: int, width: int) -> None:
    """Check that an outline belongs to its image.

    Args:
        outline: polygons, or run lengths with their ``size``.
        height: height of the image, in pixels.
        width: width of the image, in pixels.

    Raises:
        ValueError: the mask has another size, or a polygon lies far from the image.
    """
    if isinstance(outline, dict):
        if tuple(outline["size"]) != (height, width):
            raise ValueError(f"a mask of {outline['size']} in an image of {height} x {width}")
    elif any(abs(value) > FARTHEST_SIDES * max(height, width) for polygon in outline for value in polygon):
        raise ValueError("a polygon lies far from its image")


def _runs_of(text: str) -> list[int]:
    """Read the run lengths of COCO's compressed text: groups of 5 bits, differences from the third run on."""
    runs: list[int] = []
    value = shift = 0
    for sign in text:
        bits = ord(sign) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("the run lengths are damaged")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more follow
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the run lengths are cut short")
    return runs

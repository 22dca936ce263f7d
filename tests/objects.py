"""Shapes as files of COCO's format, for tests of what reads them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ablations.data.objects.shapes import Shapes

COCO_IDS = {1: 4, 2: 9, 3: 17}
"""A shape's category to an id as COCO's, with gaps."""


def shapes_as_coco(folder: Path, *, images: int, part: str = "val", side: int = 64) -> tuple[Path, dict[str, Any]]:
    """Write shapes as PNG files and COCO's JSON; return the JSON's path and what it holds."""
    shapes = Shapes(side)
    data = shapes.annotations(part).as_coco(range(images))
    (folder / "images").mkdir(parents=True)
    for image in data["images"]:
        image["file_name"] = f"{image['id']:012}.png"
        Image.fromarray(shapes.image(part, image["id"] - 1)).save(folder / "images" / image["file_name"])
    for obj in data["annotations"]:
        obj["category_id"] = COCO_IDS[obj["category_id"]]
    for category in data["categories"]:
        category["id"] = COCO_IDS[category["id"]]
    return write(folder / "instances.json", data), data


def coco_folder(root: Path, *, train: int, test: int, side: int = 64) -> Path:
    """Write shapes in COCO's own layout, so many to train and to test on; return the folder."""
    (root / "annotations").mkdir(parents=True)
    for part, year, images in (("val", "train2017", train), ("test", "val2017", test)):
        path, _ = shapes_as_coco(root / year, images=images, part=part, side=side)
        path.rename(root / "annotations" / f"instances_{year}.json")
        for image in (root / year / "images").iterdir():
            image.rename(root / year / image.name)
    return root


def without_outlines(root: Path, *, every: int = 1) -> Path:
    """Empty every so many outlines of a data set in COCO's layout, as tools for boxes export it; return its folder."""
    for path in (root / "annotations").iterdir():
        data = json.loads(path.read_text())
        for obj in data["annotations"][::every]:
            obj["segmentation"] = []
        write(path, data)
    return root


def write(path: Path, data: Any) -> Path:
    """Write JSON and return its path."""
    path.write_text(json.dumps(data))
    return path


def of_pycocotools(
    path: Path, detections: list[dict[str, Any]], kind: str, *, images: Sequence[int] | None = None
) -> list[float | None]:
    """Score detections by pycocotools against an annotation file, on all or some of its images, in per cent.

    Masks are given without their boxes, by whose areas pycocotools would tell small ones from large ones.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        held = COCO(str(path))
        evaluation = COCOeval(held, held.loadRes(_of_kind(detections, kind)), kind)
        if images is not None:
            evaluation.params.imgIds = sorted(images)
        for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
            step()
    return [100 * float(value) if value >= 0 else None for value in evaluation.stats[:6]]


def _of_kind(detections: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    left_out = {"bbox"} if kind == "segm" else set()
    return [{key: value for key, value in found.items() if key not in left_out} for found in detections]

"""Reader of COCO's instance files, which checks every record before the first step.

The content is interpreted as in COCO: crowds are no examples, and detections inside them do not count; images without
objects are background; boxes without width or height are no examples. An invalid record stops the command.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ablations.config import UsageError
from ablations.data.objects.annotations import Annotations, ImageRecord, ObjectRecord, pack

LARGEST = 2**63
"""Bound on the absolute value of a number that has to fit into 64 bits."""

MIN_POLYGON = 6
"""Smallest number of coordinates in a polygon: three points."""


def read_coco(path: Path, *, folder: Path) -> Annotations:
    """Read and check one of COCO's instance files.

    Args:
        path: path of the JSON file.
        folder: folder of its images, all of which must exist.

    Raises:
        UsageError: missing file, invalid JSON, or invalid record; the message names it.

    Returns:
        Images sorted by id, each with its objects in the file's order.
    """
    data = _read(path)
    where = path.name
    categories = _categories(data, where)
    labels = {number: label for label, number in enumerate(categories, start=1)}
    images = _images(data, where, folder)
    objects: dict[int, list[ObjectRecord]] = {number: [] for number in images}
    seen: set[int] = set()
    for record in data["annotations"]:
        obj, image = _object(record, where, images, labels)
        if obj.id in seen:
            raise UsageError(f"{where}: annotation {obj.id} is listed twice; remove one")
        seen.add(obj.id)
        objects[image].append(obj)
    rows = [
        ImageRecord(
            id=number, name=image["file_name"], height=image["height"], width=image["width"], objects=objects[number]
        )
        for number, image in sorted(images.items())
    ]
    return pack(rows, categories=categories)


def notes_on(annotations: Annotations, part: str) -> list[str]:
    """Return notes on the images and objects of a part that are no examples of a category.

    Args:
        annotations: annotations of the part.
        part: name of the part.
    """
    notes = []
    counts = np.diff(annotations.first_object)
    if num := int((counts == 0).sum()):
        name = annotations.image_ids[np.argmin(counts)]
        what = "used as background in training" if part == "train" else "in which every detection is wrong"
        notes.append(f"{part}: {_count(num, 'image')} without objects (the first is {name}), {what}")
    if num := int(annotations.is_crowd.sum()):
        first = annotations.ids[np.argmax(annotations.is_crowd)]
        notes.append(f"{part}: {_count(num, 'crowd')} (the first is annotation {first}), no examples, as in COCO")
    flat = annotations.is_flat & ~annotations.is_crowd
    if num := int(flat.sum()):
        first = annotations.ids[np.argmax(flat)]
        what = f"without width or height in the image (the first is annotation {first})"
        notes.append(f"{part}: {_count(num, 'box')} {what}, no examples")
    return notes


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no annotations at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise UsageError(f"{path} is not one of COCO's instance files: it has no list of {key}")
    return data


def _categories(data: Mapping[str, Any], where: str) -> dict[int, str]:
    """Return the names of the categories by id, sorted by id, which is the order of the labels."""
    found: dict[int, str] = {}
    for index, record in enumerate(data["categories"]):
        name = f"{where}: category number {index + 1} of the list"
        _check(record, {"id": int, "name": str}, name)
        if record["id"] in found:
            raise UsageError(f"{where}: category {record['id']} is listed twice; remove one")
        found[record["id"]] = record["name"]
    if not found:
        raise UsageError(f"{where} has no categories")
    return dict(sorted(found.items()))


def _images(data: Mapping[str, Any], where: str, folder: Path) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for index, record in enumerate(data["images"]):
        _check(record, {"id": int}, f"{where}: image number {index + 1} of the list")
        name = f"{where}: image {record['id']}"
        _check(record, {"file_name": str, "height": int, "width": int}, name)
        if record["id"] in found:
            raise UsageError(f"{name} is listed twice; remove one")
        if min(record["height"], record["width"]) < 1:
            raise UsageError(f"{name} has no pixels: {record['height']} x {record['width']}")
        found[record["id"]] = record
    if not found:
        raise UsageError(f"{where} has no images")
    missing = [record for record in found.values() if not (folder / record["file_name"]).is_file()]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"{where}: image {missing[0]['id']} not found: no file {folder / missing[0]['file_name']}{more}"
        )
    return found


def _object(
    record: Any, where: str, images: Mapping[int, Mapping[str, Any]], labels: Mapping[int, int]
) -> tuple[ObjectRecord, int]:
    """Check one annotation, and return it with the id of its image."""
    _check(record, {"id": int}, f"{where}: an annotation")
    name = f"{where}: annotation {record['id']}"
    _check(record, {"image_id": int, "category_id": int, "bbox": list, "segmentation": (list, dict)}, name)
    if record["image_id"] not in images:
        raise UsageError(f"{name}: unknown image_id {record['image_id']}: not in the list of images")
    if record["category_id"] not in labels:
        raise UsageError(f"{name}: unknown category_id {record['category_id']}: not in the list of categories")
    box = record["bbox"]
    if len(box) != 4 or not all(_is_number(side) for side in box) or min(box[2:]) < 0:
        raise UsageError(f"{name}: bbox {box} must be left, top, width and height")
    area = record.get("area", box[2] * box[3])
    if not _is_number(area):
        raise UsageError(f"{name}: area {area} must be a number")
    outline, is_mask = _outline(record["segmentation"], name, images[record["image_id"]])
    obj = ObjectRecord(
        id=record["id"],
        label=labels[record["category_id"]],
        box=box,
        area=area,
        is_crowd=bool(record.get("iscrowd", 0)),
        outline=outline,
        is_mask=is_mask,
    )
    return obj, record["image_id"]


def _outline(segmentation: Any, name: str, image: Mapping[str, Any]) -> tuple[list[list[float]], bool]:
    """Return polygons or one list of run lengths, and whether it is run lengths."""
    if isinstance(segmentation, dict):
        return [_run_lengths(segmentation, name, image)], True
    if not segmentation:
        raise UsageError(f"{name} has no outline: its segmentation is empty")
    for polygon in segmentation:
        if not isinstance(polygon, list) or not all(_is_number(number) for number in polygon):
            raise UsageError(f"{name}: a polygon is not a list of numbers")
        if len(polygon) < MIN_POLYGON or len(polygon) % 2:
            raise UsageError(
                f"{name}: a polygon has {len(polygon) / 2:g} points; it needs at least three, each x and y"
            )
    return segmentation, False


def _run_lengths(segmentation: Mapping[str, Any], name: str, image: Mapping[str, Any]) -> list[float]:
    """Return the uncompressed run lengths of a mask."""
    size = [image["height"], image["width"]]
    counts = segmentation.get("counts")
    if segmentation.get("size") != size:
        raise UsageError(f"{name}: the size of its mask is {segmentation.get('size')}, that of its image {size}")
    if isinstance(counts, str):
        from faster_coco_eval.core import mask

        try:
            return run_lengths(mask.decode({"size": size, "counts": counts.encode()}))
        except ValueError as error:
            raise UsageError(f"{name}: the counts of its mask cannot be read: {error}") from error
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise UsageError(f"{name}: its mask has no counts")
    if sum(counts) != math.prod(size):
        raise UsageError(f"{name}: its mask has {sum(counts)} pixels, its image {math.prod(size)}")
    return counts


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


def _check(record: Any, wanted: Mapping[str, Any], name: str) -> None:
    """Check that a record has the wanted keys, with values of the wanted types."""
    if not isinstance(record, dict):
        raise UsageError(f"{name} is not a record: {record!r:.60}")
    for key, kind in wanted.items():
        value = record.get(key)
        if key not in record:
            raise UsageError(f"{name} has no {key}")
        is_large = isinstance(value, int) and abs(value) >= LARGEST
        if isinstance(value, bool) or not isinstance(value, kind) or is_large:
            raise UsageError(f"{name}: invalid {key}: {value!r:.60}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(count: int, noun: str) -> str:
    plural = "boxes" if noun == "box" else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"

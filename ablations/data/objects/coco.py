"""Reader of COCO's instance files, which checks every record before the first step.

The content is interpreted as in COCO: crowds are no examples, and detections inside them do not count; images without
objects are background; boxes without width or height are no examples. An invalid record stops the command. What tools
write otherwise than COCO, without another meaning, is taken, and a note says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ablations.config import UsageError
from ablations.data.objects.annotations import Annotations, ImageRecord, ObjectRecord, pack
from ablations.data.objects.image_files import check_headers, find_image, is_within
from ablations.data.objects.oddities import Oddities, count_odd_box, count_repeated
from ablations.data.objects.outlines import read_outline
from ablations.data.objects.values import Values, count_text, is_number

MOST_SHOWN = 8
"""Largest number of ids that a message lists."""


def read_coco(path: Path, *, folder: Path, notes: list[str] | None = None) -> Annotations:
    """Read and check one of COCO's instance files.

    Args:
        path: path of the JSON file.
        folder: folder of its images, all of which must exist.
        notes: list that receives a line for each kind of value that is odd but taken; None: they are not wanted.

    Raises:
        UsageError: missing file, invalid JSON, or invalid record; the message names it.

    Returns:
        Images sorted by id, each with its objects in the file's order.
    """
    data = _read(path)
    values, odd = Values(path.name), Oddities()
    categories = _categories(data, values)
    labels = {number: label for label, number in enumerate(categories, start=1)}
    images = _images(data, values, folder, odd)
    objects: dict[int, list[ObjectRecord]] = {number: [] for number in images}
    seen: set[int] = set()
    for index, record in enumerate(data["annotations"]):
        obj, image = _object(record, index, values, images, labels, odd)
        if obj.id in seen:
            raise UsageError(f"{path.name}: annotation {obj.id} is listed twice; remove one")
        seen.add(obj.id)
        objects[image].append(obj)
    for own in objects.values():
        count_repeated(own, odd)
    rows = [
        ImageRecord(id=number, name=image.name, height=image.height, width=image.width, objects=objects[number])
        for number, image in sorted(images.items())
    ]
    if notes is not None:
        notes += [*values.notes(), *odd.notes(path.name, folder=folder.name, num_objects=len(seen))]
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
        notes.append(f"{part}: {count_text(num, 'image')} without objects (the first is {name}), {what}")
    if num := int(annotations.is_crowd.sum()):
        first = annotations.ids[np.argmax(annotations.is_crowd)]
        notes.append(f"{part}: {count_text(num, 'crowd')} (the first is annotation {first}), no examples, as in COCO")
    flat = annotations.is_flat & ~annotations.is_crowd
    if num := int(flat.sum()):
        first = annotations.ids[np.argmax(flat)]
        what = f"without width or height in the image (the first is annotation {first})"
        notes.append(f"{part}: {count_text(num, 'box')} {what}, no examples")
    return notes


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"no annotations at {path}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} cannot be read: {error}; must be UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, too many brackets
        raise UsageError(f"{path} is not JSON that can be read: {error}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise UsageError(
                f"{path} is not one of COCO's instance files: it has no list of {key}; it must have images, "
                "annotations and categories"
            )
    return data


def _categories(data: Mapping[str, Any], values: Values) -> dict[int, str]:
    """Return the names of the categories by id, sorted by id, which is the order of the labels."""
    found: dict[int, str] = {}
    ids: dict[str, int] = {}
    for index, record in enumerate(data["categories"]):
        entry = f"category number {index + 1} of the list"
        number, name = values.whole(record, "id", entry), values.text(record, "name", entry)
        if number in found:
            raise UsageError(f"{values.file}: category {number} is listed twice; remove one")
        if name in ids:
            raise UsageError(
                f"{values.file}: categories {ids[name]} and {number} have the same name, '{name}'; rename one, or give "
                "the annotations of both one id"
            )
        found[number], ids[name] = name, number
    if not found:
        raise UsageError(f"{values.file} has no categories; must have at least one")
    return dict(sorted(found.items()))


def _images(data: Mapping[str, Any], values: Values, folder: Path, odd: Oddities) -> dict[int, ImageRecord]:
    """Return the images by id, without their objects, each with the name of its file within the folder."""
    found: dict[int, ImageRecord] = {}
    of_file: dict[str, int] = {}
    missing: list[str] = []
    for index, record in enumerate(data["images"]):
        number = values.whole(record, "id", f"image number {index + 1} of the list")
        entry = f"image {number}"
        name = values.text(record, "file_name", entry)
        height, width = (values.whole(record, side, entry) for side in ("height", "width"))
        if number in found:
            raise UsageError(f"{values.file}: {entry} is listed twice; remove one")
        if min(height, width) < 1:
            raise UsageError(f"{values.file}: {entry} has no pixels: {height} x {width}; must be at least 1 x 1")
        if not is_within(name):
            raise values.invalid(entry, "file_name", name, f"a path within {folder.name}, without .. or a root")
        path = find_image(name, folder)
        if path is None:
            missing.append(f"{entry} not found: no file {folder / name}")
        elif path != name:
            odd.renamed.add(f"{entry}, {name!r:.60}: {path}")
        before = of_file.setdefault(path or name, number)
        if before != number:
            odd.same_file.add(f"{entry}, {name!r:.60}, as image {before}")
        found[number] = ImageRecord(id=number, name=path or name, height=height, width=width, objects=())
    if not found:
        raise UsageError(f"{values.file} has no images; must have at least one")
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(f"{values.file}: {missing[0]}{more}; file_name must be a path within {folder.name}")
    check_headers(found.values(), folder, values.file)
    return found


def _object(
    record: Any,
    index: int,
    values: Values,
    images: Mapping[int, ImageRecord],
    labels: Mapping[int, int],
    odd: Oddities,
) -> tuple[ObjectRecord, int]:
    """Check one annotation, and return it with the id of its image."""
    number = values.whole(record, "id", f"annotation number {index + 1} of the list")
    entry = f"annotation {number}"
    name = f"{values.file}: {entry}"
    image_id, category = (values.whole(record, key, entry) for key in ("image_id", "category_id"))
    if image_id not in images:
        raise UsageError(f"{name}: unknown image_id {image_id}: not in the list of images; must be the id of one")
    if category not in labels:
        ids = ", ".join(map(str, [*labels][:MOST_SHOWN])) + ", ..." * (len(labels) > MOST_SHOWN)
        raise UsageError(f"{name}: unknown category_id {category}: not in the list of categories; must be {ids}")
    box = values.value(record, "bbox", entry, "left, top, width and height")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
        raise UsageError(
            f"{name}: bbox {box!r:.60} must be left, top, width and height, in pixels below 2**63, sides from 0"
        )
    area = record.get("area", box[2] * box[3])
    if not is_number(area) or area < 0:
        raise UsageError(
            f"{name}: area {area!s:.60} must be a number from 0; leave it out for that of the box (below 2**63)"
        )
    image = images[image_id]
    outline, is_mask = read_outline(record.get("segmentation"), values, entry, (image.height, image.width))
    obj = ObjectRecord(
        id=number,
        label=labels[category],
        box=box,
        area=area,
        is_crowd=values.flag(record, "iscrowd", entry),
        outline=outline,
        is_mask=is_mask,
    )
    count_odd_box(obj, image, odd)
    if number < 1:
        odd.below_1.add(entry)
    return obj, image_id

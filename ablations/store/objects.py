"""What detectors left in their cells' folders, as tidy DataFrames."""

from __future__ import annotations

import bz2
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from PIL import Image
from pydantic import FailFast, TypeAdapter, ValidationError

from ablations.config.errors import first_error, one_line
from ablations.config.task import metric_of
from ablations.store.examples import MOST_PIXELS, Found, Truth, check_outline
from ablations.store.reading import check_inside, parse_json, read_bytes, read_text, reason_of
from ablations.store.record import CellRecord

FOUND = TypeAdapter(Annotated[list[Found], FailFast()])
"""Content of detections.json."""

MOST_UNPACKED = 2**30
"""Largest detections, unpacked, in bytes; those of 5,000 photographs with 100 objects each have a third of that."""

KINDS_OF_AP = ("box", "mask")

PRECISION = ("kind", "iou", "recall", "precision")
"""Columns of precision.csv; ``kind`` becomes ``kind_of_ap``, since a cell has a kind of outcome too."""

EXAMPLES = (
    *("cell", "path", "image_id", "height", "width", "is_truth", "category", "category_order", "score"),
    *("left", "top", "box_width", "box_height", "outline"),
)

KEYS = ("cell", "arm", "arm_label", "arm_order", "condition", "seed")


def read_precision(cells: pd.DataFrame, records: Sequence[CellRecord], problems: list[str]) -> pd.DataFrame:
    """Return the precision by recall of every tested cell.

    Args:
        cells: one row per cell, with the keys of all frames.
        records: records of detectors and others.
        problems: list that receives a sentence for each unreadable file.
    """
    parts = []
    for record in _tested(records):
        try:
            text = io.StringIO(read_text(record.folder / "precision.csv"))
            part = pd.read_csv(text)[list(PRECISION)].rename(columns={"kind": "kind_of_ap"})
            numbers = part[list(PRECISION[1:])].apply(pd.to_numeric)
            if not part["kind_of_ap"].isin(KINDS_OF_AP).all() or not numbers.stack().between(-1, 1).all():
                raise ValueError("a value is out of its range")
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{record.folder.name}: precision.csv cannot be read: {reason_of(error)}")
            continue
        parts.append(part.assign(**numbers, cell=record.config.id))
    columns = ["cell", "kind_of_ap", *PRECISION[1:]]
    read = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return cells[list(KEYS)].merge(read, on="cell", validate="one_to_many")


def read_examples(cells: pd.DataFrame, records: Sequence[CellRecord], problems: list[str]) -> pd.DataFrame:
    """Return the objects found in the example images by each arm's first seed, and the annotated ones.

    Args:
        cells: as in `read_precision`.
        records: records in the order of the cells.
        problems: as in `read_precision`.
    """
    first = cells.drop_duplicates(["condition", "arm"])["cell"].tolist() if len(cells) else []
    rows: list[dict[str, Any]] = []
    for record in _tested(records):
        if record.config.id not in first:
            continue
        folder = record.folder / "examples"
        try:
            check_inside(folder, record.folder)
            truth = Truth.model_validate(_read_json(folder / "truth.json"))
            plain = record.folder / "detections.json"  # of earlier versions
            packed = plain.with_suffix(".json.bz2")
            found = FOUND.validate_python(_read_json(plain if plain.exists() and not packed.exists() else packed))
            for image in truth.images:
                _check_image(folder / f"{image.id}.jpg")
            rows += [{"cell": record.config.id, **row} for row in _objects(folder, truth, found)]
        except ValidationError as error:
            problems.append(f"{record.folder.name}: its examples cannot be read: {first_error(error)}")
        except (ValueError, KeyError) as error:
            problems.append(f"{record.folder.name}: its examples cannot be read: {one_line(error)}")
    read = pd.DataFrame(rows, columns=list(EXAMPLES))
    return cells[list(KEYS)].merge(read, on="cell", validate="one_to_many")


def _read_json(path: Path) -> Any:
    """Return the value in a JSON file, which bzip2 may have compressed.

    Raises:
        ValueError: the file is missing, damaged or too large, in one line with its name.
    """
    try:
        content = read_bytes(path, most=MOST_UNPACKED)
        if path.suffix == ".bz2":
            unpacked = bz2.BZ2Decompressor()
            content = unpacked.decompress(content, MOST_UNPACKED)
            if not unpacked.eof:
                ended = "Compressed data ended before the end-of-stream marker was reached"
                large = f"it unpacks to more than {MOST_UNPACKED >> 20} MiB"
                raise ValueError(ended if unpacked.needs_input else large)
        return parse_json(content)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {reason_of(error)}") from error


def _check_image(path: Path) -> None:
    """Check that an image can be drawn.

    Raises:
        ValueError: the file is missing, damaged or too large, in one line with its name.
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(read_bytes(path)), formats=["JPEG"]) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it has a line of its own
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels")
            image.load()
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path.name}: {reason_of(error)}") from error


def _objects(folder: Path, truth: Truth, found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return the objects of each example image, annotated ones and found ones.

    Raises:
        KeyError: an object of an unknown category.
        ValueError: an outline that does not belong to its image.
    """
    names = {category.id: category.name for category in truth.categories}
    orders = {number: place for place, number in enumerate(names)}
    rows: list[dict[str, Any]] = []
    parts = [(is_truth, _by_image(objects)) for is_truth, objects in ((True, truth.annotations), (False, found))]
    for image in truth.images:
        common = {"path": str(folder / f"{image.id}.jpg"), "image_id": image.id}
        common |= {"height": image.height, "width": image.width}
        for is_truth, objects in parts:
            own = objects.get(image.id, [])
            for each in own:
                outline = [] if each.segmentation is None else each.model_dump()["segmentation"]
                check_outline(outline, height=image.height, width=image.width)
                described = {"category": names[each.category_id], "category_order": orders[each.category_id]}
                box = dict(zip(("left", "top", "box_width", "box_height"), each.bbox, strict=True))
                shown = {"score": each.score, **box, "outline": outline}
                rows.append({**common, "is_truth": is_truth, **described, **shown})
            if not own:
                rows.append({**common, "is_truth": is_truth})
    return rows


def _by_image(objects: Sequence[Found]) -> dict[int, list[Found]]:
    found: dict[int, list[Found]] = {}
    for each in objects:
        found.setdefault(each.image_id, []).append(each)
    return found


def _tested(records: Sequence[CellRecord]) -> list[CellRecord]:
    """Return the detectors that have been tested."""
    detectors = [record for record in records if record.config.task == "detect"]
    return [each for each in detectors if each.outcome.get(metric_of(each.config).columns[0]) is not None]

"""What detectors left in their cells' folders, as tidy DataFrames."""

from __future__ import annotations

import bz2
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.config.errors import one_line
from ablations.config.task import metric_of
from ablations.store.record import CellRecord

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
        path = record.folder / "precision.csv"
        try:
            part = pd.read_csv(path)[list(PRECISION)].rename(columns={"kind": "kind_of_ap"})
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{record.folder.name}: precision.csv cannot be read: {one_line(error)}")
            continue
        parts.append(part.assign(cell=record.config.id))
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
        try:
            truth = _read_json(record.folder / "examples" / "truth.json")
            plain = record.folder / "detections.json"  # of earlier versions
            packed = plain.with_suffix(".json.bz2")
            found = _read_json(plain if plain.exists() and not packed.exists() else packed)
            rows += [{"cell": record.config.id, **row} for row in _objects(record, truth, found)]
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"{record.folder.name}: its examples cannot be read: {one_line(error)}")
    read = pd.DataFrame(rows, columns=list(EXAMPLES))
    return cells[list(KEYS)].merge(read, on="cell", validate="one_to_many")


def _read_json(path: Path) -> Any:
    """Return the value in a JSON file, which bzip2 may have compressed.

    Raises:
        ValueError: the file is missing or damaged, in one line with its name.
    """
    try:
        content = path.read_bytes()
        return json.loads(bz2.decompress(content) if path.suffix == ".bz2" else content)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {getattr(error, 'strerror', None) or error}") from error


def _objects(record: CellRecord, truth: dict[str, Any], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the objects of each example image, annotated ones and found ones."""
    names = {category["id"]: category["name"] for category in truth["categories"]}
    orders = {number: place for place, number in enumerate(names)}
    rows: list[dict[str, Any]] = []
    for image in truth["images"]:
        common = {"path": str(record.folder / "examples" / f"{image['id']}.jpg"), "image_id": image["id"]}
        common |= {side: image[side] for side in ("height", "width")}
        for is_truth, objects in ((True, truth["annotations"]), (False, found)):
            own = [each for each in objects if each["image_id"] == image["id"]]
            rows += [
                {
                    **common,
                    "is_truth": is_truth,
                    "category": names[each["category_id"]],
                    "category_order": orders[each["category_id"]],
                    "score": each.get("score"),
                    **dict(zip(("left", "top", "box_width", "box_height"), each["bbox"], strict=True)),
                    "outline": each.get("segmentation") or [],
                }
                for each in own
            ]
            if not own:
                rows.append({**common, "is_truth": is_truth})
    return rows


def _tested(records: Sequence[CellRecord]) -> list[CellRecord]:
    """Return the detectors that have been tested."""
    detectors = [record for record in records if record.config.task == "detect"]
    return [each for each in detectors if each.outcome.get(metric_of(each.config).columns[0]) is not None]

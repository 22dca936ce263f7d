"""Find studies and cells by their names, and compare two cells."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablations.config import UsageError
from ablations.config.paths import real_path
from ablations.store.reading import check_inside, exists, reason_of
from ablations.store.record import CellRecord, as_file_name, read_record
from ablations.store.records import TRIALS, Store

LOG = logging.getLogger(__name__)


def study_folders(out: Path, *, holding: str = "study.yaml") -> list[Path]:
    """Return the folders of the studies in a folder, each followed by the folder of its trials.

    A folder that cannot be searched counts as a study, so that reading it says why.

    Args:
        out: folder, which may be missing.
        holding: name of the file or folder by which a study is known.

    Raises:
        UsageError: the folder cannot be listed.
    """
    try:
        folders = sorted(out.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{out} cannot be read: {reason_of(error)}") from error
    return [study for folder in folders for study in _studies_at(folder, holding)]


def find_cell(out: Path, name: str) -> CellRecord:
    """Find a finished cell by its path, or in any study by the start of its id or folder name.

    Raises:
        UsageError: no cell matches, or several do, or it leads out of its study or cannot be read.
    """
    path = real_path(Path(name))
    if exists(path / "outcome.json"):
        return read_record(path)
    folders = {folder: study for study in study_folders(out) for folder in _cells_of(study)}
    start = as_file_name(name)
    found = [f for f in folders if f.name.startswith(start) or f.name.rpartition("-")[2].startswith(start)]
    if not found:
        raise UsageError(f"no cell '{name}' in the studies of {out}; give the start of a cell's id or folder name")
    if len(found) > 1:
        names = ", ".join(map(str, found[:5]))
        raise UsageError(f"'{name}' matches {len(found)} cells: {names}{', ...' if len(found) > 5 else ''}; give one")
    check_inside(found[0], folders[found[0]])
    return read_record(found[0])


def _studies_at(folder: Path, holding: str) -> Iterator[Path]:
    """Yield a folder and that of its trials, as far as they hold a study or cannot be searched for one."""
    for study in (folder, folder / TRIALS):
        try:
            is_study = exists(study / holding)
        except UsageError:
            yield study
            return
        if is_study:
            yield study


def _cells_of(study: Path) -> list[Path]:
    """Return the folders of a study's cells; none, and a warning, if they cannot be listed."""
    try:
        return Store(study).cell_folders()
    except UsageError as error:
        LOG.warning("%s; its cells are not searched", error)
        return []


NOT_COMPARED = ("format", "cell", "attempts", "started", "digests")


def compare_cells(one: CellRecord, other: CellRecord) -> list[tuple[str, Any, Any]]:
    """Return the fields in which two cells' configurations and outcomes differ, with both values."""
    rows = []
    for part, a, b in (
        ("", one.config.model_dump(), other.config.model_dump()),
        ("outcome.", one.outcome, other.outcome),
    ):
        left, right = _flatten(a), _flatten(b)
        fields = [field for field in {**left, **right} if field.partition(".")[0] not in NOT_COMPARED]
        rows += [(part + f, left.get(f), right.get(f)) for f in fields if left.get(f) != right.get(f)]
    return rows


def _flatten(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return flat

"""The study folder: layout, atomic writes, records.

All other files can be rebuilt from ``cells/``. A cell's folder is written under ``cells/.partial/`` and then renamed.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablations.config import CellConfig, Study, UsageError
from ablations.config.cell import GROUPS
from ablations.config.errors import first_error, one_line
from ablations.config.task import score_column
from ablations.config.yaml_file import dump_yaml, read_yaml
from ablations.store.files import clean_log, sync, write_json, write_text
from ablations.store.leases import LEASE, LOG, OPENING, REPLACED, Lease, LeaseLost, Leases, remove_tree, rename, tidy
from ablations.store.outcome import RECORD_FORMAT, Outcome

TRIALS = "tuning"
"""Folder of a tuning's trials, which are a study, within the study that confirms the winners."""

READ_RETRIES, READ_RETRY_S = 3, 0.1
"""Number of retries for a record that cannot be read, and seconds before each."""


@dataclass(frozen=True)
class CellRecord:
    """A finished cell.

    Args:
        folder: folder of the cell.
        config: configuration of the cell.
        outcome: content of outcome.json.
    """

    folder: Path
    config: CellConfig
    outcome: dict[str, Any]

    @property
    def has_result(self) -> bool:
        """Whether its outcome is a result of the arm: ``ok`` or ``diverged``."""
        return self.outcome["outcome"] in ("ok", "diverged")


class Store:
    """The folder of a study.

    Args:
        folder: path of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells = folder / "cells"
        self.leases = Leases(self.cells / ".partial")

    @property
    def nearest_folder(self) -> Path:
        """The folder, or its nearest ancestor that exists."""
        return next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())

    @property
    def exists(self) -> bool:
        """Whether the folder holds a study."""
        return (self.folder / "study.yaml").is_file()

    def read_study(self) -> Study:
        """Read study.yaml.

        Raises:
            UsageError: the file does not exist or cannot be read.
        """
        path = self.folder / "study.yaml"
        if not path.is_file():
            trials = self.folder / TRIALS
            hint = f"; the trials of its tuning are in {trials}" if (trials / "study.yaml").is_file() else ""
            raise UsageError(f"no study in {self.folder}: it has no study.yaml{hint}")
        try:
            return Study.model_validate(read_yaml(path, dumped=True))
        except ValidationError as error:
            raise UsageError(f"{path} is not a valid study: {first_error(error)}") from error

    @property
    def study_text(self) -> str:
        """Content of study.yaml; empty if it does not exist."""
        try:
            return (self.folder / "study.yaml").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def write_study(self, study: Study) -> None:
        """Write study.yaml atomically.

        Raises:
            UsageError: the folder cannot be written.
        """
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / "study.yaml", dump_yaml(study.model_dump(mode="json")))
            sync(self.folder)
        except OSError as error:
            raise self._cannot_be_written(error) from error

    @contextlib.contextmanager
    def opened(self) -> Iterator[bool]:
        """Hold the lease on the study as a whole, so that other runners see it before its first cell starts.

        Yields:
            Whether no other runner holds it.

        Raises:
            UsageError: the folder cannot be written.
        """
        try:
            lease = self.leases.claim(OPENING)
        except OSError as error:
            raise self._cannot_be_written(error) from error
        try:
            yield lease is not None
        finally:
            with contextlib.suppress(OSError):  # take over from another runner that died meanwhile
                lease = lease or self.leases.claim(OPENING)
            if lease is not None:
                lease.release(keep_checkpoint=False)

    def _cannot_be_written(self, error: OSError) -> UsageError:
        return UsageError(f"{self.folder} cannot be written: {error.strerror}; give another --out")

    def publish(
        self, lease: Lease, config: CellConfig, outcome: dict[str, Any], *, name: str, replaces: CellRecord | None
    ) -> CellRecord:
        """Write a cell's record and rename its folder to its final name, replacing an earlier record.

        The files are synced before the rename, so that a power failure leaves no partial record.

        Args:
            lease: lease of the cell, which this ends.
            config: configuration of the cell.
            outcome: content of outcome.json.
            name: final name of the folder.
            replaces: record to replace; None: there is none.

        Raises:
            LeaseLost: another runner has taken the cell over or recorded it; this result is discarded.
        """
        lease.check()
        folder, old = self.cells / name, self.leases.partials / f"{REPLACED}{name}"
        try:
            write_json(lease.folder / "config.json", json.loads(config.model_dump_json()))
            write_json(lease.folder / "outcome.json", outcome)
            clean_log(lease.folder / LOG)
            for path in (*lease.folder.iterdir(), lease.folder):
                sync(path)
        except FileNotFoundError as error:
            raise LeaseLost("another runner has taken it over") from error
        if replaces is not None:
            shutil.rmtree(old, ignore_errors=True)  # left by a runner that died after its rename
            rename(replaces.folder, old)
        if not rename(lease.folder, folder):
            rename(old, folder)
            lease.release(keep_checkpoint=False)
            raise LeaseLost("another runner has taken it over or recorded it")
        sync(self.cells)
        tidy(folder, is_failed=outcome["outcome"] == "failed")
        if replaces is not None:
            remove_tree(old)
        return CellRecord(folder, config, outcome)

    def repair(self) -> None:
        """Complete or undo what dead runners left unfinished, without touching the cells of live ones."""
        self.leases.sweep()
        live = {folder.stem for folder in self.leases.running()}
        for old in self.leases.partials.glob(f"{REPLACED}*"):
            name = old.name.removeprefix(REPLACED)
            if name.rpartition("-")[2] not in live and not rename(old, self.cells / name):
                remove_tree(old)
        for lease in self.cells.glob(f"[!.]*/{LEASE}"):
            tidy(lease.parent, is_failed=_read_record(lease.parent).outcome["outcome"] == "failed")

    def find(self, name: str) -> CellRecord | None:
        """Read the record in a cell's folder, if there is one.

        Raises:
            UsageError: the record cannot be read.
        """
        folder = self.cells / name
        return _read_with_retries(folder) if (folder / "outcome.json").is_file() else None

    def add_attempt(self, record: CellRecord, attempt: dict[str, Any]) -> CellRecord:
        """Add a failed attempt to the record of a cell, which keeps its result."""
        outcome = {**record.outcome, "attempts": [*record.outcome["attempts"], attempt]}
        write_json(record.folder / "outcome.json", outcome)
        return CellRecord(record.folder, record.config, outcome)

    def records(self) -> dict[str, CellRecord]:
        """Return the records of all finished cells, by id.

        Raises:
            UsageError: a record cannot be read.
        """
        records, problems = self.read_records()
        if problems:
            raise UsageError(problems[0])
        return records

    def read_records(self) -> tuple[dict[str, CellRecord], list[str]]:
        """Return the readable records of finished cells, by id, and one message for each unreadable one."""
        records: dict[str, CellRecord] = {}
        problems = []
        for folder in sorted(path for path in self.cells.glob("[!.]*") if path.is_dir()):
            try:
                record = _read_with_retries(folder)
                if not folder.name.endswith(f"-{record.config.id}"):  # a copy, or another configuration
                    raise _unreadable(folder, f"its config.json has the id {record.config.id}")
                if record.config.id in records:
                    raise _unreadable(folder, f"it duplicates {records[record.config.id].folder.name}")
                records[record.config.id] = record
            except UsageError as error:
                problems.append(str(error))
        return records, problems


def study_folders(out: Path) -> list[Path]:
    """Return the folders of the studies in a folder, each followed by the folder of its trials."""
    return sorted(path.parent for pattern in ("*", f"*/{TRIALS}") for path in out.glob(f"{pattern}/study.yaml"))


def find_cell(out: Path, name: str) -> CellRecord:
    """Find a finished cell by its path, or in any study by the start of its id or folder name.

    Raises:
        UsageError: no cell matches, or several do.
    """
    path = Path(name).resolve()
    if (path / "outcome.json").is_file():
        return _read_record(path)
    studies = study_folders(out)
    folders = [folder for study in studies for folder in sorted(study.glob("cells/[!.]*")) if folder.is_dir()]
    start = _as_file_name(name)
    found = [f for f in folders if f.name.startswith(start) or f.name.rpartition("-")[2].startswith(start)]
    if not found:
        raise UsageError(f"no cell '{name}' in the studies of {out}; give the start of a cell's id or folder name")
    if len(found) > 1:
        names = ", ".join(map(str, found[:5]))
        raise UsageError(f"'{name}' matches {len(found)} cells: {names}{', ...' if len(found) > 5 else ''}; give one")
    return _read_record(found[0])


NOT_COMPARED = ("format", "cell", "attempts", "started")


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


def _read_with_retries(folder: Path) -> CellRecord:
    """Read a record, with retries, since a runner may be replacing it."""
    for _ in range(READ_RETRIES):
        try:
            return _read_record(folder)
        except UsageError:
            time.sleep(READ_RETRY_S)
    return _read_record(folder)


def _read_record(folder: Path) -> CellRecord:
    try:
        outcome = json.loads((folder / "outcome.json").read_text())
        config = CellConfig.model_validate_json((folder / "config.json").read_text())
    except ValidationError as error:
        raise _unreadable(folder, f"config.json: {first_error(error, groups=tuple(GROUPS))}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(folder, one_line(error)) from error
    if not isinstance(outcome, dict) or outcome.get("format") != RECORD_FORMAT:
        have = outcome.get("format") if isinstance(outcome, dict) else None
        raise _unreadable(folder, f"outcome.json has format {have}, not {RECORD_FORMAT}")
    try:
        Outcome.model_validate(outcome, context={"score": score_column(config)})
    except ValidationError as error:
        raise _unreadable(folder, f"outcome.json: {first_error(error)}") from error
    return CellRecord(folder, config, outcome)


def _unreadable(folder: Path, reason: str) -> UsageError:
    return UsageError(f"{folder} is not a readable cell: {reason}; move the folder away to run the cell again")


def cell_name(arm: str, config: CellConfig) -> str:
    """Return the name of a cell's folder: its arm, seed and id.

    Args:
        arm: name of the arm.
        config: configuration of the cell.
    """
    return f"{_as_file_name(arm)}-s{config.seed}-{config.id}"


def _as_file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name)

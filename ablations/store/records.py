"""The study folder: layout, atomic writes, records.

The truth is in ``cells/``; everything else is rebuilt from it. A cell's folder appears under its name whole or not at
all: it is written under ``cells/.partial/<id>/`` and renamed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ablations.study import CellConfig, Study, UsageError
from ablations.study.cell import first_error
from ablations.study.grid import arm_name

RECORD_FORMAT = 1
"""Version of outcome.json."""

RECORD_KEYS = (
    *("outcome", "kind", "detail", "attempts", "source_hash", "versions", "device", "seconds", "peak_memory_mib"),
    *("test_accuracy_pct", "test_loss", "chance_pct", "init_hash", "split_hash", "epoch_hashes", "epochs_run"),
    "num_parameters",
)
"""What every outcome.json has."""


@dataclass(frozen=True)
class CellRecord:
    """A finished cell.

    Args:
        folder: where it lies.
        config: what was run.
        outcome: the content of outcome.json.
    """

    folder: Path
    config: CellConfig
    outcome: dict[str, Any]

    @property
    def has_result(self) -> bool:
        """Whether its outcome is the arm's own: ``ok`` or ``diverged``."""
        return self.outcome["outcome"] in ("ok", "diverged")


class Store:
    """One study's folder.

    Args:
        folder: the study's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells = folder / "cells"

    @property
    def exists(self) -> bool:
        """Whether a study is here."""
        return (self.folder / "study.yaml").is_file()

    def read_study(self) -> Study:
        """Read study.yaml.

        Raises:
            UsageError: there is none, or it cannot be read.
        """
        path = self.folder / "study.yaml"
        if not path.is_file():
            raise UsageError(f"no study in {self.folder}: it has no study.yaml")
        try:
            return Study.model_validate(yaml.safe_load(path.read_text()))
        except ValidationError as error:
            raise UsageError(f"{path} is no study: {first_error(error)}") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())}") from error

    def write_study(self, study: Study) -> None:
        """Write study.yaml, atomically.

        Raises:
            UsageError: the folder cannot be written.
        """
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / "study.yaml", yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
        except OSError as error:
            raise UsageError(f"{self.folder} cannot be written: {error.strerror}; give another --out") from error

    def partial(self, config: CellConfig) -> Path:
        """Return an empty folder for a cell on its way."""
        folder = self.cells / ".partial" / config.id
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def publish(self, partial: Path, config: CellConfig, *, compare: str) -> Path:
        """Give a cell's folder its name, in place of an earlier attempt."""
        name = re.sub(r"[^\w.+-]", "_", arm_name(getattr(config, compare)))
        folder = self.cells / f"{name}-s{config.seed}-{config.id}"
        old = partial.with_name(f"{partial.name}.old")
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        return folder

    def add_attempt(self, record: CellRecord, attempt: dict[str, Any]) -> None:
        """Add a failed attempt to the record of a cell whose result stays."""
        attempts = [*record.outcome["attempts"], attempt]
        write_json(record.folder / "outcome.json", {**record.outcome, "attempts": attempts})

    def records(self) -> dict[str, CellRecord]:
        """Read every finished cell, by id.

        Raises:
            UsageError: a record that cannot be read, with its path.
        """
        records: dict[str, CellRecord] = {}
        for folder in sorted(path for path in self.cells.glob("*") if path.is_dir() and path.name != ".partial"):
            record = _read_record(folder)
            if not folder.name.endswith(f"-{record.config.id}"):  # a copy, or another configuration
                raise unreadable(folder, f"the id of its config.json is {record.config.id}")
            if record.config.id in records:
                raise unreadable(folder, f"{records[record.config.id].folder.name} is the same cell")
            records[record.config.id] = record
        return records


def find_cell(out: Path, name: str) -> CellRecord:
    """Find a finished cell by its folder, or in any study by its id, its folder's name, or the beginning of either.

    Raises:
        UsageError: there is none, or several.
    """
    path = Path(name).resolve()
    if (path / "outcome.json").is_file():
        return _read_record(path)
    folders = sorted(folder for folder in out.glob("*/cells/*") if folder.is_dir() and folder.name != ".partial")
    found = [f for f in folders if f.name.startswith(name) or f.name.rpartition("-")[2].startswith(name)]
    if not found:
        raise UsageError(f"no cell '{name}' in the studies of {out}")
    if len(found) > 1:
        names = ", ".join(map(str, found[:5]))
        raise UsageError(f"'{name}' may be any of {len(found)} cells: {names}{', ...' if len(found) > 5 else ''}")
    return _read_record(found[0])


def _read_record(folder: Path) -> CellRecord:
    try:
        outcome = json.loads((folder / "outcome.json").read_text())
        config = CellConfig.model_validate_json((folder / "config.json").read_text())
    except ValidationError as error:
        raise unreadable(folder, f"config.json: {first_error(error)}") from error
    except (OSError, ValueError) as error:
        raise unreadable(folder, " ".join(str(error).split())) from error
    if not isinstance(outcome, dict) or outcome.get("format") != RECORD_FORMAT:
        have = outcome.get("format") if isinstance(outcome, dict) else None
        raise unreadable(folder, f"outcome.json has format {have}, not {RECORD_FORMAT}")
    if missing := [key for key in RECORD_KEYS if key not in outcome]:
        raise unreadable(folder, f"outcome.json has no {missing[0]}")
    return CellRecord(folder, config, outcome)


def unreadable(folder: Path, reason: str) -> UsageError:
    """Say which record cannot be read, and why."""
    return UsageError(f"{folder} holds no readable cell: {reason}; move it away to run it again")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.replace(path)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON for people, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")

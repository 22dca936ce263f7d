"""The study folder: layout, atomic writes, and what is in it as tidy DataFrames.

The truth is in ``cells/``; everything else is rebuilt from it. A cell's folder appears under its name whole or not at
all: it is written under ``cells/.partial/<id>/`` and renamed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pydantic import ValidationError

from ablations.study import CellConfig, Study, UsageError
from ablations.study.cell import first_error
from ablations.study.grid import arm_name, point_name
from ufo.norms import NORMS

RECORD_FORMAT = 1
"""Version of outcome.json."""

RECORD_KEYS = (
    *("outcome", "kind", "detail", "attempts", "source_hash", "versions", "device", "seconds", "peak_memory_mib"),
    *("test_accuracy_pct", "test_loss", "chance_pct", "init_hash", "split_hash", "epoch_hashes", "epochs_run"),
    "num_parameters",
)
"""What every outcome.json has."""

SCORED_AS_CHANCE = ("nan", "exploded")
"""Kinds of divergence that have no accuracy of their own."""

CURVE_METRICS = {
    "train_loss": ("train", "loss"),
    "val_loss": ("val", "loss"),
    "val_accuracy_pct": ("val", "accuracy_pct"),
}
"""Column of metrics.csv to split and metric of curves.csv."""


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
                raise _unreadable(folder, f"the id of its config.json is {record.config.id}")
            if record.config.id in records:
                raise _unreadable(folder, f"{records[record.config.id].folder.name} is the same cell")
            records[record.config.id] = record
        return records

    def frames(self, *, sources: Mapping[str, str] | None) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the finished cells and their curves, tidy, with label, order and condition of each arm.

        Args:
            sources: hash of the sources as they are, by normaliser; cells from others are stale. None: not looked at.

        Returns:
            One row per cell; one row per cell, epoch, split and metric.
        """
        study = self.read_study()
        records = [record for record in self.records().values() if _belongs(record.config, study)]
        cells = pd.DataFrame([_cell_row(record, study, sources) for record in records], columns=_columns(study))
        place = {name: i for i, name in enumerate(study.condition_names)}
        cells = cells.sort_values(
            ["condition", "arm_order", "seed"],
            key=lambda column: column.map(place) if column.name == "condition" else column,
            ignore_index=True,
        )
        curves = [_curves(record) for record in records]
        keys = cells[["cell", "arm", "arm_label", "arm_order", "condition", "seed", "outcome", "kind"]]
        columns = ["cell", "epoch", "split", "metric", "value"]
        tidy = pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=columns)
        return cells, keys.merge(tidy, on="cell", validate="one_to_many")


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
        raise _unreadable(folder, f"config.json: {first_error(error)}") from error
    except (OSError, ValueError) as error:
        raise _unreadable(folder, " ".join(str(error).split())) from error
    if not isinstance(outcome, dict) or outcome.get("format") != RECORD_FORMAT:
        have = outcome.get("format") if isinstance(outcome, dict) else None
        raise _unreadable(folder, f"outcome.json has format {have}, not {RECORD_FORMAT}")
    if missing := [key for key in RECORD_KEYS if key not in outcome]:
        raise _unreadable(folder, f"outcome.json has no {missing[0]}")
    return CellRecord(folder, config, outcome)


def _unreadable(folder: Path, reason: str) -> UsageError:
    return UsageError(f"{folder} holds no readable cell: {reason}; move it away to run it again")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.replace(path)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON for people, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def arm_columns(value: Any, study: Study) -> dict[str, Any]:
    """Return an arm's name, label, group and order: its place in the registry, or on the axis for another field."""
    name = arm_name(value)
    if study.compare == "norm" and name in NORMS:
        spec = NORMS[name]
        return {"arm": name, "arm_label": spec.label, "arm_group": spec.group, "arm_order": list(NORMS).index(name)}
    place = study.arms.index(value) + (len(NORMS) if study.compare == "norm" else 0)
    return {"arm": name, "arm_label": name, "arm_group": "", "arm_order": place}


def condition_of(config: CellConfig, study: Study) -> str:
    """Name a cell's point on every axis but the arms and the seeds; empty where there is one condition only."""
    return point_name(dict(config), study.conditions)


def _belongs(config: CellConfig, study: Study) -> bool:
    return all(getattr(config, field) in values for field, values in study.axes.items())


def _columns(study: Study) -> list[str]:
    arm = ["arm", "arm_label", "arm_group", "arm_order"]
    result = ["outcome", "kind", "test_accuracy_pct", "test_loss", "score_pct", "chance_pct", "stale"]
    paired = ["init_hash", "split_hash", "batches", "epochs_run"]
    where = ["device", "torch", "seconds", "peak_memory_mib", "num_parameters"]
    return ["cell", *arm, "condition", *study.axes, *result, *paired, *where]


def _cell_row(record: CellRecord, study: Study, sources: Mapping[str, str] | None) -> dict[str, Any]:
    outcome, config = record.outcome, record.config
    measured = outcome["test_accuracy_pct"]
    score = outcome["chance_pct"] if outcome["kind"] in SCORED_AS_CHANCE else measured
    return {
        **{field: getattr(config, field) for field in study.axes},
        **arm_columns(getattr(config, study.compare), study),
        **{key: outcome[key] for key in _columns(study) if key in outcome},
        "batches": " ".join(outcome["epoch_hashes"]),
        "cell": config.id,
        "condition": condition_of(config, study),
        "score_pct": None if outcome["outcome"] == "failed" else score,
        "stale": sources is not None and outcome["source_hash"] != sources[config.norm],
        "torch": outcome["versions"]["torch"],
    }


def _curves(record: CellRecord) -> pd.DataFrame:
    """Return a cell's curves; one that ended before its first epoch did has that epoch without values."""
    path = record.folder / "metrics.csv"
    no_epoch = pd.DataFrame({"epoch": [1], **dict.fromkeys(CURVE_METRICS, np.nan)})
    try:
        wide = pd.read_csv(path) if record.outcome["epochs_run"] else no_epoch
        long = wide.melt("epoch", list(CURVE_METRICS), "column")
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(record.folder, f"metrics.csv: {error}") from error
    long["cell"] = record.config.id
    long["split"] = long["column"].map(lambda column: CURVE_METRICS[column][0])
    long["metric"] = long["column"].map(lambda column: CURVE_METRICS[column][1])
    return long[["cell", "epoch", "split", "metric", "value"]]

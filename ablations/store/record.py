"""The record of a finished cell: its configuration and its outcome, read and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablations.config import CellConfig, UsageError
from ablations.config.cell import GROUPS
from ablations.config.errors import first_error
from ablations.config.task import score_column
from ablations.store.outcome import RECORD_FORMAT, Outcome
from ablations.store.reading import read_json, reason_of

LONGEST_ARM = 200
"""Bytes of an arm's name in the name of a cell's folder, which with seed and id has at most 255."""


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


def read_record(folder: Path) -> CellRecord:
    """Read the record in a cell's folder.

    Raises:
        UsageError: it cannot be read, in one line with the folder.
    """
    outcome = _read_json(folder, "outcome.json")
    try:
        config = CellConfig.model_validate(_read_json(folder, "config.json"))
    except ValidationError as error:
        raise unreadable(folder, f"config.json: {first_error(error, groups=tuple(GROUPS))}") from error
    if not isinstance(outcome, dict) or outcome.get("format") != RECORD_FORMAT:
        have = outcome.get("format") if isinstance(outcome, dict) else None
        raise unreadable(folder, f"outcome.json has format {have}, not {RECORD_FORMAT}")
    try:
        Outcome.model_validate(outcome, context={"score": score_column(config)})
    except ValidationError as error:
        raise unreadable(folder, f"outcome.json: {first_error(error)}") from error
    return CellRecord(folder, config, outcome)


def _read_json(folder: Path, name: str) -> Any:
    try:
        return read_json(folder / name)
    except (OSError, ValueError) as error:
        raise unreadable(folder, f"{name}: {reason_of(error)}") from error


def unreadable(folder: Path, reason: str) -> UsageError:
    """Return the error for a cell's folder that cannot be read."""
    return UsageError(f"{folder.name} is not a readable cell: {reason}; move the folder away to run the cell again")


def cell_name(arm: str, config: CellConfig) -> str:
    """Return the name of a cell's folder: its arm, of which a long name is cut, seed and id.

    Args:
        arm: name of the arm.
        config: configuration of the cell.
    """
    start = as_file_name(arm).encode()[:LONGEST_ARM].decode(errors="ignore")
    return f"{start}-s{config.seed}-{config.id}"


def as_file_name(name: str) -> str:
    """Replace the characters of a name that a file's name should not have."""
    return re.sub(r"[^\w.+-]", "_", name)

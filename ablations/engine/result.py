"""What a cell came to, also one whose process is no more, and its outcome.json."""

from __future__ import annotations

import contextlib
import csv
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablations.config import CellConfig
from ablations.store import RECORD_FORMAT, RESUMED
from ablations.training.limits import says_oom

TRACEBACK_LINES = 20
"""Last lines of a traceback that the record keeps; log.txt has all of it."""

LAST_WORDS = 100
"""Last lines of the log of a process that has gone without a word, in which it may say that it found no memory."""

KEPT_OF_AN_ATTEMPT = ("outcome", "kind", "detail", "test_accuracy_pct", "started", "seconds", "source_hash")
"""Fields of outcome.json that stay in the record of the attempt after it."""

STACK_HEADS = ("Current thread", "Stack (most recent call first)")
"""How the stacks begin that `faulthandler` writes."""

BY_HAND = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
"""Signals that come from outside; the others come from what the process did."""


@dataclass(frozen=True)
class Result:
    """What a cell came to.

    Args:
        outcome: ``ok``, ``diverged`` or ``failed``.
        kind: of divergence or failure; empty for ``ok``.
        detail: one line with what was seen.
        traceback: its last lines, where the cell failed.
        fields: everything measured.
        disk_full: the cell could not be written for want of room: no outcome, but the end of the run.
    """

    outcome: str
    kind: str
    detail: str
    traceback: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    disk_full: bool = False


def blank_fields(*, chance_pct: float, started: str, device: str) -> dict[str, Any]:
    """Return the measured fields of a cell of which nothing is known yet.

    Args:
        chance_pct: accuracy of guessing.
        started: time in ISO 8601.
        device: name of the device.
    """
    return {
        "test_accuracy_pct": None,
        "test_loss": None,
        "val_accuracy_pct": None,
        "val_loss": None,
        "chance_pct": chance_pct,
        "init_hash": None,
        "split_hash": None,
        "epoch_hashes": [],
        "epochs_run": 0,
        "resumed_after_epochs": [],
        "num_parameters": None,
        "started": started,
        "device": device,
        "seconds": 0.0,
        "peak_memory_mib": None,
        "peak_reserved_mib": None,
    }


def make_outcome(
    cell: CellConfig,
    result: Result,
    *,
    before: Mapping[str, Any] | None,
    limit_mib: float | None,
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of outcome.json.

    Args:
        cell: its configuration.
        result: what it came to.
        before: content of the outcome.json of the attempt before, whose attempts are taken over.
        limit_mib: of its memory.
        origin: sources, revision, versions, machine.
    """
    detail = result.detail
    if result.kind == "oom" and limit_mib is not None:
        detail += f" (this cell's limit: {limit_mib:.0f} MiB)"
    return {
        "format": RECORD_FORMAT,
        "cell": cell.id,
        "outcome": result.outcome,
        "kind": result.kind,
        "detail": detail,
        "traceback": result.traceback,
        "attempts": [] if before is None else [*before["attempts"], attempt_of(before)],
        **result.fields,
        **origin,
    }


def attempt_of(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stays of an attempt in the record of the attempt after it."""
    return {key: outcome[key] for key in KEPT_OF_AN_ATTEMPT}


def lost(folder: Path, kind: str, detail: str, fields: dict[str, Any]) -> Result:
    """Return the result of a cell whose process has gone without a word, from what it left in its folder.

    Args:
        folder: the cell's.
        kind: of failure.
        detail: one line with what was seen.
        fields: what the runner knows of it.
    """
    rows, log = _rows(folder / "metrics.csv"), _read_log(folder / "log.txt")
    known: dict[str, Any] = {"epochs_run": len(rows), "epoch_hashes": [row["batches"] for row in rows]}
    with contextlib.suppress(FileNotFoundError):
        before = json.loads((folder / RESUMED).read_text())
        known |= before | {"seconds": before["seconds"] + fields["seconds"]}
    if kind == "error" and says_oom("\n".join(log[-LAST_WORDS:])):
        kind = "oom"  # without memory an exception may not be told, and C++ ends the process
    return Result("failed", kind, detail, _end_of_log(log), {**fields, **known})


def describe_exit(code: int | None) -> tuple[str, str]:
    """Return kind and detail of a process that ended by itself, from its exit code.

    A cell that runs into our own limit of memory raises; so a SIGKILL that the runner did not send came from the
    system or from a hand.

    >>> describe_exit(-9), describe_exit(1)
    (('killed', 'the process was ended by SIGKILL'), ('error', 'the process left with exit code 1'))
    """
    if code is None or code >= 0:
        return "error", f"the process left with exit code {code}"
    name = signal.Signals(-code).name
    return "killed" if name in BY_HAND else "error", f"the process was ended by {name}"


def _read_log(path: Path) -> list[str]:
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return [line for line in lines if line and not line.startswith("Extension modules:")]


def _end_of_log(lines: list[str]) -> list[str]:
    """Return the stack that was written last, which has the innermost call first, or else the last lines."""
    stacks = [i for i, line in enumerate(lines) if line.startswith(STACK_HEADS)]
    first = max(0, stacks[-1] - 1) if stacks else len(lines) - TRACEBACK_LINES  # the line above says what it was
    return lines[max(0, first) :][:TRACEBACK_LINES]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))

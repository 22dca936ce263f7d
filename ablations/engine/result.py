"""Cell results, including those of cells whose process died, and `outcome.json`."""

from __future__ import annotations

import contextlib
import csv
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablations.config import CellConfig
from ablations.config.privacy import private
from ablations.data import DataInfo
from ablations.store import RECORD_FORMAT, RESUMED
from ablations.training.limits import is_oom_message

TRACEBACK_LINES = 20
"""Number of last lines of a traceback in the record; log.txt has all of it."""

OOM_LOG_LINES = 100
"""Number of last log lines of a dead process that are searched for an out-of-memory message."""

ATTEMPT_FIELDS = ("outcome", "kind", "detail", "test_accuracy_pct", "started", "seconds", "source_hash")
"""Fields of outcome.json that the record of the next attempt keeps."""

STACK_HEADS = ("Current thread", "Stack (most recent call first)")
"""First lines of a stack trace by `faulthandler`."""

EXTERNAL_SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
"""Signals sent by the user or the system; others are caused by the process itself."""


@dataclass(frozen=True)
class Result:
    """The result of an attempt at a cell.

    Args:
        outcome: ``ok``, ``diverged`` or ``failed``.
        kind: kind of divergence or failure; empty for ``ok``.
        detail: one line with what was observed.
        traceback: last lines of the traceback of a failed cell.
        fields: measured fields of outcome.json.
        disk_full: whether the disk was full, which stops the run and is no outcome of the cell.
    """

    outcome: str
    kind: str
    detail: str
    traceback: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    disk_full: bool = False


def blank_fields(info: DataInfo, device: str) -> dict[str, Any]:
    """Return the measured fields of outcome.json of a cell that starts now on the named device, still empty."""
    return {
        "test_accuracy_pct": None,
        "test_loss": None,
        "val_accuracy_pct": None,
        "val_loss": None,
        "chance_pct": info.chance_pct,
        "init_hash": None,
        "split_hash": None,
        "epoch_hashes": [],
        "epochs_run": 0,
        "resumed_after_epochs": [],
        "num_parameters": None,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "cuda_settings": None,
        "stacked_seeds": [],
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
        cell: configuration of the cell.
        result: its result.
        before: the outcome.json of its previous attempt; None: there is none.
        limit_mib: memory limit of the cell; None: no limit.
        origin: numerics version, sources, revision, package versions and machine.
    """
    detail = result.detail
    if result.kind == "oom" and limit_mib is not None:
        detail += f" (memory limit of this cell: {limit_mib:.0f} MiB)"
    return {
        "format": RECORD_FORMAT,
        "cell": cell.id,
        "outcome": result.outcome,
        "kind": result.kind,
        "detail": private(detail),
        "traceback": list(map(private, result.traceback)),
        "attempts": [] if before is None else [*before["attempts"], attempt_of(before)],
        **result.fields,
        **origin,
    }


def attempt_of(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an attempt that the record of the next attempt keeps."""
    return {key: outcome[key] for key in ATTEMPT_FIELDS}


def failed_result(folder: Path, kind: str, detail: str, fields: dict[str, Any]) -> Result:
    """Return the ``failed`` result of a cell whose process died, from the files in its folder.

    Args:
        folder: folder of the cell.
        kind: kind of failure.
        detail: one line with what was observed.
        fields: measured fields that the runner knows.
    """
    rows, log = _rows(folder / "metrics.csv"), _read_log(folder / "log.txt")
    known: dict[str, Any] = {"epochs_run": len(rows), "epoch_hashes": [row["batches"] for row in rows]}
    with contextlib.suppress(FileNotFoundError):
        before = json.loads((folder / RESUMED).read_text())
        known |= before | {"seconds": before["seconds"] + fields["seconds"]}
    if kind == "error" and is_oom_message("\n".join(log[-OOM_LOG_LINES:])):
        kind = "oom"  # C++ aborts if it has no memory to raise an exception
    return Result("failed", kind, detail, _end_of_log(log), {**fields, **known})


def describe_exit(code: int | None) -> tuple[str, str]:
    """Return kind and detail of the failure of a process that died, from its exit code.

    A cell over its memory limit raises, so a SIGKILL that the runner did not send came from the system or a user.

    >>> describe_exit(-9), describe_exit(1)
    (('killed', 'the worker process was killed by SIGKILL'), ('error', 'the worker process exited with code 1'))
    """
    if code is None or code >= 0:
        return "error", f"the worker process exited with code {code}"
    name = signal.Signals(-code).name
    return "killed" if name in EXTERNAL_SIGNALS else "error", f"the worker process was killed by {name}"


def _read_log(path: Path) -> list[str]:
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return [line for line in lines if line and not line.startswith("Extension modules:")]


def _end_of_log(lines: list[str]) -> list[str]:
    """Return the start of the last stack trace, innermost call first; the last lines if there is none."""
    stacks = [i for i, line in enumerate(lines) if line.startswith(STACK_HEADS)]
    first = max(0, stacks[-1] - 1) if stacks else len(lines) - TRACEBACK_LINES  # the line above names the error
    return lines[max(0, first) :][:TRACEBACK_LINES]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))

"""The live picture of a study, from its folder: arms x seeds, what runs, what failed, and how long it will take.

`run` draws it as it goes, `status` from any terminal at any time.
"""

from __future__ import annotations

import contextlib
import csv
import json
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from ablations.config import CellConfig, Study
from ablations.config.task import METRICS
from ablations.config.values import duration
from ablations.store import Store
from ablations.store.leases import LEASE

State = Literal["ok", "diverged", "failed", "running", "waiting"]

SIGNS: dict[State, tuple[str, str, str]] = {
    "ok": ("✓", "+", "green"),
    "diverged": ("≠", "!", "yellow"),
    "failed": ("✗", "x", "red"),
    "running": ("▸", ">", "cyan"),
    "waiting": ("·", ".", "dim"),
}
"""Of each state: its sign, the same in ASCII, and its colour."""

Place = tuple[str, str, int]
"""Arm, condition and seed: where a cell stands on the board."""


@dataclass(frozen=True)
class Progress:
    """A cell that is being run.

    Args:
        arm: name of its arm.
        condition: its point on every other axis.
        seed: its seed.
        epoch: epochs behind it.
        epochs: epochs in all.
        train_loss: of the last epoch, in nats; None before the first has ended.
        val_score_pct: of the last epoch.
        seconds: since it was begun.
        host: the machine that runs it.
    """

    arm: str
    condition: str
    seed: int
    epoch: int
    epochs: int
    train_loss: float | None
    val_score_pct: float | None
    seconds: float
    host: str


class Board:
    """What is known of every cell of a study.

    Args:
        study: which cells there are.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.states: dict[Place, State] = {
            (arm, condition, seed): "waiting"
            for condition in study.condition_names
            for arm in study.arm_names
            for seed in study.axes["seed"]
        }
        self.running: list[Progress] = []
        self._kind: dict[Place, str] = {}
        self._seconds: dict[Place, float] = {}

    def take(self, cell: CellConfig, outcome: Mapping[str, Any]) -> None:
        """Take a cell that has an outcome.

        Args:
            cell: its configuration.
            outcome: content of its outcome.json.
        """
        place = (self.study.arm_of(cell), self.study.condition_of(cell), cell.seed)
        self.states[place] = outcome["outcome"]
        self._kind[place] = f"{outcome['outcome']}: {outcome['kind']}" if outcome["kind"] else ""
        self._seconds[place] = outcome["seconds"]

    def look(self, store: Store) -> None:
        """See which cells are being run now, by whichever runner.

        Args:
            store: the study's folder.
        """
        for place, state in self.states.items():
            if state == "running":
                self.states[place] = self._settled(place)
        self.running = []
        for folder in store.leases.running():
            try:
                cell = CellConfig.model_validate_json((folder / "config.json").read_text())
            except (OSError, ValidationError):  # not yet written, or just gone
                continue
            place = (self.study.arm_of(cell), self.study.condition_of(cell), cell.seed)
            if place in self.states:
                self.states[place] = "running"
                self.running.append(_progress(folder, cell, place))

    @property
    def counts(self) -> dict[State, int]:
        """How many cells are in each state."""
        counted = Counter(self.states.values())
        return {state: counted[state] for state in SIGNS}

    @property
    def kinds_seen(self) -> dict[str, int]:
        """How many cells diverged or failed in each way."""
        return dict(sorted(Counter(kind for place, kind in self._kind.items() if kind).items()))

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last cell, from those that are finished; None while none is, or nothing runs."""
        if not self._seconds or not self.running:
            return None
        by_arm: dict[str, list[float]] = {}
        for (arm, _, _), seconds in self._seconds.items():
            by_arm.setdefault(arm, []).append(seconds)
        middle = statistics.median(self._seconds.values())
        each = {arm: statistics.median(by_arm[arm]) if arm in by_arm else middle for arm in self.study.arm_names}
        waiting = sum(each[arm] for (arm, _, _), state in self.states.items() if state == "waiting")
        begun = sum(max(0.0, each[progress.arm] - progress.seconds) for progress in self.running)
        return (waiting + begun) / len(self.running)

    def summary(self) -> tuple[str, str]:
        """Say in two lines how far the study is, and what has come of it."""
        counts, total = self.counts, len(self.states)
        left = self.seconds_left
        time_left = "" if left is None else f", about {duration(left)} left"
        what = "trials" if self.study.is_tuning else "cells"
        head = f"{self.study.name}: {total - counts['waiting'] - counts['running']} of {total} {what} done{time_left}"
        parts = []
        for state in (state for state, count in counts.items() if count):
            ways = [f"{n} {kind.partition(': ')[2]}" for kind, n in self.kinds_seen.items() if kind.startswith(state)]
            parts.append(f"{counts[state]} {state}" + (f" ({', '.join(ways)})" if ways else ""))
        return head, ", ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return all of it for scripts."""
        cells = [
            {"arm": arm, "condition": condition, "seed": seed, "state": state, "kind": self._kind.get(place, "")}
            for place, state in self.states.items()
            for arm, condition, seed in [place]
        ]
        return {
            "study": self.study.name,
            "counts": self.counts,
            "kinds": self.kinds_seen,
            "seconds_left": self.seconds_left,
            "running": [asdict(progress) for progress in self.running],
            "cells": cells,
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the board: a line per arm and condition with a sign per seed, and a line per running cell."""
        ascii_only = not (console.encoding or "").lower().startswith("utf")
        yield from map(Text, self.summary())
        yield self._grid(width=options.max_width, ascii_only=ascii_only)
        signs = {state: sign[1 if ascii_only else 0] for state, sign in SIGNS.items()}
        yield Text("  ".join(f"{sign} {state}" for state, sign in signs.items()), style="dim")
        if self.running:
            yield Group(Text(), self._running_table())

    def _grid(self, *, width: int, ascii_only: bool) -> Table:
        seeds = self.study.axes["seed"]
        rows = list(dict.fromkeys((condition, arm) for arm, condition, _ in self.states))
        label_width = max(len(_label(arm, condition)) for condition, arm in rows)
        names = [str(self.study.number_of(seed)) for seed in seeds]
        column_width = max(map(len, names)) + 1
        fits = label_width + 2 + column_width * len(seeds) <= width
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=fits, pad_edge=False, header_style="dim")
        table.add_column(self.study.unit, no_wrap=True)
        for name in names if fits else [""]:
            table.add_column(name, justify="right", no_wrap=True)
        for condition, arm in rows:
            states = [self.states[arm, condition, seed] for seed in seeds]
            if fits:
                shown = [Text(SIGNS[state][1 if ascii_only else 0], style=SIGNS[state][2]) for state in states]
            else:
                counted = Counter(states)
                shown = [Text(", ".join(f"{counted[state]} {state}" for state in SIGNS if counted[state]))]
            table.add_row(Text(_label(arm, condition)), *shown)
        return table

    def _running_table(self) -> Table:
        hosts = {progress.host for progress in self.running}
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for head in ("running", "epoch", "train loss", "val %", "for", *(["on"] if len(hosts) > 1 else [])):
            table.add_column(head, no_wrap=True, justify="left" if head in ("running", "on") else "right")
        for progress in self.running:
            table.add_row(
                f"{_label(progress.arm, progress.condition)} {self.study.unit} {self.study.number_of(progress.seed)}",
                f"{progress.epoch}/{progress.epochs}",
                "" if progress.train_loss is None else f"{progress.train_loss:.3f}",
                "" if progress.val_score_pct is None else f"{progress.val_score_pct:.1f}",
                duration(progress.seconds),
                *([progress.host] if len(hosts) > 1 else []),
            )
        return table

    def _settled(self, place: Place) -> State:
        """Return the state of a cell that runs no more: a former outcome's, or none."""
        kind = self._kind.get(place)
        if kind is None:
            return "waiting"
        state: Any = kind.partition(":")[0] or "ok"
        return state


def fill_board(board: Board, store: Store) -> Board:
    """Put everything on a board that is in the study's folder; return it.

    Raises:
        UsageError: a record that cannot be read.
    """
    for record in store.records().values():
        if board.study.has(record.config):
            board.take(record.config, record.outcome)
    board.look(store)
    return board


def _label(arm: str, condition: str) -> str:
    return f"{arm} ({condition})" if condition else arm


def _progress(folder: Path, cell: CellConfig, place: Place) -> Progress:
    rows: list[dict[str, str]] = []
    begun, host = time.time(), ""
    with contextlib.suppress(OSError, ValueError):  # the cell may end as we look
        begun = (folder / "config.json").stat().st_mtime
        host = json.loads((folder / LEASE).read_text())["host"].partition("/")[0]
        with (folder / "metrics.csv").open(newline="") as file:  # not there before the first epoch has ended
            rows = list(csv.DictReader(file))
    last = rows[-1] if rows else None
    return Progress(
        *place,
        epoch=len(rows),
        epochs=cell.optimisation.epochs,
        train_loss=float(last["train_loss"]) if last else None,
        val_score_pct=float(last[METRICS[cell.task].columns[1]]) if last else None,
        seconds=max(0.0, time.time() - begun),
        host=host,
    )

"""The board of a study: the state of each cell (arms x seeds), running cells and remaining time.

`run` updates it live, and `status` prints it from any terminal.
"""

from __future__ import annotations

import contextlib
import csv
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from ablations.config import CellConfig, Study
from ablations.config.escape import visible
from ablations.config.task import metric_of
from ablations.config.values import duration
from ablations.store import Store
from ablations.store.leases import LEASE, host_name
from ablations.store.reading import read_json, read_text

State = Literal["ok", "diverged", "failed", "running", "waiting"]

SYMBOLS: dict[State, tuple[str, str, str]] = {
    "ok": ("✓", "+", "green"),
    "diverged": ("≠", "!", "yellow"),
    "failed": ("✗", "x", "red"),
    "running": ("▸", ">", "cyan"),
    "waiting": ("·", ".", "dim"),
}
"""Symbol, ASCII symbol and colour of each state."""

MOST_ROWS = 1_000
"""Largest number of rows, of an arm in a condition: of more, those with a running cell come first, then the others that
have begun."""

Place = tuple[str, str, int]
"""Arm, condition and seed of a cell."""


@dataclass(frozen=True)
class Progress:
    """The progress of a running cell.

    Args:
        arm: name of its arm.
        condition: name of its condition.
        seed: its seed.
        epoch: number of finished epochs.
        epochs: total number of epochs.
        train_loss: training loss of the last epoch, in nats; None before the first has ended.
        val_score_pct: validation score of the last epoch, per cent; None before the first has ended.
        seconds: seconds since its start.
        host: name of the machine that runs it; of another machine a part of its hash.
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
    """The state of every cell of a study.

    Args:
        study: the study.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.states: dict[Place, State] = dict.fromkeys(study.places, "waiting")
        self.running: list[Progress] = []
        self.problems: list[str] = []
        self._outcomes: dict[Place, Mapping[str, Any]] = {}

    def record(self, cell: CellConfig, outcome: Mapping[str, Any]) -> None:
        """Record the outcome of a cell.

        Args:
            cell: configuration of the cell.
            outcome: content of its outcome.json.
        """
        place = (self.study.arm_of(cell), self.study.condition_of(cell), cell.seed)
        self.states[place] = outcome["outcome"]
        self._outcomes[place] = outcome

    def update_running(self, store: Store) -> None:
        """Update which cells run now, on any runner.

        Args:
            store: folder of the study.
        """
        for place, state in self.states.items():
            if state == "running":  # it may have ended since
                self.states[place] = self._outcomes[place]["outcome"] if place in self._outcomes else "waiting"
        self.running = []
        for folder in store.leases.running():
            try:
                cell = CellConfig.model_validate(read_json(folder / "config.json"))
            except (OSError, ValueError):  # not written yet, or just removed
                continue
            place = (self.study.arm_of(cell), self.study.condition_of(cell), cell.seed)
            if place in self.states:
                self.states[place] = "running"
                self.running.append(_progress(folder, cell, place))

    @property
    def counts(self) -> dict[State, int]:
        """Number of cells in each state."""
        counted = Counter(self.states.values())
        return {state: counted[state] for state in SYMBOLS}

    @property
    def kinds_seen(self) -> dict[str, int]:
        """Number of cells of each kind of divergence and failure."""
        return dict(sorted(Counter(self._kinds.values()).items()))

    @property
    def _kinds(self) -> dict[Place, str]:
        return {place: f"{end['outcome']}: {end['kind']}" for place, end in self._outcomes.items() if end["kind"]}

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until all cells have finished; None if no cell has finished or none runs."""
        if not self._outcomes or not self.running:
            return None
        by_arm: dict[str, list[float]] = {}
        for (arm, _, _), outcome in self._outcomes.items():
            by_arm.setdefault(arm, []).append(outcome["seconds"])
        overall = statistics.median(outcome["seconds"] for outcome in self._outcomes.values())
        each = {arm: statistics.median(by_arm[arm]) if arm in by_arm else overall for arm in self.study.arm_names}
        waiting = sum(each[arm] for (arm, _, _), state in self.states.items() if state == "waiting")
        begun = sum(max(0.0, each[progress.arm] - progress.seconds) for progress in self.running)
        return (waiting + begun) / len(self.running)

    def summary(self) -> tuple[str, str]:
        """Return two lines: the progress of the study, and the number of cells in each state."""
        counts, total = self.counts, len(self.states)
        left = self.seconds_left
        time_left = "" if left is None else f", about {duration(left)} left"
        what = "trials" if self.study.is_tuning else "cells"
        head = f"{self.study.name}: {total - counts['waiting'] - counts['running']} of {total} {what} done{time_left}"
        parts = []
        for state in (state for state, count in counts.items() if count):
            ways = [f"{n} {kind.partition(': ')[2]}" for kind, n in self.kinds_seen.items() if kind.startswith(state)]
            parts.append(f"{counts[state]} {state}" + (f" ({', '.join(ways)})" if ways else ""))
        return visible(head), visible(", ".join(parts))

    def as_json(self) -> dict[str, Any]:
        """Return the board as JSON values."""
        kinds = self._kinds
        cells = [
            {"arm": place[0], "condition": place[1], "seed": place[2], "state": state, "kind": kinds.get(place, "")}
            for place, state in self.states.items()
        ]
        return {
            "study": self.study.name,
            "counts": self.counts,
            "kinds": self.kinds_seen,
            "seconds_left": self.seconds_left,
            "running": [asdict(progress) for progress in self.running],
            "problems": self.problems,
            "cells": cells,
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw a line per arm and condition with a symbol per seed, and a line per running cell.

        Of a large study the rows that are left out are counted.
        """
        ascii_only = not (console.encoding or "").lower().startswith("utf")
        yield from map(Text, self.summary())
        rows = self._rows()
        yield self._grid(rows, width=options.max_width, ascii_only=ascii_only)
        symbols = {state: symbol[1 if ascii_only else 0] for state, symbol in SYMBOLS.items()}
        yield Text("  ".join(f"{symbol} {state}" for state, symbol in symbols.items()), style="dim")
        if num_left_out := len({place[:2] for place in self.states}) - len(rows):
            yield Text(f"rows that are not shown: {num_left_out:,}")
        yield from (Text(visible(problem)) for problem in self.problems)
        if self.running:
            yield Group(Text(), self._running_table())

    def _rows(self) -> list[tuple[str, str]]:
        """Return condition and arm of each row."""
        rows = list(dict.fromkeys((condition, arm) for arm, condition, _ in self.states))
        if len(rows) <= MOST_ROWS:
            return rows
        begun = {(condition, arm) for (arm, condition, _), state in self.states.items() if state != "waiting"}
        running = {(condition, arm) for (arm, condition, _), state in self.states.items() if state == "running"}
        first = sorted(rows, key=lambda row: (row not in running, row not in begun))  # stable
        shown = set(first[:MOST_ROWS])
        return [row for row in rows if row in shown]

    def _grid(self, rows: Sequence[tuple[str, str]], *, width: int, ascii_only: bool) -> Table:
        seeds = self.study.axes["seed"]
        label_width = max((len(_label(arm, condition)) for condition, arm in rows), default=0)
        names = [str(self.study.number_of(seed)) for seed in seeds]
        column_width = max(map(len, names)) + 1
        fits = label_width + 2 + column_width * len(seeds) <= width
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=fits, pad_edge=False, header_style="dim")
        table.add_column(self.study.unit, no_wrap=True)
        for name in names if fits else [""]:
            table.add_column(name, justify="right", no_wrap=True)
        for condition, arm in rows:
            states = [self.states.get((arm, condition, seed)) for seed in seeds]  # grids may have other seeds
            if fits:
                shown = [Text() if s is None else Text(SYMBOLS[s][ascii_only], style=SYMBOLS[s][2]) for s in states]
            else:
                counted = Counter(filter(None, states))
                shown = [Text(", ".join(f"{counted[state]} {state}" for state in SYMBOLS if counted[state]))]
            table.add_row(Text(_label(arm, condition)), *shown)
        return table

    def _running_table(self) -> Table:
        hosts = {progress.host for progress in self.running}
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for head in ("running", "epoch", "train loss", "val %", "elapsed", *(["host"] if len(hosts) > 1 else [])):
            table.add_column(head, no_wrap=True, justify="left" if head in ("running", "host") else "right")
        for progress in self.running:
            texts = (
                f"{_label(progress.arm, progress.condition)} {self.study.unit} {self.study.number_of(progress.seed)}",
                f"{progress.epoch}/{progress.epochs}",
                "" if progress.train_loss is None else f"{progress.train_loss:.3f}",
                "" if progress.val_score_pct is None else f"{progress.val_score_pct:.1f}",
                duration(progress.seconds),
                *([visible(progress.host)] if len(hosts) > 1 else []),
            )
            table.add_row(*map(Text, texts))
        return table


def fill_board(board: Board, store: Store) -> Board:
    """Add the records and running cells of a study's folder to a board, and what cannot be read; return the board.

    Raises:
        UsageError: the folder of the cells cannot be read, or leads elsewhere.
    """
    store.check_layout()
    records, board.problems = store.read_records()
    for record in records.values():
        if board.study.has(record.config):
            board.record(record.config, record.outcome)
    board.update_running(store)
    return board


def _label(arm: str, condition: str) -> str:
    return visible(f"{arm} ({condition})" if condition else arm)


def _progress(folder: Path, cell: CellConfig, place: Place) -> Progress:
    rows: list[dict[str, str]] = []
    score_column = metric_of(cell).columns[1]
    begun, host, loss, score = time.time(), "", None, None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, csv.Error):  # the cell may end meanwhile
        begun = (folder / "config.json").stat().st_mtime
        host = host_name(str(read_json(folder / LEASE)["host"]))
        text = read_text(folder / "metrics.csv")  # missing until the first epoch has ended
        rows = list(csv.DictReader(text.splitlines()))
        last = rows[-1] if rows else {}
        loss, score = (float(last[column]) if rows else None for column in ("train_loss", score_column))
    return Progress(
        *place,
        epoch=len(rows),
        epochs=cell.optimisation.epochs,
        train_loss=loss,
        val_score_pct=score,
        seconds=max(0.0, time.time() - begun),
        host=host,
    )

"""The harness beside its rivals: the same grid of digits cells in each, in one run, by turns, on the CPU.

The contenders of ``grid``, each timed as a whole, from the start of its first process to the end of its last:

- ``ours``: the command ``run`` into an empty folder, its report included.
- ``bare``: `ablations.bench.bare`, the hand-written loop, all cells in one process, all cores as its threads.
- ``bare_x2``: two of these side by side, each with half the cells and half the cores.
- ``fresh``: `ablations.bench.fresh`, the usual script, a new process for each cell, all cores as its threads. Its cells
  share nothing, so a few of them a round give its rate.
- ``fresh_x2``: the same cells, two at a time, each with half the cores.

The decoded images are in the cache before the first round, for ``ours`` and both ``bare``; ``fresh`` reads them anew.

``epoch`` is what an epoch of one cell takes, validation included, with 1 thread and nothing else running: ``ours`` is
what the harness notes in timing.csv, ``bare`` the same epoch of the hand-written loop. Each trains in a new process, by
turns, so neither bears the other's imports, garbage or state of the allocator. It trains two cells, one after the
other, of which the second counts, its first epoch left out: modules are loaded late, memory and kernels are set up.
timing.csv stops before an epoch's files are written, so ``cell`` compares the whole second cells as well: building, all
epochs, the test and, of ``ours``, its files.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.bench.bare import write_cells
from ablations.bench.processes import python, run_all
from ablations.config import CellConfig
from ablations.config.commands import DEFAULT_NORMS, DEFAULT_SEEDS
from ablations.config.request import Request
from ablations.planning.plan import make_plan

CONTENDERS = ("bare", "bare_x2", "ours", "fresh_x2", "fresh")
"""In the order of the odd rounds; what ``ours`` is held against stands beside it."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The cells that are trained: digits and its recipe, as the command has them.

    Args:
        norms: the arms.
        num_seeds: seeds from 0 on.
        epochs: of a cell; None: the recipe's.
    """

    norms: Sequence[str] = DEFAULT_NORMS
    num_seeds: int = DEFAULT_SEEDS
    epochs: int | None = None

    @property
    def arguments(self) -> list[str]:
        """The flags that ask the command for these cells."""
        epochs = [] if self.epochs is None else ["--epochs", str(self.epochs)]
        return ["--norm", ",".join(self.norms), "--seeds", str(self.num_seeds), "--device", "cpu", *epochs]

    def cells(self, *, out: Path) -> list[CellConfig]:
        """Plan the cells, which decodes digits into the cache.

        Args:
            out: an empty folder, in which nothing is written.

        Raises:
            UsageError: an arm that is not known, or a number that cannot be.
        """
        asked: dict[str, list[Any]] = {"norm": list(self.norms), "seed": list(range(self.num_seeds))}
        if self.epochs is not None:
            asked["epochs"] = [self.epochs]
        return make_plan(Request(asked=asked, out=out)).cells


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement: of a round, a quantity and a contender.

    Args:
        round: from 1.
        quantity: ``grid``, ``epoch`` or ``cell``.
        contender: of `CONTENDERS`.
        num_cells: cells trained.
        seconds: of all of them; of ``epoch`` the median epoch's.
    """

    round: int
    quantity: str
    contender: str
    num_cells: int
    seconds: float


def bench_harness(
    *,
    rounds: int = 5,
    grid: Grid | None = None,
    fresh_cells: int = 4,
    on_row: Callable[[Row], None] = lambda row: None,
) -> pd.DataFrame:
    """Measure every contender in every round; the order is turned round from one to the next.

    Args:
        rounds: 1 or more.
        grid: the cells; None: those of the command's defaults.
        fresh_cells: cells of a round for ``fresh`` and ``fresh_x2``, other ones in each round; an even number keeps
            both processes of ``fresh_x2`` busy to the end.
        on_row: called with each measurement as it is made.

    Returns:
        One row for each `Row`.

    Raises:
        CommandFailed: a contender failed.
        UsageError: cells that cannot be.
    """
    grid = grid or Grid()
    rows: list[Row] = []

    def note(number: int, quantity: str, contender: str, num_cells: int, seconds: float) -> None:
        rows.append(Row(round=number, quantity=quantity, contender=contender, num_cells=num_cells, seconds=seconds))
        on_row(rows[-1])

    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        cells = grid.cells(out=Path(scratch) / "none")
        pair = Grid(norms=grid.norms[:1], num_seeds=2, epochs=max(2, cells[0].epochs))
        for number in range(1, rounds + 1):
            folder = Path(scratch) / str(number)
            picked = [cells[((number - 1) * fresh_cells + i) % len(cells)] for i in range(fresh_cells)]
            for contender in _turned(CONTENDERS, number):
                trained = picked if contender.startswith("fresh") else cells
                note(number, "grid", contender, len(trained), _time(contender, trained, grid, folder / contender))
            for contender in _turned(("ours", "bare"), number):
                epoch_s, cell_s = _time_epoch(contender, pair, folder / f"epoch_{contender}")
                note(number, "epoch", contender, 1, epoch_s)
                note(number, "cell", contender, 1, cell_s)
    return pd.DataFrame(map(asdict, rows))


def _time(contender: str, cells: list[CellConfig], grid: Grid, folder: Path) -> float:
    """Return the seconds that a contender takes for cells, in an empty folder of its own."""
    at_once = 2 if contender.endswith("_x2") else 1
    threads = ["--threads", str(max(1, (os.cpu_count() or 1) // 2))] if at_once == 2 else []
    folder.mkdir(parents=True)
    if contender == "ours":
        commands = [python("ablations", "run", *grid.arguments, "--out", folder / "runs")]
    elif contender.startswith("fresh"):
        commands = [
            python("ablations.bench.fresh", "--norm", c.norm, "--seed", c.seed, "--epochs", c.epochs, *threads)
            for c in cells
        ]
    else:
        shares = [share for share in (cells[i::at_once] for i in range(at_once)) if share]
        commands = [_bare(share, folder / str(i), *threads) for i, share in enumerate(shares)]
    return run_all(commands, at_once=at_once, logs=folder / "logs")


def _time_epoch(contender: str, pair: Grid, folder: Path) -> tuple[float, float]:
    """Train two cells; return the seconds of the second one's median epoch, its first left out, and of all of it."""
    if contender == "bare":
        cells = pair.cells(out=folder / "none")
        run_all([_bare(cells, folder, "--threads", 1)], at_once=1, logs=folder / "logs")
        trained = json.loads((folder / "results.json").read_text())[1]
        return statistics.median(trained["epoch_s"][1:]), trained["seconds"]
    command = python("ablations", "run", *pair.arguments, "--jobs", 1, "--out", folder / "runs")
    run_all([command], at_once=1, logs=folder / "logs")
    (timing,) = folder.glob("runs/*/cells/*-s1-*/timing.csv")
    epochs = pd.read_csv(timing)[1:]
    outcome = json.loads((timing.parent / "outcome.json").read_text())
    return float((epochs["train_s"] + epochs["val_s"]).median()), outcome["seconds"]


def _bare(cells: list[CellConfig], folder: Path, *arguments: object) -> list[str]:
    folder.mkdir(parents=True)
    write_cells(folder / "cells.json", cells)
    return python("ablations.bench.bare", folder / "cells.json", folder / "results.json", *arguments)


def _turned(names: Sequence[str], number: int) -> Sequence[str]:
    """Return names in their order in an odd round, and from the last to the first in an even one."""
    return names if number % 2 else names[::-1]

"""Benchmark of the harness against plain training loops, on a grid of digits cells on the CPU.

The contenders of ``grid``, each timed from the start of its first process to the end of its last:

- ``ours``: the command ``run`` into an empty folder, including the report.
- ``bare``: the plain loop `ablations.bench.bare`; all cells in one process, one thread per core.
- ``bare_x2``: two such processes at once, each with half the cells and half the cores.
- ``fresh``: the script `ablations.bench.fresh`; a new process for each of a few cells, one thread per core.
- ``fresh_x2``: the same cells in two processes at once, each with half the cores.

The decoded images are cached before the first round for ``ours`` and both ``bare``; ``fresh`` reads them again.

``epoch`` is the time of an epoch of one cell, including validation, with 1 thread and nothing else running. Each
contender trains two cells in a new process. Only the second cell without its first epoch counts, since modules, memory
and kernels are set up lazily. ``cell`` is the time of the whole second cell, including its files for ``ours``.
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
"""Contenders in the order of odd rounds; ``ours`` is next to those that it is compared with."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid of cells with the default recipe of digits.

    Args:
        norms: normalisers, the arms.
        num_seeds: number of seeds, from 0 on.
        epochs: number of epochs; None: the recipe's.
    """

    norms: Sequence[str] = DEFAULT_NORMS
    num_seeds: int = DEFAULT_SEEDS
    epochs: int | None = None

    @property
    def arguments(self) -> list[str]:
        """Command-line options for these cells."""
        epochs = [] if self.epochs is None else ["--epochs", str(self.epochs)]
        return ["--norm", ",".join(self.norms), "--seeds", str(self.num_seeds), "--device", "cpu", *epochs]

    def cells(self, *, out: Path) -> list[CellConfig]:
        """Plan the cells, and decode digits into the cache.

        Args:
            out: an empty folder, which stays empty.

        Raises:
            UsageError: a normaliser is unknown, or a number is out of range.
        """
        asked: dict[str, list[Any]] = {"norm": list(self.norms), "seed": list(range(self.num_seeds))}
        if self.epochs is not None:
            asked["epochs"] = [self.epochs]
        return make_plan(Request(asked=asked, out=out)).cells


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement.

    Args:
        round: number of the round, from 1.
        quantity: ``grid``, ``epoch`` or ``cell``.
        contender: one of `CONTENDERS`.
        num_cells: number of trained cells.
        seconds: seconds of all these cells; for ``epoch`` of the median epoch.
    """

    round: int
    quantity: str
    contender: str
    num_cells: int
    seconds: float


def bench_harness(
    *, rounds: int = 5, grid: Grid | None = None, fresh_cells: int = 4, on_row: Callable[[Row], None] = lambda row: None
) -> pd.DataFrame:
    """Measure every contender in every round; the order reverses from round to round.

    Args:
        rounds: number of rounds, 1 or more.
        grid: grid of cells; None: the command's defaults.
        fresh_cells: number of cells of ``fresh`` and ``fresh_x2`` per round; both processes are busy if it is even.
        on_row: callback, called with each measurement.

    Returns:
        One row for each `Row`.

    Raises:
        CommandFailed: a contender failed.
        UsageError: the cells are invalid.
    """
    grid = grid or Grid()
    rows: list[Row] = []

    def note(number: int, quantity: str, contender: str, num_cells: int, seconds: float) -> None:
        rows.append(Row(round=number, quantity=quantity, contender=contender, num_cells=num_cells, seconds=seconds))
        on_row(rows[-1])

    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        cells = grid.cells(out=Path(scratch) / "none")
        pair = Grid(norms=grid.norms[:1], num_seeds=2, epochs=max(2, cells[0].optimisation.epochs))
        for number in range(1, rounds + 1):
            folder = Path(scratch) / str(number)
            picked = [cells[((number - 1) * fresh_cells + i) % len(cells)] for i in range(fresh_cells)]
            for contender in _alternated(CONTENDERS, number):
                trained = picked if contender.startswith("fresh") else cells
                note(number, "grid", contender, len(trained), _time(contender, trained, grid, folder / contender))
            for contender in _alternated(("ours", "bare"), number):
                epoch_s, cell_s = _time_epoch(contender, pair, folder / f"epoch_{contender}")
                note(number, "epoch", contender, 1, epoch_s)
                note(number, "cell", contender, 1, cell_s)
    return pd.DataFrame(map(asdict, rows))


def _time(contender: str, cells: list[CellConfig], grid: Grid, folder: Path) -> float:
    """Return the seconds that a contender takes for the cells, in a new folder."""
    at_once = 2 if contender.endswith("_x2") else 1
    threads = ["--threads", str(max(1, (os.cpu_count() or 1) // 2))] if at_once == 2 else []
    epochs = ["--epochs", cells[0].optimisation.epochs]
    folder.mkdir(parents=True)
    if contender == "ours":
        commands = [python("ablations", "run", *grid.arguments, "--out", folder / "runs")]
    elif contender.startswith("fresh"):
        commands = [
            python("ablations.bench.fresh", "--norm", cell.net.norm, "--seed", cell.seed, *epochs, *threads)
            for cell in cells
        ]
    else:
        shares = [share for share in (cells[i::at_once] for i in range(at_once)) if share]
        commands = [_bare(share, folder / str(i), *threads) for i, share in enumerate(shares)]
    return run_all(commands, at_once=at_once, logs=folder / "logs")


def _time_epoch(contender: str, pair: Grid, folder: Path) -> tuple[float, float]:
    """Train two cells; return the seconds of the second one's median epoch, without its first, and of all of it."""
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


def _alternated(names: Sequence[str], number: int) -> Sequence[str]:
    """Return the names in order in an odd round, and reversed in an even one."""
    return names if number % 2 else names[::-1]

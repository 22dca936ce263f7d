"""Benchmark of grids of cells on one device: cells an hour by way of computing a step and by concurrent cells.

Each measurement is a run through the engine, into an empty folder, with as many cells as run at once. ``eager`` is
measured at every number of cells, ``graph`` at the first and the last, and at the last ``compiled`` and ``stacked``,
which trains all cells as one net, with a captured step too. A way that is refused, or whose cell fails, gives a row
that says so.
"""

from __future__ import annotations

import importlib
import math
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch

from ablations.bench.kernels import time_steps
from ablations.config import CellConfig, UsageError
from ablations.config.options import EngineOptions
from ablations.config.request import Request
from ablations.engine.server import await_server
from ablations.planning.execute import LOADED_AHEAD, execute
from ablations.planning.plan import Plan, make_plan

Way = Literal["eager", "graph", "stacked", "stacked_graph", "compiled"]

WAYS: Mapping[Way, Callable[[int], Mapping[str, list[Any]]]] = {
    "graph": lambda _: {"cuda_graph": [True]},
    "stacked_graph": lambda num_cells: {"stack": [num_cells], "cuda_graph": [True]},
    "stacked": lambda num_cells: {"stack": [num_cells]},
    "eager": lambda _: {},
    "compiled": lambda _: {"compile": [True]},
}
"""Fields of each way of computing a training step, from the number of cells; the most telling are first, and the
slowest to start is last."""

STACKED: tuple[Way, ...] = ("stacked", "stacked_graph")
"""Ways that train all cells in one worker."""

PROFILED: tuple[Way, ...] = ("eager", "graph")
"""Ways whose kernels are timed."""


class GridRow(NamedTuple):
    """A measurement of a way with a number of concurrent cells.

    ``cells_per_hour`` includes the start of the workers and the test; ``epoch_s`` is the median epoch of all cells
    without each one's first, of a stacked cell its share, and ``cells_per_hour_running`` follows from it. ``wall_s``
    and ``kernel_s`` are those of a training step of one cell. ``refused`` and ``failed`` have a note and no value.
    """

    way: str
    cells: int
    quantity: str
    value: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class GridBench:
    """Settings of the benchmark.

    Args:
        data: data set, as on the command line.
        model: named size; None: by image size.
        cells: numbers of concurrent cells.
        ways: ways of computing a step.
        epochs: number of epochs of a cell, 2 or more.
        images: number of training images; None: all.
        device: device to train on.
        data_root: folder of torchvision's data sets.
    """

    data: str
    model: str | None
    cells: Sequence[int]
    ways: Sequence[Way]
    epochs: int
    images: int | None
    device: torch.device
    data_root: Path = Path("data")

    def numbers(self, way: Way) -> list[int]:
        """Return the numbers of concurrent cells of a way."""
        few = (self.cells[0], self.cells[-1]) if way == "graph" else self.cells[-1:]
        ends = self.cells if way == "eager" else few
        return list(dict.fromkeys(ends))

    @staticmethod
    def workers(way: Way, num_cells: int) -> int:
        """Return the number of processes that train the cells."""
        return 1 if way in STACKED else num_cells

    def plan(self, way: Way, num_cells: int, out: Path) -> Plan:
        """Return the plan of a run.

        Raises:
            UsageError: the way does not apply to the device, or a setting is wrong.
        """
        asked: dict[str, list[Any]] = {
            "data": [self.data],
            "norm": ["xnorm"],
            "seed": list(range(num_cells)),
            "epochs": [self.epochs],
            "warmup_epochs": [0],
            **({} if self.model is None else {"model": [self.model]}),
            **({} if self.images is None else {"train_limit": [self.images]}),
            **WAYS[way](num_cells),
        }
        workers = self.workers(way, num_cells)
        jobs, jobs_per_gpu = (workers, None) if self.device.type == "cpu" else (None, workers)
        engine = EngineOptions(jobs=jobs, jobs_per_gpu=jobs_per_gpu, checkpoint_every=0, retry="none")
        where = (str(self.device),)
        return make_plan(Request(asked=asked, out=out, devices=where, engine=engine, data_root=self.data_root))


def bench_grid(bench: GridBench, *, on_row: Callable[[GridRow], None]) -> list[GridRow]:
    """Measure every way at its numbers of cells, and on CUDA the kernels of a step.

    Args:
        bench: settings of the benchmark.
        on_row: callback, called with each measurement.
    """
    rows: list[GridRow] = []

    def note(row: GridRow) -> None:
        rows.append(row)
        on_row(row)

    await_server(threading.Event())  # otherwise the first measurement would include its imports, and these
    for name in LOADED_AHEAD:
        importlib.import_module(name)
    if bench.device.type == "cuda":
        for way in [way for way in bench.ways if way in PROFILED]:
            for row in _tried(way, 1, lambda: _profile(bench, way)):  # noqa: B023
                note(row)
    for way in bench.ways:
        for num_cells in bench.numbers(way):
            for row in _tried(way, num_cells, lambda: _run(bench, way, num_cells)):  # noqa: B023  # called at once
                note(row)
    return rows


def describe_grid(rows: Sequence[GridRow]) -> list[str]:
    """Return a line per measured way and number of cells.

    >>> describe_grid([GridRow("eager", 2, "epoch_s", 3.0), GridRow("graph", 1, "refused", math.nan, "no GPU")])
    ['eager, 2 cells at once: epoch_s 3', 'graph, 1 cell at once: refused: no GPU']
    """
    lines = []
    for way, cells in dict.fromkeys((row.way, row.cells) for row in rows):
        own = [row for row in rows if (row.way, row.cells) == (way, cells)]
        said = [f"{row.quantity}: {row.note}" if row.note else f"{row.quantity} {row.value:.4g}" for row in own]
        lines.append(f"{way}, {cells} cell{'s' * (cells > 1)} at once: {', '.join(said)}")
    return lines


def _tried(way: Way, num_cells: int, measure: Callable[[], Mapping[str, float]]) -> list[GridRow]:
    """Return the rows of a measurement, or one that says why there is none."""
    try:
        return [GridRow(way, num_cells, quantity, value) for quantity, value in measure().items()]
    except UsageError as error:
        return [GridRow(way, num_cells, "refused", math.nan, str(error))]
    except (RuntimeError, ValueError) as error:
        return [GridRow(way, num_cells, "failed", math.nan, (str(error).splitlines() or [""])[0])]


def _run(bench: GridBench, way: Way, num_cells: int) -> dict[str, float]:
    """Run the cells; return cells an hour and the seconds of an epoch.

    Raises:
        RuntimeError: a cell failed.
    """
    with tempfile.TemporaryDirectory(prefix="grid-") as out:
        watcher = _Failures()
        plan = bench.plan(way, num_cells, Path(out))
        started = time.perf_counter()
        execute(plan, watcher=watcher)
        seconds = time.perf_counter() - started
        if watcher.details:
            raise RuntimeError(watcher.details[0])
        timings = [pd.read_csv(file)[1:] for file in plan.store.folder.glob("cells/*/timing.csv")]
    epochs = pd.concat(timings)
    epoch_s = float((epochs["train_s"] + epochs["val_s"]).median())
    return {
        "cells_per_hour": 3600 * num_cells / seconds,
        "cells_per_hour_running": 3600 * bench.workers(way, num_cells) / (bench.epochs * epoch_s),
        "epoch_s": epoch_s,
    }


def _profile(bench: GridBench, way: Way) -> dict[str, float]:
    """Return the seconds of a step and of its kernels, without other cells."""
    with tempfile.TemporaryDirectory(prefix="grid-") as out:
        plan = bench.plan(way, 1, Path(out))
    (cell,) = plan.cells
    return time_steps(cell, plan.infos[cell.images.data_fingerprint], device=bench.device)._asdict()


class _Failures:
    """Watcher that keeps the details of cells that failed."""

    def __init__(self) -> None:
        self.details: list[str] = []

    def done(self, cell: CellConfig, outcome: Mapping[str, Any], *, ours: bool, remark: str) -> None:
        """Keep a failure's detail."""
        if outcome["outcome"] == "failed":
            self.details.append(outcome["detail"])

    def note(self, line: str) -> None:
        """Ignore a message."""

    def tick(self) -> None:
        """Ignore the clock."""

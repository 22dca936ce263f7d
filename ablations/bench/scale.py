"""Benchmark of commands on studies of many finished cells: seconds and memory, and how they grow.

The study is made and not trained: one cell of each arm is run, and the others are its copies with other seeds, learning
rates, losses, scores and correctly classified images. The rest of their records is as the engine writes it, so that
``run`` finds nothing to do. ``first_run`` finds no report and writes a short one, which ``run`` keeps.
"""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil

from ablations.bench.processes import ROOT, CommandFailed, python, run_all
from ablations.config import CellConfig
from ablations.config.request import Request
from ablations.planning.plan import make_plan
from ablations.store import CellRecord, Store, cell_name, write_json
from ablations.store.digests import with_digests
from ufo.norms import NORMS

EPOCHS, NAME, BASE_CELLS = 3, "scale", 24
"""Epochs of a cell, name of the study, and cells of the small study that the others are compared with."""

GLANCE_S = 0.2
"""Seconds between two readings of the memory."""

COMMANDS = ("status", "dry_run", "first_run", "run", "report")
"""Measured commands in the order of a round; ``dry_run`` is ``run --dry-run``."""


class ScaleRow(NamedTuple):
    """A measurement of a command on a study.

    Args:
        round: number of the round, from 1.
        cells: number of finished cells.
        command: one of `COMMANDS`.
        seconds: seconds from its start to its end.
        mib: most memory of it and its children at a time, in MiB; pages that they share are counted once.
    """

    round: int
    cells: int
    command: str
    seconds: float
    mib: float


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A study of many cells: arms on equally many seeds, at one learning rate or several.

    Args:
        cells: least number of cells.
        conditions: number of learning rates, which are the conditions.
    """

    cells: int
    conditions: int = 1

    @property
    def norms(self) -> list[str]:
        """The arms: three in a small study, otherwise all that are registered."""
        return list(NORMS)[:3] if self.cells <= BASE_CELLS else list(NORMS)

    @property
    def num_seeds(self) -> int:
        """Number of seeds."""
        return -(-self.cells // (len(self.norms) * self.conditions))

    @property
    def rates(self) -> list[float]:
        """The learning rates."""
        return [round(1e-3 * 1.1**i, 6) for i in range(self.conditions)]

    def arguments(self, out: Path) -> list[str]:
        """Return the options of ``run`` that ask for these cells.

        Args:
            out: folder of the study's folder.
        """
        asked = {
            "norm": ",".join(self.norms),
            "lr": ",".join(map(str, self.rates)),
            "seeds": f"0-{self.num_seeds - 1},",
        }
        asked |= {"epochs": str(EPOCHS), "device": "cpu", "study": NAME, "out": str(out)}
        return [part for name, value in asked.items() for part in (f"--{name}", value)]

    def make(self, out: Path) -> Path:
        """Make the study.

        Args:
            out: folder of the study's folder, which has no study of the name `NAME`.

        Returns:
            Folder of the study.

        Raises:
            CommandFailed: a trained cell failed.
        """
        asked: dict[str, list[Any]] = {"norm": self.norms, "seed": list(range(self.num_seeds))}
        asked |= {"epochs": [EPOCHS], "lr": self.rates}
        with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
            trained = Path(scratch)
            options = ["--norm", ",".join(self.norms), "--seeds", "1", "--epochs", str(EPOCHS), "--device", "cpu"]
            command = python("ablations", "run", *options, "--study", NAME, "--out", trained)
            run_all([command], at_once=1, logs=trained / "logs")
            models = {each.config.net.norm: _Model(each) for each in Store(trained / NAME).records().values()}
        plan = make_plan(Request(asked=asked, out=out, name=NAME, devices=("cpu",)))
        plan.store.write_study(plan.study)
        for cell in plan.cells:
            models[cell.net.norm].copy(cell, plan.store.cells / cell_name(plan.study.arm_of(cell), cell))
        return plan.store.folder


class _Model:
    """A finished cell that others are copied from.

    Args:
        record: record of the cell.
    """

    def __init__(self, record: CellRecord) -> None:
        self.outcome = record.outcome
        self.files = {path.name: path.read_bytes() for path in record.folder.iterdir()}
        self.metrics = list(csv.DictReader(io.StringIO(self.files["metrics.csv"].decode())))
        self.correct = np.load(io.BytesIO(self.files["correct.npy"]))

    def copy(self, cell: CellConfig, folder: Path) -> None:
        """Write the folder of a cell."""
        rng = np.random.default_rng([cell.seed, round(1e6 * cell.optimisation.lr), len(cell.net.norm)])
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        correct = self.correct ^ (rng.random(len(self.correct)) < 0.1)
        np.save(folder / "correct.npy", correct)
        hashes = [f"{cell.seed:06d}{epoch:04d}" for epoch in range(EPOCHS)]
        with (folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.metrics[0]))
            writer.writeheader()
            for row, batches in zip(self.metrics, hashes, strict=True):
                loss = float(row["train_loss"]) * (1 + 0.1 * rng.random())
                writer.writerow({**row, "train_loss": loss, "batches": batches})
        (folder / "config.json").write_text(cell.model_dump_json(indent=2))
        own = {"cell": cell.id, "epoch_hashes": hashes, "test_accuracy_pct": 100 * float(correct.mean())}
        write_json(folder / "outcome.json", with_digests(self.outcome | own, folder))


def bench_scale(
    sizes: Sequence[int], *, conditions: int, rounds: int, on_row: Callable[[ScaleRow], None]
) -> list[ScaleRow]:
    """Measure every command on a small study and on large ones, in turns.

    Args:
        sizes: numbers of cells of the large studies.
        conditions: number of conditions of a large study.
        rounds: number of rounds, 1 or more.
        on_row: callback, called with each measurement.

    Raises:
        CommandFailed: a command failed.
    """
    rows: list[ScaleRow] = []
    with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
        studies = [Scale(cells=BASE_CELLS), *(Scale(cells=size, conditions=conditions) for size in sizes)]
        made = [(study, study.make(Path(scratch) / str(study.cells))) for study in studies]
        for number in range(1, rounds + 1):
            for study, folder in made:
                for name in COMMANDS:
                    seconds, mib = _measure(_command(name, study, folder), log=Path(scratch) / "log.txt")
                    rows.append(ScaleRow(number, study.cells, name, seconds, mib))
                    on_row(rows[-1])
                _remove_report(folder)
    return rows


def describe_scale(rows: Sequence[ScaleRow]) -> list[str]:
    """Return a line per command and large study: its medians, and how much they lie above the small study's.

    >>> row = ScaleRow(1, 24, "run", 3.5, 800.0)
    >>> describe_scale([row, row._replace(cells=1000, seconds=5.0, mib=900.0)])
    ['run, 1,000 cells: 5.0 s (+1.5), 900 MiB (+100)']
    """
    medians = pd.DataFrame(rows).groupby(["command", "cells"], sort=False)[["seconds", "mib"]].median()
    lines = []
    for command, cells in medians.index:
        if cells != BASE_CELLS:
            own, base = medians.loc[(command, cells)], medians.loc[(command, BASE_CELLS)]
            more = own - base
            time_text = f"{own['seconds']:.1f} s ({more['seconds']:+.1f})"
            lines.append(f"{command}, {cells:,} cells: {time_text}, {own['mib']:.0f} MiB ({more['mib']:+.0f})")
    return lines


def _command(name: str, study: Scale, folder: Path) -> list[str]:
    if name in ("status", "report"):
        return python("ablations", name, folder)
    return python("ablations", "run", *study.arguments(folder.parent), *(["--dry-run"] if name == "dry_run" else []))


def _remove_report(folder: Path) -> None:
    """Remove the report of a study, so that the next run writes it again."""
    for path in folder.iterdir():
        if path.name in ("tables", "figures"):
            shutil.rmtree(path)
        elif path.is_file() and path.name != "study.yaml":
            path.unlink()


def _measure(command: Sequence[str], *, log: Path) -> tuple[float, float]:
    """Run a command; return its seconds, and the most memory of it and its children, in MiB.

    Raises:
        CommandFailed: its exit code is not 0.
    """
    most, ended = 0.0, threading.Event()
    with log.open("wb") as file:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        watched = psutil.Process(process.pid)

        def watch() -> None:
            nonlocal most
            while not ended.wait(GLANCE_S):
                most = max(most, _family_mib(watched))

        thread = threading.Thread(target=watch)
        thread.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        ended.set()
        thread.join()
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise CommandFailed(f"exit code {code} of {' '.join(command)}\n{tail}")
    return seconds, most


def _family_mib(process: psutil.Process) -> float:
    """Return the memory of a process and its children; of those that end meanwhile, 0."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0.0
    for each in family:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return total / 2**20

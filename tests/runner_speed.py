"""How much time and memory the runner takes for each cell of a study on many nodes; no test, since it is timed.

    .venv/bin/python tests/runner_speed.py [CELLS NODES]

The nodes are made up, 50 of eight slots if no numbers are given, and their cells do nothing: what is left is the
runner's own work, with the files that it writes. It prints a line for a quarter of the cells, a half and all, 10,000.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ablations.config.request import Request
from ablations.engine.interface import Ended
from ablations.engine.job import Job, Placement
from ablations.engine.result import Result
from ablations.engine.runner import Runner
from ablations.monitor.board import Board
from ablations.planning.plan import make_plan
from ufo.norms import NORMS

SLOTS, AT_ONCE = 8, 16
"""Slots of a node, and number of jobs that end together."""


class IdleNodes:
    """An engine whose jobs end at once, the oldest first, as soon as it is full or nothing more starts."""

    def __init__(self, num_nodes: int) -> None:
        self.size = num_nodes * SLOTS
        self.running: list[Job] = []

    @contextlib.contextmanager
    def opened(self, _stopped: threading.Event, **_: int) -> Iterator[None]:
        yield

    @property
    def has_room(self) -> bool:
        return len(self.running) < self.size

    def place(self, **_: object) -> Placement:
        cpu = torch.device("cpu")
        return Placement(device=cpu, device_name="cpu", number=0, memory_mib=None, workers=0, mps=False)

    def submit(self, job: Job) -> None:
        self.running.append(job)

    def wait(self, _seconds: float) -> list[Ended]:
        ended, self.running = self.running[:AT_ONCE], self.running[AT_ONCE:]
        return [Ended(job, [Result("ok", "", "", fields=member.fields) for member in job.members]) for job in ended]

    def cancel(self, job: Job, **_: object) -> bool:
        self.running.remove(job)
        return True


class Shown:
    """A watcher that keeps the board, as the command does."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def done(self, cell, outcome, **_) -> None:
        self.board.record(cell, outcome)

    def note(self, line: str) -> None:
        print(line)

    def tick(self) -> None:
        pass


def measure(num_cells: int, num_nodes: int, out: Path) -> None:
    """Run a study of so many cells, and print what the runner took."""
    norms = list(NORMS)[:10]
    asked = {"norm": norms, "seed": list(range(num_cells // len(norms)))}
    plan = make_plan(Request(asked=asked, out=out, name=f"idle{num_cells}", devices=("cpu",)))
    plan.store.write_study(plan.study)
    started = time.perf_counter()
    Runner(
        plan.todo,
        study=plan.study,
        store=plan.store,
        infos=plan.infos,
        engine=IdleNodes(num_nodes),
        options=plan.engine,
        records={},
        watcher=Shown(Board(plan.study)),
    ).run()
    each_ms = 1e3 * (time.perf_counter() - started) / len(plan.todo)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(plan.todo):,} cells on {num_nodes} nodes: {each_ms:.2f} ms a cell, at most {peak_mib:.0f} MiB")


def main(num_cells: int, num_nodes: int) -> None:
    """Measure studies of a quarter of the cells, of a half and of all."""
    with tempfile.TemporaryDirectory() as out:
        for size in (num_cells // 4, num_cells // 2, num_cells):
            measure(size, num_nodes, Path(out))


if __name__ == "__main__":
    main(*(map(int, sys.argv[1:]) if len(sys.argv) > 1 else (10_000, 50)))

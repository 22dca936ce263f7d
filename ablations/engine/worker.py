"""A worker: a process of its own for a cell, forked from a server that has torch and Lightning loaded.

Why no process pool: a cell's process must be able to die at any moment without a trace in the others. loky ends all of
its workers with the first that dies; pebble (5.2.3) survives that, but its workers wait for tasks under a lock that
they share, so that one killed between two cells breaks the pool ("All workers expired"). A worker here shares nothing
but its own pipe, and a fresh one costs 0.06 s, half of what pebble takes for it.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from ablations.data import DataInfo
from ablations.engine.log import DUMP_SIGNAL, take_over_output
from ablations.engine.options import CellOptions
from ablations.engine.result import Result
from ablations.engine.server import CONTEXT
from ablations.provenance import import_plugin
from ablations.study import CellConfig

DUMP_S = 0.3
"""Seconds that a hanging worker gets to write its stack into its log."""

EXIT_S = 10.0
"""Seconds in which the exit code of a process that has closed its pipe must be there."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker needs to run a cell.

    Args:
        config: the cell.
        info: its data set.
        folder: the cell's, with an absolute path.
        device: to train on.
        options: how it is run.
        source_hash: of the sources that can change its numbers.
        plugins: modules that register normalisers.
    """

    config: CellConfig
    info: DataInfo
    folder: Path
    device: torch.device
    options: CellOptions
    source_hash: str
    plugins: tuple[str, ...]


class Worker:
    """The runner's side of a worker process.

    Args:
        keeps: whether it runs cell after cell, as a GPU's does to keep its context; else it leaves after one.
    """

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(theirs, keeps))
        self.process.start()
        theirs.close()  # so that the pipe ends with the process

    def start(self, task: Task) -> None:
        """Give it a cell; the pipe is readable when the cell has ended, or the process."""
        with contextlib.suppress(OSError):  # it is dead already, which the pipe will tell
            self.pipe.send(task)

    def result(self) -> Result | int | None:
        """Return the cell's result, or the exit code of a process that has died without one; once, when ready."""
        try:
            result: Result = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(EXIT_S)
            return self.process.exitcode
        return result

    def dump(self) -> None:
        """Have it write its stack into the cell's log."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, DUMP_SIGNAL)
            time.sleep(DUMP_S)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join(EXIT_S)
        self.close()

    def close(self) -> None:
        """Let it leave when it has nothing to do."""
        self.pipe.close()


def _serve(pipe: Connection, keeps: bool) -> None:
    """Run the cells that come through the pipe, in the worker's process."""
    from ablations.engine.cell import run_cell

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the runner decides
    threading.Thread(target=_leave_with_runner, daemon=True).start()
    try:
        while True:
            task: Task = pipe.recv()
            take_over_output(task.folder / "log.txt")
            if task.device.type == "cpu":
                os.environ["CUDA_VISIBLE_DEVICES"] = ""  # every optimiser's step looks for a GPU, which takes 0.3 ms
            _limit_memory(task)
            for name in task.plugins:
                import_plugin(name)
            result = run_cell(
                task.config,
                task.info,
                folder=task.folder,
                device=task.device,
                options=task.options,
                source_hash=task.source_hash,
            )
            pipe.send(result)
            if not keeps:
                os._exit(0)  # everything is written, and taking torch down takes time
            del task, result
            gc.collect()  # trainer and module hold each other, and between them the cell's tensors
    except (EOFError, BrokenPipeError):  # the runner needs no more of us
        os._exit(0)


def _leave_with_runner() -> None:
    """Leave as soon as the runner is no more: its cell belongs to whoever takes it over."""
    runner = multiprocessing.parent_process()
    assert runner is not None
    runner.join()
    os._exit(1)


def _limit_memory(task: Task) -> None:
    """Make allocations beyond the limit fail: in a GPU's memory, or of what the process adds to itself."""
    limit_mib = task.options.memory_mib
    if limit_mib is None:
        return
    if task.device.type == "cuda":
        total = torch.cuda.get_device_properties(task.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_mib * 2**20 / total), task.device)
    elif sys.platform == "linux":
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")]
        now = int(line.split()[1]) * 2**10
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = now + int(limit_mib * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if most < 0 else min(wanted, most), most))  # -1: none

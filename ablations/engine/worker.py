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
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ablations.config import CellConfig
from ablations.config.options import CellOptions
from ablations.data import DataInfo
from ablations.engine.capacity import device_name
from ablations.engine.log import DUMP_SIGNAL, take_over_output
from ablations.engine.result import TRACEBACK_LINES, Result, blank_fields
from ablations.engine.server import CONTEXT, start_process
from ablations.store.provenance import import_plugin, plugin_hash
from ablations.training.limits import limit_memory

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
        numerics: of the code that trains it.
        plugins: modules that register normalisers.
        plugin_hash: of the one that registers this cell's.
    """

    config: CellConfig
    info: DataInfo
    folder: Path
    device: torch.device
    options: CellOptions
    numerics: str
    plugins: tuple[str, ...]
    plugin_hash: str


class Worker:
    """The runner's side of a worker process.

    Args:
        keeps: whether it runs cell after cell, as a GPU's does to keep its context; else it leaves after one.
    """

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(theirs, keeps))
        start_process(self.process)
        theirs.close()  # so that the pipe ends with the process
        self._had: dict[str, Any] | None = None

    @property
    def signs(self) -> tuple[Connection, int]:
        """What becomes readable when the cell has ended, or the process."""
        return self.pipe, self.process.sentinel

    def suits(self, task: Task) -> bool:
        """Whether no cell before can reach this one: what a plug-in does to its process may meet its own arm alone."""
        return not task.plugins or self._had in (None, _all_but_seed(task))

    def start(self, task: Task) -> None:
        """Give it a cell."""
        self._had = _all_but_seed(task)
        with contextlib.suppress(OSError):  # it is dead already, which the pipe will tell
            self.pipe.send(task)

    def result(self) -> Result | int | None:
        """Return the cell's result, or the exit code of a process that has died without one; once, when ready."""
        with contextlib.suppress(EOFError, OSError):
            if self.pipe.poll():  # what the cell has started may hold the other end open when the worker is dead
                result: Result = self.pipe.recv()
                return result
        self.process.join(EXIT_S)
        code = self.process.exitcode
        self.kill()
        return code

    def dump(self) -> None:
        """Have it write its stack into the cell's log."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, DUMP_SIGNAL)
            time.sleep(DUMP_S)

    def kill(self) -> None:
        """End it at once, with all that the cell has started."""
        self.process.kill()
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join(EXIT_S)
        self.close()

    def close(self) -> None:
        """Let it leave when it has nothing to do."""
        self.pipe.close()


def _all_but_seed(task: Task) -> dict[str, Any]:
    return {**task.config.model_dump(), "seed": None}


def _serve(pipe: Connection, keeps: bool) -> None:
    """Run the cells that come through the pipe, in the worker's process."""
    os.setpgid(0, 0)  # what the cell starts can be ended with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the runner's
    signal.signal(signal.SIGTERM, _die)
    threading.Thread(target=_leave_with_runner, daemon=True).start()
    try:
        while True:
            task: Task = pipe.recv()
            take_over_output(task.folder / "log.txt")
            if task.device.type == "cpu":
                os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else every step of an optimiser looks for a GPU
            if task.options.memory_mib is not None:
                limit_memory(task.device, task.options.memory_mib)
            pipe.send(_run(task))
            if not keeps:
                os._exit(0)  # everything is written, and taking torch down takes time
            del task
            gc.collect()  # the optimiser and its schedule hold each other, and with them the cell's tensors
            torch.cuda.empty_cache()  # else the next cell's peak is this one's
    except (EOFError, BrokenPipeError):  # the runner needs no more of us
        os._exit(0)


def _run(task: Task) -> Result:
    """Run a cell with the plug-ins that the runner had when it began: a cell's record names its sources."""
    from ablations.engine.cell import run_cell

    try:
        for name in task.plugins:
            import_plugin(name)
        if plugin_hash(task.config.net.norm) != task.plugin_hash:
            raise RuntimeError("the plug-in was changed after the run began; give the command again")
    except Exception as error:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        fields = blank_fields(chance_pct=task.info.chance_pct, started=started, device=device_name(task.device))
        lines = "".join(traceback.format_exception(error)).splitlines()[-TRACEBACK_LINES:]
        return Result("failed", "error", f"{type(error).__name__}: {error}", lines, fields)
    return run_cell(
        task.config,
        task.info,
        folder=task.folder,
        device=task.device,
        options=task.options,
        numerics=task.numerics,
    )


def _die(number: int, _frame: FrameType | None) -> None:
    """Die of a signal at once, whatever the libraries have made of it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _leave_with_runner() -> None:
    """Leave as soon as the runner is no more: its cell belongs to whoever takes it over."""
    runner = multiprocessing.parent_process()
    assert runner is not None
    runner.join()
    os.killpg(0, signal.SIGKILL)

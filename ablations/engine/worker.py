"""Worker processes for cells, forked from a server that has imported torch and Lightning.

This is no process pool, since a worker may die at any moment. loky then ends all workers; in pebble (5.2.3) they share
a lock, so that one killed between two cells breaks the pool ("All workers expired"). A worker here shares only its own
pipe, and starts in 0.06 s, half the time of pebble's.
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
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ablations.config import CellConfig
from ablations.config.options import CellOptions
from ablations.data import DataInfo
from ablations.engine.devices import device_name
from ablations.engine.log import DUMP_SIGNAL, redirect_output
from ablations.engine.result import TRACEBACK_LINES, Result, blank_fields
from ablations.engine.server import CONTEXT, start_process
from ablations.engine.signals import SAVE_SIGNAL, TWICE_S
from ablations.store.provenance import import_plugin, plugin_hash
from ablations.training.checkpoint import ask_for_checkpoint
from ablations.training.limits import limit_memory
from ablations.training.parallel import Share

DUMP_S = 0.3
"""Seconds that a hanging worker has to dump its stack trace."""

EXIT_S = 10.0
"""Seconds within which a process that closed its pipe must exit."""

SAVE_S = 10
"""Seconds after a SIGTERM within which a cell saves a checkpoint or ends."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A cell to be run by a worker.

    Args:
        config: configuration of the cell.
        info: its data set.
        folder: folder of the cell, an absolute path.
        device: device to train on.
        options: options of the run.
        numerics: numerics version of the code.
        plugins: modules that register normalisers.
        plugin_hash: hash of the plug-in that registers the cell's normaliser; empty for our own.
        peers: further devices that share the cell.
        share: part of the process in the cell; None: it has no other process.
    """

    config: CellConfig
    info: DataInfo
    folder: Path
    device: torch.device
    options: CellOptions
    numerics: str
    plugins: tuple[str, ...]
    plugin_hash: str
    peers: tuple[torch.device, ...] = ()
    share: Share | None = None


class Worker:
    """A worker process, as the runner sees it.

    Args:
        reuse: whether it runs several cells, as on a GPU to keep its context; else it exits after one.
        environment: environment variables to set before its first cell.
    """

    def __init__(self, *, reuse: bool, environment: Mapping[str, str] | None = None) -> None:
        self.reuse = reuse
        self.pipe, child_end = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(child_end, reuse, environment or {}))
        start_process(self.process)
        child_end.close()  # so that the pipe closes with the process
        self._previous: dict[str, Any] | None = None

    @property
    def waitables(self) -> tuple[Connection, int]:
        """Objects to wait for: one is ready when the cell or the process has ended."""
        return self.pipe, self.process.sentinel

    @property
    def has_answered(self) -> bool:
        """Whether the results have arrived."""
        return self.pipe.poll()

    def can_run(self, task: Task) -> bool:
        """Whether the process lives, and no earlier cell in it can influence this one, as another arm's plug-in may."""
        if connection.wait(self.waitables, 0):
            return False
        return not task.plugins or self._previous in (None, _all_but_seed(task))

    def start(self, tasks: list[Task]) -> None:
        """Send a cell to the process, or several that are trained as one stack."""
        self._previous = _all_but_seed(tasks[0])
        with contextlib.suppress(OSError):  # it has died, which `result` reports
            self.pipe.send(tasks)

    def result(self) -> list[Result] | int | None:
        """Return the cells' results, or the exit code if the process died; call it once, when ready."""
        with contextlib.suppress(EOFError, OSError):
            if self.pipe.poll():  # a child of a dead worker may keep the pipe open
                return self.pipe.recv()
        self.process.join(EXIT_S)
        code = self.process.exitcode
        self.kill()
        return code

    def save(self) -> None:
        """Let the cell save a checkpoint after its step."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, SAVE_SIGNAL)

    def dump(self) -> None:
        """Dump the worker's stack trace to the cell log."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, DUMP_SIGNAL)
            time.sleep(DUMP_S)

    def kill(self) -> None:
        """Kill the process and its children."""
        self.process.kill()
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join(EXIT_S)
        self.close()

    def close(self) -> None:
        """Let the process exit when it is idle."""
        self.pipe.close()


def _all_but_seed(task: Task) -> dict[str, Any]:
    return {**task.config.model_dump(), "seed": None}


def _serve(pipe: Connection, reuse: bool, environment: Mapping[str, str]) -> None:
    """Run the cells from the pipe; this is the main function of a worker process."""
    os.setpgid(0, 0)  # so that children can be killed with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner handles Ctrl-C
    signal.signal(signal.SIGTERM, _save_and_exit)
    signal.signal(SAVE_SIGNAL, lambda *_: ask_for_checkpoint())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, SAVE_SIGNAL})
    # A cluster's SIGTERM to all processes would end the decoding ones, and so fail the cell before it is saved.
    os.register_at_fork(after_in_child=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}))
    threading.Thread(target=_exit_with_runner, daemon=True).start()
    os.environ.update(environment)
    try:
        while True:
            tasks: list[Task] = pipe.recv()
            task = tasks[0]
            redirect_output(task.folder / "log.txt")
            if task.device.type == "cpu":
                os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else every optimiser step looks for a GPU
            if task.options.memory_mib is not None:
                limit_memory(task.device, task.options.memory_mib)
            results = _run(tasks)
            has_failed = any(result.outcome == "failed" for result in results)
            if task.share is None or task.share.number == 0 or has_failed:
                pipe.send(results)
            is_ending = signal.getsignal(signal.SIGTERM) is not _save_and_exit
            if not reuse or has_failed or is_ending:  # a failure may break CUDA's context
                os._exit(0)  # all files are written, and the shutdown of torch takes time
            del task, tasks
            gc.collect()  # optimiser and schedule are a cycle that holds the cell's tensors
            torch.cuda.empty_cache()  # else it counts for the next cell's peak
    except (EOFError, BrokenPipeError):  # the runner closed the pipe
        os._exit(0)


def _run(tasks: list[Task]) -> list[Result]:
    """Run a cell or a stack; fail if the plug-in changed since the run began, since the record holds the hash."""
    from ablations.engine.cell import run_cells

    task = tasks[0]
    try:
        for name in task.plugins:
            import_plugin(name)
        if plugin_hash(task.config.net.norm) != task.plugin_hash:
            raise RuntimeError("the plug-in changed after the run began; run the command again")
    except Exception as error:
        lines = "".join(traceback.format_exception(error)).splitlines()[-TRACEBACK_LINES:]
        fields = blank_fields(task.info, device_name(task.device))
        return [Result("failed", "error", f"{type(error).__name__}: {error}", lines, dict(fields)) for _ in tasks]
    return run_cells(
        [each.config for each in tasks],
        task.info,
        folders=[each.folder for each in tasks],
        device=task.device,
        options=[each.options for each in tasks],
        numerics=task.numerics,
        share=task.share,
    )


def _save_and_exit(number: int, _frame: FrameType | None) -> None:
    """Save a checkpoint and end the process by a signal; a second one, or the end of the time, ends it at once.

    A cluster that ends a job signals all of its processes, and leaves them some seconds.
    """
    exit_now, asked = partial(_exit_by_signal, number), time.monotonic()
    signal.signal(signal.SIGALRM, lambda *_: exit_now())
    signal.signal(number, lambda *_: exit_now() if time.monotonic() - asked > TWICE_S else None)
    signal.alarm(SAVE_S)
    ask_for_checkpoint(then=exit_now)


def _exit_by_signal(number: int) -> None:
    """End the process by a signal, bypassing other handlers."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _exit_with_runner() -> None:
    """Kill this process and its children when the runner ends, since another runner may take over its cell."""
    runner = multiprocessing.parent_process()
    assert runner is not None
    runner.join()
    os.killpg(0, signal.SIGKILL)

"""Worker processes that train one cell together, each on a device of its own."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

from ablations.engine.result import Result
from ablations.engine.scratch import scratch_folder
from ablations.engine.worker import Task, Worker
from ablations.store import CHECKPOINT
from ablations.store.leases import LOG
from ablations.training.parallel import Share

REASON_S = 2.0
"""Longest time from the first failure of a process until those of the others, one of which may be its cause."""

LOG_LINES = 100
"""Number of last lines of a process's log that the cell's log keeps."""

Answer: TypeAlias = list[Result] | int | None
"""Results of a process, or the exit code of one that died."""


class Team:
    """Workers of one cell, in place of a single `Worker`. The first writes the cell's files; the others' are removed.

    Args:
        num_processes: number of workers, two or more.
        reuse: whether they run several cells, one after another.
        environment: environment variables to set before their first cell.
    """

    def __init__(self, num_processes: int, *, reuse: bool, environment: Mapping[str, str] | None = None) -> None:
        self.reuse = reuse
        # The others wait for more, so that their ends are failures.
        self._workers = [Worker(reuse=reuse or rank > 0, environment=environment) for rank in range(num_processes)]
        self._folder = self._log = Path()  # once a cell has started

    @property
    def waitables(self) -> tuple[Connection | int, ...]:
        """Objects to wait for: one is ready when the cell or a process has ended."""
        return tuple(each for worker in self._workers for each in worker.waitables)

    @property
    def has_answered(self) -> bool:
        """Whether the results have arrived."""
        return self._workers[0].has_answered

    def can_run(self, task: Task) -> bool:
        """Whether all processes live, and no earlier cell in them can influence this one."""
        return all(worker.can_run(task) for worker in self._workers)

    def start(self, tasks: list[Task]) -> None:
        """Send a cell to the processes."""
        (task,) = tasks
        self._remove_folder()  # of the cell before, which all of them have ended
        self._folder, self._log = scratch_folder("team"), task.folder / LOG
        devices, each = (task.device, *task.peers), []
        for rank in range(len(self._workers)):
            own = replace(task, device=devices[rank], share=Share(rank, devices, self._folder / "meeting"))
            if rank:
                options = replace(task.options, checkpoint_every=0, save_weights=False, probe_steps=(), loggers=())
                own = replace(own, folder=self._folder / str(rank), options=options)
                own.folder.mkdir()
                (own.folder / CHECKPOINT).symlink_to(task.folder / CHECKPOINT)
            each.append(own)
        for worker, own in zip(self._workers, each, strict=True):
            worker.start([own])

    def result(self) -> Answer:
        """Return the cell's results, or the exit code of a process that died; call it once, when ready."""
        answers: dict[int, Answer] = {}
        until = time.monotonic() + REASON_S
        while len(answers) < len(self._workers):
            for rank, worker in enumerate(self._workers):
                if rank not in answers and connection.wait(worker.waitables, 0):
                    answers[rank] = worker.result()
            if 0 in answers and _kind(answers[0]) == "":
                return answers[0]
            left = [
                each for rank, worker in enumerate(self._workers) if rank not in answers for each in worker.waitables
            ]
            if not left or not connection.wait(left, max(0.0, until - time.monotonic())):
                break
        self._collect_logs()
        self.kill()
        # Where one runs out of memory or dies, the others lose their connection to it.
        order = ("oom", "dead", "other")
        return min(sorted(answers.items()), key=lambda answer: order.index(_kind(answer[1])))[1]

    def save(self) -> None:
        """Let the cell save a checkpoint at the end of its epoch."""
        self._workers[0].save()

    def dump(self) -> None:
        """Dump the processes' stack traces to the cell log."""
        for worker in self._workers:
            worker.dump()
        self._collect_logs()

    def kill(self) -> None:
        """Kill the processes and their children."""
        for worker in self._workers:
            worker.kill()
        self._remove_folder()

    def close(self) -> None:
        """Let the processes exit when they are idle."""
        for worker in self._workers:
            worker.close()
        self._remove_folder()

    def _collect_logs(self) -> None:
        """Append the ends of the other processes' logs to the cell's: what has failed may be there."""
        for rank in range(1, len(self._workers)):
            with contextlib.suppress(FileNotFoundError):  # it has not begun, or another runner has taken the cell over
                lines = (self._folder / str(rank) / LOG).read_text(errors="replace").splitlines()[-LOG_LINES:]
                with self._log.open("a") as log:
                    log.write("\n".join(["", f"process {rank + 1} of the cell:", *lines, ""]))

    def _remove_folder(self) -> None:
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)


def make_worker(task: Task, *, reuse: bool, environment: Mapping[str, str] | None = None) -> Worker | Team:
    """Start a worker for a task and others like it: a team, if several devices share the cell.

    Args:
        task: first task.
        reuse: whether it runs several cells, one after another.
        environment: environment variables to set before the first cell.
    """
    if task.peers:
        return Team(1 + len(task.peers), reuse=reuse, environment=environment)
    return Worker(reuse=reuse, environment=environment)


def _kind(answer: Answer) -> str:
    """Return how a process failed: ``oom``, ``dead`` or ``other``; empty: it did not."""
    if not isinstance(answer, list):
        return "dead"
    failed = [result for result in answer if result.outcome == "failed"]
    return "" if not failed else "oom" if failed[0].kind == "oom" else "other"

"""The interface of an engine, which runs the cells that the runner gives it."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ablations.engine.job import Job, Placement
from ablations.engine.result import Result


@dataclass(frozen=True)
class Ended:
    """A job that has ended.

    Args:
        job: the job.
        results: the results of its cells; of a process that died, kind and detail of its failure.
    """

    job: Job
    results: list[Result] | tuple[str, str]


class Engine(Protocol):
    """Runs jobs, each in a process of its own, and says when they have ended.

    What follows from an end, such as records, retries, time limits and interrupts, is the runner's.
    """

    def opened(self, stopped: threading.Event, *, num_cells: int) -> AbstractContextManager[None]:
        """Get ready to run jobs; at the end kill those that still run.

        Args:
            stopped: event that is set when the user interrupts.
            num_cells: number of cells to run.

        Raises:
            Interrupted: the user interrupted.
            RunStopped: a device cannot be used.
        """

    @property
    def has_room(self) -> bool:
        """Whether it can take a job now."""

    def place(self, *, num_cells: int, alone: bool) -> Placement:
        """Return what the next job is given; there must be room for it.

        Args:
            num_cells: number of its cells: more than one if they are a stack.
            alone: whether no other job runs until it has ended.
        """

    def submit(self, job: Job) -> None:
        """Start a job."""

    def wait(self, seconds: float) -> list[Ended]:
        """Return the jobs that have ended, each once, after at most this time in seconds."""

    def save(self, job: Job) -> None:
        """Let a job save a checkpoint in its cells' folders as soon as it can."""

    def cancel(self, job: Job, *, dump: bool = False) -> bool:
        """Kill a job, which then does not end; return False if its results have arrived, so that it ends with them.

        Args:
            job: the job.
            dump: whether its stack trace is first written to the log.
        """

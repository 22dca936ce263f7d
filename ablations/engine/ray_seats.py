"""The seats of a run on a Ray cluster: actors that Ray places where the nodes have what a cell needs."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ablations.config.options import EngineOptions
from ablations.engine.capacity import MAX_AUTO_WORKERS
from ablations.engine.job import Job, Placement
from ablations.engine.seat import Seat, SeatInfo

WAITING_S = 20.0
"""Seconds without a seat after which the user is told."""

CLOSE_S = 5.0
"""Longest time until the seats have removed their files, in seconds."""


class RaySeat(Seat):
    """A seat that knows its node."""

    def located(self) -> tuple[SeatInfo, str]:
        """Inspect the seat, and return the id of its node too."""
        import ray

        return self.inspect(), str(ray.get_runtime_context().get_node_id())


@dataclass(eq=False)
class SeatHandle:
    """A seat, as the runner sees it.

    Args:
        number: number of the seat, from 0.
        actor: its actor.
        answer: reference to what it is asked now; None: it is free.
        info: what is known of it; None: it has not started yet.
        node: id of its node.
        job: its job; None: it has none.
        is_closing: whether it has been told to end.
    """

    number: int
    actor: Any
    answer: Any
    info: SeatInfo | None = None
    node: str = ""
    job: Job | None = None
    is_closing: bool = False

    @property
    def is_free(self) -> bool:
        """Whether it can take a job."""
        return self.answer is None


class Seats:
    """The seats of a run.

    Args:
        ray: the package, connected to a cluster.
        options: options of the run.
        is_cuda: whether a cell needs a GPU.
        threads_per_cell: CPU threads of a cell.
        note: handles a message to the user.

    Attributes:
        all: Every seat, also those that have not started yet.
    """

    def __init__(
        self,
        ray: Any,
        options: EngineOptions,
        *,
        is_cuda: bool,
        threads_per_cell: int,
        note: Callable[[str], None],
    ) -> None:
        self._ray, self._options, self._is_cuda, self._threads = ray, options, is_cuda, threads_per_cell
        self._note = note
        self.all: list[SeatHandle] = []
        self._num_made = 0
        self._job = str(ray.get_runtime_context().get_job_id())
        self._since: float | None = time.monotonic()  # when no seat had started

    @property
    def free(self) -> SeatHandle | None:
        """The first seat that can take a job."""
        return next((seat for seat in self.all if seat.is_free), None)

    def make_first(self, num_wanted: int) -> None:
        """Ask for as many seats as are wanted and the nodes have room for, and for one in any case."""
        for _ in range(min(num_wanted, max(1, sum(map(self._num_fitting, self._ray.nodes()))))):
            self.make()

    def placement(self, seat: SeatHandle, *, num_cells: int) -> Placement:
        """Return what a seat gives a job.

        Args:
            seat: a seat that has started.
            num_cells: number of the job's cells.
        """
        assert seat.info is not None
        node = next((node for node in self._ray.nodes() if node["NodeID"] == seat.node), None)
        num_seats = 1 if node is None else max(1, self._num_fitting(node))
        free_mib = seat.info.device.free_mib
        memory_mib = None if free_mib is None else free_mib / num_seats
        if self._options.memory_per_cell_mib is not None:
            memory_mib = self._options.memory_per_cell_mib * num_cells
        workers = self._options.workers
        if workers is None:
            num_processes = num_seats * self._options.gpus_per_cell
            cores = 0 if node is None else int(node["Resources"].get("CPU", 0)) // num_processes
            workers = max(1, min(MAX_AUTO_WORKERS, cores)) if self._is_cuda else 0
        return Placement(
            device=torch.device("cuda", 0) if self._is_cuda else torch.device("cpu"),
            device_name=seat.info.device.name,
            number=seat.number,
            memory_mib=memory_mib,
            workers=workers,
            mps=False,
            peers=tuple(torch.device("cuda", number) for number in range(1, self._options.gpus_per_cell)),
            origin={**seat.info.origin, "ran_on": {"engine": "ray", "node": seat.node[:12], "job": self._job}},
        )

    @property
    def _needs(self) -> dict[str, float]:
        """What Ray gives each seat."""
        each = self._options.gpus_per_cell
        needs: dict[str, float] = {"num_cpus": each * self._threads}
        if self._is_cuda:
            needs["num_gpus"] = each / (self._options.jobs_per_gpu or 1)
        if self._options.memory_per_cell_mib is not None and not self._is_cuda:
            needs["memory"] = self._options.memory_per_cell_mib * 2**20
        return needs

    def _num_fitting(self, node: dict[str, Any]) -> int:
        """Return how many seats an empty node has."""
        has = node["Resources"] if node["Alive"] else {}
        named = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        return min(int(has.get(named[name], 0) / need + 1e-6) for name, need in self._needs.items())

    def make(self) -> None:
        """Ask Ray for one more seat."""
        made = self._ray.remote(RaySeat).options(max_concurrency=3, max_restarts=0, **self._needs)
        actor = made.remote(is_cuda=self._is_cuda)
        self.all.append(SeatHandle(self._num_made, actor, actor.located.remote()))
        self._num_made += 1

    def keep_one_coming(self, num_wanted: int) -> None:
        """Ask for one more seat than there are, so that a cluster can grow, and say if none comes."""
        num_open = sum(not seat.is_closing for seat in self.all)
        if num_open < num_wanted and not any(seat.info is None or seat.is_free for seat in self.all):
            self.make()
        if any(seat.info is not None for seat in self.all):
            self._since = None
            return
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since > WAITING_S:  # once: never after infinity
            needs = ", ".join(f"{name} {value:g}" for name, value in self._needs.items())
            self._note(f"waiting for a node of the cluster that has room for a cell ({needs})")
            self._since = math.inf

    def give_back(self, num_wanted: int) -> None:
        """End seats that are not needed any more, so that others can use the cluster, or it can shrink."""
        kept = [seat for seat in self.all if not seat.is_closing]
        idle = sorted((seat for seat in kept if seat.job is None), key=lambda seat: seat.info is not None)
        for seat in idle[: max(0, len(kept) - max(1, num_wanted))]:  # first those that have not started
            if seat.info is None:
                self.drop(seat)
            else:
                seat.is_closing, seat.answer = True, seat.actor.close.remote()

    def close(self) -> None:
        """End all seats, and what they run."""
        closed = [seat.actor.close.remote() for seat in self.all if seat.info is not None]
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.wait(closed, num_returns=len(closed), timeout=CLOSE_S) if closed else None
        while self.all:
            self.drop(self.all[-1])

    def drop(self, seat: SeatHandle) -> None:
        """Give a seat up: kill its process, and with it what it runs."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(seat.actor)
        self.all.remove(seat)

"""The engine of a Ray cluster: Ray places seats on its nodes, and each seat runs one job after another.

Nothing but Ray's own connections joins runner and nodes: cells go out and come back as bytes
(`ablations.engine.seat`). A seat is a Ray actor, which Ray ends with its node and with the runner. A job whose seat is
lost starts again on another one, from the last checkpoint that has come back.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ablations.config import RunStopped
from ablations.config.options import EngineOptions
from ablations.config.values import plural
from ablations.data.location import data_folder
from ablations.engine.capacity import MAX_AUTO_WORKERS
from ablations.engine.interface import Ended
from ablations.engine.job import Job, Placement
from ablations.engine.seat import News, Order, Seat, SeatInfo
from ablations.engine.shipping import FilesAt, write_files
from ablations.store.provenance import hash_sources, plugin_files

MOST_LOSSES = 3
"""Number of lost seats after which a job has failed: it may be what ends them."""

WAITING_S = 20.0
"""Seconds without a seat after which the user is told."""

CONNECT_S, CANCEL_S, CLOSE_S = 10.0, 15.0, 5.0
"""Longest time until an address answers, a cancelled job has ended and a seat has removed its files, in seconds."""


class RaySeat(Seat):
    """A seat that knows its node."""

    def located(self) -> tuple[SeatInfo, str]:
        """Inspect the seat, and return the id of its node too."""
        import ray

        return self.inspect(), str(ray.get_runtime_context().get_node_id())


@dataclass(eq=False)
class _Seat:
    """A seat, as the runner sees it.

    Args:
        number: number of the seat, from 0.
        actor: its actor.
        answer: reference to what it is asked now; None: it is free.
        info: what is known of it; None: it has not started yet.
        node: id of its node.
        job: its job; None: it has none.
    """

    number: int
    actor: Any
    answer: Any
    info: SeatInfo | None = None
    node: str = ""
    job: Job | None = None

    @property
    def is_free(self) -> bool:
        return self.answer is None


class RayEngine:
    """Runs jobs on a Ray cluster; an `ablations.engine.interface.Engine`.

    Args:
        options: options of the run.
        is_cuda: whether a cell needs a GPU.
        threads_per_cell: CPU threads of a cell.
        plugins: modules that register normalisers.
        note: handles a message to the user.
    """

    def __init__(
        self,
        options: EngineOptions,
        *,
        is_cuda: bool,
        threads_per_cell: int,
        plugins: tuple[str, ...],
        note: Callable[[str], None],
    ) -> None:
        self._options, self._is_cuda, self._threads, self._note = options, is_cuda, threads_per_cell, note
        self._plugins = plugins
        self._ray: Any = None  # the package, once it is needed
        self._seats: list[_Seat] = []
        self._lost: deque[Job] = deque()
        self._num_losses: dict[Job, int] = {}
        self._put: dict[str, Any] = {}  # data sets in the cluster
        self._sent: dict[tuple[str, str], tuple[_Seat, Any]] = {}  # to nodes
        self._num_left = self._num_made = 0
        self._since: float | None = None  # when no seat had started

    @contextlib.contextmanager
    def opened(self, stopped: threading.Event, *, num_cells: int) -> Iterator[None]:
        """Connect to the cluster, or start one on this machine."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read by what starts a cluster
        os.environ.setdefault("RAY_SCHEDULER_EVENTS", "0")  # else its autoscaler prints to our terminal
        os.environ.setdefault("RAY_worker_niceness", "0")  # else cells give way to everything else on their node
        self._ray = ray = importlib.import_module("ray")
        self._sources = hash_sources()
        self._files = plugin_files(self._plugins)
        was_connected = ray.is_initialized()
        if not was_connected:
            _connect(ray, self._options.ray_address)
        self._job_id = ray.get_runtime_context().get_job_id()
        try:
            self._num_left, self._since = num_cells, time.monotonic()
            for _ in range(min(self._num_wanted, max(1, sum(map(self._num_fitting, ray.nodes()))))):
                self._make_seat()
            yield
        finally:
            self._close()
            if not was_connected:
                ray.shutdown()

    @property
    def _num_wanted(self) -> int:
        return min(self._num_left, self._options.jobs or self._num_left)

    @property
    def has_room(self) -> bool:
        """Whether a seat is free, and no lost job waits for one."""
        return not self._lost and any(seat.is_free for seat in self._seats)

    def place(self, *, num_cells: int, alone: bool) -> Placement:
        """Return what the first free seat has."""
        del alone  # a node is shared with others anyway
        seat = next(seat for seat in self._seats if seat.is_free)
        return self._placement(seat, num_cells=num_cells)

    def submit(self, job: Job) -> None:
        """Send a job to the seat of its placement."""
        self._send(job, next(seat for seat in self._seats if seat.number == job.placement.number))

    def wait(self, seconds: float) -> list[Ended]:
        """Return the jobs that have ended, and send lost ones to free seats."""
        self._seat_lost_jobs()
        self._keep_one_coming()
        asked = {seat.answer: seat for seat in self._seats if not seat.is_free}
        if not asked:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(asked), num_returns=1, timeout=seconds, fetch_local=False)
        if ready:
            ready, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0, fetch_local=False)
        return [ended for answer in ready if (ended := self._hear(asked[answer])) is not None]

    def cancel(self, job: Job, *, dump: bool = False) -> bool:
        """Kill a job, unless its results have arrived."""
        if job in self._lost:
            self._lost.remove(job)
            return True
        seat = next(seat for seat in self._seats if seat.job is job)
        with contextlib.suppress(self._ray.exceptions.RayError):
            if self._ray.wait([seat.answer], timeout=0)[0] and self._ray.get(seat.answer).results is not None:
                return False
            seat.actor.cancel.remote(dump=dump)
            deadline = time.monotonic() + CANCEL_S
            while (left_s := deadline - time.monotonic()) > 0:
                news: News = self._ray.get(seat.answer, timeout=left_s)
                self._write(job, news)
                if news.results is not None:
                    seat.job = seat.answer = None
                    return True
                seat.answer = seat.actor.advance.remote()
        self._drop(seat)
        return True

    def _hear(self, seat: _Seat) -> Ended | None:
        """Take what a seat says; return its job if that has ended."""
        try:
            said = self._ray.get(seat.answer)
        except self._ray.exceptions.RayTaskError as error:  # as of a node whose disk is full
            return self._failed(seat, error)
        except self._ray.exceptions.RayError as error:
            return self._lose(seat, error)
        if isinstance(said, tuple):
            seat.info, seat.node = said
            seat.answer = None
            self._check(seat.info)
            return None
        news: News = said
        job = seat.job
        assert job is not None
        self._write(job, news)
        if news.results is not None:
            seat.job = seat.answer = None
            self._num_losses.pop(job, None)
            self._num_left = max(1, self._num_left - len(job.members))
            return Ended(job, news.results)
        try:
            if news.lacks:
                self._send_data(job, seat)
        except self._ray.exceptions.RayTaskError as error:
            return self._failed(seat, error)
        seat.answer = seat.actor.advance.remote()
        return None

    def _check(self, info: SeatInfo) -> None:
        if info.origin["source_hash"] != self._sources:
            theirs = info.origin["versions"]["ufo-ablations"]
            raise RunStopped(f"a node of the cluster has other code (version {theirs}): install the same on every node")

    def _failed(self, seat: _Seat, error: Exception) -> Ended | None:
        """End the job of a seat that could not run it, and give the seat up."""
        job, cause = seat.job, getattr(error, "cause", None) or error
        self._drop(seat)
        if job is None:
            raise RunStopped(f"a node of the cluster cannot run cells: {type(cause).__name__}: {cause}")
        return Ended(job, ("error", f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"))

    def _lose(self, seat: _Seat, error: Exception) -> Ended | None:
        """Let the job of a lost seat wait for another one; end it if it has lost too many."""
        job = seat.job
        self._drop(seat)
        if job is None:
            return None
        self._num_losses[job] = self._num_losses.get(job, 0) + 1
        if self._num_losses[job] >= MOST_LOSSES:
            del self._num_losses[job]
            return Ended(job, ("killed", f"{MOST_LOSSES} nodes or their processes died while it ran"))
        names = plural(len(job.members), "cell")
        self._note(f"a node or its process was lost ({type(error).__name__}): {names} will start again elsewhere")
        self._lost.append(job)
        return None

    def _drop(self, seat: _Seat) -> None:
        """Give a seat up; data that it was being sent will be sent to another one of its node."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(seat.actor)
        self._seats.remove(seat)
        self._sent = {key: (other, done) for key, (other, done) in self._sent.items() if other is not seat}

    def _seat_lost_jobs(self) -> None:
        for seat in self._seats:
            if self._lost and seat.is_free:
                job = self._lost.popleft()
                job.placement = self._placement(seat, num_cells=len(job.members))
                self._send(job, seat)
        for job in self._lost:
            job.started = time.monotonic()  # its time limit is of its running

    def _send(self, job: Job, seat: _Seat) -> None:
        """Start a job on a free seat."""
        job.started = time.monotonic()
        tasks = tuple(member.task for member in job.members)
        weights = tasks[0].options.weights
        info = tasks[0].info
        order = Order(
            tasks=tasks,
            files=tuple(FilesAt(member.lease.folder).changed() for member in job.members),
            weights=Path(weights).read_bytes() if weights else None,
            plugins=self._files,
            entry=data_folder(info.name, info.fingerprint, streamed=info.streamed).name,
        )
        seat.job, seat.answer = job, seat.actor.advance.remote(order)

    def _send_data(self, job: Job, seat: _Seat) -> None:
        """Send a data set to a node, once; other seats of the node wait for it."""
        info = job.members[0].task.info
        folder = data_folder(info.name, info.fingerprint, streamed=info.streamed)
        key = seat.node, folder.name
        if key in self._sent:
            _, done = self._sent[key]
            if self._ray.wait([done], timeout=0)[0]:
                del self._sent[key]
                self._ray.get(done)  # it raises why the data could not be written
            return
        self._sent[key] = seat, seat.actor.receive.remote(folder.name, self._data(folder))

    def _data(self, folder: Path) -> Any:
        """Return a reference to the files of a data set, which are put into the cluster once."""
        if folder.name not in self._put:
            self._put[folder.name] = self._ray.put(FilesAt(folder).changed())
        return self._put[folder.name]

    def _write(self, job: Job, news: News) -> None:
        """Write the files that came back to the cells' folders."""
        with contextlib.suppress(
            FileNotFoundError
        ):  # another runner has taken the cell over, as the next heartbeat says
            for member, files in zip(job.members, news.files, strict=False):
                write_files(files, member.lease.folder)
        for member, logs in zip(job.members, news.logs, strict=False):
            folder = Path(member.task.options.log_folder)
            folder.mkdir(parents=True, exist_ok=True)
            write_files(logs, folder)

    def _placement(self, seat: _Seat, *, num_cells: int) -> Placement:
        assert seat.info is not None
        node = next(node for node in self._ray.nodes() if node["NodeID"] == seat.node)
        num_seats, free_mib = self._num_fitting(node), seat.info.device.free_mib
        memory_mib = None if free_mib is None else free_mib / max(1, num_seats)
        if self._options.memory_per_cell_mib is not None:
            memory_mib = self._options.memory_per_cell_mib * num_cells
        workers = self._options.workers
        if workers is None:
            cores = int(node["Resources"].get("CPU", 0)) // max(1, num_seats)
            workers = max(1, min(MAX_AUTO_WORKERS, cores)) if self._is_cuda else 0
        return Placement(
            device=torch.device("cuda", 0) if self._is_cuda else torch.device("cpu"),
            device_name=seat.info.device.name,
            number=seat.number,
            memory_mib=memory_mib,
            workers=workers,
            mps=False,
            origin={**seat.info.origin, "ran_on": {"engine": "ray", "node": seat.node[:12], "job": self._job_id}},
        )

    @property
    def _needs(self) -> dict[str, float]:
        """What Ray gives each seat."""
        needs: dict[str, float] = {"num_cpus": self._threads}
        if self._is_cuda:
            needs["num_gpus"] = 1 / (self._options.jobs_per_gpu or 1)
        if self._options.memory_per_cell_mib is not None and not self._is_cuda:
            needs["memory"] = self._options.memory_per_cell_mib * 2**20
        return needs

    def _num_fitting(self, node: dict[str, Any]) -> int:
        """Return how many seats an empty node has."""
        has = node["Resources"] if node["Alive"] else {}
        named = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        return min(int(has.get(named[name], 0) / need + 1e-6) for name, need in self._needs.items())

    def _make_seat(self) -> None:
        made = self._ray.remote(RaySeat).options(max_concurrency=3, max_restarts=0, **self._needs)
        actor = made.remote(is_cuda=self._is_cuda)
        self._seats.append(_Seat(self._num_made, actor, actor.located.remote()))
        self._num_made += 1

    def _keep_one_coming(self) -> None:
        """Ask for one more seat than there are, so that a cluster can grow, and say if none comes."""
        is_coming = any(seat.info is None for seat in self._seats)
        if len(self._seats) < self._num_wanted and not is_coming and not any(seat.is_free for seat in self._seats):
            self._make_seat()
        if any(seat.info is not None for seat in self._seats):
            self._since = None
            return
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since > WAITING_S:  # once: never after infinity
            needs = ", ".join(f"{name} {value:g}" for name, value in self._needs.items())
            self._note(f"waiting for a node of the cluster that has room for a cell ({needs})")
            self._since = math.inf

    def _close(self) -> None:
        """End all seats, and what they run."""
        closed = [seat.actor.close.remote() for seat in self._seats if seat.info is not None]
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.wait(closed, num_returns=len(closed), timeout=CLOSE_S) if closed else None
        while self._seats:
            self._drop(self._seats[-1])
        self._lost.clear()


def _connect(ray: Any, address: str | None) -> None:
    """Connect to the cluster at an address; without one to the cluster of this machine, which is started if need be.

    Raises:
        RunStopped: there is no cluster at the address.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = address or os.environ.get("RAY_ADDRESS")
    if address in (None, "auto") and (here := _running_here()) is not None:
        address = here
    try:
        if address in (None, "auto"):
            ray.init("local", include_dashboard=False, **options)
            return
        if not _answers(address):
            raise RunStopped(f"no Ray cluster answers at {address} (--ray-address)")
        ray.init(address, **options)
    except ConnectionError as error:
        reason = (str(error).splitlines() or [""])[0]
        raise RunStopped(f"the Ray cluster at {address} (--ray-address) refuses the connection: {reason}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)  # Ray has its own for SIGTERM


def _running_here() -> str | None:
    """Return the address of the cluster that `ray start` has left running on this machine, if it answers."""
    with contextlib.suppress(OSError):
        address = (Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster").read_text().strip()
        if _answers(address):
            return address
    return None


def _answers(address: str) -> bool:
    """Tell whether something listens at an address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with contextlib.suppress(OSError, ValueError), socket.create_connection((host, int(port)), CONNECT_S):
        return True
    return False

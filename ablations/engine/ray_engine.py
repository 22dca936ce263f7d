"""The engine of a Ray cluster: Ray places seats on its nodes, and each seat runs one job after another.

Nothing but Ray's own connections joins runner and nodes: cells go out and come back as bytes
(`ablations.engine.seat`). A seat is a Ray actor, which Ray ends with its node and with the runner. A job whose seat is
lost starts again on another one, from the last checkpoint that has come back.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ablations.config import Interrupted, RunStopped
from ablations.config.options import EngineOptions
from ablations.config.values import plural
from ablations.data.location import data_folder
from ablations.engine.interface import Ended
from ablations.engine.job import Job, Placement
from ablations.engine.ray_cluster import connect
from ablations.engine.ray_seats import SeatHandle, Seats
from ablations.engine.seat import News, Order, SeatInfo
from ablations.engine.shipping import FilesAt, write_files
from ablations.store.provenance import hash_sources, plugin_files

MOST_LOSSES = 3
"""Number of lost seats after which a job has failed: it may be what ends them."""

CANCEL_S = 15.0
"""Longest time until a cancelled job has ended, in seconds."""


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
        self._seats: Seats  # once there is a cluster
        self._lost: deque[Job] = deque()
        self._arrived: list[Ended] = []  # while they were being cancelled
        self._num_losses: dict[Job, int] = {}
        self._put: dict[str, Any] = {}  # data sets in the cluster
        self._sent: dict[tuple[str, str], tuple[SeatHandle, Any]] = {}  # to nodes
        self._num_left = 0
        self._num_unstarted = 0  # seats in a row that died before they started

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
            connect(ray, self._options.ray_address)
        try:
            if stopped.is_set():
                raise Interrupted
            self._num_left = num_cells
            self._seats = Seats(
                ray, self._options, is_cuda=self._is_cuda, threads_per_cell=self._threads, note=self._note
            )
            self._seats.make_first(self._num_wanted)
            try:
                yield
            finally:
                self._seats.close()
        finally:
            if not was_connected:
                ray.shutdown()

    @property
    def _num_wanted(self) -> int:
        return min(self._num_left, self._options.jobs or self._num_left)

    @property
    def has_room(self) -> bool:
        """Whether a seat is free, and no lost job waits for one."""
        return not self._lost and self._seats.free is not None

    def place(self, *, num_cells: int, alone: bool) -> Placement:
        """Return what the first free seat has."""
        del alone  # a node is shared with others anyway
        seat = self._seats.free
        assert seat is not None
        return self._seats.placement(seat, num_cells=num_cells)

    def submit(self, job: Job) -> None:
        """Send a job to the seat of its placement."""
        self._send(job, next(seat for seat in self._seats.all if seat.number == job.placement.number))

    def wait(self, seconds: float) -> list[Ended]:
        """Return the jobs that have ended, and send lost ones to free seats."""
        self._seat_lost_jobs()
        self._seats.keep_one_coming(self._num_wanted)
        self._seats.give_back(self._num_wanted)
        if self._arrived:
            arrived, self._arrived = self._arrived, []
            return arrived
        asked = {seat.answer: seat for seat in self._seats.all if not seat.is_free}
        if not asked:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(asked), num_returns=1, timeout=seconds, fetch_local=False)
        if ready:
            ready, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0, fetch_local=False)
        return [ended for answer in ready if (ended := self._hear(asked[answer])) is not None]

    def save(self, job: Job) -> None:
        """Let a job save a checkpoint, which comes back as its other files do."""
        for seat in self._seats.all:
            if seat.job is job:
                seat.actor.save.remote()

    def cancel(self, job: Job, *, dump: bool = False) -> bool:
        """Kill a job, unless its results have arrived."""
        if job in self._lost:
            self._lost.remove(job)
            return True
        seat = next(seat for seat in self._seats.all if seat.job is job)
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
                    if isinstance(news.results, list):  # it ended before it could be killed
                        self._arrived.append(Ended(job, news.results))
                        return False
                    return True
                seat.answer = seat.actor.advance.remote()
        self._drop(seat)
        return True

    def _hear(self, seat: SeatHandle) -> Ended | None:
        """Take what a seat says; return its job if that has ended."""
        try:
            said = self._ray.get(seat.answer)
        except self._ray.exceptions.RayError as error:
            said = error
        if seat.is_closing:
            self._drop(seat)
            return None
        if isinstance(said, self._ray.exceptions.RayTaskError):  # as of a node whose disk is full
            return self._failed(seat, said)
        if isinstance(said, self._ray.exceptions.RayError):
            return self._lose(seat, said)
        if isinstance(said, tuple):
            seat.info, seat.node = said
            seat.answer, self._num_unstarted = None, 0
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
                job.started = time.monotonic()  # its time limit is of its running
                self._send_data(job, seat)
        except self._ray.exceptions.RayTaskError as error:
            return self._failed(seat, error)
        seat.answer = seat.actor.advance.remote()
        return None

    def _check(self, info: SeatInfo) -> None:
        if info.origin["source_hash"] != self._sources:
            theirs = info.origin["versions"]["ufo-ablations"]
            raise RunStopped(f"a node of the cluster has other code (version {theirs}): install the same on every node")

    def _failed(self, seat: SeatHandle, error: Exception) -> Ended | None:
        """End the job of a seat that could not run it, and give the seat up."""
        job, cause = seat.job, getattr(error, "cause", None) or error
        self._drop(seat)
        if job is None:
            raise RunStopped(f"a node of the cluster cannot run cells: {type(cause).__name__}: {cause}")
        return Ended(job, ("error", f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"))

    def _lose(self, seat: SeatHandle, error: Exception) -> Ended | None:
        """Let the job of a lost seat wait for another one; end it if it has lost too many."""
        job = seat.job
        self._drop(seat)
        if job is None:
            self._num_unstarted += seat.info is None
            if self._num_unstarted >= MOST_LOSSES:  # else it would be asked for for ever
                raise RunStopped(f"no process starts on the cluster's nodes: {' '.join(str(error).split())[:500]}")
            return None
        if isinstance(error, self._ray.exceptions.OutOfMemoryError) or "running low on memory" in str(error):
            return Ended(job, ("oom", "Ray ended it, since its node was running low on memory"))
        self._num_losses[job] = self._num_losses.get(job, 0) + 1
        if self._num_losses[job] >= MOST_LOSSES:
            del self._num_losses[job]
            return Ended(job, ("killed", f"{MOST_LOSSES} nodes or their processes died while it ran"))
        names = plural(len(job.members), "cell")
        self._note(f"a node or its process was lost ({type(error).__name__}): {names} will start again elsewhere")
        self._lost.append(job)
        return None

    def _drop(self, seat: SeatHandle) -> None:
        """Give a seat up; data that it was being sent will be sent to another one of its node."""
        self._seats.drop(seat)
        self._sent = {key: (other, done) for key, (other, done) in self._sent.items() if other is not seat}

    def _seat_lost_jobs(self) -> None:
        for seat in self._seats.all:
            if self._lost and seat.is_free:
                job = self._lost.popleft()
                job.placement = self._seats.placement(seat, num_cells=len(job.members))
                self._send(job, seat)
        for job in self._lost:
            job.started = time.monotonic()

    def _send(self, job: Job, seat: SeatHandle) -> None:
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

    def _send_data(self, job: Job, seat: SeatHandle) -> None:
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
        with contextlib.suppress(FileNotFoundError):  # another runner has taken the cell over
            for member, files in zip(job.members, news.files, strict=False):
                write_files(files, member.lease.folder)
        for member, logs in zip(job.members, news.logs, strict=False):
            folder = Path(member.task.options.log_folder)
            folder.mkdir(parents=True, exist_ok=True)
            write_files(logs, folder)

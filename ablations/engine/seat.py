"""A seat on a node of a cluster: it runs one job after another, each in a process of its own, from bytes to bytes.

It shares no folder with the runner. The cells' files come with the order, what changes in their folders goes back while
they run, and data that the node's cache lacks are asked for.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch

from ablations.config.privacy import private
from ablations.data.location import cache_root, filled
from ablations.engine.devices import DeviceInfo, measure_devices
from ablations.engine.result import Result, describe_exit
from ablations.engine.scratch import scratch_folder
from ablations.engine.server import await_server
from ablations.engine.shipping import Files, FilesAt, write_files
from ablations.engine.team import Team, make_worker
from ablations.engine.worker import Task, Worker
from ablations.store.files import clean_log
from ablations.store.leases import LOG
from ablations.store.provenance import describe

TICK_S, SHIP_S, POLL_S = 0.25, 1.0, 5.0
"""Seconds between two looks at a job, between two readings of its files, and until an answer without news."""

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder that a cluster may put on the module search path, where `data` and others would be modules of their own."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job with all that it needs.

    Args:
        tasks: tasks of the cells, with the runner's folders.
        files: files that each cell's folder has at the start, as the checkpoint of an earlier attempt.
        weights: content of the file of weights that the nets start from; None: none.
        plugins: files of the plug-ins, in a folder of the module search path.
        entry: name of the data set's folder in the cache.
    """

    tasks: tuple[Task, ...]
    files: tuple[Files, ...]
    weights: bytes | None
    plugins: Files
    entry: str


@dataclass(frozen=True, kw_only=True)
class News:
    """What a seat says of its job.

    Args:
        files: files that have changed, of each cell; empty: none of any.
        logs: files of the loggers that have changed, of each cell; empty: none of any.
        lacks: whether the node's cache has no data for it yet.
        results: results of the cells; of a process that died, kind and detail of its failure; None: it runs.
    """

    files: tuple[Files, ...] = ()
    logs: tuple[Files, ...] = ()
    lacks: bool = False
    results: list[Result] | tuple[str, str] | None = None


@dataclass(frozen=True)
class SeatInfo:
    """What the runner knows of a seat.

    Args:
        device: its device.
        origin: sources, revision, versions and machine of its node.
    """

    device: DeviceInfo
    origin: dict[str, Any]


@dataclass(eq=False)
class _Running:
    """The running job of a seat."""

    order: Order
    folders: list[FilesAt] = field(default_factory=list)
    logs: list[FilesAt] = field(default_factory=list)
    worker: Worker | Team | None = None
    shipped: float = 0.0

    def changed(self, *results: list[Result] | tuple[str, str]) -> News:
        self.shipped = time.monotonic()
        files, logs = (tuple(each.changed() for each in every) for every in (self.folders, self.logs))
        return News(
            files=files if any(files) else (), logs=logs if any(logs) else (), results=results[0] if results else None
        )


class Seat:
    """Runs one job at a time. Of its methods only `receive`, `save` and `cancel` may be called while `advance` runs.

    Args:
        is_cuda: whether it has a GPU, or a share of one.
    """

    def __init__(self, *, is_cuda: bool) -> None:
        self._device = torch.device("cuda", 0) if is_cuda else torch.device("cpu")
        sys.path[:] = [path for path in sys.path if Path(path) != PACKAGE]  # of a runner started by python -m
        self._folder = scratch_folder("seat")
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        self._running: _Running | None = None
        self._worker: Worker | Team | None = None
        self._stop: str | None = None  # "cancel", or "dump" to write the stack trace first
        self._num_jobs = 0

    def inspect(self) -> SeatInfo:
        """Start the fork server and measure the device."""
        await_server(threading.Event())
        known = describe()
        origin = {name: known[name] for name in ("source_hash", "versions", "machine")}
        return SeatInfo(measure_devices([self._device])[self._device], origin)

    def advance(self, order: Order | None = None) -> News:
        """Start a job, or go on with the running one, until there is news; after `POLL_S` seconds without any.

        Args:
            order: job to start; None: the running one.
        """
        if order is not None:
            self._stop, self._running = None, _Running(order)
        running = self._running
        assert running is not None
        until = time.monotonic() + POLL_S
        while True:
            if self._stop is not None:
                return self._end(running, killed=True)
            if running.worker is None:
                if (cache_root() / running.order.entry).exists():
                    running.worker = self._start(running)
                elif order is not None or time.monotonic() > until:
                    return News(lacks=True)
                else:
                    time.sleep(TICK_S)
                continue
            if connection.wait(running.worker.waitables, TICK_S):
                return self._end(running)
            if time.monotonic() - running.shipped > SHIP_S:
                news = running.changed()
                if news.files or news.logs or time.monotonic() > until:
                    return news

    def receive(self, entry: str, files: Files) -> None:
        """Write a data set into the node's cache.

        Args:
            entry: name of its folder.
            files: its files.
        """
        if not (cache_root() / entry).exists():
            with filled(cache_root() / entry) as folder:
                write_files(files, folder)

    def save(self) -> None:
        """Let the running job save a checkpoint."""
        if self._running is not None and self._running.worker is not None:
            self._running.worker.save()

    def cancel(self, *, dump: bool) -> None:
        """Let `advance` kill the running job and end it.

        Args:
            dump: whether the job's stack trace is first written to its log.
        """
        self._stop = "dump" if dump else "cancel"

    def close(self) -> None:
        """Kill what runs, and remove the seat's folder."""
        for worker in (self._worker, None if self._running is None else self._running.worker):
            if worker is not None:
                worker.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, running: _Running) -> Worker | Team:
        """Write the files of a job and start it in a process."""
        order, self._num_jobs = running.order, self._num_jobs + 1
        info = order.tasks[0].info
        if info.streamed and not Path(info.root).is_dir():
            raise FileNotFoundError(f"the images are read from {info.root}, which the node does not have")
        folder = self._folder / str(self._num_jobs)
        plugins = self._folder / "plugins"
        write_files(order.plugins, _made(plugins))
        if order.plugins and str(plugins) not in sys.path:
            sys.path.insert(0, str(plugins))  # which a process takes over from this one
        weights = ""
        if order.weights is not None:
            write_files({"weights.safetensors": order.weights}, _made(folder))
            weights = str(folder / "weights.safetensors")
        tasks = []
        for number, (task, files) in enumerate(zip(order.tasks, order.files, strict=True)):
            own = _made(folder / str(number))
            logs = folder.joinpath(f"log-{number}", *Path(task.options.log_folder).parts[-3:])  # study, "logs", cell
            write_files(files, own)
            running.folders.append(FilesAt(own))
            running.logs.append(FilesAt(logs))
            running.folders[-1].changed()  # what was sent is not sent back
            options = replace(task.options, log_folder=str(logs), weights=weights)
            tasks.append(replace(task, folder=own, device=self._device, options=options))
        worker, self._worker = self._worker, None
        if worker is not None and not worker.can_run(tasks[0]):
            worker.kill()
            worker = None
        worker = worker or make_worker(tasks[0], reuse=self._device.type == "cuda")
        worker.start(tasks)
        return worker

    def _end(self, running: _Running, *, killed: bool = False) -> News:
        """End the running job: take its results, or kill it."""
        worker = running.worker
        if killed:
            if worker is not None:
                if self._stop == "dump":
                    worker.dump()
                worker.kill()
            results: list[Result] | tuple[str, str] = ("killed", "cancelled by the runner")
        else:
            assert worker is not None
            answer = worker.result()
            results = describe_exit(answer) if isinstance(answer, int | None) else answer
            is_whole = isinstance(results, list) and all(result.outcome != "failed" for result in results)
            if worker.reuse and is_whole:  # a failure may break the device's context
                self._worker = worker
            else:
                worker.close()
        for folder in running.folders:
            clean_log(folder.folder / LOG)
        if isinstance(results, list):  # the runner would not know this node's names
            results = [
                replace(each, detail=private(each.detail), traceback=list(map(private, each.traceback)))
                for each in results
            ]
        news = running.changed(results)
        self._running = None
        shutil.rmtree(self._folder / str(self._num_jobs), ignore_errors=True)
        return news


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder

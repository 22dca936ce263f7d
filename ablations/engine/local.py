"""The engine of this machine: each job in its own process, as many at once as fit."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection

import torch

from ablations.config.options import EngineOptions
from ablations.engine.capacity import Capacity, Slot
from ablations.engine.devices import measure_devices
from ablations.engine.interface import Ended
from ablations.engine.job import Job, Placement
from ablations.engine.mps import mps_service
from ablations.engine.result import describe_exit
from ablations.engine.server import await_server
from ablations.engine.team import Team, make_worker
from ablations.engine.worker import Worker
from ablations.store.leases import machine_id


class LocalEngine:
    """Runs jobs in processes of this machine; an `ablations.engine.interface.Engine`.

    Args:
        devices: devices to train on, all of one kind.
        options: options of the run.
        threads_per_cell: CPU threads of a cell.
        note: handles a message to the user.
    """

    def __init__(
        self,
        devices: tuple[torch.device, ...],
        options: EngineOptions,
        *,
        threads_per_cell: int,
        note: Callable[[str], None],
    ) -> None:
        self._devices, self._options, self._threads_per_cell, self._note = devices, options, threads_per_cell, note
        self._capacity: Capacity  # once the devices are measured
        self._mps: Mapping[str, str] | None = None
        self._running: dict[Job, Worker | Team] = {}
        self._idle: dict[Slot, Worker | Team] = {}

    @contextlib.contextmanager
    def opened(self, stopped: threading.Event, *, num_cells: int) -> Iterator[None]:
        """Start the fork server, measure the devices, and share them through MPS if that helps."""
        await_server(stopped)
        self._capacity = Capacity(
            self._devices,
            self._options,
            threads_per_cell=self._threads_per_cell,
            measured=measure_devices(self._devices),
        )
        with contextlib.ExitStack() as services:  # MPS ends after the workers
            if self._capacity.shares_gpus and num_cells > 1:
                self._mps = services.enter_context(mps_service(self._note))
            try:
                yield
            finally:
                self._kill_idle()
                for worker in self._running.values():
                    worker.kill()
                self._running.clear()

    @property
    def has_room(self) -> bool:
        """Whether a slot is free."""
        return self._free_slot() is not None

    def place(self, *, num_cells: int, alone: bool) -> Placement:
        """Return the first free slot, with its share of the memory; idle workers make room for a job alone."""
        slot = self._free_slot()
        assert slot is not None
        if alone:
            self._kill_idle()  # they hold memory of a GPU
        return Placement(
            device=slot.device,
            device_name=self._capacity.measured[slot.device].name,
            number=slot.number,
            memory_mib=self._capacity.limit_mib(slot.device, alone=alone, num_cells=num_cells),
            workers=self._capacity.workers,
            mps=self._mps is not None,
            peers=self._capacity.peers(slot.device),
            origin={"ran_on": _where()},
        )

    def submit(self, job: Job) -> None:
        """Start a job in the idle worker of its slot, or in a new one."""
        tasks = [member.task for member in job.members]
        worker = self._idle.pop(_slot(job), None)
        if worker is not None and not worker.can_run(tasks[0]):
            worker.kill()
            worker = None
        is_cuda = job.placement.device.type == "cuda"
        worker = worker or make_worker(tasks[0], reuse=is_cuda, environment=self._mps or {})
        worker.start(tasks)
        self._running[job] = worker

    def wait(self, seconds: float) -> list[Ended]:
        """Return the jobs whose workers are done or dead."""
        ready = connection.wait([each for worker in self._running.values() for each in worker.waitables], seconds)
        jobs = [job for job, worker in self._running.items() if any(each in ready for each in worker.waitables)]
        return [self._end(job) for job in jobs]

    def save(self, job: Job) -> None:
        """Let a job save a checkpoint."""
        self._running[job].save()

    def cancel(self, job: Job, *, dump: bool = False) -> bool:
        """Kill the worker of a job, unless its results have arrived."""
        worker = self._running[job]
        if worker.has_answered:
            return False
        if dump:
            worker.dump()
        worker.kill()
        del self._running[job]
        return True

    def _end(self, job: Job) -> Ended:
        """Take the results of a worker that is done, and keep it for the next job if it can run several."""
        worker = self._running.pop(job)
        answer = worker.result()
        if isinstance(answer, int | None):
            worker.close()
            return Ended(job, describe_exit(answer))
        has_failed = any(result.outcome == "failed" for result in answer)
        if worker.reuse and not has_failed:  # a failure may break the device's context
            self._idle[_slot(job)] = worker
        else:
            worker.close()
        if not has_failed:
            self._capacity.update(answer[0].fields, fullness=job.fullness)
        elif self._mps is not None:
            self._kill_idle()  # after a fault MPS serves no new process until all that share the GPU have ended
        return Ended(job, answer)

    def _free_slot(self) -> Slot | None:
        taken = {_slot(job) for job in self._running}
        return next((slot for slot in self._capacity.slots if slot not in taken), None)

    def _kill_idle(self) -> None:
        while self._idle:
            _, worker = self._idle.popitem()
            worker.kill()


def _where() -> dict[str, str]:
    """Return where a cell runs, for its record: this machine, by its hash, and the job of Slurm if this is one."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
    return {"engine": "slurm" if job else "local", "node": machine_id(), "job": job}


def _slot(job: Job) -> Slot:
    return Slot(job.placement.device, job.placement.number)

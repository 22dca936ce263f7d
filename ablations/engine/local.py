"""Run many cells on this machine, each in its own process, as many at once as fit."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing import connection

import torch

from ablations.config import CellConfig, Interrupted, RunStopped, Study
from ablations.config.options import EngineOptions
from ablations.data import DataInfo
from ablations.engine.capacity import Capacity, Slot
from ablations.engine.devices import measure_devices
from ablations.engine.failures import Failures
from ablations.engine.job import Job, Member
from ablations.engine.mps import mps_service
from ablations.engine.prepare import Preparation
from ablations.engine.queue import Queue
from ablations.engine.result import Result, attempt_of, blank_fields, describe_exit, make_outcome
from ablations.engine.server import await_server
from ablations.engine.signals import Stops, stoppable
from ablations.engine.watcher import Watcher
from ablations.engine.worker import Worker
from ablations.store import CellRecord, Lease, LeaseLost, Store, cell_name
from ablations.store.leases import HEARTBEAT_S
from ablations.store.provenance import describe, numerics_now
from ablations.training.limits import NO_ROOM

TICK_S = 0.25
"""Longest time between two steps of the runner, in seconds."""


class Runner:
    """Runs cells of a study, and publishes each atomically to the study's folder.

    It claims a cell when a slot is free, so that other runners on the same folder get the others.

    Args:
        todo: cells in start order.
        study: study of the cells.
        store: folder of the study.
        infos: data sets, by fingerprint.
        devices: devices to train on.
        options: options of the run.
        records: records of the cells that are run again, by cell id.
        watcher: observer of the run.
    """

    def __init__(
        self,
        todo: list[CellConfig],
        *,
        study: Study,
        store: Store,
        infos: Mapping[str, DataInfo],
        devices: tuple[torch.device, ...],
        options: EngineOptions,
        records: Mapping[str, CellRecord],
        watcher: Watcher,
    ) -> None:
        self._study, self._store = study, store
        self._options, self._watcher = options, watcher
        self._records = dict(records)
        self._provenance = {"plugins": list(study.plugins), **describe()}
        self._preparation = Preparation(
            study=study,
            store=store,
            infos=infos,
            options=options,
            records=self._records,
            numerics=numerics_now((cell.net.norm for cell in todo), task=study.task),
            watcher=watcher,
        )
        self._running: list[Job] = []
        self._idle: dict[Slot, Worker] = {}
        self._alone: Slot | None = None
        self._renewed = 0.0
        self._num_announced = 0
        self._stops = Stops()
        self._failures = Failures(
            todo,
            arms={cell.id: study.arm_of(cell) for cell in todo},
            retry=options.retry != "none",
            limit=options.max_failures,
        )
        self._queue = Queue(deque(todo), study, store, self._records, self._failures, watcher)
        self._devices, self._threads_per_cell = devices, max(cell.run.threads_per_cell for cell in todo)
        self._capacity: Capacity  # once the devices are measured
        self._mps: Mapping[str, str] | None = None

    def run(self) -> None:
        """Run until every cell has an outcome, from this or another runner.

        Raises:
            Interrupted: the user or the system interrupted the run; finished cells are kept.
            RunStopped: too many cells failed, the disk is full, or a GPU cannot be used; finished cells are kept.
        """
        with stoppable() as self._stops, ExitStack() as services:  # MPS ends after the workers
            try:
                await_server(self._stops.soft)
                self._capacity = Capacity(
                    self._devices,
                    self._options,
                    threads_per_cell=self._threads_per_cell,
                    measured=measure_devices(self._devices),
                )
                if self._capacity.shares_gpus and len(self._queue) > 1:
                    self._mps = services.enter_context(mps_service(self._watcher.note))
                while self._step():
                    pass
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                raise self._disk_full() from error
            finally:
                self._shut_down()
        if self._stops.soft.is_set():
            raise Interrupted
        if reason := self._failures.reason_to_stop:
            raise RunStopped(reason)

    def _step(self) -> bool:
        """Start cells, collect results and renew leases; return False when nothing is left to do."""
        if self._stops.hard.is_set():
            raise Interrupted
        self._start_cells()
        num_running = sum(len(run.members) for run in self._running)
        if self._stops.soft.is_set() and num_running and num_running != self._num_announced:
            self._num_announced = num_running
            self._watcher.note(f"finishing the running cells ({num_running}); press Ctrl-C again to stop at once")
        if not self._running and (self._is_ending or not (self._queue or self._failures.to_retry)):
            return False
        ready = connection.wait([each for run in self._running for each in run.worker.waitables], TICK_S)
        for run in [run for run in self._running if any(each in ready for each in run.worker.waitables)]:
            self._collect_result(run)
        self._stop_overdue()
        self._renew_leases()
        self._watcher.tick()
        return True

    @property
    def _is_ending(self) -> bool:
        """Whether no more cells may start."""
        return self._stops.soft.is_set() or self._failures.reason_to_stop is not None

    def _start_cells(self) -> None:
        """Fill the free slots, unless the run is ending; a retry waits until no other cell runs."""
        if self._is_ending:
            return
        while self._alone is None and not self._failures.awaits_retry:
            taken = {run.slot for run in self._running}
            slot = next((slot for slot in self._capacity.slots if slot not in taken), None)
            if slot is None:
                return
            if (claimed := self._queue.next(is_idle=not self._running)) is None:
                break
            self._start([claimed, *self._queue.partners(claimed[0])], slot)
        if self._failures.to_retry and not self._running:
            cell = self._failures.next_retry()
            if lease := self._queue.claim(cell):
                self._kill_idle()  # idle workers hold memory of a GPU
                self._alone = self._capacity.slots[0]
                if not self._start([(cell, lease)], self._alone):
                    self._alone = None

    def _start(self, claimed: list[tuple[CellConfig, Lease]], slot: Slot) -> bool:
        """Start claimed cells in a worker; return False if other runners have taken over all of them."""
        members: list[Member] = []
        for place, (cell, lease) in enumerate(claimed):
            try:
                members.append(self._prepare(cell, lease, slot, num_cells=len(claimed)))
            except FileNotFoundError:
                lease.release(keep_checkpoint=True)
                self._queue.put_back(cell, "another runner has taken it over")
            except OSError:
                for _, other in (*((None, member.lease) for member in members), *claimed[place:]):
                    other.release(keep_checkpoint=True)
                raise
        if not members:
            return False
        worker = self._idle.pop(slot, None)
        if worker is not None and not worker.can_run(members[0].task):
            worker.kill()
            worker = None
        worker = worker or Worker(reuse=slot.device.type == "cuda", environment=self._mps or {})
        worker.start([member.task for member in members])
        self._running.append(Job(members=members, worker=worker, slot=slot))
        return True

    def _prepare(self, cell: CellConfig, lease: Lease, slot: Slot, *, num_cells: int) -> Member:
        task = self._preparation.task(
            cell,
            lease,
            device=slot.device,
            memory_mib=self._capacity.limit_mib(slot.device, alone=self._alone is not None, num_cells=num_cells),
            workers=self._capacity.workers,
            mps=self._mps is not None,
        )
        fields = blank_fields(task.info, self._capacity.measured[slot.device].name)
        return Member(cell=cell, lease=lease, task=task, fields=fields)

    def _collect_result(self, run: Job) -> None:
        """Record the results of a worker that is done or dead."""
        answer = run.worker.result()
        if isinstance(answer, int | None):
            run.worker.close()
            if self._stops.hard.is_set():  # the same signal may have killed it, as at a system shutdown
                self._forget(run)
                run.release()
                return
            results = run.failures(*describe_exit(answer))
        else:
            results = answer
            has_failed = any(result.outcome == "failed" for result in results)
            if run.worker.reuse and not has_failed:  # a failure may break the device's context
                self._idle[run.slot] = run.worker
            else:
                run.worker.close()
            if not has_failed:
                fullness = len(run.members) / run.members[0].cell.run.stack
                self._capacity.update(results[0].fields, fullness=fullness)
            elif self._mps is not None:
                self._kill_idle()  # after a fault MPS serves no new process until all that share the GPU have ended
        self._forget(run)
        try:
            if all(result.outcome == "ok" for result in results):  # they stop no run: start others before the writing
                self._start_cells()
        finally:
            self._record_all(run, results)

    def _stop_overdue(self) -> None:
        limit_s = self._options.timeout_s
        if limit_s is None:
            return
        for run in list(self._running):
            if run.seconds <= limit_s * len(run.members) or run.worker.pipe.poll():
                continue  # not overdue, or its results have arrived
            run.worker.dump()
            run.worker.kill()
            detail = f"not finished after {limit_s * len(run.members):g} s; its stack trace is at the end of its log"
            self._forget(run)
            self._record_all(run, run.failures("timeout", detail))

    def _record_all(self, run: Job, results: list[Result]) -> None:
        """Record every cell of a worker; if the disk has no room for one, the others can still be resumed."""
        left = list(run.members)
        try:
            for member, result in zip(run.members, results, strict=True):
                left.remove(member)
                self._record(member, result)
        finally:
            for member in left:
                member.lease.release(keep_checkpoint=True)

    def _record(self, member: Member, result: Result) -> None:
        """Write a finished cell to the study's folder, and notify the watcher."""
        cell, before = member.cell, self._records.get(member.cell.id)
        if result.disk_full:
            member.lease.release(keep_checkpoint=True)
            raise self._disk_full()
        outcome = make_outcome(
            cell,
            result,
            before=None if before is None else before.outcome,
            limit_mib=member.task.options.memory_mib,
            origin={"numerics": member.task.numerics, "trainer": self._options.trainer, **self._provenance},
        )
        result_stays = result.outcome == "failed" and before is not None and before.has_result
        try:
            if before is not None and result_stays:  # a failure replaces no result
                member.lease.check()
                self._records[cell.id] = self._store.add_attempt(before, attempt_of(outcome))
            else:
                name = cell_name(self._study.arm_of(cell), cell)
                self._records[cell.id] = self._store.publish(member.lease, cell, outcome, name=name, replaces=before)
        except LeaseLost as reason:
            self._queue.put_back(cell, str(reason))
            return
        except OSError:
            member.lease.release(keep_checkpoint=True)
            raise
        self._failures.take(cell, outcome)
        is_retried = cell in self._failures.to_retry and not self._is_ending
        if result_stays:
            member.lease.release(keep_checkpoint=is_retried)
        remark = "its earlier result is kept" if result_stays else ""
        if is_retried:
            remark = "it will be retried with no other cell running"
        self._watcher.done(cell, outcome, ours=True, remark=remark)

    def _renew_leases(self) -> None:
        """Send a heartbeat for every cell that we hold."""
        if time.monotonic() - self._renewed < HEARTBEAT_S:
            return
        self._renewed = time.monotonic()
        for run in list(self._running):
            if lost := run.beat():
                run.worker.kill()
                self._forget(run)
                for member in run.members:
                    if member.cell not in lost:
                        member.lease.release(keep_checkpoint=True)
                    self._queue.put_back(member.cell, lost.get(member.cell, "another cell of its stack is lost"))

    def _forget(self, run: Job) -> None:
        self._running.remove(run)
        if self._alone == run.slot:
            self._alone = None

    def _shut_down(self) -> None:
        """Kill all workers and release all leases."""
        self._kill_idle()
        for run in self._running:
            run.worker.kill()
        for run in self._running:
            run.release()

    def _kill_idle(self) -> None:
        while self._idle:
            _, worker = self._idle.popitem()
            worker.kill()

    def _disk_full(self) -> RunStopped:
        return RunStopped(f"the disk of {self._store.folder} is full; free some space and run the same command again")

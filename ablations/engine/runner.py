"""Run many cells on an engine, record how each ended, and decide what follows."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from ablations.config import CellConfig, Interrupted, RunStopped, Study
from ablations.config.options import EngineOptions
from ablations.config.values import plural
from ablations.data import DataInfo
from ablations.engine.failures import Failures
from ablations.engine.interface import Ended, Engine
from ablations.engine.job import Job, Member, Placement
from ablations.engine.prepare import Preparation
from ablations.engine.queue import Queue
from ablations.engine.result import Result, attempt_of, blank_fields, make_outcome
from ablations.engine.signals import Stops, stoppable
from ablations.engine.watcher import Watcher
from ablations.store import CHECKPOINT, CellRecord, Lease, LeaseLost, Store, cell_name
from ablations.store.leases import HEARTBEAT_S
from ablations.store.provenance import describe, numerics_now
from ablations.training.limits import NO_ROOM

TICK_S = 0.25
"""Longest time between two steps of the runner, in seconds."""

SAVE_S = 15.0
"""Longest time that running cells have for a checkpoint after a SIGTERM, in seconds."""


class Runner:
    """Runs cells of a study, and publishes each atomically to the study's folder.

    It claims a cell when the engine has room, so that other runners on the same folder get the others.

    Args:
        todo: cells in start order.
        study: study of the cells.
        store: folder of the study.
        infos: data sets, by fingerprint.
        engine: engine that runs the cells.
        options: options of the run.
        records: records of the cells that are run again, by cell id.
        watcher: observer of the run.
        waits_s: longest time in seconds that it waits, with no cell of its own, for those that other runners hold.
    """

    def __init__(
        self,
        todo: list[CellConfig],
        *,
        study: Study,
        store: Store,
        infos: Mapping[str, DataInfo],
        engine: Engine,
        options: EngineOptions,
        records: Mapping[str, CellRecord],
        watcher: Watcher,
        waits_s: float = math.inf,
    ) -> None:
        self._study, self._store = study, store
        self._engine, self._options, self._watcher = engine, options, watcher
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
        self._alone: Job | None = None
        self._renewed = 0.0
        self._waits_s, self._worked = waits_s, time.monotonic()
        self._num_announced = 0
        self._stops = Stops()
        self._failures = Failures(
            todo,
            arms={cell.id: study.arm_of(cell) for cell in todo},
            retry=options.retry != "none",
            limit=options.max_failures,
        )
        self._queue = Queue(
            todo, study=study, store=store, records=self._records, failures=self._failures, watcher=watcher
        )

    def run(self) -> None:
        """Run until every cell has an outcome, from this or another runner, or those left are others' for too long.

        Raises:
            Interrupted: the user or the system interrupted the run; finished cells are kept.
            RunStopped: too many cells failed, the disk is full, or a GPU cannot be used; finished cells are kept.
        """
        with stoppable() as self._stops:
            try:
                with self._engine.opened(self._stops.soft, num_cells=len(self._queue)):
                    self._worked = time.monotonic()
                    while self._step():
                        pass
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                raise self._disk_full() from error
            finally:
                for job in self._running:
                    job.release()
        if self._stops.soft.is_set():
            raise Interrupted
        if reason := self._failures.reason_to_stop:
            raise RunStopped(reason)

    def _step(self) -> bool:
        """Start cells, collect results and renew leases; return False when nothing is left to do."""
        if self._stops.hard.is_set():
            self._save_running()
            raise Interrupted
        self._start_cells()
        num_running = sum(len(job.members) for job in self._running)
        if self._stops.soft.is_set() and num_running and num_running != self._num_announced:
            self._num_announced = num_running
            self._watcher.note(f"finishing the running cells ({num_running}); press Ctrl-C again to stop at once")
        if self._running:
            self._worked = time.monotonic()
        elif self._is_ending or not (self._queue or self._failures.to_retry):
            return False
        elif self._queue and time.monotonic() - self._worked > self._waits_s:
            self._watcher.note(f"{plural(len(self._queue), 'cell')} left to other runners, which are alive")
            return False
        for ended in self._engine.wait(TICK_S):
            self._take(ended)
        self._stop_overdue()
        self._renew_leases()
        self._watcher.tick()
        return True

    def _save_running(self) -> None:
        """Let the running cells save checkpoints, if there is time for it."""
        before = {job: _stamps(job) for job in self._running}
        for job in self._running if self._stops.saves.is_set() else ():
            self._engine.save(job)
        until = time.monotonic() + SAVE_S
        while (
            self._stops.saves.is_set()
            and time.monotonic() < until
            and any(_stamps(job) == before[job] for job in self._running)
        ):
            for ended in self._engine.wait(TICK_S):
                self._take(ended)

    @property
    def _is_ending(self) -> bool:
        """Whether no more cells may start."""
        return self._stops.soft.is_set() or self._failures.reason_to_stop is not None

    def _start_cells(self) -> None:
        """Fill the engine, unless the run is ending; a retry waits until no other cell runs."""
        if self._is_ending:
            return
        while self._alone is None and not self._failures.awaits_retry:
            if not self._engine.has_room:
                return
            if (claimed := self._queue.next(is_idle=not self._running)) is None:
                break
            self._start([claimed, *self._queue.partners(claimed[0])])
        if self._failures.to_retry and not self._running:
            cell = self._failures.next_retry()
            if lease := self._queue.claim(cell):
                self._alone = self._start([(cell, lease)], alone=True)

    def _start(self, claimed: list[tuple[CellConfig, Lease]], *, alone: bool = False) -> Job | None:
        """Start claimed cells as one job; return None if other runners have taken over all of them."""
        placement = self._engine.place(num_cells=len(claimed), alone=alone)
        members: list[Member] = []
        for place, (cell, lease) in enumerate(claimed):
            try:
                members.append(self._prepare(cell, lease, placement))
            except FileNotFoundError:
                lease.release(keep_checkpoint=True)
                self._queue.put_back(cell, "another runner has taken it over")
            except OSError:
                for _, other in (*((None, member.lease) for member in members), *claimed[place:]):
                    other.release(keep_checkpoint=True)
                raise
        if not members:
            return None
        job = Job(members=members, placement=placement)
        self._running.append(job)
        self._engine.submit(job)
        return job

    def _prepare(self, cell: CellConfig, lease: Lease, placement: Placement) -> Member:
        task = self._preparation.task(cell, lease, placement)
        return Member(cell=cell, lease=lease, task=task, fields=blank_fields(task.info, placement.device_name))

    def _take(self, ended: Ended) -> None:
        """Record the results of a job that has ended."""
        job, results = ended.job, ended.results
        self._forget(job)
        if isinstance(results, tuple):
            results = job.failures(*results)
        if self._stops.hard.is_set():  # the same signal may have killed what failed, as at a system shutdown
            self._record_all(job, results, failed=False)
            return
        try:
            if all(result.outcome == "ok" for result in results):  # they stop no run: start others before the writing
                self._start_cells()
        finally:
            self._record_all(job, results)

    def _stop_overdue(self) -> None:
        limit_s = self._options.timeout_s
        if limit_s is None:
            return
        for job in list(self._running):
            own_s = limit_s * len(job.members)
            if job.seconds > own_s and self._engine.cancel(job, dump=True):
                self._forget(job)
                detail = f"not finished after {own_s:g} s; its stack trace is at the end of its log"
                self._record_all(job, job.failures("timeout", detail))

    def _record_all(self, job: Job, results: list[Result], *, failed: bool = True) -> None:
        """Record every cell of a job; those that are not recorded, as on a full disk, can still be resumed.

        Args:
            job: the job.
            results: results of its cells.
            failed: whether failures are recorded.
        """
        left = list(job.members)
        try:
            for member, result in zip(job.members, results, strict=True):
                if failed or result.outcome != "failed":
                    left.remove(member)
                    self._record(job, member, result)
        finally:
            for member in left:
                member.lease.release(keep_checkpoint=True)

    def _record(self, job: Job, member: Member, result: Result) -> None:
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
            origin={
                "numerics": member.task.numerics,
                "trainer": self._options.trainer,
                **self._provenance,
                **job.placement.origin,
            },
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
        for job in list(self._running):
            if (lost := job.beat()) and self._engine.cancel(job):
                self._forget(job)
                for member in job.members:
                    if member.cell not in lost:
                        member.lease.release(keep_checkpoint=True)
                    self._queue.put_back(member.cell, lost.get(member.cell, "another cell of its stack is lost"))

    def _forget(self, job: Job) -> None:
        self._running.remove(job)
        if self._alone is job:
            self._alone = None

    def _disk_full(self) -> RunStopped:
        return RunStopped(f"the disk of {self._store.folder} is full; free some space and run the same command again")


def _stamps(job: Job) -> list[int]:
    """Return when each checkpoint of a job was written, in nanoseconds; 0: there is none."""
    paths = (member.lease.folder / CHECKPOINT for member in job.members)
    return [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]

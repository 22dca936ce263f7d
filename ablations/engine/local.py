"""Many cells on this machine, each in a process of its own, as many side by side as there is room for."""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import connection
from pathlib import Path

import torch

from ablations.config import CellConfig, Interrupted, RunStopped, Study
from ablations.config.options import CellOptions, EngineOptions
from ablations.data import DataInfo
from ablations.engine.capacity import Capacity, Slot, device_name
from ablations.engine.failures import Failures
from ablations.engine.result import Result, attempt_of, blank_fields, describe_exit, lost, make_outcome
from ablations.engine.server import await_server
from ablations.engine.signals import Stops, stoppable
from ablations.engine.watcher import Watcher
from ablations.engine.worker import Task, Worker
from ablations.store import CHECKPOINT, CellRecord, Lease, LeaseLost, Store, cell_name, write_json
from ablations.store.leases import HEARTBEAT_S
from ablations.store.provenance import describe, numerics_now, plugin_hash
from ablations.training.limits import NO_ROOM

TICK_S = 0.25
"""Longest time between two looks at everything."""

POLL_S = 1.0
"""Seconds between two looks at the cells that other runners hold."""


@dataclass(kw_only=True, eq=False)
class _Running:
    """A cell that is being run.

    Args:
        cell: its configuration.
        lease: that makes it ours.
        worker: that runs it.
        slot: where.
        task: what the worker was given.
        started: by the clock of `time.monotonic`.
        started_at: the same, in ISO 8601.
    """

    cell: CellConfig
    lease: Lease
    worker: Worker
    slot: Slot
    task: Task
    started: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


class Runner:
    """Runs the cells of a study that are to be run, and puts each into the study's folder, whole.

    It claims a cell when it has room for it, so that other runners on the same folder get the others.

    Args:
        todo: the cells, in the order in which they are started.
        study: to which they belong.
        store: its folder.
        infos: data sets by fingerprint.
        devices: to train on.
        options: how they are run.
        records: of cells that are run again, by id.
        watcher: is told what happens.
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
        self._study, self._store, self._infos = study, store, infos
        self._options, self._watcher = options, watcher
        self._records = dict(records)
        self._provenance = {"plugins": list(study.plugins), **describe()}
        self._numerics = numerics_now((cell.net.norm for cell in todo), task=study.task)
        self._plugin_hashes = {norm: plugin_hash(norm) for norm in self._numerics}
        self._pending = deque(todo)
        self._held: deque[CellConfig] = deque()  # by other runners
        self._running: list[_Running] = []
        self._idle: dict[Slot, Worker] = {}
        self._alone: Slot | None = None
        self._polled = self._beaten = 0.0
        self._said = ""
        self._stops = Stops()
        self._failures = Failures(
            todo,
            arms={cell.id: study.arm_of(cell) for cell in todo},
            second_try=options.retry != "none",
            most=options.max_failures,
        )
        self._capacity = Capacity(devices, options, threads_per_cell=max(cell.run.threads_per_cell for cell in todo))

    def run(self) -> None:
        """Run until every cell has an outcome, here or with another runner.

        Raises:
            Interrupted: a signal came; what is finished is kept.
            RunStopped: too much failed, or the disk is full; what is finished is kept.
        """
        with stoppable() as self._stops:
            try:
                await_server(self._stops.soft)
                while self._step():
                    pass
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                raise self._no_room() from error
            finally:
                self._end()
        if self._stops.soft.is_set():
            raise Interrupted
        if reason := self._failures.reason_to_stop:
            raise RunStopped(reason)

    def _step(self) -> bool:
        """Start what can be started, and take in what has happened; False when there is nothing more to do."""
        if self._stops.hard.is_set():
            raise Interrupted
        self._start_cells()
        if self._stops.soft.is_set() and self._running:
            self._say_once(f"finishing the {len(self._running)} cells that run; Ctrl-C again stops at once")
        if not self._running and (self._is_ending or not (self._pending or self._held or self._failures.again)):
            return False
        ready = connection.wait([sign for run in self._running for sign in run.worker.signs], TICK_S)
        for run in [run for run in self._running if any(sign in ready for sign in run.worker.signs)]:
            self._take_result(run)
        self._end_overdue()
        self._beat()
        self._watcher.tick()
        return True

    @property
    def _is_ending(self) -> bool:
        """Whether no more cells are to be started."""
        return self._stops.soft.is_set() or self._failures.reason_to_stop is not None

    def _start_cells(self) -> None:
        """Fill the free slots, unless the run is ending; a cell's second try waits until it can be alone."""
        if self._is_ending:
            return
        while self._alone is None and not self._failures.is_doubtful:
            taken = {run.slot for run in self._running}
            slot = next((slot for slot in self._capacity.slots if slot not in taken), None)
            if slot is None:
                return
            if (claimed := self._next_cell()) is None:
                break
            self._start(*claimed, slot)
        if self._failures.again and not self._running:
            cell = self._failures.next_try()
            if lease := self._claim(cell):
                self._end_idle()  # alone: a GPU's idle workers hold some of its memory
                self._alone = self._capacity.slots[0]
                if not self._start(cell, lease, self._alone):
                    self._alone = None

    def _next_cell(self) -> tuple[CellConfig, Lease] | None:
        """Claim the next cell that no other runner has."""
        while self._pending:
            cell = self._pending.popleft()
            if lease := self._claim(cell):
                return cell, lease
        if time.monotonic() - self._polled < POLL_S:
            return None
        self._polled = time.monotonic()
        for _ in range(len(self._held)):
            cell = self._held.popleft()
            if lease := self._claim(cell):
                self._watcher.note(f"{self._name(cell)}: taken over from a runner that is gone, or gave it back")
                return cell, lease
        if self._held and not self._running:
            self._say_once(f"waiting for {len(self._held)} cells that other runners hold")
        return None

    def _claim(self, cell: CellConfig) -> Lease | None:
        """Claim a cell unless another runner has it, or has recorded it since."""
        if self._is_done_elsewhere(cell):
            return None
        lease = self._store.leases.claim(cell.id)
        if lease is None:
            self._held.append(cell)
            return None
        if self._is_done_elsewhere(cell):  # in between
            lease.release(keep_checkpoint=False)
            return None
        return lease

    def _is_done_elsewhere(self, cell: CellConfig) -> bool:
        record, before = self._store.find(cell, name=self._folder_name(cell)), self._records.get(cell.id)
        if record is None or (before is not None and json.dumps(record.outcome) == json.dumps(before.outcome)):
            return False  # compared as text, since NaN is no equal of itself
        self._records[cell.id] = record
        self._failures.take(cell, record.outcome, ours=False)
        self._watcher.done(cell, record.outcome, ours=False, remark="by another runner")
        return True

    def _start(self, cell: CellConfig, lease: Lease, slot: Slot) -> bool:
        """Have a worker run a cell that we hold; give the cell back where its folder cannot be written.

        Returns:
            False where another runner has taken the cell over.
        """
        try:
            task = self._prepare(cell, lease, slot)
        except FileNotFoundError:
            lease.release(keep_checkpoint=True)
            self._lose(cell, "another runner has taken it over")
            return False
        except OSError:
            lease.release(keep_checkpoint=True)
            raise
        worker = self._idle.pop(slot, None)
        if worker is not None and not worker.suits(task):
            worker.kill()
            worker = None
        worker = worker or Worker(keeps=slot.device.type == "cuda")
        worker.start(task)
        self._running.append(_Running(cell=cell, lease=lease, worker=worker, slot=slot, task=task))
        return True

    def _prepare(self, cell: CellConfig, lease: Lease, slot: Slot) -> Task:
        write_json(lease.folder / "config.json", cell.model_dump(mode="json"))
        before = self._records.get(cell.id)
        if (
            before is not None
            and not before.has_result
            and not (lease.folder / CHECKPOINT).exists()
            and (before.folder / CHECKPOINT).exists()
        ):
            self._take_checkpoint(cell, before.folder / CHECKPOINT, lease)
        options = CellOptions(
            checkpoint_every=self._options.checkpoint_every,
            trainer=self._options.trainer,
            save_weights=self._options.save_weights,
            loggers=self._options.loggers,
            log_folder=str(self._store.folder.resolve() / "logs" / self._folder_name(cell)),
            memory_mib=self._capacity.limit_mib(slot.device, alone=self._alone is not None),
            workers=self._capacity.workers,
            weights=dict(self._options.weights).get(cell.net.norm, ""),
        )
        return Task(
            config=cell,
            info=self._infos[cell.images.data_fingerprint],
            folder=lease.folder.resolve(),
            device=slot.device,
            options=options,
            numerics=self._numerics[cell.net.norm],
            plugins=self._study.plugins,
            plugin_hash=self._plugin_hashes[cell.net.norm],
        )

    def _take_checkpoint(self, cell: CellConfig, path: Path, lease: Lease) -> None:
        """Copy the checkpoint of a failed attempt; without it, where it cannot be read, the cell starts anew."""
        scratch = lease.folder / f"{CHECKPOINT}.partial"
        try:
            shutil.copy(path, scratch)
            scratch.replace(lease.folder / CHECKPOINT)  # half of one would stand in the whole one's way
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            scratch.unlink(missing_ok=True)
            self._watcher.note(f"{self._name(cell)}: starts anew, as its checkpoint cannot be read: {error}")

    def _take_result(self, run: _Running) -> None:
        """Take what a worker says, or what its death says."""
        result = run.worker.result()
        if isinstance(result, Result):
            if run.worker.keeps and result.outcome != "failed":  # a failure may have broken the device's context
                self._idle[run.slot] = run.worker
            else:
                run.worker.close()
            if result.outcome != "failed":
                self._capacity.learn(result.fields)
        else:
            run.worker.close()
            if self._stops.hard.is_set():  # it died of the same wish, say of a system that shuts down
                self._forget(run)
                run.lease.release(keep_checkpoint=True)
                return
            result = self._lost(run, *describe_exit(result))
        self._forget(run)
        try:
            if result.outcome == "ok":  # which stops nothing, so the slot need not wait for the disk
                self._start_cells()
        finally:
            self._record(run, result)

    def _end_overdue(self) -> None:
        limit_s = self._options.timeout_s
        if limit_s is None:
            return
        for run in [run for run in self._running if time.monotonic() - run.started > limit_s]:
            if not run.worker.pipe.poll():  # else its result is there by now
                run.worker.dump()
                run.worker.kill()
                said = f"not done after {limit_s:g} s; where it stood is at the end of its log"
                self._forget(run)
                self._record(run, self._lost(run, "timeout", said))

    def _lost(self, run: _Running, kind: str, detail: str) -> Result:
        fields = blank_fields(
            chance_pct=run.task.info.chance_pct, started=run.started_at, device=device_name(run.slot.device)
        )
        return lost(run.lease.folder, kind, detail, {**fields, "seconds": time.monotonic() - run.started})

    def _record(self, run: _Running, result: Result) -> None:
        """Put a cell that has ended into the study's folder, and take note of it."""
        cell, before = run.cell, self._records.get(run.cell.id)
        if result.disk_full:
            run.lease.release(keep_checkpoint=True)
            raise self._no_room()
        outcome = make_outcome(
            cell,
            result,
            before=None if before is None else before.outcome,
            limit_mib=run.task.options.memory_mib,
            origin={"numerics": run.task.numerics, "trainer": self._options.trainer, **self._provenance},
        )
        result_stays = result.outcome == "failed" and before is not None and before.has_result
        try:
            if before is not None and result_stays:  # a failure takes no result's place
                run.lease.check()
                self._records[cell.id] = self._store.add_attempt(before, attempt_of(outcome))
            else:
                name = self._folder_name(cell)
                self._records[cell.id] = self._store.publish(run.lease, cell, outcome, name=name, replaces=before)
        except LeaseLost as reason:
            self._lose(cell, str(reason))
            return
        except OSError:
            run.lease.release(keep_checkpoint=True)
            raise
        self._failures.take(cell, outcome)
        is_tried_again = cell in self._failures.again and not self._is_ending
        if result_stays:
            run.lease.release(keep_checkpoint=is_tried_again)
        remark = "its earlier result is kept" if result_stays else ""
        if is_tried_again:
            remark = "it will be tried again, alone on the machine"
        self._watcher.done(cell, outcome, ours=True, remark=remark)

    def _beat(self) -> None:
        """Give a sign of life for every cell that we hold."""
        if time.monotonic() - self._beaten < HEARTBEAT_S:
            return
        self._beaten = time.monotonic()
        for run in list(self._running):
            try:
                run.lease.beat()
            except LeaseLost as reason:
                run.worker.kill()
                self._forget(run)
                self._lose(run.cell, str(reason))

    def _lose(self, cell: CellConfig, reason: str) -> None:
        self._watcher.note(f"{self._name(cell)}: {reason}, so what we have of it is discarded")
        self._held.append(cell)

    def _forget(self, run: _Running) -> None:
        self._running.remove(run)
        if self._alone == run.slot:
            self._alone = None

    def _end(self) -> None:
        """End every process, and give back what we hold."""
        self._end_idle()
        for run in self._running:
            run.worker.kill()
        for run in self._running:
            run.lease.release(keep_checkpoint=True)

    def _end_idle(self) -> None:
        while self._idle:
            _, worker = self._idle.popitem()
            worker.kill()

    def _no_room(self) -> RunStopped:
        return RunStopped(f"no room is left on the disk of {self._store.folder}; make room, then give the same command")

    def _say_once(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self._watcher.note(line)

    def _name(self, cell: CellConfig) -> str:
        return self._study.title_of(cell)

    def _folder_name(self, cell: CellConfig) -> str:
        return cell_name(self._study.arm_of(cell), cell)

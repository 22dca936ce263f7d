"""A study on a Slurm cluster: an array of runners that share its folder, submitted and watched by this process.

Each task of the array plans the same request and runs its cells with the local engine; leases divide them. What ends a
task costs no more than its running cells: they resume elsewhere, or when Slurm starts the task again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch

from ablations.config import CellConfig, Detached, Interrupted, RunStopped, UsageError
from ablations.config.options import SlurmOptions
from ablations.config.request import Request
from ablations.config.values import plural
from ablations.engine.signals import stoppable
from ablations.engine.watcher import Watcher
from ablations.planning.plan import Plan, make_plan
from ablations.store import cell_name
from ablations.store.arrays import SLURM, read_array, states, write_array
from ablations.store.leases import LEASE_S

POLL_S, QUEUE_S = 1.0, 10.0
"""Seconds between two looks at the finished cells, and at Slurm's queue."""

MOST_TASKS = 32
"""Default of the largest number of tasks."""

NOTICE_S = 60
"""Seconds before its time limit at which Slurm tells a task, which then saves its cells and is requeued."""

IDLE_S = LEASE_S + 15.0
"""Seconds after which a task without a cell ends: until then it takes over those of a task that has died."""

LOST_S = 15.0
"""Seconds for which an ended array may have results that a network file system does not show yet."""


class Shift:
    """A task of the array: it runs cells of the study until the other tasks have the rest.

    Args:
        request: request of the study.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self._is_over = False

    def __call__(self) -> None:
        """Run cells; at the notice of the time limit save them and let Slurm start the task again."""
        from ablations.planning.execute import execute

        signal.signal(signal.SIGUSR2, self._take_notice)
        engine, num_gpus = replace(self.request.engine, name="local"), torch.cuda.device_count()
        if num_gpus and self.request.devices != ("cpu",):
            devices = tuple(f"cuda:{number}" for number in range(num_gpus))  # all that Slurm gives the task
        else:
            devices, engine = self.request.devices, replace(engine, jobs=engine.jobs or _cores_given())
        plan = make_plan(replace(self.request, devices=devices, engine=engine))
        try:
            if plan.todo and not self._is_over:
                execute(plan, watcher=_Printed(plan), waits_s=IDLE_S)
        except Interrupted:
            if not self._is_over:
                raise
        if self._is_over:
            print(_call("scontrol", "requeue", _task_id()), flush=True)

    def _take_notice(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_over:  # a second SIGTERM would mean: at once
            self._is_over = True
            os.kill(os.getpid(), signal.SIGTERM)  # which the runner takes as the end of the machine


@dataclass(frozen=True)
class _Printed:
    """A watcher that prints to the log of the job."""

    plan: Plan

    def done(self, cell: CellConfig, outcome: Any, *, ours: bool, remark: str) -> None:
        if ours:
            print(f"{self.plan.study.title_of(cell)}: {outcome['outcome']} {outcome['kind']} {remark}", flush=True)

    def note(self, line: str) -> None:
        print(line, flush=True)

    def tick(self) -> None:
        pass


class Array:
    """The array of a study.

    Args:
        plan: plan of the study, which is written.
        options: what Slurm is asked for.
        watcher: is notified of the cells that end.
    """

    def __init__(self, plan: Plan, options: SlurmOptions, watcher: Watcher) -> None:
        self._plan, self._options, self._watcher = plan, options, watcher
        self._folder = plan.store.folder / SLURM
        self._open = {cell_name(plan.study.arm_of(cell), cell): cell for cell in plan.todo}
        self._failed: set[str] = set()
        records = plan.stored.records
        self._seen = {n: json.dumps(records[cell.id].outcome) for n, cell in self._open.items() if cell.id in records}

    def run(self) -> None:
        """Submit the array, or find the one that runs, and watch it unless it is detached.

        Raises:
            UsageError: Slurm refuses the array.
            Interrupted: the user interrupted.
            RunStopped: all tasks have ended, and cells have no result.
            Detached: the array goes on by itself.
        """
        job = self._find_running() or self._submit()
        if self._options.detach:
            raise Detached(f"the array {job} of Slurm goes on by itself; the command without --detach attaches to it")
        self._watch(job)

    def _find_running(self) -> str | None:
        job = read_array(self._plan.store.folder)
        if job is None or not states(job):
            return None
        self._watcher.note(f"attached to the array {job} of Slurm, which runs this study")
        return job

    def _submit(self) -> str:
        import submitit

        options = self._options
        executor = submitit.SlurmExecutor(folder=self._folder)
        num_gpus = options.gpus_per_task
        if num_gpus is None and self._plan.engine.gpus_per_cell > 1:
            num_gpus = self._plan.engine.gpus_per_cell
        asked = {
            "partition": options.partition,
            "time": options.time_min,
            "gpus_per_task": num_gpus,
            "cpus_per_task": options.cpus_per_task,
            "additional_parameters": dict(options.more) or None,
        }
        executor.update_parameters(
            job_name=self._plan.study.name[:60],
            ntasks_per_node=1,
            nodes=1,
            signal_delay_s=NOTICE_S,
            **{name: value for name, value in asked.items() if value is not None},
        )
        number = min(options.max_parallel or MOST_TASKS, len(self._open))
        request = replace(self._plan.request, name=self._plan.study.name)
        try:
            with executor.batch():
                jobs = [executor.submit(Shift(request)) for _ in range(number)]
        except submitit.core.utils.FailedJobError as error:
            raise UsageError(f"Slurm refuses the jobs: {str(error).strip().splitlines()[-1]}") from error
        job = jobs[0].job_id.partition("_")[0]
        write_array(self._plan.store.folder, job)
        self._watcher.note(f"submitted to Slurm: {plural(number, 'task')} of the array {job}; logs in {self._folder}")
        return str(job)

    def _watch(self, job: str) -> None:
        """Notify the watcher of cells that end, until all have or no task is left."""
        is_told, ended, asked, has_tasks = False, None, 0.0, True
        with stoppable() as stops:
            while self._open:
                self._take_finished()
                self._watcher.tick()
                if stops.hard.is_set():
                    self._note_error(_call("scancel", job))
                    raise Interrupted
                if stops.soft.is_set() and not is_told:
                    is_told = True
                    self._note_error(_call("scancel", "--state=PENDING", job))
                    self._note_error(_call("scancel", "--signal=INT", job))
                    self._watcher.note("the tasks finish their running cells; press Ctrl-C again to cancel them")
                if time.monotonic() - asked > QUEUE_S:
                    asked, has_tasks = time.monotonic(), bool(states(job))
                if not has_tasks:
                    ended = ended or time.monotonic()
                    if is_told or not self._missing or time.monotonic() - ended > LOST_S:
                        break
                time.sleep(POLL_S)
            self._take_finished()
        if is_told:
            raise Interrupted
        if self._missing:
            raise RunStopped(
                f"all tasks of the array {job} have ended, and {plural(len(self._missing), 'cell')} have no result: "
                f"run the same command again; logs in {self._folder}"
            )

    def _note_error(self, error: str) -> None:
        if error:
            self._watcher.note(error)

    @property
    def _missing(self) -> list[str]:
        """Names of the cells that have not ended."""
        return [name for name in self._open if name not in self._failed]

    def _take_finished(self) -> None:
        """Notify the watcher of cells that have ended; one that failed stays open, since its task may retry it."""
        there = {path.name for path in self._plan.store.cell_folders()}
        for name in [name for name in self._open if name in there]:
            record = self._plan.store.find(name)
            if record is None or (text := json.dumps(record.outcome)) == self._seen.get(name):  # text, since NaN != NaN
                continue
            self._seen[name] = text
            cell = self._open[name]
            if record.outcome["outcome"] == "failed":
                self._failed.add(name)
            else:
                del self._open[name]
                self._failed.discard(name)
            self._watcher.done(cell, record.outcome, ours=True, remark="")


def _call(*command: str) -> str:
    """Run a command of Slurm, and return its error; empty if it succeeds."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{' '.join(command)}: {' '.join(done.stderr.split())}" if done.returncode else ""


def _task_id() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]


def _cores_given() -> int | None:
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    return int(cores) if cores else None

"""Carry out a plan: write the study and run its cells."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ablations.config import UsageError
from ablations.engine.watcher import Watcher
from ablations.planning.plan import Plan

if TYPE_CHECKING:
    from ablations.engine.interface import Engine

OPENING_S = 5.0
"""Seconds that another runner, which is about to begin the same study, has to write its question."""

LOADED_AHEAD = ("ablations.report", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf")
"""Modules of the report, loaded before the first cell, while the workers load."""


def execute(
    plan: Plan, *, watcher: Watcher, wrap: Callable[[Watcher], Watcher] | None = None, waits_s: float = math.inf
) -> None:
    """Write the study and run the cells that are to be run.

    Args:
        plan: study and cells.
        watcher: is notified of what happens.
        wrap: wraps the watcher once the study is written.
        waits_s: longest time in seconds that it waits, with no cell of its own, for those that other runners hold.

    Raises:
        UsageError: the folder cannot be written, or was given another question since the plan was made.
        Interrupted: the run was stopped; finished cells are kept.
        RunStopped: too many cells failed, or the disk is full; finished cells are kept.
    """
    with plan.store.opened() as is_first:
        _write_study(plan, is_first=is_first)
        if wrap is not None:
            watcher = wrap(watcher)
        if plan.todo and plan.engine.name == "slurm":
            from ablations.planning.slurm import Array

            Array(plan, plan.engine.slurm, watcher).run()
        elif plan.todo:
            from ablations.engine.runner import Runner

            for name in LOADED_AHEAD:
                importlib.import_module(name)
            Runner(
                plan.todo,
                study=plan.study,
                store=plan.store,
                infos=plan.infos,
                engine=_make_engine(plan, watcher.note),
                options=plan.engine,
                records=plan.stored.records,
                watcher=watcher,
                waits_s=waits_s,
            ).run()


def _make_engine(plan: Plan, note: Callable[[str], None]) -> Engine:
    """Return the engine that the plan names."""
    threads = max(cell.run.threads_per_cell for cell in plan.todo)
    if plan.engine.name == "ray":
        from ablations.engine.ray_engine import RayEngine

        is_cuda = plan.devices[0].type == "cuda"
        return RayEngine(plan.engine, is_cuda=is_cuda, threads_per_cell=threads, plugins=plan.study.plugins, note=note)
    from ablations.engine.local import LocalEngine

    return LocalEngine(plan.devices, plan.engine, threads_per_cell=threads, note=note)


def _write_study(plan: Plan, *, is_first: bool) -> None:
    """Write study.yaml, unless another runner has begun or extended the study since the plan was made."""
    deadline = time.monotonic() + OPENING_S
    is_behind = not is_first and not plan.stored.is_begun  # another runner has begun the study since
    while is_behind and plan.store.study_text == plan.stored.study_text and time.monotonic() < deadline:
        if plan.store.exists and plan.store.read_study() == plan.study:
            return
        time.sleep(0.05)
    if plan.store.study_text == plan.stored.study_text:
        plan.store.write_study(plan.study)
    elif plan.store.read_study() != plan.study:
        raise UsageError(f"{plan.store.folder} was changed by another runner meanwhile: run the command again")

"""Commands that run cells: run, retry, tune."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console

from ablations.cli.app import INTERRUPTED, OK, SOME_FAILED, app
from ablations.cli.command import command
from ablations.cli.finish import finish
from ablations.cli.options import (
    DeviceFlags,
    DryRunOption,
    JsonOption,
    SeedFlags,
    StudyArgument,
    StudyDataOption,
)
from ablations.cli.printing import make_console, print_json, print_lines
from ablations.config.commands import DataRootOption, InitOption, RunOptions, TuneOptions
from ablations.config.declare import Option
from ablations.config.engine_flags import EngineFlags

if TYPE_CHECKING:
    from ablations.planning.plan import Plan
    from ablations.tuning.steps import Step


class Actions(DryRunOption, JsonOption):
    """What a command does with its plan and prints."""


class RunFlags(RunOptions, SeedFlags, DeviceFlags, Actions):
    """Options of ``run`` on the command line."""


class TuneFlags(TuneOptions, DeviceFlags, Actions):
    """Options of ``tune`` on the command line."""


class RetryFlags(StudyArgument, StudyDataOption, InitOption, DataRootOption, DeviceFlags, EngineFlags, Actions):
    """Options of ``retry``."""

    kind: Annotated[
        Literal["failed", "oom", "all"], Option("Cells to run again: failed, oom, or all: diverged too.")
    ] = "failed"


@command(app, RunFlags)
def run(options: RunFlags) -> int:
    """Run the missing cells of a study, and print its table."""
    from ablations.config.request import make_request
    from ablations.engine.server import start_server

    request = make_request(options)
    if not options.dry_run:
        start_server()
    from ablations.tuning.steps import run_steps

    return _run_steps(run_steps(request), options, names_ref=options.ref is not None)


@command(app, RetryFlags)
def retry(options: RetryFlags) -> int:
    """Run the failed cells of a study again, and no others."""
    from pathlib import Path

    from ablations.config.parsing import devices, folders
    from ablations.config.stored_request import request_of
    from ablations.store import Store
    from ablations.store.provenance import plugin_lines
    from ablations.tuning.steps import run_steps

    folder = Path(options.study)
    study = Store(folder).read_study()
    print_lines(make_console(options.as_json), plugin_lines(study))
    request = request_of(study, folder=folder, data=options.data_sets, data_root=Path(options.data_root))
    request = replace(
        request,
        missing=False,
        init=folders(options.init),
        devices=devices(options.devices or "auto"),
        engine=options.engine_options(retry=options.kind),
    )
    return _run_steps(run_steps(request), options)


@command(app, TuneFlags)
def tune(options: TuneFlags) -> int:
    """Tune every arm on the same points, scored on validation, and train the winner of each arm on fresh seeds.

    The trials are a study in STUDY/tuning, the winners one in STUDY. The same command resumes an interrupted tuning.
    """
    from ablations.config.request import make_tuning
    from ablations.engine.server import start_server

    tuning = make_tuning(options)
    if not options.dry_run:
        start_server()
    from ablations.tuning.steps import tuning_steps

    last = () if tuning.confirm else ("", "the same command with --confirm 8 trains each arm's winner on 8 fresh seeds")
    return _run_steps(tuning_steps(tuning), options, names_ref=options.ref is not None, last=last)


def _run_steps(steps: Iterator[Step], options: Actions, *, names_ref: bool = False, last: tuple[str, ...] = ()) -> int:
    """Print and run one step after the other, and report the study of the last.

    Args:
        steps: steps of a run or a tuning; a dry run prints the first and runs none.
        options: options of the command.
        names_ref: whether the command names the reference, so that no report with another one is kept.
        last: lines to print after the last step.

    Returns:
        The exit code.
    """
    console, code, is_stopped = make_console(options.as_json), OK, False
    for step in steps:
        print_lines(console, step.lines)
        if options.dry_run:
            return _end_dry_run(step.plan, as_json=options.as_json)
        own, is_stopped = _run_step(step, console)
        code = max(code, own)
        if is_stopped:
            break
    else:
        print_lines(console, last)
    ref = step.plan.study.ref if names_ref else None
    return _end(step.plan, console, code, is_stopped, as_json=options.as_json, ref=ref)


def _end_dry_run(plan: Plan, *, as_json: bool) -> int:
    if as_json:
        print_json({"study": plan.study.model_dump(mode="json"), "states": plan.states})
    return OK


def _run_step(step: Step, console: Console) -> tuple[int, bool]:
    """Run a step, and print how it ended.

    Returns:
        Its exit code, and whether it was stopped before its end.
    """
    from ablations.config import Detached, Interrupted, RunStopped
    from ablations.monitor.progress import watching

    plan = step.plan
    if not plan.todo:
        done = "the cell is done" if len(plan.cells) == 1 else f"all {len(plan.cells)} cells are done"
        console.print(done if plan.count("done") + plan.count("stale") == len(plan.cells) else "nothing to run")
    try:
        with watching(console, plan.study, plan.store, total=len(plan.todo)) as watcher:
            step.run(watcher)
    except Interrupted:
        print_lines(console, ["interrupted: finished cells are kept; the same command resumes the run"])
        return INTERRUPTED, True
    except Detached as how:
        print_lines(console, [str(how)])
        sys.exit(OK)  # there is nothing to report yet
    except RunStopped as reason:
        print_lines(console, [f"stopped: {reason}; finished cells are kept"])
        return SOME_FAILED, True
    return SOME_FAILED if watcher.failed else OK, False


def _end(plan: Plan, console: Console, code: int, is_stopped: bool, *, as_json: bool, ref: str | None) -> int:
    """Report the study of a plan, and return the exit code; exit at once after an interrupt."""
    from ablations.config import UsageError

    try:
        code = finish([plan.store.folder], console, as_json=as_json, code=code, full=False, ref=ref)
    except UsageError as error:
        if not is_stopped:
            raise
        print_lines(console, [str(error)])  # the disk is full for the report too
    if code == INTERRUPTED:
        sys.exit(code)  # the message is printed
    return code

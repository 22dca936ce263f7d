"""Commands that run cells: run, retry."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ablations.cli import options
from ablations.cli.app import INTERRUPTED, OK, SOME_FAILED, app
from ablations.cli.finish import finish
from ablations.cli.printing import make_console, print_lines

if TYPE_CHECKING:
    from ablations.planning.plan import Plan


class Kind(StrEnum):
    """Which cells ``retry`` runs again."""

    FAILED = "failed"
    OOM = "oom"
    ALL = "all"


@app.command()
def run(
    task: options.TaskName = None,
    norm: options.Norm = None,
    data: options.Data = None,
    classes: options.Classes = None,
    in_memory: options.InMemory = options.MemoryUse.AUTO,
    model: options.Model = None,
    seeds: Annotated[str | None, typer.Option(help="How many (8: 0 to 7), or which (0-3,7). [default: 8]")] = None,
    seed: Annotated[str | None, typer.Option(help="One seed.")] = None,
    recipe: options.Recipe = None,
    lr: options.Lr = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    scale: options.Scale = None,
    precision: options.Precision = None,
    set_: options.Settings = None,
    compare: options.Compare = None,
    ref: options.Ref = None,
    experiment: options.Experiment = None,
    study: options.StudyName = None,
    out: options.Out = Path("runs"),
    data_root: options.DataRoot = Path("data"),
    download: options.Download = False,
    plugin: options.Plugin = None,
    device: options.Device = None,
    devices: options.Devices = None,
    jobs: options.Jobs = "auto",
    jobs_per_gpu: options.JobsPerGpu = "auto",
    timeout: options.Timeout = None,
    memory_per_cell: options.MemoryPerCell = None,
    shard: Annotated[str | None, typer.Option(help="Run part I of N only: I/N, for instance of a job array.")] = None,
    retry: options.RetryWhich = options.Retry.FAILED,
    rerun: options.RerunWhich = None,
    fail_fast: options.FailFast = False,
    max_failures: options.MaxFailures = None,
    checkpoint_every: options.CheckpointEvery = "auto",
    trainer: options.TrainerName = options.TrainerKind.LEAN,
    save_weights: options.SaveWeights = "none",
    log: options.Log = None,
    workers: options.Workers = "auto",
    init: options.Init = None,
    smoke: options.Smoke = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> int:
    """Run what is missing of a study, and print its table."""
    from ablations.config.request import make_request
    from ablations.engine.server import start_server

    flags = {"task": task, "norm": norm, "data": data, "classes": classes, "model": model, "lr": lr, "epochs": epochs}
    flags |= {"batch_size": batch_size, "precision": precision, "scale": scale}
    request = make_request(
        experiment=experiment,
        asked=options.parse_fields(flags, set_ or []) | _parse_seeds(seeds, seed),
        smoke=smoke,
        compare=compare,
        ref=ref,
        recipe=recipe,
        name=study,
        plugins=tuple(plugin or ()),
        out=out,
        data_root=data_root,
        download=download,
        in_memory=in_memory.value,
        devices=options.parse_devices(device, devices),
        engine=options.parse_engine(
            jobs=jobs,
            jobs_per_gpu=jobs_per_gpu,
            timeout=timeout,
            memory_per_cell=memory_per_cell,
            retry=retry,
            fail_fast=fail_fast,
            max_failures=max_failures,
            checkpoint_every=checkpoint_every,
            trainer=trainer,
            save_weights=save_weights,
            log=log,
            workers=workers,
        ),
        shard=options.parse_shard(shard),
        rerun=rerun.value if rerun else None,
        init=options.parse_init(init),
    )
    if not dry_run:
        start_server()
    from ablations.planning.plan import make_plan

    return _run_plan(make_plan(request), dry_run=dry_run, as_json=as_json)


@app.command()
def retry(
    study: Annotated[Path, typer.Argument(help="Folder of the study.")],
    kind: Annotated[Kind, typer.Option(help="failed, oom, or all: diverged too.")] = Kind.FAILED,
    data: options.StudyData = None,
    init: options.Init = None,
    data_root: options.DataRoot = Path("data"),
    device: options.Device = None,
    devices: options.Devices = None,
    jobs: options.Jobs = "auto",
    jobs_per_gpu: options.JobsPerGpu = "auto",
    timeout: options.Timeout = None,
    memory_per_cell: options.MemoryPerCell = None,
    fail_fast: options.FailFast = False,
    max_failures: options.MaxFailures = None,
    checkpoint_every: options.CheckpointEvery = "auto",
    trainer: options.TrainerName = options.TrainerKind.LEAN,
    save_weights: options.SaveWeights = "none",
    log: options.Log = None,
    workers: options.Workers = "auto",
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> int:
    """Run the failed cells of a study again, and nothing else."""
    from ablations.config.request import request_of
    from ablations.config.values import parse_values
    from ablations.planning.plan import make_plan
    from ablations.store import Store

    asked = None if data is None else parse_values("data", data)
    request = request_of(Store(study).read_study(), folder=study, data=asked, data_root=data_root)
    request = replace(
        request,
        missing=False,
        init=options.parse_init(init),
        devices=options.parse_devices(device, devices),
        engine=options.parse_engine(
            jobs=jobs,
            jobs_per_gpu=jobs_per_gpu,
            timeout=timeout,
            memory_per_cell=memory_per_cell,
            retry=options.Retry(kind.value),
            fail_fast=fail_fast,
            max_failures=max_failures,
            checkpoint_every=checkpoint_every,
            trainer=trainer,
            save_weights=save_weights,
            log=log,
            workers=workers,
        ),
    )
    return _run_plan(make_plan(request), dry_run=dry_run, as_json=as_json)


def _run_plan(plan: Plan, *, dry_run: bool, as_json: bool) -> int:
    """Print a plan, run it, and print what has come of it."""
    from ablations.planning.summary import describe_plan

    console = make_console(as_json)
    print_lines(console, describe_plan(plan))
    if dry_run:
        if as_json:
            typer.echo(json.dumps({"study": plan.study.model_dump(mode="json"), "states": plan.states}, indent=2))
        return OK
    return end(plan, console, *carry_out(plan, console), as_json=as_json)


def end(plan: Plan, console: Console, code: int, is_stopped: bool, *, as_json: bool) -> int:
    """Report what a plan has come to, and return the exit code; leave at once where it was interrupted."""
    from ablations.config import UsageError

    try:
        code = finish([plan.store.folder], console, as_json=as_json, code=code, full=False)
    except UsageError as error:
        if not is_stopped:
            raise
        print_lines(console, [str(error)])  # no room for it either
    if code == INTERRUPTED:
        sys.exit(code)  # what is to be said of it has been
    return code


def carry_out(plan: Plan, console: Console, *, storage: str | None = None) -> tuple[int, bool]:
    """Run a plan, and say how that went.

    Args:
        plan: what is run.
        console: where to.
        storage: of Optuna's studies, where the plan is of trials.

    Returns:
        The exit code of what was run, and whether it was stopped before its end.
    """
    from ablations.api import execute
    from ablations.config import Interrupted, RunStopped
    from ablations.monitor.progress import watching

    total = len(plan.todo)
    if not total:
        done = "the cell is done" if len(plan.cells) == 1 else f"all {len(plan.cells)} cells are done"
        console.print(done if plan.count("done") + plan.count("stale") == len(plan.cells) else "nothing to run")
    try:
        with watching(console, plan.study, plan.store, total=total) as watcher:
            execute(plan, watcher=watcher, storage=storage)
    except Interrupted:
        print_lines(console, ["interrupted: what is finished is kept; the same command goes on"])
        return INTERRUPTED, True
    except RunStopped as reason:
        print_lines(console, [f"stopped: {reason}; what is finished is kept"])
        return SOME_FAILED, True
    return SOME_FAILED if watcher.failed else OK, False


def _parse_seeds(seeds: str | None, seed: str | None) -> dict[str, list[int]]:
    from ablations.config import UsageError
    from ablations.config.seeds import parse_seeds
    from ablations.config.values import parse_values

    if seeds is not None and seed is not None:
        raise UsageError("give --seeds or --seed, not both")
    if seed is not None:
        values = parse_values("seed", seed)
        if len(values) > 1:
            raise UsageError(f"--seed {seed}: give one; several as --seeds {seed}")
        return {"seed": values}
    return {} if seeds is None else {"seed": parse_seeds(seeds)}

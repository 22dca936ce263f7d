"""The command that tunes."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ablations.cli import options
from ablations.cli.app import OK, app
from ablations.cli.printing import make_console, print_lines
from ablations.cli.run import carry_out, end


class Sampler(StrEnum):
    """Where the points of a tuning come from."""

    SOBOL = "sobol"
    TPE = "tpe"


@app.command()
def tune(
    search: Annotated[
        str | None,
        typer.Option(help="What is searched: FIELD=LOW..HIGH[:log], a comma list; lr=1e-4..1e-2:log for instance."),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of every arm. [default: 16]")] = None,
    confirm: Annotated[
        str | None,
        typer.Option(help="Train each arm's winner on fresh seeds: how many, or which; 0: none. [default: none]"),
    ] = None,
    sampler: Annotated[
        Sampler | None,
        typer.Option(help="sobol: the same points for every arm; tpe: after 8 each arm's own. [default: sobol]"),
    ] = None,
    sampler_seed: Annotated[int | None, typer.Option(min=0, help="Seed of the points. [default: 0]")] = None,
    storage: Annotated[
        str | None, typer.Option(help="URL of a database for Optuna's studies. [default: a journal file in the folder]")
    ] = None,
    task: options.TaskName = None,
    norm: options.Norm = None,
    data: options.Data = None,
    classes: options.Classes = None,
    in_memory: options.InMemory = options.MemoryUse.AUTO,
    model: options.Model = None,
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
    study: Annotated[str | None, typer.Option(help="Name of the study. [default: COMPARE-DATA-tuned]")] = None,
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
    smoke: Annotated[
        bool, typer.Option("--smoke", help="1 epoch, 256 images, 2 trials, 2 seeds, a study of its own.")
    ] = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> int:
    """Tune every arm on the same points, chosen on validation, and train each arm's winner on fresh seeds.

    The trials are a study in STUDY/tuning, the winners one in STUDY. The same command goes on where one stopped.
    """
    from ablations.config.request import make_request, make_tuning
    from ablations.engine.server import start_server

    tuning = make_tuning(
        experiment=experiment,
        search=search,
        sampler=None if sampler is None else sampler.value,
        sampler_seed=sampler_seed,
        trials=trials,
        confirm=confirm,
        smoke=smoke,
        storage=storage,
    )
    flags = {"task": task, "norm": norm, "data": data, "classes": classes, "model": model, "lr": lr, "epochs": epochs}
    flags |= {"batch_size": batch_size, "precision": precision, "scale": scale}
    request = make_request(
        experiment=experiment,
        asked=options.parse_fields(flags, set_ or []),
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
        shard=(1, 1),
        rerun=rerun.value if rerun else None,
        init=options.parse_init(init),
        search=tuning.search,
    )
    if not dry_run:
        start_server()
    from ablations.planning.plan import make_plan
    from ablations.planning.summary import describe_plan
    from ablations.tuning import confirmation, trial_plans

    console, code = make_console(as_json), OK
    for number, plan in enumerate(trial_plans(request, num_trials=tuning.num_trials)):
        if not number:
            print_lines(console, describe_plan(plan))
            if dry_run:
                if as_json:
                    content = {"study": plan.study.model_dump(mode="json"), "states": plan.states}
                    typer.echo(json.dumps(content, indent=2))
                return OK
        own, is_stopped = carry_out(plan, console, storage=tuning.storage)
        code = max(code, own)
        if is_stopped:
            return end(plan, console, code, is_stopped, as_json=as_json)
    if not tuning.confirm:
        print_lines(console, ["", "the same command with --confirm 8 trains each arm's winner on 8 fresh seeds"])
        return end(plan, console, code, False, as_json=as_json)
    winners, lines = confirmation(request, plan.store, seeds=tuning.confirm)
    plan = make_plan(winners)
    print_lines(console, ["", *lines, *describe_plan(plan)])
    own, is_stopped = carry_out(plan, console)
    return end(plan, console, max(code, own), is_stopped, as_json=as_json)

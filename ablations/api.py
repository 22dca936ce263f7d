"""What can be done with studies from Python, in notebooks and by the commands alike: run, tune, load, report."""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ablations.analysis.caveats import caveats, substitutions, unshared
from ablations.config import Interrupted, UsageError
from ablations.config.options import EngineOptions, InMemory
from ablations.config.request import Rerun, make_request, make_tuning
from ablations.config.seeds import parse_seeds
from ablations.config.values import check_values, parse_values
from ablations.engine.server import start_server
from ablations.monitor.progress import watching
from ablations.planning.one_cell import build
from ablations.planning.plan import Plan, make_plan
from ablations.planning.summary import describe_plan
from ablations.store import TRIALS, Store
from ablations.store.provenance import import_plugin, numerics_now

if TYPE_CHECKING:
    from ablations.engine.watcher import Watcher
    from ablations.report import Report
    from ablations.report.notebook import StudyResults
    from ablations.tuning import OptunaStudies

__all__ = ["IncompleteStudyWarning", "build", "execute", "load", "make_report", "read_results", "run", "tune"]

OPENING_S = 5.0
"""Seconds that another runner, who is about to begin the same study, gets to write its question."""

NEEDED_IN_THE_END = ("ablations.report", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf")
"""What the report loads; loaded before the first cell, as there is nothing else to do while the workers load."""

Values = str | int | float | bool | None | Sequence[Any]
"""A value, several, or a text as on the command line: ``"1e-3,3e-3"``."""


class IncompleteStudyWarning(UserWarning):
    """A study has cells without a result, or what cannot be read."""


def run(
    *,
    task: str | None = None,
    norm: Values = None,
    data: Values = None,
    seeds: Values = None,
    lr: Values = None,
    epochs: Values = None,
    model: Values = None,
    fields: Mapping[str, Values] | None = None,
    experiment: str | Path | None = None,
    compare: str | None = None,
    ref: str | None = None,
    recipe: str | None = None,
    study: str | None = None,
    out: str | Path = "runs",
    data_root: str | Path = "data",
    download: bool = False,
    in_memory: InMemory = "auto",
    devices: Sequence[str] = ("auto",),
    plugins: Sequence[str] = (),
    engine: EngineOptions | None = None,
    rerun: Rerun | None = None,
    init: Sequence[str | Path] = (),
    smoke: bool = False,
) -> StudyResults:
    """Run what is missing of a study, as ``python -m ablations run`` does, and return what it says.

    Args:
        task: as ``--task``.
        norm: as ``--norm``.
        data: as ``--data``.
        seeds: as ``--seeds``: a number of seeds, or a list of them.
        lr: as ``--lr``.
        epochs: as ``--epochs``.
        model: as ``--model``.
        fields: any other field of a cell, as ``--set``.
        experiment: as ``--experiment``.
        compare: as ``--compare``.
        ref: as ``--ref``.
        recipe: as ``--recipe``.
        study: as ``--study``.
        out: as ``--out``.
        data_root: as ``--data-root``.
        download: as ``--download``.
        in_memory: as ``--in-memory``.
        devices: ``auto``, ``cpu``, ``mps``, or one or several of ``cuda:N``.
        plugins: as ``--plugin``.
        engine: how the cells are run; by default as the command does.
        rerun: as ``--rerun``.
        init: as ``--init``: folders of cells.
        smoke: as ``--smoke``.

    Raises:
        UnknownNameError: a name that there is none of, with the nearest and all valid ones.
        UsageError: anything else that does not fit, in one line.
        RunStopped: too much failed, or the disk is full; what is finished is kept.
        KeyboardInterrupt: the run was interrupted; what is finished is kept.
    """
    asked = _asked(
        {"task": task, "norm": norm, "data": data, "lr": lr, "epochs": epochs, "model": model, **(fields or {})}
    )
    if seeds is not None:
        asked["seed"] = parse_seeds(_seeds_text(seeds))
    request = make_request(
        experiment=experiment,
        asked=asked,
        smoke=smoke,
        compare=compare,
        ref=ref,
        recipe=recipe,
        name=study,
        plugins=tuple(plugins),
        out=Path(out),
        data_root=Path(data_root),
        download=download,
        in_memory=in_memory,
        devices=tuple(devices),
        engine=engine or EngineOptions(),
        shard=(1, 1),
        rerun=rerun,
        init=tuple(Path(folder) for folder in init),
    )
    start_server()
    plan = make_plan(request)
    _print(describe_plan(plan))
    _carry_out(plan)
    results = make_report([plan.store.folder], full=False).results
    _warn(results)
    return results


def tune(
    *,
    search: str | Mapping[str, str] | None = None,
    trials: int | None = None,
    confirm: Values = None,
    sampler: str | None = None,
    sampler_seed: int | None = None,
    storage: str | None = None,
    task: str | None = None,
    norm: Values = None,
    data: Values = None,
    lr: Values = None,
    epochs: Values = None,
    model: Values = None,
    fields: Mapping[str, Values] | None = None,
    experiment: str | Path | None = None,
    compare: str | None = None,
    ref: str | None = None,
    recipe: str | None = None,
    study: str | None = None,
    out: str | Path = "runs",
    data_root: str | Path = "data",
    download: bool = False,
    in_memory: InMemory = "auto",
    devices: Sequence[str] = ("auto",),
    plugins: Sequence[str] = (),
    engine: EngineOptions | None = None,
    rerun: Rerun | None = None,
    init: Sequence[str | Path] = (),
    smoke: bool = False,
) -> StudyResults:
    """Run what is missing of a tuning, as ``python -m ablations tune`` does, and return what it says.

    Args:
        search: as ``--search``, or by field: ``{"lr": "1e-4..1e-2:log"}``.
        trials: as ``--trials``.
        confirm: as ``--confirm``: a number of seeds, or a list of them.
        sampler: as ``--sampler``.
        sampler_seed: as ``--sampler-seed``.
        storage: as ``--storage``.
        task: as ``--task``, and all that follow as for `run`.
        norm: as ``--norm``.
        data: as ``--data``.
        lr: as ``--lr``.
        epochs: as ``--epochs``.
        model: as ``--model``.
        fields: any other field of a cell, as ``--set``.
        experiment: as ``--experiment``.
        compare: as ``--compare``.
        ref: as ``--ref``.
        recipe: as ``--recipe``.
        study: as ``--study``.
        out: as ``--out``.
        data_root: as ``--data-root``.
        download: as ``--download``.
        in_memory: as ``--in-memory``.
        devices: ``auto``, ``cpu``, ``mps``, or one or several of ``cuda:N``.
        plugins: as ``--plugin``.
        engine: how the cells are run; by default as the command does.
        rerun: as ``--rerun``.
        init: as ``--init``: folders of cells.
        smoke: as ``--smoke``.

    Returns:
        Of the winners on their seeds, with the trials; of the trials alone where none is confirmed.

    Raises:
        UnknownNameError: a name that there is none of, with the nearest and all valid ones.
        UsageError: anything else that does not fit, in one line.
        RunStopped: too much failed, or the disk is full; what is finished is kept.
        KeyboardInterrupt: the tuning was interrupted; what is finished is kept.
    """
    from ablations.tuning import confirmation, trial_plans

    tuning = make_tuning(
        experiment=experiment,
        search=search,
        sampler=sampler,
        sampler_seed=sampler_seed,
        trials=trials,
        confirm=None if confirm is None else _seeds_text(confirm),
        smoke=smoke,
        storage=storage,
    )
    request = make_request(
        experiment=experiment,
        asked=_asked(
            {"task": task, "norm": norm, "data": data, "lr": lr, "epochs": epochs, "model": model, **(fields or {})}
        ),
        smoke=smoke,
        compare=compare,
        ref=ref,
        recipe=recipe,
        name=study,
        plugins=tuple(plugins),
        out=Path(out),
        data_root=Path(data_root),
        download=download,
        in_memory=in_memory,
        devices=tuple(devices),
        engine=engine or EngineOptions(),
        shard=(1, 1),
        rerun=rerun,
        init=tuple(Path(folder) for folder in init),
        search=tuning.search,
    )
    start_server()
    for number, plan in enumerate(trial_plans(request, num_trials=tuning.num_trials)):
        _print(describe_plan(plan) if not number else [])
        _carry_out(plan, storage=tuning.storage)
    if tuning.confirm:
        winners, lines = confirmation(request, plan.store, seeds=tuning.confirm)
        plan = make_plan(winners)
        _print([*lines, *describe_plan(plan)])
        _carry_out(plan)
    results = make_report([plan.store.folder], full=False).results
    _warn(results)
    return results


def _asked(named: Mapping[str, Values]) -> dict[str, list[Any]]:
    return {field: _values(field, value) for field, value in named.items() if value is not None}


def _console() -> Console:
    return Console(file=sys.stdout, force_jupyter=False, highlight=False, width=120)


def _print(lines: list[str]) -> None:
    console = _console()
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _carry_out(plan: Plan, *, storage: str | None = None) -> None:
    try:
        with watching(_console(), plan.study, plan.store, total=len(plan.todo)) as watcher:
            execute(plan, watcher=watcher, storage=storage)
    except Interrupted:
        raise KeyboardInterrupt("what is finished is kept; the same call goes on") from None


def load(*studies: str | Path, ref: str | None = None) -> StudyResults:
    """Load a study, or several as strata; nothing is written.

    Args:
        studies: their folders.
        ref: the arm that the others are compared with; None: the studies' own.

    Raises:
        UsageError: there is no study, or studies that do not go together.
    """
    results = read_results([Path(study) for study in studies], ref=ref)
    _warn(results)
    return results


def _warn(results: StudyResults) -> None:
    """Say what is missing or damaged where a program, and not a person, reads it."""
    if num_missing := len(results.missing):
        total = num_missing + len(results.cells)
        warnings.warn(
            f"{results.name}: {num_missing} of {total} cells have no readable result",
            IncompleteStudyWarning,
            stacklevel=3,
        )
    for problem in results.problems:
        warnings.warn(problem, IncompleteStudyWarning, stacklevel=3)


def _values(field: str, value: Values) -> list[Any]:
    if isinstance(value, str):
        return parse_values(field, value)
    return check_values(field, list(value) if isinstance(value, Sequence) else [value])


def _seeds_text(seeds: Values) -> str:
    """Write seeds as ``--seeds`` has them: a list of one seed ends with a comma, or it would be a number of seeds."""
    return ",".join(map(str, seeds)) + "," if isinstance(seeds, Sequence) and not isinstance(seeds, str) else str(seeds)


def execute(plan: Plan, *, watcher: Watcher, storage: str | None = None) -> None:
    """Write the study and run what is to be run; of trials, Optuna is told.

    Args:
        watcher: is told what happens.
        storage: URL of the database in which Optuna keeps the studies of trials; None: a journal file in the folder.

    Raises:
        UsageError: the folder cannot be written, or was given another question since the plan was made.
        Interrupted: the run was stopped; what is finished is kept.
        RunStopped: too much failed, or the disk is full; what is finished is kept.
    """
    studies = _optuna_studies(plan, storage) if plan.study.is_tuning else None
    with plan.store.opened() as is_first:
        _write_study(plan, is_first=is_first)
        if studies is not None:
            watcher = studies.telling(watcher)
        if plan.todo:
            _run(plan, watcher=watcher)


def _write_study(plan: Plan, *, is_first: bool) -> None:
    """Write study.yaml, unless another runner has begun or extended the study since the plan was made."""
    deadline = time.monotonic() + OPENING_S
    is_behind = not is_first and not plan.is_begun  # another has begun the study since, and its question comes first
    while is_behind and plan.store.study_text == plan.study_text and time.monotonic() < deadline:
        if plan.store.exists and plan.store.read_study() == plan.study:
            return
        time.sleep(0.05)
    if plan.store.study_text == plan.study_text:
        plan.store.write_study(plan.study)
    elif plan.store.read_study() != plan.study:
        raise UsageError(f"{plan.store.folder} was changed by another runner meanwhile: give the command again")


def _optuna_studies(plan: Plan, url: str | None) -> OptunaStudies:
    from ablations.tuning import OptunaStudies

    return OptunaStudies(plan.study, plan.cells, store=plan.store, url=url)


def _run(plan: Plan, *, watcher: Watcher) -> None:
    from ablations.engine.local import Runner

    for name in NEEDED_IN_THE_END:
        importlib.import_module(name)
    Runner(
        plan.todo,
        study=plan.study,
        store=plan.store,
        infos=plan.infos,
        devices=plan.devices,
        options=plan.engine,
        records=plan.records,
        watcher=watcher,
    ).run()


def read_results(folders: Sequence[Path], *, ref: str | None = None) -> StudyResults:
    """Read studies with what the code as it is says of them: stale cells, caveats.

    Args:
        folders: the studies'.
        ref: the arm that the others are compared with; None: the studies' own.

    Raises:
        UsageError: there is no study, or studies that do not go together.
    """
    from ablations.analysis.results import Stratum
    from ablations.report.notebook import StudyResults
    from ablations.store.frames import read_frames

    if not folders:
        raise UsageError("name at least one study's folder")
    for i, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:i]]:
            raise UsageError(f"{folder} is given twice")
    strata = []
    for folder in folders:
        store = Store(folder)
        study = store.read_study()
        for plugin in study.plugins:
            import_plugin(plugin)
        numerics = numerics_now(study.axes["norm"], task=study.task)
        frames = read_frames(store, numerics=numerics)
        said = caveats(study) + substitutions(frames.configs) + unshared(study)
        trials = frames if study.is_tuning else None
        if study.search is not None and not study.is_tuning:
            of_trials = Store(folder / TRIALS)
            if of_trials.exists:
                trials = read_frames(of_trials, numerics=numerics)
            else:
                lost = f"there is no {of_trials.folder}, and so nothing to be said of the trials"
                frames = replace(frames, problems=(*frames.problems, lost))
        strata.append(Stratum(folder=folder, frames=frames, caveats=tuple(said), trials=trials))
    return StudyResults(strata, reference=ref)


def make_report(folders: Sequence[Path], *, full: bool, ref: str | None = None, to: Path | None = None) -> Report:
    """Rebuild tables, figures and the page of a study, or of several together.

    Args:
        folders: the studies'.
        full: with every figure; else with those alone that a run ends with.
        ref: the arm that the others are compared with; None: the studies' own.
        to: where to write; None: into the study's own folder, where there is one study.

    Raises:
        UsageError: there is no study, studies that do not go together, or a folder that cannot be written.
    """
    from ablations.report import write_report

    if to is None and len(folders) > 1:
        raise UsageError("a report of several studies needs a folder of its own: give --to FOLDER")
    results, folder = read_results(folders, ref=ref), folders[0] if to is None else to
    if to is not None:
        _check_target(to, folders)
    try:
        return write_report(results, folder, full=full)
    except OSError as error:
        raise UsageError(f"the report cannot be written to {folder}: {error}") from error


def _check_target(folder: Path, studies: Sequence[Path]) -> None:
    """Refuse to write a report over what is none: another study, its cells, a folder of other files."""
    target = folder.resolve()
    inside = [path for path in (target, *target.parents) if (path / "study.yaml").is_file()]
    if inside and [target] != [study.resolve() for study in studies]:
        raise UsageError(f"--to {folder}: {inside[0]} is a study; give a folder of its own")
    if not inside and target.is_dir() and any(target.iterdir()) and not (target / "report.html").is_file():
        raise UsageError(f"--to {folder}: it holds other files, and no report; give a folder of its own")

"""Command that foresees the largest learning rate of each arm from the first steps of its cells."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ablations.cli.app import OK, SOME_FAILED, app
from ablations.cli.bench import CsvOption, checked_file
from ablations.cli.command import command
from ablations.cli.options import DeviceOption, JsonOption
from ablations.cli.printing import make_console, print_json, print_lines, print_table
from ablations.config import UsageError
from ablations.config.commands import (
    DataOptions,
    DataRootOption,
    ExperimentOption,
    FieldOptions,
    Folder,
    GridNameOptions,
    OutOption,
    PluginOption,
    RunOptions,
)
from ablations.config.declare import Option, Values, declared, reads
from ablations.config.grid_options import GridOptions
from ablations.config.seeds import parse_seeds
from ablations.config.values import plural

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from ablations.bench.foresee import Foreseen, ProbeRow
    from ablations.config.request import Request


class GridFlags(
    FieldOptions, GridOptions, GridNameOptions, PluginOption, ExperimentOption, OutOption, DataRootOption, DataOptions
):
    """The study whose arms and settings are measured: what ``run`` takes, without the running of the cells."""


class ForeseeOptions(GridFlags, DeviceOption, CsvOption, JsonOption):
    """Options of ``foresee``."""

    folder: Annotated[
        Folder | None, Option("Folder of a study, or its name in --out, in place of a grid.", is_argument=True)
    ] = None
    steps: Annotated[int, Field(ge=1), Option("Steps of each cell, at the smallest learning rate.")] = 20
    seeds: Annotated[
        Values, reads(parse_seeds), Option("Seeds: how many (2: 0 and 1), or which (0-3,7).", metavar="SEEDS")
    ] = 1
    probes: Annotated[Folder | None, Option("CSV file for the probes of each layer at each step.")] = None
    figure: Annotated[
        Folder | None, Option("File of a figure of foreseen and measured rates, written as .png and .pdf.")
    ] = None
    probe_figure: Annotated[
        Folder | None, Option("File of a figure of the probes over depth, written as .png and .pdf.")
    ] = None


WITH_FOLDER = {"data", *OutOption.model_fields, *DataRootOption.model_fields}
"""Options of a grid that a stored study takes too."""


@command(app, ForeseeOptions)
def foresee(options: ForeseeOptions) -> int:
    """Foresee the largest learning rate of each arm from the curvature of its first steps, without training it.

    If the study has finished cells, their frontier, the largest learning rate at which they learn, stands beside it.
    """
    from ablations.bench.foresee import Foreseen, NotMeasured, ProbeRow, measure, subjects_of
    from ablations.bench.foresight import draw_first_steps, draw_foreseen, foreseen_table, measured_frontier
    from ablations.planning.plan import make_plan
    from ablations.store.tidy_csv import write_csv

    csv, probes_csv, figure, probe_figure = (
        checked_file(flag, file)
        for flag, file in (
            ("--csv", options.csv),
            ("--probes", options.probes),
            ("--figure", options.figure),
            ("--probe-figure", options.probe_figure),
        )
    )
    console = make_console(options.as_json)
    plan = make_plan(_request(options, console))
    subjects = subjects_of(plan, seeds=parse_seeds(options.seeds), steps=options.steps)
    measured, problems = measured_frontier(plan.store)
    print_lines(console, problems)
    if figure is not None and measured.empty:
        raise UsageError(
            f"--figure: {plan.store.folder} has no finished cells at several learning rates to compare with"
        )
    rows: list[Foreseen] = []
    probes: list[ProbeRow] = []
    for number, subject in enumerate(subjects, 1):
        started, where = time.perf_counter(), f"{number}/{len(subjects)}  {subject.name}"
        try:
            row, own = measure(subject, steps=options.steps, device=plan.devices[0])
        except NotMeasured as error:
            print_lines(console, [f"{where}: not measured, since it raises: {error}"])
            continue
        rows.append(row)
        probes += own
        if csv is not None:
            write_csv(_frame(rows, Foreseen).merge(measured, on=["setting", "arm"], how="left"), csv)
        if probes_csv is not None:
            write_csv(_frame(probes, ProbeRow), probes_csv)
        rates = f"lr {row.lr_start:.2g} at the start, {row.lr_after:.2g} after {plural(row.steps, 'step')}"
        print_lines(console, [f"{where}: {rates}; {time.perf_counter() - started:.1f} s"])
    table = foreseen_table(rows, measured)
    if figure is not None and rows:
        print_lines(console, [str(file) for file in draw_foreseen(table, figure)])
    if probe_figure is not None and probes:
        print_lines(console, [str(file) for file in draw_first_steps(_frame(probes, ProbeRow), probe_figure)])
    elif probe_figure is not None:
        print_lines(console, [f"{probe_figure} is not drawn: no net has probes, which are of UFO-ViT's attention"])
    _print(table, console, as_json=options.as_json)
    return OK if len(rows) == len(subjects) else SOME_FAILED


def _print(table: pd.DataFrame, console: Console, *, as_json: bool) -> None:
    from ablations.bench.foresight import correlations, describe_correlations, describe_foreseen

    found = correlations(table)
    print_table(console, "at the start, after the steps", *describe_foreseen(table))
    print_lines(console, describe_correlations(found))
    if as_json:
        named = {name: each._asdict() for name, each in found.items()}
        print_json({"rows": table.to_dict("records"), "correlations": named}, indent=None)


def _frame(rows: Sequence[Foreseen | ProbeRow], kind: type[Foreseen | ProbeRow]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(kind._fields))


def _request(options: ForeseeOptions, console: Console) -> Request:
    """Return the request for a grid, or for a stored study, unchanged."""
    from ablations.config.request import make_request
    from ablations.config.stored_request import request_of
    from ablations.store import Store
    from ablations.store.provenance import plugin_lines

    given = [each for each in declared(GridFlags) if getattr(options, each.name) != each.default]
    devices = (options.device or "auto",)
    if options.folder is None:
        return make_request(RunOptions(**{each.name: getattr(options, each.name) for each in given}, devices=devices))
    if flags := [each.flag for each in given if each.name not in WITH_FOLDER]:
        raise UsageError(f"{flags[0]} does not apply to a stored study, which has its own grid: leave one of them out")
    folder = Path(options.folder)
    named = Path(options.out) / folder
    store = Store(named if not Store(folder).exists and Store(named).exists else folder)
    study = store.read_study()
    print_lines(console, plugin_lines(study))
    data = options.asked.get("data")
    request = request_of(study, folder=store.folder, data=data, data_root=Path(options.data_root))
    return replace(request, devices=devices)

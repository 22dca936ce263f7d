"""Commands that read studies and registries: status, report, power, show, diff, list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import Field
from rich.table import Table
from rich.text import Text

from ablations.cli.app import OK, app
from ablations.cli.command import command
from ablations.cli.finish import finish
from ablations.cli.options import JsonOption, StudiesArgument, StudyArgument
from ablations.cli.printing import make_console, print_json, print_lines, print_table
from ablations.config.commands import Folder, OutOption, PluginOption
from ablations.config.declare import Option
from ablations.config.escape import shortened, visible

LOG_LINES = 20


class StatusOptions(StudyArgument, JsonOption):
    """Options of ``status``."""


class ReportOptions(StudiesArgument, JsonOption):
    """Options of ``report``."""

    to: Annotated[Folder | None, Option("Folder to write to; needed for several studies.", "that of the study")] = None


class PowerOptions(StudiesArgument, JsonOption):
    """Options of ``power``."""

    delta: Annotated[float, Field(ge=0.001, le=100), Option("Difference to be detected, in points.")] = 0.5


class ShowOptions(OutOption, JsonOption):
    """Options of ``show``."""

    cell: Annotated[str, Option("A cell's id, the name of its folder, or the beginning of either.", is_argument=True)]


class DiffOptions(OutOption, JsonOption):
    """Options of ``diff``."""

    one: Annotated[str, Option("A cell, as for show.", is_argument=True)]
    other: Annotated[str, Option("Another cell.", is_argument=True)]


class ListOptions(OutOption, PluginOption, JsonOption):
    """Options of ``list``."""

    what: Annotated[
        Literal["norms", "models", "data", "recipes", "fields", "experiments", "studies"],
        Option("One of norms, models, data, recipes, fields, experiments, studies.", is_argument=True),
    ]
    as_markdown: Annotated[bool, Option("Print a Markdown table.", flag="--markdown")] = False
    page: Annotated[
        bool, Option("Print a Markdown page of the normalisers: mathematics, cost, measured output scale.")
    ] = False


@command(app, StatusOptions)
def status(options: StatusOptions) -> int:
    """Show the progress of a study, from its folder: in any terminal, during a run or after it."""
    from ablations.monitor.board import Board, fill_board
    from ablations.store import Store

    store = Store(Path(options.study))
    board = fill_board(Board(store.read_study()), store)
    if options.as_json:
        print_json(board.as_json())
    else:
        make_console(options.as_json).print(board)
    return OK


@command(app, ReportOptions)
def report(options: ReportOptions) -> int:
    """Rebuild tables, figures and report.html from a study's cells, and print the main table."""
    to = None if options.to is None else Path(options.to)
    console = make_console(options.as_json)
    return finish(options.studies, console, as_json=options.as_json, code=OK, full=True, ref=options.ref, to=to)


@command(app, PowerOptions)
def power(options: PowerOptions) -> int:
    """Compute from the spread how many seeds a difference takes, and which difference the present ones detect."""
    from ablations.api import read_results
    from ablations.config import UsageError
    from ablations.report import power_table

    results = read_results(options.studies, ref=options.ref)
    if results.is_tuning:
        raise UsageError(
            "trials are not replicates, and their spread is not that of seeds; name the study of the winners"
        )
    table = power_table(results, options.delta)
    if options.as_json:
        comparisons = json.loads(table.frame.to_json(orient="records"))
        print_json({"delta_pct": options.delta, "comparisons": comparisons})
        return OK
    if not table.rows:
        raise UsageError("there is nothing to compare: two arms with a finished cell each are needed")
    console = make_console(options.as_json)
    print_table(console, table.title, table.head, table.rows)
    print_lines(console, table.notes)
    return OK


@command(app, ShowOptions)
def show(options: ShowOptions) -> int:
    """Print a cell's configuration, outcome and the end of its log."""
    from ablations.store import find_cell
    from ablations.store.digests import altered_files
    from ablations.store.reading import read_lines

    record = find_cell(Path(options.out), options.cell)
    if options.as_json:
        config = record.config.model_dump(mode="json")
        print_json({"folder": str(record.folder), "config": config, "outcome": record.outcome})
        return OK
    console = make_console(options.as_json)
    print_lines(console, [str(record.folder)])
    for title, fields in (("configuration", record.config.model_dump(mode="json")), ("outcome", record.outcome)):
        table = Table(title=title, show_header=False, title_justify="left", box=None)
        for field, value in fields.items():
            lines = value if field == "traceback" else [str(value)]
            table.add_row(Text(visible(field)), Text("\n".join(map(visible, map(shortened, lines)))))
        console.print(table)
    print_lines(console, list(altered_files(record)))
    print_lines(console, ["end of log.txt", *read_lines(record.folder / "log.txt")[-LOG_LINES:]])
    return OK


@command(app, DiffOptions)
def diff(options: DiffOptions) -> int:
    """Print the differences of two cells: configuration, outcome, sources, versions, machine."""
    from ablations.store import compare_cells, find_cell

    out = Path(options.out)
    rows = compare_cells(find_cell(out, options.one), find_cell(out, options.other))
    if options.as_json:
        print_json([dict(zip(("field", "one", "other"), row, strict=True)) for row in rows])
        return OK
    if not rows:
        make_console(options.as_json).print("they do not differ in any recorded value")
        return OK
    print_table(
        make_console(options.as_json),
        "",
        ["field", options.one, options.other],
        [[shortened(str(value)) for value in row] for row in rows],
    )
    return OK


@command(app, ListOptions, "list")
def list_(options: ListOptions) -> int:
    """List normalisers, models, data sets, recipes, fields of a cell, experiments, or studies."""
    from ablations.store.provenance import import_plugin

    for name in options.plugins:
        import_plugin(name)
    from ablations.cli import listing
    from ablations.config import UsageError

    forms = {"--json": options.as_json, "--markdown": options.as_markdown, "--page": options.page}
    given = [flag for flag, is_given in forms.items() if is_given]
    if len(given) > 1:
        raise UsageError(f"give {' or '.join(given)}, not both")
    if options.page and options.what != "norms":
        raise UsageError(f"--page does not apply to {options.what}: give list norms --page")
    if options.page:
        return _print_page()

    title, head, rows = listing.listing(options.what, out=Path(options.out))
    if options.as_json:
        print_json([dict(zip(head, row, strict=True)) for row in rows])
        return OK
    if options.as_markdown:
        from ablations.report.text import markdown_table, markdown_text

        if options.what == "studies":  # of elsewhere; the other tables are written in this code
            rows = [list(map(markdown_text, row)) for row in rows]
        typer.echo(markdown_table(head, rows), nl=False)
        return OK
    print_table(make_console(options.as_json), title, head, rows)
    if options.what == "norms":
        print_table(
            make_console(options.as_json), "contrasts: pairs of arms that differ in one thing", *listing.contrasts()
        )
    return OK


def _print_page() -> int:
    """Measure the output scale of every normaliser, and print their page."""
    from ablations.bench.start import start_table
    from ablations.cli.arms_page import arms_page
    from ablations.cli.bench_start import StartOptions, measure_start
    from ablations.report.text import markdown_table

    rows = measure_start(StartOptions(), make_console(True))
    typer.echo(arms_page(markdown_table(*start_table(rows))), nl=False)
    return OK

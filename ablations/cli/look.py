"""Commands that look at what is there: status, report, show, diff, list."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ablations.cli.app import OK, app
from ablations.cli.finish import finish
from ablations.cli.options import Json, Out, Plugin
from ablations.cli.printing import make_console, print_lines, print_table

LOG_LINES = 20


class Listed(StrEnum):
    """What ``list`` can list."""

    NORMS = "norms"
    MODELS = "models"
    DATA = "data"
    RECIPES = "recipes"
    FIELDS = "fields"
    EXPERIMENTS = "experiments"
    STUDIES = "studies"


@app.command()
def status(
    study: Annotated[Path, typer.Argument(help="Folder of the study.")],
    as_json: Json = False,
) -> int:
    """Show how far a study is, from its folder: from any terminal, while runners are at it or not."""
    from ablations.monitor.board import Board, fill_board
    from ablations.store import Store

    store = Store(study)
    board = fill_board(Board(store.read_study()), store)
    if as_json:
        typer.echo(json.dumps(board.as_json(), indent=2))
    else:
        make_console(as_json).print(board)
    return OK


@app.command()
def report(
    studies: Annotated[list[Path], typer.Argument(help="Folder of the study, or of several: strata of one report.")],
    ref: Annotated[str | None, typer.Option(help="Arm that the others are compared with.")] = None,
    to: Annotated[Path | None, typer.Option(help="Folder to write to; needed for several studies.")] = None,
    as_json: Json = False,
) -> int:
    """Rebuild tables, figures and report.html from a study's cells, and print the main table."""
    return finish(studies, make_console(as_json), as_json=as_json, code=OK, full=True, ref=ref, to=to)


@app.command()
def power(
    studies: Annotated[list[Path], typer.Argument(help="Folder of the study, or of several.")],
    delta: Annotated[float, typer.Option(help="Difference to be detected, in points.", min=0.001, max=100)] = 0.5,
    ref: Annotated[str | None, typer.Option(help="Arm that the others are compared with.")] = None,
    as_json: Json = False,
) -> int:
    """Say how many seeds a difference takes, from the spread seen, and what the present ones could have detected."""
    from ablations.api import read_results
    from ablations.config import UsageError
    from ablations.report import power_table

    results = read_results(studies, ref=ref)
    if results.is_tuning:
        raise UsageError("trials are no replicates: their spread says nothing of seeds; name the study of the winners")
    table = power_table(results, delta)
    if as_json:
        comparisons = json.loads(table.frame.to_json(orient="records"))
        typer.echo(json.dumps({"delta_pct": delta, "comparisons": comparisons}, indent=2))
        return OK
    if not table.rows:
        raise UsageError("there is nothing to compare: it takes a finished cell of two arms")
    console = make_console(as_json)
    print_table(console, table.title, table.head, table.rows)
    print_lines(console, table.notes)
    return OK


@app.command()
def show(
    cell: Annotated[str, typer.Argument(help="A cell's id, the name of its folder, or the beginning of either.")],
    out: Out = Path("runs"),
    as_json: Json = False,
) -> int:
    """Print a cell's configuration, outcome and the end of its log."""
    from ablations.store import find_cell

    record = find_cell(out, cell)
    if as_json:
        config = record.config.model_dump(mode="json")
        typer.echo(json.dumps({"folder": str(record.folder), "config": config, "outcome": record.outcome}, indent=2))
        return OK
    console = make_console(as_json)
    console.print(str(record.folder), markup=False, soft_wrap=True)
    for title, fields in (("configuration", record.config.model_dump(mode="json")), ("outcome", record.outcome)):
        table = Table(title=title, show_header=False, title_justify="left", box=None)
        for field, value in fields.items():
            table.add_row(field, Text("\n".join(value) if field == "traceback" else str(value)))
        console.print(table)
    path = record.folder / "log.txt"
    log = path.read_text(errors="replace").splitlines() if path.is_file() else ["there is none"]
    console.print("\n".join(["end of log.txt", *log[-LOG_LINES:]]), markup=False, soft_wrap=True)
    return OK


@app.command()
def diff(
    one: Annotated[str, typer.Argument(help="A cell, as for show.")],
    other: Annotated[str, typer.Argument(help="Another.")],
    out: Out = Path("runs"),
    as_json: Json = False,
) -> int:
    """Print in what two cells differ: configuration, outcome, sources, versions, machine."""
    from ablations.store import compare_cells, find_cell

    rows = compare_cells(find_cell(out, one), find_cell(out, other))
    if as_json:
        typer.echo(json.dumps([dict(zip(("field", "one", "other"), row, strict=True)) for row in rows], indent=2))
        return OK
    if not rows:
        make_console(as_json).print("they do not differ in anything that is recorded")
        return OK
    print_table(make_console(as_json), "", ["field", one, other], [[str(value) for value in row] for row in rows])
    return OK


@app.command("list")
def list_(
    what: Annotated[Listed, typer.Argument(help="norms, models, data, recipes, fields, experiments or studies.")],
    out: Out = Path("runs"),
    plugin: Plugin = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    as_json: Json = False,
) -> int:
    """List normalisers, models, data sets, recipes, fields of a cell, experiments, or studies."""
    from ablations.store.provenance import import_plugin

    for name in plugin or ():
        import_plugin(name)
    from ablations.cli import listing
    from ablations.config import UsageError

    if as_json and as_markdown:
        raise UsageError("give --json or --markdown, not both")

    title, head, rows = listing.listing(what.value, out=out)
    if as_json:
        typer.echo(json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=2))
        return OK
    if as_markdown:
        from ablations.report import markdown_table

        typer.echo(markdown_table(head, rows), nl=False)
        return OK
    print_table(make_console(as_json), title, head, rows)
    if what is Listed.NORMS:
        print_table(make_console(as_json), "contrasts: pairs of arms that differ in one thing", *listing.contrasts())
    return OK

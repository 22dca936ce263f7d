"""Commands that measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablations.cli.app import OK, app
from ablations.cli.options import Json
from ablations.cli.printing import make_console, print_lines

if TYPE_CHECKING:
    from ablations.bench.harness import Row

bench = typer.Typer(help="Measure time and memory.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.callback()
def group() -> None:
    """Measure time and memory."""


@bench.command()
def harness(
    rounds: Annotated[int, typer.Option(min=1, help="Each contender is timed once in each.")] = 5,
    fresh_cells: Annotated[int, typer.Option(min=1, help="Cells a round, of one fresh process a cell.")] = 4,
    csv: Annotated[Path | None, typer.Option(help="File for one row per round and contender.")] = None,
    as_json: Json = False,
) -> int:
    """Time this engine beside bare loops and one fresh process a cell, on 3 arms x 8 seeds of digits."""
    import pandas as pd

    from ablations.bench.harness import bench_harness
    from ablations.bench.summary import describe, ratios, summarise
    from ablations.study import UsageError

    if csv is not None and not csv.absolute().parent.is_dir():
        raise UsageError(f"--csv {csv}: no folder {csv.parent}")
    console = make_console(as_json)

    measured: list[Row] = []

    def on_row(row: Row) -> None:
        measured.append(row)
        if csv is not None:
            pd.DataFrame(measured).to_csv(csv, index=False)  # after each: it takes long, and may be stopped
        cells = f"{row.num_cells} cell{'s' * (row.num_cells > 1)}"
        print_lines(
            console, [f"round {row.round}/{rounds}  {row.quantity} {row.contender}: {cells}, {row.seconds:.2f} s"]
        )

    rows = bench_harness(rounds=rounds, fresh_cells=fresh_cells, on_row=on_row)
    print_lines(console, describe(rows))
    if as_json:
        frames = {"rows": rows, "medians": summarise(rows), "ratios": ratios(rows)}
        typer.echo(json.dumps({name: json.loads(frame.to_json(orient="records")) for name, frame in frames.items()}))
    return OK

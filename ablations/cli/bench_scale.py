"""Command that measures how commands grow with the cells of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ablations.cli.app import OK
from ablations.cli.bench import AtLeastOne, CsvOption, bench, checked_file, write_rows
from ablations.cli.command import command
from ablations.cli.options import JsonOption
from ablations.cli.printing import make_console, print_json, print_lines
from ablations.config import parsing
from ablations.config.declare import Option, reads

if TYPE_CHECKING:
    from ablations.bench.scale import ScaleRow


class ScaleOptions(CsvOption, JsonOption):
    """Options of ``bench scale``."""

    cells: Annotated[
        Sequence[int], reads(lambda value: parsing.numbers(value, least=25)), Option("Finished cells of a study.")
    ] = (1_000, 10_000)
    conditions: Annotated[int, Field(ge=1, le=100), Option("Learning rates, which are the conditions.")] = 1
    rounds: Annotated[AtLeastOne, Option("Rounds; everything is timed once in each.")] = 3


@command(bench, ScaleOptions)
def scale(options: ScaleOptions) -> int:
    """Time status, run with nothing to do, and report on studies of many finished cells, beside one of 24."""
    from ablations.bench.scale import bench_scale, describe_scale

    csv = checked_file("--csv", options.csv)
    console = make_console(options.as_json)
    measured: list[ScaleRow] = []

    def on_row(row: ScaleRow) -> None:
        measured.append(row)
        write_rows(csv, measured)
        what = f"round {row.round}/{options.rounds}  {row.command}, {row.cells:,} cells"
        print_lines(console, [f"{what}: {row.seconds:.1f} s, {row.mib:.0f} MiB"])

    rows = bench_scale(options.cells, conditions=options.conditions, rounds=options.rounds, on_row=on_row)
    print_lines(console, describe_scale(rows))
    if options.as_json:
        print_json([row._asdict() for row in rows], indent=None)
    return OK

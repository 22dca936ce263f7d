"""Command that measures the scale of attention outputs at initialisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ablations.cli.app import OK
from ablations.cli.bench import AtLeastOne, CsvOption, Names, bench, checked_file, write_rows
from ablations.cli.command import command
from ablations.cli.options import JsonOption
from ablations.cli.printing import make_console, print_json, print_lines, print_table
from ablations.config import UsageError, parsing
from ablations.config.commands import PluginOption
from ablations.config.declare import Option, Values, reads
from ablations.config.seeds import parse_seeds

if TYPE_CHECKING:
    from ablations.bench.start import StartRow

ALL = "all"


class StartOptions(CsvOption, PluginOption, JsonOption):
    """Options of ``bench start``."""

    norm: Annotated[Names, Option("Normalisers, a comma list, or all.")] = (ALL,)
    tokens: Annotated[
        Sequence[int], reads(lambda value: parsing.numbers(value, least=1)), Option("Numbers of tokens.")
    ] = (64, 196, 784, 3136)
    head_dim: Annotated[AtLeastOne, Option("Width of a head.")] = 16
    seeds: Annotated[
        Values, reads(parse_seeds), Option("Seeds: how many (16: 0 to 15), or which (0-3,7).", metavar="SEEDS")
    ] = 16
    as_markdown: Annotated[bool, Option("Print a Markdown table.", flag="--markdown")] = False


@command(bench, StartOptions)
def start(options: StartOptions) -> int:
    """Measure the RMS of each normaliser's output at initialisation, and its 1 and 99 % quantiles, on drawn tokens."""
    if options.as_json and options.as_markdown:
        raise UsageError("give --json or --markdown, not both")
    from ablations.bench.start import start_table
    from ablations.report.text import markdown_table
    from ablations.store.provenance import import_plugin

    for name in options.plugins:
        import_plugin(name)
    console = make_console(options.as_json or options.as_markdown)
    rows = measure_start(options, console)
    head, lines = start_table(rows)
    if options.as_json:
        print_json([row._asdict() for row in rows], indent=None)
    elif options.as_markdown:
        typer.echo(markdown_table(head, lines), nl=False)
    else:
        print_table(console, "output at initialisation: RMS [1 % and 99 % quantile]", head, lines)
    return OK


def measure_start(options: StartOptions, console: Console) -> list[StartRow]:
    """Measure what the options ask for, and print a line for each measurement.

    Raises:
        UsageError: the folder of the file for the measurements does not exist.
        UnknownNameError: there is no such normaliser.
    """
    from ablations.bench.start import bench_start
    from ufo.norms import NORMS

    csv = checked_file("--csv", options.csv)
    measured: list[StartRow] = []

    def on_row(row: StartRow) -> None:
        measured.append(row)
        write_rows(csv, measured)
        print_lines(console, [f"{row.norm}, {row.tokens:,} tokens: RMS {row.rms:.3g}"])

    return bench_start(
        list(NORMS) if tuple(options.norm) == (ALL,) else options.norm,
        tokens=options.tokens,
        head_dim=options.head_dim,
        seeds=parse_seeds(options.seeds),
        on_row=on_row,
    )

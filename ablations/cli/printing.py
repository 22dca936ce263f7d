"""Tables and texts on a console."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablations.config.escape import visible

WIDTH_OF_A_LOG = 120


def make_console(as_json: bool) -> Console:
    """Return the console: standard error if standard output is for scripts; in a notebook as wide as a log."""
    is_terminal = sys.stdout.isatty() and "JPY_PARENT_PID" not in os.environ
    width = None if is_terminal else WIDTH_OF_A_LOG
    return Console(stderr=as_json, highlight=False, markup=False, emoji=False, width=width)


def print_lines(console: Console, lines: Sequence[str]) -> None:
    """Print texts, each in one line that a terminal wraps."""
    for line in lines:
        console.print(Text(visible(line)), soft_wrap=True)


def print_table(console: Console, title: str, head: list[str], rows: list[list[str]]) -> None:
    """Print a table of texts."""
    table = Table(title=Text(visible(title)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in head:
        table.add_column(Text(visible(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console.print(table)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON on standard output, with null for NaN and infinities, which JSON lacks."""
    typer.echo(json.dumps(_finite(value), indent=indent, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

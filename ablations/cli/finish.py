"""How a run and a report end: the table, its notes, the files, the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.console import Console

from ablations.cli.app import INTERRUPTED, NO_OUTCOME, SOME_FAILED
from ablations.cli.printing import print_lines, print_table


def finish(folder: Path, console: Console, *, as_json: bool, code: int) -> int:
    """Rebuild the report, print it and return the exit code, given that of what was run."""
    from ablations.api import make_report
    from ablations.report import text_rows

    made = make_report(folder)
    has_result = made.cells["outcome"].isin(["ok", "diverged"])
    if code != INTERRUPTED and not has_result.all():
        code = SOME_FAILED
    if code != INTERRUPTED and not has_result.any():
        code = NO_OUTCOME
    print_table(console, made.study.name, *text_rows(made.table, made.study))
    print_lines(console, [*made.notes, "", *(str(file) for file in made.files)])
    if as_json:
        cells, table = (json.loads(frame.to_json(orient="records")) for frame in (made.cells, made.table))
        files = [str(file) for file in made.files]
        summary = {"study": made.study.name, "exit_code": code, "notes": made.notes, "files": files}
        typer.echo(json.dumps({**summary, "table": table, "cells": cells}, indent=2))
    return code

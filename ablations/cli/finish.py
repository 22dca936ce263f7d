"""How a run and a report end: the table, its notes, the files, the exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ablations.cli.app import INTERRUPTED, NO_OUTCOME, SOME_FAILED
from ablations.cli.printing import print_json, print_lines, print_table
from ablations.config.values import plural


def finish(
    folders: Sequence[Path],
    console: Console,
    *,
    as_json: bool,
    code: int,
    full: bool,
    ref: str | None = None,
    to: Path | None = None,
) -> int:
    """Rebuild the report, in full or with the figures that a run ends with; print it and return the exit code.

    Args:
        folders: folders of the studies.
        console: console to print to.
        as_json: whether to print one JSON object on standard output.
        code: exit code of the run.
        full: whether to draw every figure.
        ref: the arm that the others are compared with; None: the studies' own, also if a report with another is kept.
        to: folder to write to; None: the study's own.
    """
    from ablations.api import make_report
    from ablations.report.verdicts import verdict_lines

    made = make_report(folders, full=full, ref=ref, to=to)
    results, main = made.results, made.main
    has_result = results.cells["outcome"].isin(["ok", "diverged"])
    is_missing = full and len(results.missing) > 0  # a run has done what it was asked for, of all or of a part
    if code != INTERRUPTED and (not has_result.all() or results.problems or is_missing):
        code = SOME_FAILED
    if code != INTERRUPTED and not has_result.any():
        code = NO_OUTCOME
    if main.rows:
        print_table(console, results.name, main.head, main.marked_rows)
    folder, num_figures = made.files[0].parent, sum(file.suffix == ".pdf" for file in made.files)
    names = [file.name for file in made.files if file.parent == folder and file.suffix in (".csv", ".md")]
    beside = f"{', '.join(names)}, tables/, figures/"
    kept = ", kept as it is current" if made.is_kept else ""
    if made.ref != results.reference:
        kept += f", with {made.ref} as the reference"
    where = [f"{made.files[-1]}: the report, with {plural(num_figures, 'figure')}{kept}"]
    where.append(f"beside it in {folder}: {beside}")
    if made.num_left_out:
        where.append(f"figures that are not drawn, since there are so many: {made.num_left_out}")
    if made.num_removed:
        gone = f"removed {plural(made.num_removed, 'figure')} of an earlier report"
        where.append(gone if full else f"{gone}; python -m ablations report {folder} draws all")
    verdicts = verdict_lines(results.claims)
    print_lines(console, [*main.notes, *([""] if verdicts else []), *verdicts, "", *where])
    if as_json:
        cells, table, claims = (
            json.loads(frame.to_json(orient="records")) for frame in (results.cells, results.table, results.claims)
        )
        files = [str(file) for file in made.files]
        summary = {"study": results.name, "exit_code": code, "notes": main.notes, "files": files}
        print_json({**summary, "table": table, "claims": claims, "cells": cells})
    return code

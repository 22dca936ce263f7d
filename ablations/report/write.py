"""Files of a report, all of which can be deleted and rebuilt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ablations.analysis import MARGIN_PCT
from ablations.config import UsageError
from ablations.config.privacy import private
from ablations.report import frontier_tables, tables
from ablations.report.checklist import checklist
from ablations.report.current import NAME, hash_commands, hash_place, hash_results, note_written, read_written
from ablations.report.drawing import drawing
from ablations.report.gallery import all_figures, core_figures
from ablations.report.notebook import StudyResults
from ablations.report.page import Page, render
from ablations.report.text import TextTable, markdown_text
from ablations.store import write_text
from ablations.store.leases import STEPS_FILE
from ablations.store.reading import check_inside
from ablations.store.tidy_csv import write_csv

DROPPED = ["batches"]
"""Cell columns omitted from results.csv: the hashes of every epoch are in outcome.json."""


@dataclass(frozen=True)
class Report:
    """A written report.

    Args:
        results: the results.
        main: the main table with its notes.
        files: paths of the written files.
        is_kept: whether the files were there and current.
        ref: the arm that the others are compared with in the files; None if there is none.
        num_removed: number of figures of an earlier report that were removed.
        num_left_out: number of figures that were not drawn, since there are so many.
    """

    results: StudyResults
    main: TextTable
    files: list[Path]
    ref: str | None
    is_kept: bool = False
    num_removed: int = 0
    num_left_out: int = 0


def write_report(results: StudyResults, folder: Path, *, full: bool, any_ref: bool = False) -> Report:
    """Write DataFrames as CSV, tables, figures, checklist.md and report.html.

    Concurrent reports of one study are safe: each file is complete, and the last report's version remains.

    Args:
        results: results of one study or of several.
        folder: target folder: the study's own, or another for several studies.
        full: whether to write it in any case, with every figure and the agreement of the arms; otherwise one that is
            current is kept, and one that is not has only the figures that every run draws; one that is current but
            for the commands that it shows, since its study was moved or copied, is written again as it was.
        any_ref: whether one is kept too that is current with another reference.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_targets(folder)
    written = None if full else read_written(folder)
    shown = results if written is None or not any_ref else _with_reference(results, written.ref)
    made_from = hash_results(shown)
    if written is None or written.made_from != made_from:
        return _write(results, folder, full=full, made_from=made_from if shown is results else hash_results(results))
    if written.commands == hash_commands(shown) or written.place == hash_place(shown):
        return Report(
            results, results.main, written.files, written.ref, is_kept=True, num_left_out=written.num_left_out
        )
    moved = _write(shown, folder, full=written.is_full, made_from=made_from)
    return moved if shown is results else replace(moved, results=results, main=results.main)


def _write(results: StudyResults, folder: Path, *, full: bool, made_from: str) -> Report:
    (folder / NAME).unlink(missing_ok=True)  # until all files are written
    specs = all_figures(results) if full else core_figures(results)
    with drawing(folder / "figures", specs, results.caveats) as finish:
        main = results.main
        files, shown = _write_numbers(results, main, folder, full=full)
        items = checklist(results)
        lines = [f"- **{markdown_text(private(item))}**: {markdown_text(private(what))}\n" for item, what in items]
        write_text(folder / "checklist.md", "".join(lines))
        drawn = finish()
    figures = drawn.figures
    page = render(Page(results, shown, main.notes, items, figures, is_full=full, num_left_out=drawn.num_left_out))
    write_text(folder / "report.html", page)
    files.append(folder / "checklist.md")
    files += [*(file for figure in figures for file in figure.files), folder / "report.html"]
    left_out = drawn.num_left_out
    note_written(folder, results, made_from=made_from, is_full=full, num_left_out=left_out, files=files)
    return Report(results, main, files, results.reference, num_removed=drawn.num_removed, num_left_out=left_out)


def _with_reference(results: StudyResults, reference: str | None) -> StudyResults:
    """Return the results with another reference, if it is one of their arms."""
    arms = {arm for study in results.studies for arm in study.arm_names}
    is_other = reference in arms and reference != results.reference
    return StudyResults(results.strata, reference=reference) if is_other else results


def _write_numbers(
    results: StudyResults, main: TextTable, folder: Path, *, full: bool
) -> tuple[list[Path], dict[str, TextTable]]:
    """Write DataFrames and tables; return the files, and the tables with rows by name."""
    frames = {"results": results.cells.drop(columns=DROPPED), "curves": results.curves, "probes": results.probes}
    files = [_write_csv(frame, folder / f"{name}.csv") for name, frame in frames.items()]
    if len(results.steps):
        files.append(_write_csv(results.steps, folder / STEPS_FILE))
    else:
        (folder / STEPS_FILE).unlink(missing_ok=True)  # of an earlier report
    if results.is_tuning:
        others = [tables.stability_table(results), tables.claims_table(results), tables.failures_table(results)]
    else:
        others = _tables(results)
    files += _write_tables(folder / "tables", [main, *others])
    if len(results.trials) and not results.is_tuning:
        files.append(_write_csv(results.trials.drop(columns=DROPPED), folder / "trials.csv"))
    agreement = folder / "tables" / "agreement.csv"
    if full and not results.is_tuning:
        files.append(_write_csv(results.agreement, agreement))
    else:
        agreement.unlink(missing_ok=True)  # of an earlier report
    return files, {table.name: table for table in (main, *others) if table.rows}


def _check_targets(folder: Path) -> None:
    """Refuse to write a report through a symbolic link to elsewhere, or into a folder of the study by another name."""
    folders = [folder / name for name in ("tables", "figures")]
    own = [path for pattern in ("*.csv", "checklist.md", "report.html") for path in folder.glob(pattern)]
    for path in own + folders:
        check_inside(path, folder)
        if path in folders and path.is_symlink():
            raise UsageError(f"{path} is a symbolic link; a report writes to a folder of its own: remove the link")
        for inner in path.iterdir() if path.is_dir() else ():
            check_inside(inner, folder)


def _tables(results: StudyResults) -> list[TextTable]:
    """Return the tables other than the main table."""
    precisions = [tables.precisions_table(results)] if results.studies[0].task == "detect" else []
    arms = [tables.details_table(results), tables.success_table(results), tables.contrasts_table(results)]
    tests = [tables.claims_table(results), tables.pairing_table(results), tables.power_table(results, MARGIN_PCT)]
    runs = [tables.failures_table(results), tables.tuning_table(results), tables.stability_table(results)]
    maps = [frontier_tables.frontier_table(results), frontier_tables.frontier_depth_table(results)]
    return [*precisions, *arms, *tests, *runs, *maps, frontier_tables.failure_map_table(results)]


def _write_tables(folder: Path, some: list[TextTable]) -> list[Path]:
    """Write tables as CSV, Markdown and LaTeX, and remove the files of tables without rows."""
    folder.mkdir(exist_ok=True)
    files = []
    for table in some:
        paths = [folder / f"{table.name}.{extension}" for extension in ("csv", "md", "tex")]
        if not table.rows:
            for path in paths:
                path.unlink(missing_ok=True)
            continue
        _write_csv(table.frame, paths[0])
        write_text(paths[1], table.markdown())
        write_text(paths[2], table.latex())
        files += paths
    return files


def _write_csv(frame: pd.DataFrame, path: Path) -> Path:
    write_csv(frame, path)
    return path

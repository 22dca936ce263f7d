"""Studies from Python, for notebooks and for the commands alike: run, tune, build, load, report."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from ablations.analysis.caveats import caveats, substitutions, unshared
from ablations.config import Interrupted, Study, UsageError
from ablations.config.commands import RunOptions, TuneOptions
from ablations.config.declare import keywords_of
from ablations.config.escape import visible
from ablations.config.paths import real_path
from ablations.config.request import make_request, make_tuning
from ablations.engine.server import start_server
from ablations.monitor.progress import watching
from ablations.planning.one_cell import build
from ablations.store import TRIALS, Store
from ablations.store.provenance import numerics_now
from ablations.store.reading import exists, reason_of
from ablations.tuning.steps import Step, run_steps, tuning_steps
from ufo.norms import NORMS

if TYPE_CHECKING:
    from ablations.report import Report
    from ablations.report.notebook import StudyResults

__all__ = ["IncompleteStudyWarning", "build", "load", "make_report", "read_results", "run", "tune"]


class IncompleteStudyWarning(UserWarning):
    """A study has cells without a result, or unreadable files."""


@keywords_of(RunOptions)
def run(options: RunOptions) -> StudyResults:
    """Run the missing cells of a study, as ``python -m ablations run`` does, and return the results.

    Raises:
        UnknownNameError: an unknown name; the message has the nearest and all valid ones.
        UsageError: any other wrong argument, in one line.
        RunStopped: too many cells failed, or the disk is full; finished cells are kept.
        KeyboardInterrupt: the run was interrupted; finished cells are kept.
    """
    request = make_request(options)
    start_server()
    return _run_steps(run_steps(request), names_ref=options.ref is not None)


@keywords_of(TuneOptions)
def tune(options: TuneOptions) -> StudyResults:
    """Run the missing cells of a tuning, as ``python -m ablations tune`` does, and return the results.

    Returns:
        Results of the winners on their seeds, with the trials; results of the trials if no winner is confirmed.

    Raises:
        UnknownNameError: an unknown name; the message has the nearest and all valid ones.
        UsageError: any other wrong argument, in one line.
        RunStopped: too many cells failed, or the disk is full; finished cells are kept.
        KeyboardInterrupt: the tuning was interrupted; finished cells are kept.
    """
    tuning = make_tuning(options)
    start_server()
    return _run_steps(tuning_steps(tuning), names_ref=options.ref is not None)


def load(*studies: str | Path, ref: str | None = None) -> StudyResults:
    """Load a study, or several as strata; nothing is written.

    Args:
        studies: their folders.
        ref: the arm that the others are compared with; None: the studies' own.

    Raises:
        UsageError: there is no study, or the studies do not belong together.
    """
    results = read_results([Path(study) for study in studies], ref=ref)
    _warn(results, stacklevel=3)
    return results


def _run_steps(steps: Iterable[Step], *, names_ref: bool) -> StudyResults:
    """Carry out the steps of a run or tuning one after the other, and report the study of the last."""
    console = Console(file=sys.stdout, force_jupyter=False, highlight=False, markup=False, emoji=False, width=120)
    for step in steps:
        for line in step.lines:
            console.print(Text(visible(line)), soft_wrap=True)
        try:
            with watching(console, step.plan.study, step.plan.store, total=len(step.plan.todo)) as watcher:
                step.run(watcher)
        except Interrupted:
            raise KeyboardInterrupt("finished cells are kept; the same call resumes") from None
    ref = step.plan.study.ref if names_ref else None
    results = make_report([step.plan.store.folder], full=False, ref=ref).results
    _warn(results, stacklevel=5)
    return results


def _warn(results: StudyResults, *, stacklevel: int) -> None:
    """Warn of missing or damaged cells, since a program, and not a person, reads the results."""
    messages = list(results.problems)
    if num_missing := len(results.missing):
        total = num_missing + len(results.cells)
        messages.insert(0, f"{results.name}: cells without a readable result: {num_missing} of {total}")
    for message in messages:
        warnings.warn(visible(message), IncompleteStudyWarning, stacklevel=stacklevel)


def read_results(folders: Sequence[Path], *, ref: str | None = None) -> StudyResults:
    """Read studies, with stale cells and caveats by the present code.

    Args:
        folders: the studies' folders.
        ref: the arm that the others are compared with; None: the studies' own.

    Raises:
        UsageError: there is no study, or the studies do not belong together.
    """
    from ablations.analysis.strata import Stratum
    from ablations.report.notebook import StudyResults
    from ablations.store.frames import read_frames

    if not folders:
        raise UsageError("name at least one study's folder")
    for i, folder in enumerate(folders):
        if real_path(folder) in [real_path(other) for other in folders[:i]]:
            raise UsageError(f"{folder} is given twice")
    strata = []
    for folder in folders:
        store = Store(folder)
        study = store.read_study()
        known = [norm for norm in study.axes["norm"] if norm in NORMS]  # reading imports no plug-in
        numerics = numerics_now(known, task=study.task)
        frames = read_frames(store, numerics=numerics)
        said = caveats(study) + substitutions(study, frames.configs) + unshared(study)
        trials = frames if study.is_tuning else None
        if study.search is not None and not study.is_tuning:
            try:
                trials = read_frames(_trials_of(study, folder), numerics=numerics)
            except UsageError as error:
                frames = replace(frames, problems=(*frames.problems, f"{error}, so the trials are not reported"))
        strata.append(Stratum(folder=folder, frames=frames, caveats=tuple(said), trials=trials))
    return StudyResults(strata, reference=ref)


def _trials_of(study: Study, folder: Path) -> Store:
    """Return the folder of the trials that chose the values of a study's arms.

    Raises:
        UsageError: there is none, it cannot be read, or it holds another study than those trials.
    """
    store = Store(folder / TRIALS)
    if not store.exists:
        raise UsageError(f"there is no {store.folder}")
    trials = store.read_study()
    if not trials.is_tuning:
        raise UsageError(f"{store.folder} is not a tuning")
    for what in ("compare", "search", "task", "metric"):
        if getattr(trials, what) != getattr(study, what):
            raise UsageError(f"{store.folder} has another {what} than {folder}")
    return store


def make_report(folders: Sequence[Path], *, full: bool, ref: str | None = None, to: Path | None = None) -> Report:
    """Rebuild tables, figures and the page of a study, or of several together.

    Args:
        folders: the studies' folders.
        full: whether every figure is drawn, or only those that a run draws at its end.
        ref: the arm that the others are compared with; None: the studies' own, also if a report with another is kept.
        to: folder to write to; None: the folder of the study, if there is one study.

    Raises:
        UsageError: there is no study, the studies do not belong together, or the folder cannot be written.
    """
    from ablations.report import write_report

    if to is None and len(folders) > 1:
        raise UsageError("a report of several studies needs a folder of its own: give --to FOLDER")
    results, folder = read_results(folders, ref=ref), folders[0] if to is None else to
    if to is not None:
        _check_target(to, folders)
    try:
        return write_report(results, folder, full=full, any_ref=ref is None)
    except OSError as error:
        raise UsageError(f"the report cannot be written to {folder}: {error}") from error


def _check_target(folder: Path, studies: Sequence[Path]) -> None:
    """Refuse to write a report over another study, its cells, or a folder of other files."""
    target = real_path(folder)
    inside = [path for path in (target, *target.parents) if exists(path / "study.yaml")]
    if inside and [target] != [real_path(study) for study in studies]:
        raise UsageError(f"--to {folder}: {inside[0]} is a study; give a folder of its own")
    if not inside and target.is_dir() and not exists(target / "report.html"):
        try:
            is_empty = not any(target.iterdir())
        except OSError as error:
            raise UsageError(f"--to {folder}: it cannot be read: {reason_of(error)}") from error
        if not is_empty:
            raise UsageError(f"--to {folder}: it has other files and no report; give a folder of its own")

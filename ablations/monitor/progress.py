"""What is printed while cells run: the board in a terminal, else a line for each cell that ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from ablations.config import CellConfig, Study
from ablations.config.task import METRICS, score_column
from ablations.monitor.board import Board, fill_board
from ablations.store import Store

SPLITS = {"test": "test", "val": "validation"}
"""Value of ``scored_on`` to the split's name."""

REDRAW_S = 0.5
"""Seconds between two looks at the cells that run."""


class Lines:
    """A line for each cell that ends.

    Args:
        console: where to.
        study: to which the cells belong.
        total: cells to be run.
        show: how the command that shows a cell ends, after its id.
    """

    def __init__(self, console: Console, study: Study, *, total: int, show: str) -> None:
        self.console, self.study, self.total, self.show = console, study, total, show
        self.ended: set[str] = set()
        self.failed: set[str] = set()
        """Cells whose last attempt here failed."""

    def done(self, cell: CellConfig, outcome: Mapping[str, Any], *, ours: bool, remark: str) -> None:
        """Print the cell's line."""
        self._note_end(cell, outcome, ours=ours)
        score = outcome.get(score_column(cell))
        what = "" if score is None else f"{SPLITS[cell.run.scored_on]} {METRICS[cell.task].name} {score:.2f} %"
        kind = f"{outcome['outcome']} {outcome['kind']}".strip()
        line = (
            f"[{len(self.ended)}/{self.total}] {self.study.title_of(cell)}: {kind}  {what}  {outcome['seconds']:.1f} s"
        )
        if outcome["detail"]:
            line += f"  {outcome['detail']} (python -m ablations show {cell.id}{self.show})"
        self.note(line + f"  {remark}" * bool(remark))

    def note(self, line: str) -> None:
        """Print a sentence."""
        self.console.print(line, markup=False, soft_wrap=True)

    def tick(self) -> None:
        """Print nothing."""

    def _note_end(self, cell: CellConfig, outcome: Mapping[str, Any], *, ours: bool) -> None:
        self.ended.add(cell.id)
        if ours and outcome["outcome"] == "failed":
            self.failed.add(cell.id)
        else:
            self.failed.discard(cell.id)


class Picture(Lines):
    """The board, redrawn as time goes; above it a line for each cell that diverged or failed.

    Args:
        console: a terminal.
        study: to which the cells belong.
        total: cells to be run.
        show: how the command that shows a cell ends, after its id.
        store: the study's folder.
        board: as it is when the run begins.
        live: what draws.
    """

    def __init__(
        self, console: Console, study: Study, *, total: int, show: str, store: Store, board: Board, live: Live
    ) -> None:
        super().__init__(console, study, total=total, show=show)
        self.store, self.board, self.live = store, board, live
        self._drawn = 0.0

    def done(self, cell: CellConfig, outcome: Mapping[str, Any], *, ours: bool, remark: str) -> None:
        """Put the cell on the board, and print its line where it is no success."""
        self.board.record(cell, outcome)
        if outcome["outcome"] != "ok" or remark:
            super().done(cell, outcome, ours=ours, remark=remark)
        self._note_end(cell, outcome, ours=ours)

    def tick(self) -> None:
        """Redraw, when it is time."""
        if time.monotonic() - self._drawn >= REDRAW_S:
            self._drawn = time.monotonic()
            self.board.update_running(self.store)
            self.live.update(self.board, refresh=True)


def _redraws(console: Console) -> bool:
    """Whether what is printed can be printed over.

    FORCE_COLOR lets rich take a pipe for a terminal, and a notebook's ``!`` gives a command one that cannot go back.
    """
    is_forced = "FORCE_COLOR" in os.environ and not console.file.isatty()
    return console.is_terminal and not is_forced and "JPY_PARENT_PID" not in os.environ


@contextlib.contextmanager
def watching(console: Console, study: Study, store: Store, *, total: int) -> Iterator[Lines]:
    """Watch a run, in the way that the console allows.

    Args:
        console: where to.
        study: to which the cells belong, as it will stand in its folder.
        store: the study's folder.
        total: cells to be run.
    """
    show = _out_option(store.folder)
    if not total or not _redraws(console):
        yield Lines(console, study, total=total, show=show)
        return
    board = fill_board(Board(study), store)
    with Live(board, console=console, auto_refresh=False) as live:
        picture = Picture(console, study, total=total, show=show, store=store, board=board, live=live)
        yield picture
        board.update_running(store)
        live.update(board, refresh=True)


def _out_option(folder: Path) -> str:
    """Return the option that names a study's place, where it is not the usual one."""
    return "" if folder.parent == Path("runs") else f" --out {folder.parent}"

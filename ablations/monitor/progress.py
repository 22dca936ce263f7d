"""Progress of a run: the board in a terminal, a bar in a notebook, otherwise a line for each cell that ends."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ablations.config import CellConfig, Study
from ablations.config.escape import visible
from ablations.config.task import metric_of, score_column
from ablations.monitor.board import Board, fill_board
from ablations.store import Store

SPLITS = {"test": "test", "val": "validation"}
"""Value of ``scored_on`` to the split's name."""

REDRAW_S = 0.5
"""Seconds between two updates of the running cells."""

Draw = Callable[[Board], None]
"""Draws the board in place of what it has drawn before."""


class Lines:
    """A line for each cell that ends.

    Args:
        console: prints the lines.
        study: the cells' study.
        total: number of cells to be run.
        show: end of the command that shows a cell, after its id.
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
        what = "" if score is None else f"{SPLITS[cell.run.scored_on]} {metric_of(cell).name} {score:.2f} %"
        kind = f"{outcome['outcome']} {outcome['kind']}".strip()
        line = (
            f"[{len(self.ended)}/{self.total}] {self.study.title_of(cell)}: {kind}  {what}  {outcome['seconds']:.1f} s"
        )
        if outcome["detail"]:
            line += f"  {outcome['detail']} (python -m ablations show {cell.id}{self.show})"
        self.note(line + f"  {remark}" * bool(remark))

    def note(self, line: str) -> None:
        """Print a sentence."""
        self.console.print(Text(visible(line)), soft_wrap=True)

    def tick(self) -> None:
        """Print nothing."""

    def _note_end(self, cell: CellConfig, outcome: Mapping[str, Any], *, ours: bool) -> None:
        self.ended.add(cell.id)
        if ours and outcome["outcome"] == "failed":
            self.failed.add(cell.id)
        else:
            self.failed.discard(cell.id)


class LiveBoard(Lines):
    """The board, drawn again as time passes, and a line for each cell that diverged or failed.

    Args:
        console: prints the lines.
        study: the cells' study.
        total: number of cells to be run.
        show: end of the command that shows a cell, after its id.
        store: the study's folder.
        board: the study's cells at the beginning of the run.
        draw: draws the board.
    """

    def __init__(
        self, console: Console, study: Study, *, total: int, show: str, store: Store, board: Board, draw: Draw
    ) -> None:
        super().__init__(console, study, total=total, show=show)
        self.store, self.board, self._show = store, board, draw
        self._drawn = 0.0

    def done(self, cell: CellConfig, outcome: Mapping[str, Any], *, ours: bool, remark: str) -> None:
        """Put the cell on the board, and print its line unless it succeeded."""
        self.board.record(cell, outcome)
        if outcome["outcome"] != "ok" or remark:
            super().done(cell, outcome, ours=ours, remark=remark)
        self._note_end(cell, outcome, ours=ours)

    def tick(self) -> None:
        """Draw again, when it is time."""
        if time.monotonic() - self._drawn >= REDRAW_S:
            self._drawn = time.monotonic()
            self.draw()

    def draw(self) -> None:
        """Draw the board with the cells that run now."""
        self.board.update_running(self.store)
        self._show(self.board)


def _redraws(console: Console) -> bool:
    """Whether the console can overwrite what it printed.

    FORCE_COLOR lets rich take a pipe for a terminal, and a notebook's ``!`` gives a command one that cannot go back.
    """
    is_forced = "FORCE_COLOR" in os.environ and not console.file.isatty()
    return console.is_terminal and not is_forced and "JPY_PARENT_PID" not in os.environ


def _is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    ipython: Any = importlib.import_module("IPython")
    return hasattr(ipython.get_ipython(), "kernel")


def bar(board: Board) -> str:
    """Write the progress of a study as HTML: a bar with the cells that are done, their outcomes and the time left."""
    counts = board.counts
    total = sum(counts.values())
    head, outcomes = board.summary()
    value = total - counts["waiting"] - counts["running"]
    return f"<progress value={value} max={total}></progress> {escape(head)}<br><small>{escape(outcomes)}</small>"


def _notebook_draw() -> Draw:
    shown: Any = importlib.import_module("IPython.display")  # the kernel has it
    handle = shown.display(shown.HTML(""), display_id=True)
    return lambda board: handle.update(shown.HTML(bar(board)))


@contextlib.contextmanager
def watching(console: Console, study: Study, store: Store, *, total: int) -> Iterator[Lines]:
    """Show the progress of a run, as console or notebook allow.

    Args:
        console: prints lines, or the board.
        study: the cells' study, as it will stand in its folder.
        store: the study's folder.
        total: number of cells to be run.
    """
    show = _out_option(store.folder)
    with contextlib.ExitStack() as stack:
        if total and _is_notebook():
            draw = _notebook_draw()
        elif total and _redraws(console):
            live = stack.enter_context(Live(console=console, auto_refresh=False))
            draw = lambda board: live.update(board, refresh=True)  # noqa: E731
        else:
            yield Lines(console, study, total=total, show=show)
            return
        board = fill_board(Board(study), store)
        live_board = LiveBoard(console, study, total=total, show=show, store=store, board=board, draw=draw)
        live_board.draw()
        yield live_board
        live_board.draw()


def _out_option(folder: Path) -> str:
    """Return the option for a study's place; empty for the default."""
    return "" if folder.parent == Path("runs") else f" --out {folder.parent}"

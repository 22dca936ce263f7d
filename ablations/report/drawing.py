"""Figure files: PDF for papers, PNG for pages."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import itertools
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from ablations.report.kinds import FIGURES, FigureSpec, importance
from ablations.report.panels import draw_panels
from ablations.store import replacing

FORMATS: dict[str, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}}
"""File extension to its metadata: without a date, equal figures give equal files."""

MOST_FIGURES = 500
"""Largest number of figures of a report."""

LONGEST_STEM = 150
"""Bytes of the longest name of a figure's file that is not cut; a file system allows 255, with the extension."""

DPI = 160
"""Resolution of the PNG."""

MOST_PROCESSES = 8

LEAST_PARALLEL = 4
"""Smallest number of figures that are drawn by several processes."""


Job = tuple[Path, list[FigureSpec], tuple[str, ...]]
"""Path of a figure without the extension, its panels, and the caveats below it."""


@dataclass(frozen=True)
class DrawnFigure:
    """A written figure.

    Args:
        title: title for the page.
        condition: name of its condition.
        png: content of the PNG, which another report may overwrite before the page embeds it.
        files: paths, one per format in `FORMATS`.
    """

    title: str
    condition: str
    png: bytes
    files: list[Path]


class Drawn(NamedTuple):
    """Figures of a report.

    Args:
        figures: written figures.
        num_removed: number of figures that were removed.
        num_left_out: number of figures above `MOST_FIGURES`, which are not drawn.
    """

    figures: list[DrawnFigure]
    num_removed: int
    num_left_out: int


@contextlib.contextmanager
def drawing(folder: Path, specs: Iterable[FigureSpec], caveats: Sequence[str]) -> Iterator[Callable[[], Drawn]]:
    """Draw figures into files, several at once, while the block runs.

    Concurrent calls for the same folder are safe: each file is complete, and the last call's version remains.

    Args:
        folder: target folder.
        specs: figures to draw; consecutive ones with equal name, part and condition become panels of one figure.
        caveats: sentences below each figure.

    Yields:
        Function that waits for the figures, removes the files of figures that no longer exist, and returns both.
    """
    folder.mkdir(exist_ok=True)
    stems: list[str] = []
    jobs: list[Job] = []
    groups = itertools.groupby(specs, lambda spec: (spec.name, spec.part, spec.condition))
    figures = [(key, list(group)) for key, group in groups]
    ranked = sorted(range(len(figures)), key=lambda place: importance(figures[place][0][0]))  # stable
    for place in sorted(ranked[:MOST_FIGURES]):
        (name, part, condition), panels = figures[place]
        stem = _stem("-".join(filter(None, [name, part, condition])))
        while stem in stems:  # two conditions may differ only in a replaced character
            stem += "_"
        stems.append(stem)
        jobs.append((folder / stem, panels, tuple(caveats)))
    with _writing(jobs) as written:
        yield lambda: _finished(folder, written(), len(figures) - len(jobs))


def _stem(name: str) -> str:
    """Return the stem of a figure's files; the end of a long one is a hash of the whole.

    >>> _stem("lr_sensitivity-depth=2, width=64")
    'lr_sensitivity-depth=2_width=64'
    """
    stem = re.sub(r"[^\w.=-]+", "_", name)
    if len(stem.encode()) <= LONGEST_STEM:
        return stem
    start = stem.encode()[:LONGEST_STEM].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _finished(folder: Path, figures: list[DrawnFigure], num_left_out: int) -> Drawn:
    """Remove the files of figures that no longer exist."""
    written = {file for figure in figures for file in figure.files}
    ours = re.compile(rf"({'|'.join(FIGURES)})(?![a-z_]).*\.({'|'.join(FORMATS)})")
    gone = [path for path in set(folder.iterdir()) - written if ours.fullmatch(path.name)]
    for path in gone:
        path.unlink(missing_ok=True)
    return Drawn(figures, len({path.stem for path in gone}), num_left_out)


@contextlib.contextmanager
def _writing(jobs: Sequence[Job]) -> Iterator[Callable[[], list[DrawnFigure]]]:
    """Start to draw, and yield a function that waits for the figures."""
    num_processes = min(os.cpu_count() or 1, MOST_PROCESSES, len(jobs))
    if sys.platform != "linux" or len(jobs) < LEAST_PARALLEL or num_processes < 2:
        yield lambda: [_write(*job) for job in jobs]
        return
    # Forked, because a figure takes half a second and the imports of a new process take four. Forked processes also
    # inherit the jobs, which are then not pickled.
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_processes, mp_context=fork, initializer=_begin, initargs=(jobs, os.getpid())) as pool:
        drawn = [pool.submit(_write_job, place) for place in range(len(jobs))]
        try:
            yield lambda: [one.result() for one in drawn]
        except BaseException:  # also on an interrupt: finish the figures in progress and cancel the others
            pool.shutdown(cancel_futures=True)
            raise


_shared: Sequence[Job] = ()
"""Jobs of the pool, set in each of its processes."""


PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl: the signal to receive when the parent dies."""


def _begin(jobs: Sequence[Job], parent: int) -> None:
    """Store the jobs, ignore interrupts and terminate with the parent.

    If the parent is killed, the process would otherwise block for ever on returning its figure, because it inherits the
    reading end of the pipe.
    """
    global _shared
    _shared = jobs
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent was killed before prctl
        os._exit(1)


def _write_job(place: int) -> DrawnFigure:
    return _write(*_shared[place])


def _write(stem: Path, panels: list[FigureSpec], caveats: tuple[str, ...]) -> DrawnFigure:
    figure = draw_panels(panels, caveats)
    written: dict[Path, bytes] = {}
    for extension in FORMATS:
        path = stem.with_name(f"{stem.name}.{extension}")
        written[path] = _render(figure, extension)
        figure.set_layout_engine("none")  # keep the layout of the first format
        with replacing(path) as scratch:
            scratch.write_bytes(written[path])
    png, *_ = written.values()
    return DrawnFigure(panels[0].title, panels[0].condition, png, list(written))


def _render(figure: Figure, extension: str) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=extension, dpi=DPI, metadata=FORMATS[extension])
    return content.getvalue()

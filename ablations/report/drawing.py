"""The figures as files: PDF for papers, PNG for pages."""

from __future__ import annotations

import ctypes
import io
import itertools
import multiprocessing
import os
import re
import signal
import sys
import textwrap
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ablations.report.gallery import DRAW, Picture
from ablations.store import replacing

FORMATS: dict[str, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}}
"""Extension of a figure's files to their metadata: without a date, equal figures are equal files."""

PANEL_WIDTH = 3.2
"""Inches of each of several pictures side by side."""

DPI = 160
"""Of the PNG."""

CAVEAT_COLUMNS = 15
"""Letters of a caveat to the inch."""

MOST_PROCESSES = 8

FEWEST = 4
"""Figures that are worth processes of their own."""


Job = tuple[Path, list[Picture], tuple[str, ...]]
"""Files without their extension, the panels of a figure, and the caveats below it."""


@dataclass(frozen=True)
class DrawnFigure:
    """A figure that has been written.

    Args:
        title: what it shows.
        condition: its condition.
        png: as it was written, for the page: another report may be writing the same file.
        files: one of each of `FORMATS`.
    """

    title: str
    condition: str
    png: bytes
    files: list[Path]


def write_figures(folder: Path, pictures: Iterable[Picture], caveats: Sequence[str]) -> list[DrawnFigure]:
    """Draw pictures into files, several at a time; those of conditions and probes that are no more are removed.

    Two may write into the same folder at the same time: a file is whole, and the last to come has it.

    Args:
        folder: where to.
        pictures: what to draw; those that follow one another with the same name, part and condition, panels of one
            figure, stand side by side.
        caveats: sentences that stand below each figure.
    """
    folder.mkdir(exist_ok=True)
    stems: list[str] = []
    jobs: list[Job] = []
    for (name, part, condition), group in itertools.groupby(pictures, lambda p: (p.name, p.part, p.condition)):
        stem = re.sub(r"[^\w.=-]+", "_", "-".join(filter(None, [name, part, condition])))
        while stem in stems:  # two conditions may differ in a character that no file's name should have
            stem += "_"
        stems.append(stem)
        jobs.append((folder / stem, list(group), tuple(caveats)))
    drawn = _write_all(jobs)
    written = {file for figure in drawn for file in figure.files}
    for path in folder.iterdir():
        if path.suffix[1:] in FORMATS and re.match(rf"({'|'.join(DRAW)})(?![a-z_])", path.stem) and path not in written:
            path.unlink(missing_ok=True)
    return drawn


def _write_all(jobs: Sequence[Job]) -> list[DrawnFigure]:
    num_processes = min(os.cpu_count() or 1, MOST_PROCESSES, len(jobs))
    if sys.platform != "linux" or len(jobs) < FEWEST or num_processes < 2:
        return [_write(*job) for job in jobs]
    # Forked, not started afresh: each figure takes half a second, and to load what draws it takes four. What is drawn
    # is in the memory that they share, and not sent.
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_processes, mp_context=fork, initializer=_begin, initargs=(jobs, os.getpid())) as pool:
        drawn = [pool.submit(_write_job, place) for place in range(len(jobs))]
        try:
            return [one.result() for one in drawn]
        except BaseException:  # an interrupt too waits for the figures that are being drawn, and for no other
            pool.shutdown(cancel_futures=True)
            raise


_shared: Sequence[Job] = ()
"""In a process of the pool, what there is to draw."""


PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that comes when the parent has died."""


def _begin(jobs: Sequence[Job], parent: int) -> None:
    """Take what there is to draw, leave interrupts to the parent, and end with it.

    Without that the process would wait for ever to hand over its figure when the parent is killed: it holds the reading
    end of the pipe itself.
    """
    global _shared
    _shared = jobs
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before
        os._exit(1)


def _write_job(place: int) -> DrawnFigure:
    return _write(*_shared[place])


def _write(stem: Path, panels: list[Picture], caveats: tuple[str, ...]) -> DrawnFigure:
    figure = draw_panels(panels, caveats)
    written: dict[Path, bytes] = {}
    for extension, metadata in FORMATS.items():
        content = io.BytesIO()
        figure.savefig(content, format=extension, dpi=DPI, metadata=metadata)
        figure.set_layout_engine("none")  # it stays as it was laid out for the first format
        path = stem.with_name(f"{stem.name}.{extension}")
        with replacing(path) as scratch:
            scratch.write_bytes(content.getvalue())
        written[path] = content.getvalue()
    png, *_ = written.values()
    return DrawnFigure(panels[0].title, panels[0].condition, png, list(written))


def draw_panels(panels: list[Picture], caveats: tuple[str, ...]) -> Figure:
    """Draw pictures side by side on one page, with the caveats below."""
    width, height = panels[0].size
    if len(panels) > 1:
        width = max(width, PANEL_WIDTH * len(panels) + 1)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    captions: list[str] = []
    for i, (panel, own) in enumerate(zip(panels, axes, strict=True)):
        panel.draw(own)
        if len(panels) > 1:
            caption, *rest = own.get_title(loc="left").split("\n")  # what it says of all stands above them all, once
            captions.append(caption)
            own.set_title("", loc="left")
            own.set_title("\n".join([panel.panel, *rest]), fontsize="small")
            if i:
                own.set_ylabel("")
                own.tick_params(which="both", labelleft=False)
            if i < len(panels) - 1 and (legend := own.get_legend()) is not None:
                legend.remove()
    limits = [own.get_ylim() for own in axes]  # not shared before they are drawn: the last one's would hold for all
    for own in axes:
        own.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    above = list(dict.fromkeys(filter(None, [panels[0].condition, *captions])))
    if above:
        figure.suptitle("\n".join(above), fontsize="medium" if not captions else "small")
    if caveats:
        lines = [line for caveat in caveats for line in textwrap.wrap(caveat, int(CAVEAT_COLUMNS * width))]
        figure.supxlabel("\n".join(lines), fontsize="x-small", color="0.35")
    return figure

"""Panels of a figure: next to each other, and in rows of a few arms each if there are many."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.config.privacy import private
from ablations.report.arm_rows import ArmRow, num_without_row, rows_of
from ablations.report.gallery import MOST_HEIGHT, FigureSpec
from ablations.report.text import figure_label, figure_text

PANEL_WIDTH = 3.2
"""Width of a panel, in inches."""

MOST_WIDTH = 300.0
"""Largest width of a figure, in inches."""

CAVEAT_COLUMNS, CAPTION_COLUMNS = 15, 15
"""Characters of a caveat, and of a caption above rows of panels, per inch."""

ROW_HEIGHT, IMAGE_HEIGHT = 2.3, 2.8
"""Least height of a row of a few arms, and height of a row of images, in inches."""

LINE, ENTRY, ROOM = 0.14, 0.07, 0.2
"""Height of a line of a legend, the space between two entries, and that between the legends of two rows, in inches."""

MOST_ACROSS, ACROSS = 11, 6
"""Largest number of panels in a single row, and in each row if there are more."""

MAPS_ACROSS = 4
"""Largest number of heat maps in a row."""

OWN_HEIGHTS = ("failure_explained",)
"""Figures whose panels show different quantities, each on its own scale."""


def draw_panels(panels: list[FigureSpec], caveats: tuple[str, ...]) -> Figure:
    """Draw panels next to each other in one figure, with the caveats below.

    Arms that are too many for one panel are drawn a few in each row; panels that are too many for one row, such as
    images with the detections of every arm, continue in the next.

    Args:
        panels: at least one panel, all of the same figure.
        caveats: sentences below the panels.
    """
    if rows := rows_of([panel.frame for panel in panels], panels[0].arm_rows):
        return _draw_arm_rows(panels, rows, caveats)
    width, height = panels[0].size
    most, some = (MAPS_ACROSS, MAPS_ACROSS) if panels[0].name == "probes_over_steps" else (MOST_ACROSS, ACROSS)
    across = len(panels) if len(panels) <= most else some
    lines = [panels[at : at + across] for at in range(0, len(panels), across)]
    if len(panels) > 1:
        width = min(max(width, PANEL_WIDTH * across + 1 + panels[0].label_room), MOST_WIDTH)
    if len(lines) > 1:
        height = min(IMAGE_HEIGHT * len(lines), MOST_HEIGHT)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(len(lines), across, squeeze=False)
    captions: list[str] = []
    for line, axes in zip(lines, grid, strict=True):
        captions += _draw_line(line, list(axes), is_alone=len(panels) == 1)
        for spare in axes[len(line) :]:
            spare.remove()
    own = figure.axes[: len(panels)]
    if panels[0].name not in OWN_HEIGHTS:
        _share_heights(own)
    _share_bar(own)
    _write_around(figure, panels[0].condition, captions, caveats)
    return figure


def _draw_arm_rows(panels: list[FigureSpec], rows: Sequence[ArmRow], caveats: tuple[str, ...]) -> Figure:
    """Draw each row's arms in colour and the others in grey, on the same scales in every row."""
    width = panels[0].size[0]
    if len(panels) > 1:
        width = min(max(width, PANEL_WIDTH * len(panels) + 1 + panels[0].label_room), MOST_WIDTH)
    figure = Figure(figsize=(width, ROW_HEIGHT * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(panels), squeeze=False)
    captions: list[str] = []
    for row, axes in zip(rows, grid, strict=True):
        others = [panel.frame.assign(is_background=~panel.frame["arm"].isin(row.arms)) for panel in panels]
        line = [replace(panel, frame=frame) for panel, frame in zip(panels, others, strict=True)]
        captions += _draw_line(line, list(axes), is_alone=False)
        if (legend := axes[-1].get_legend()) is not None:
            legend.set_title(row.name, {"size": "small", "weight": "bold"})
    has_own_heights = panels[0].name in OWN_HEIGHTS
    for together in grid.T if has_own_heights else [figure.axes]:
        _share_heights(list(together))
    for column in grid.T:
        limits = [axes.get_xlim() for axes in column]
        for axes in column:
            axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
        for axes in column[:-1]:
            axes.set_xlabel("")
            axes.tick_params(which="both", labelbottom=False)
    for axes in grid[1:].flat:  # a panel's name stands above the first row, and what is its own, in each
        axes.set_title("\n".join(axes.get_title().split("\n")[1:]), fontsize="small")
    if not has_own_heights:
        figure.supylabel(grid[0, 0].get_ylabel(), fontsize="medium")
    for axes in grid[:, 0] if not has_own_heights else ():
        axes.set_ylabel("")
    count = num_without_row([panel.frame for panel in panels], rows)
    captions += [f"Arms without a row, since there are so many: {count}."] if count else []
    wrapped = [line for caption in captions for line in textwrap.wrap(caption, int(CAPTION_COLUMNS * width))]
    num_above = _write_around(figure, panels[0].condition, wrapped, caveats)
    each = max([ROW_HEIGHT, *(_legend_height(axes) for axes in grid[:, -1])])
    figure.set_size_inches(width, min(each * len(rows) + LINE * (num_above + 3), MOST_HEIGHT))
    return figure


def _draw_line(panels: Sequence[FigureSpec], line: Sequence[Axes], *, is_alone: bool) -> list[str]:
    """Draw panels into a line of axes, and return their captions, which go above all panels, once.

    A panel that is alone in its figure keeps its caption.
    """
    captions = []
    for i, (panel, own) in enumerate(zip(panels, line, strict=False)):
        panel.draw(own)
        if is_alone:
            continue
        caption, *rest = own.get_title(loc="left").split("\n")
        captions.append(caption)
        own.set_title("", loc="left")
        own.set_title("\n".join([figure_label(panel.panel), *rest]), fontsize="small")
        if i and panel.name not in OWN_HEIGHTS:
            own.set_ylabel("")
            own.tick_params(which="both", labelleft=False)
        if i < len(panels) - 1 and (legend := own.get_legend()) is not None:
            legend.remove()
    return captions


def _share_heights(panels: Sequence[Axes]) -> None:
    """Give all panels the same vertical limits; shared axes would take those of the last panel."""
    limits = [axes.get_ylim() for axes in panels]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _share_bar(panels: Sequence[Axes]) -> None:
    """Replace the colour bars of panels with one scale by a single one beside all of them."""
    drawn = [(mesh, mesh.colorbar) for axes in panels for mesh in axes.collections if mesh.colorbar is not None]
    if len(drawn) < 2:
        return
    label = drawn[0][1].ax.get_ylabel()
    for _, bar in drawn:
        bar.remove()
    panels[0].figure.colorbar(drawn[0][0], ax=list(panels), pad=0.01).set_label(label, fontsize="small")


def _write_around(figure: Figure, condition: str, captions: Sequence[str], caveats: tuple[str, ...]) -> int:
    """Write the condition and the captions above the panels and the caveats below; return the number of lines."""
    above = list(dict.fromkeys(filter(None, [figure_label(condition), *captions])))
    if above:
        figure.suptitle("\n".join(above), fontsize="small" if captions else "medium")
    texts, columns = (figure_text(private(caveat)) for caveat in caveats), int(CAVEAT_COLUMNS * figure.get_figwidth())
    below = [line for text in texts for line in textwrap.wrap(text, columns)]
    if below:
        figure.supxlabel("\n".join(below), fontsize="x-small", color="0.35")
    return len(above) + len(below)


def _legend_height(axes: Axes) -> float:
    """Return the height of a legend beside axes, in inches."""
    legend = axes.get_legend()
    texts = [] if legend is None else [legend.get_title().get_text(), *(text.get_text() for text in legend.get_texts())]
    return ROOM + sum(LINE * len(text.split("\n")) + ENTRY for text in texts)

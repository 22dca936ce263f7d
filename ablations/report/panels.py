"""Panels of a figure: next to each other, and in rows of a few arms each if there are many."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.config.escape import figure_label, figure_text
from ablations.config.privacy import private
from ablations.report.arm_rows import ArmRow, num_without_row, rows_of
from ablations.report.kinds import FIGURES, MOST_HEIGHT, FigureSpec

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

SMALL_ROW, SMALL_MARGIN, SMALL_COLUMNS = 0.24, 0.6, 19
"""Height of a row in a small panel, and of its title, in inches, and characters of a line of the title."""

TICKS = 0.5
"""Height of the labels below the lowest small panels, in inches."""

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
    if (most := FIGURES[panels[0].name].across) is not None and len(panels) > 1:
        return _draw_small(panels, most, caveats)
    across = len(panels) if len(panels) <= MOST_ACROSS else ACROSS
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
    if panels[0].name not in OWN_HEIGHTS:
        _share_heights(figure.axes[: len(panels)])
    _write_around(figure, panels[0].condition, captions, caveats)
    return figure


def _draw_small(panels: list[FigureSpec], most: int, caveats: tuple[str, ...]) -> Figure:
    """Draw small panels, which have the same rows, columns and colours, in a figure of normal width."""
    across = min(len(panels), most)
    lines = [panels[at : at + across] for at in range(0, len(panels), across)]
    width = panels[0].size[0]
    figure = Figure(figsize=(width, 1), layout="constrained")
    grid = figure.subplots(len(lines), across, squeeze=False)
    captions: list[str] = []
    for line, axes in zip(lines, grid, strict=True):
        captions += _draw_line(line, list(axes), is_alone=False)
        for spare in axes[len(line) :]:
            spare.remove()
    shown = list(grid.flat)[: len(panels)]
    for axes in shown:
        name, *rest = axes.get_title().split("\n")
        counts = ", ".join(rest).replace(" ", "\N{NO-BREAK SPACE}")
        axes.set_title(textwrap.fill(f"{name} ({counts})", SMALL_COLUMNS), fontsize="small")
    last = across * (len(lines) - 1)
    for place, axes in enumerate(shown[:last]):
        _hide_ticks(axes, has_panel_below=place + across < len(shown))
    _share_colour_bar(shown)
    num_around = _write_around(figure, panels[0].condition, captions, caveats)
    each = SMALL_MARGIN + SMALL_ROW * panels[0].num_rows
    figure.set_size_inches(width, min(each * len(lines) + TICKS + LINE * num_around, MOST_HEIGHT))
    return figure


def _hide_ticks(axes: Axes, *, has_panel_below: bool) -> None:
    """Remove the horizontal labels of axes; without a panel below, write the ticks into its empty place.

    They are outside the layout, which would otherwise make room for them in all columns.
    """
    labels = axes.get_xticklabels()
    axes.set_xlabel("")
    axes.tick_params(which="both", labelbottom=False)
    for label in labels if not has_panel_below else []:
        at = (label.get_position()[0], 0)
        style: dict[str, Any] = {
            "rotation": label.get_rotation(),
            "fontsize": label.get_fontsize(),
            "ha": "center",
            "va": "top",
        }
        text = axes.annotate(
            label.get_text(), at, (0, -3), xycoords=axes.get_xaxis_transform(), textcoords="offset points", **style
        )
        text.set_in_layout(False)


def _share_colour_bar(panels: Sequence[Axes]) -> None:
    """Replace the colour bars of panels, which have the same scale, by one beside all of them."""
    bars = [image.colorbar for axes in panels for image in axes.collections if image.colorbar is not None]
    if not bars:
        return
    image, label, size = bars[0].mappable, bars[0].ax.yaxis.label, bars[0].ax.get_yticklabels()[0].get_fontsize()
    extend = "max" if any(bar.extend == "max" for bar in bars) else "neither"
    for bar in bars:
        bar.remove()
    shared = panels[0].figure.colorbar(image, ax=list(panels), extend=extend, fraction=0.03, pad=0.02)
    shared.set_label(label.get_text(), fontsize=label.get_fontsize())
    shared.ax.tick_params(labelsize=size)


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
    num_above = _write_around(figure, panels[0].condition, captions, caveats)
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


def _write_around(figure: Figure, condition: str, captions: Sequence[str], caveats: tuple[str, ...]) -> int:
    """Write the condition and the captions above the panels and the caveats below; return the number of lines."""
    columns = int(CAPTION_COLUMNS * figure.get_figwidth())
    wrapped = [line for caption in captions for line in textwrap.wrap(caption, columns)]
    above = list(dict.fromkeys(filter(None, [figure_label(condition), *wrapped])))
    if above:
        figure.suptitle("\n".join(above), fontsize="small" if wrapped else "medium")
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

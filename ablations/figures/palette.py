"""Style of an arm, the same in every figure."""

from __future__ import annotations

from typing import Any, NamedTuple

# First row: the "colorblind" palette of seaborn 0.13 (seaborn/palettes.py) without pink and yellow, which are too pale
# for a thin line on white. Second row: colours at least 20 CIELAB units from all before them, in full colour vision and
# in simulated deuteranopia and protanopia (Machado et al. 2009, doi 10.1109/TVCG.2009.113); within the first row the
# smallest distance is 11. Last two rows: at least 13 units from all others, with a contrast to white of 2.2 to 11; the
# order keeps places 15 to 22, and 23 to 30, at least 14 units from each other and from place 0.
COLOURS = (
    *("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9"),
    *("#0000f0", "#000000", "#000048", "#483000", "#0030a8", "#484860", "#3078f0", "#786030"),
    *("#0058b8", "#2810c0", "#d0a0c0", "#5048f0", "#800830", "#38a0f8", "#e0a050", "#d05860"),
    *("#68c090", "#084088", "#205040", "#905000", "#383868", "#707088", "#c07038", "#605888"),
)
MARKERS = ("o", "s", "^", "D", "v", ">", "<")  # 7 is coprime to 32 colours; crosses mark diverged and failed runs
LINESTYLES = ("-", "--", ":", "-.")
SAME_LINESTYLE = 8
"""Number of consecutive arms with the same line style."""


class ArmStyle(NamedTuple):
    """An arm's colour, marker and line style in matplotlib's notation."""

    colour: str
    marker: str
    linestyle: str

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of `Axes.plot` for a line with markers."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.linestyle}


def arm_style(arm_order: int) -> ArmStyle:
    """Return the style of an arm, which depends only on its place in the registry.

    Among 32 arms no two have the same colour, among 128 the same colour and line style, among 224 the same colour and
    marker. The first eight lines are solid.

    >>> arm_style(0)
    ArmStyle(colour='#0173b2', marker='o', linestyle='-')
    >>> arm_style(8)
    ArmStyle(colour='#0000f0', marker='s', linestyle='--')
    """
    line = arm_order // SAME_LINESTYLE + arm_order // len(COLOURS)
    return ArmStyle(
        COLOURS[arm_order % len(COLOURS)], MARKERS[arm_order % len(MARKERS)], LINESTYLES[line % len(LINESTYLES)]
    )

"""Style of an arm, the same in every figure."""

from __future__ import annotations

from typing import Any, NamedTuple

# First row: the "colorblind" palette of seaborn 0.13 (seaborn/palettes.py) without pink and yellow, which are too pale
# for a thin line on white. Second row: colours at least 20 CIELAB units from all before them, in full colour vision and
# in simulated deuteranopia and protanopia (Machado et al. 2009, doi 10.1109/TVCG.2009.113); within the first row the
# smallest distance is 11.
COLOURS = (
    *("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9"),
    *("#0000f0", "#000000", "#000048", "#483000", "#0030a8", "#484860", "#3078f0", "#786030"),
)
MARKERS = ("o", "s", "^", "D", "v", ">", "<")  # 7 is coprime to 16 colours; crosses mark diverged and failed runs
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

    Colour and marker together are unique for 112 arms, colour and line style for 32. The first eight lines are solid.

    >>> arm_style(0)
    ArmStyle(colour='#0173b2', marker='o', linestyle='-')
    >>> arm_style(8)
    ArmStyle(colour='#0000f0', marker='s', linestyle='--')
    """
    return ArmStyle(
        COLOURS[arm_order % len(COLOURS)],
        MARKERS[arm_order % len(MARKERS)],
        LINESTYLES[arm_order // SAME_LINESTYLE % len(LINESTYLES)],
    )

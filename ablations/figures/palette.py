"""How an arm looks: the same in every figure, whatever else is in it."""

from __future__ import annotations

from typing import NamedTuple

# First the "colorblind" palette of seaborn 0.13 (seaborn/palettes.py) without its two palest colours, pink and yellow,
# which a thin line on white does not show. Then colours chosen for their distance from all before them, to full colour
# vision and in simulated deuteranopia and protanopia (Machado et al. 2009, doi 10.1109/TVCG.2009.113): 20 units of
# CIELAB and more, where the first eight come within 11 of each other.
COLOURS = (
    *("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9"),
    *("#0000f0", "#000000", "#000048", "#483000", "#0030a8", "#484860", "#3078f0", "#786030"),
)
MARKERS = ("o", "s", "^", "D", "v", ">", "<")  # seven and sixteen share no factor; crosses are for runs that failed
LINESTYLES = ("-", "--", ":", "-.")
SAME_LINESTYLE = 8
"""Arms in a row that have one line style."""


class ArmStyle(NamedTuple):
    """An arm's colour, marker and line style, as matplotlib spells them."""

    colour: str
    marker: str
    linestyle: str


def arm_style(arm_order: int) -> ArmStyle:
    """Return the style of an arm from its place in the registry alone.

    Colour and marker together differ for 112 arms, colour and line style for 32; the first eight have solid lines.

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

"""How an arm looks: the same in every figure, whatever else is in it."""

from __future__ import annotations

from typing import NamedTuple

# The "colorblind" palette of seaborn 0.13 (seaborn/palettes.py) without its two palest colours, pink and yellow,
# which a thin line on white does not show.
COLOURS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", ">", "<")  # seven and eight share no factor; crosses are kept for runs that failed
LINESTYLES = ("-", "--", ":", "-.")


class ArmStyle(NamedTuple):
    """An arm's colour, marker and line style, as matplotlib spells them."""

    colour: str
    marker: str
    linestyle: str


def arm_style(arm_order: int) -> ArmStyle:
    """Return the style of an arm from its place in the registry alone.

    Colour and marker together differ for 56 arms, colour and line style for 32; the first eight have solid lines.

    >>> arm_style(0)
    ArmStyle(colour='#0173b2', marker='o', linestyle='-')
    >>> arm_style(8)
    ArmStyle(colour='#0173b2', marker='s', linestyle='--')
    """
    return ArmStyle(
        COLOURS[arm_order % len(COLOURS)],
        MARKERS[arm_order % len(MARKERS)],
        LINESTYLES[arm_order // len(COLOURS) % len(LINESTYLES)],
    )

"""The styles of arms: fixed for the places that are taken, and told apart with full and with colour-blind vision."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ablations.figures.palette import COLOURS, MARKERS, arm_style

TAKEN = (
    *(("#0173b2", "o", "-"), ("#de8f05", "s", "-"), ("#029e73", "^", "-"), ("#d55e00", "D", "-")),
    *(("#cc78bc", "v", "-"), ("#ca9161", ">", "-"), ("#949494", "<", "-"), ("#56b4e9", "o", "-")),
    *(("#0000f0", "s", "--"), ("#000000", "^", "--"), ("#000048", "D", "--"), ("#483000", "v", "--")),
    *(("#0030a8", ">", "--"), ("#484860", "<", "--"), ("#3078f0", "o", "--"), ("#786030", "s", "--")),
)
"""Style of the places that published figures have."""

VISION = {  # Machado et al. 2009, doi 10.1109/TVCG.2009.113, severity 1.0, of linear RGB
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""Linear sRGB to CIE XYZ at white point D65 (IEC 61966-2-1)."""


def linear(colours: tuple[str, ...]) -> np.ndarray:
    values = np.array([to_rgb(colour) for colour in colours])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def distances(vision: str) -> np.ndarray:
    """Return the distances between all colours in CIELAB, (colours, colours), as a kind of vision sees them."""
    seen = np.clip(linear(COLOURS) @ np.transpose(VISION[vision]), 0, 1) @ XYZ.T / XYZ.sum(axis=1)
    f = np.where(seen > (6 / 29) ** 3, np.cbrt(seen), seen / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    return np.linalg.norm(lab[:, None] - lab[None], axis=2) + np.diag([np.inf] * len(lab))


def test_the_places_of_published_figures_keep_their_style():
    assert tuple(arm_style(order) for order in range(len(TAKEN))) == TAKEN


def test_no_two_arms_look_the_same():
    assert math.gcd(len(COLOURS), len(MARKERS)) == 1
    assert len({arm_style(order).colour for order in range(32)}) == 32
    assert len({(arm_style(order).colour, arm_style(order).linestyle) for order in range(128)}) == 128
    assert len({arm_style(order)[:2] for order in range(224)}) == 224


def test_distances_are_those_of_cielab():
    apart = distances("full")[COLOURS.index("#000000"), COLOURS.index("#949494")]
    assert apart == pytest.approx(61.32, abs=0.01)  # 116 * 0.29614 ** (1 / 3) - 16, the L* of 148 of 255


@pytest.mark.parametrize("vision", VISION)
def test_colours_are_told_apart(vision):
    apart = distances(vision)
    assert apart[:8, :8].min() > 10.8
    assert min(apart[place, :place].min() for place in range(8, 16)) > 20
    assert apart[16:].min() > 13
    for own in ([0, *range(15, 23)], [0, *range(23, 31)]):
        assert apart[np.ix_(own, own)].min() > 14


def test_new_colours_are_seen_on_white_and_differ_from_black():
    contrast = 1.05 / (linear(COLOURS[16:]) @ XYZ[1] + 0.05)  # WCAG 2.1, contrast ratio to white
    assert contrast.min() > 2.2
    assert contrast.max() < 11

"""Pairs of arms whose difference means something, because they differ in one thing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contrast:
    """Two arms that differ in one thing, so that their difference means something.

    Args:
        arm: the first normaliser's name.
        minus: the second's, subtracted from it.
        isolates: the one thing in which they differ.
    """

    arm: str
    minus: str
    isolates: str


@dataclass(frozen=True)
class Interaction:
    """Two contrasts that isolate the same thing in two places: whether it matters where.

    Args:
        first: a contrast.
        second: the one that is subtracted from it.
        isolates: what their difference tells.
    """

    first: Contrast
    second: Contrast
    isolates: str


CONTRASTS = (
    Contrast("xnorm", "xnorm_fixed", "the gain"),
    Contrast("xnorm", "xnorm_value", "the axis, with a gain"),
    Contrast("xnorm_fixed", "l2", "the axis, without a gain"),
    Contrast("xnorm_value", "l2", "the gain, on the value axis"),
    Contrast("xnorm_fixed", "single_l2", "normalising k^T v"),
    Contrast("xnorm_fixed", "single_l2_kv", "normalising q"),
    Contrast("rmsnorm", "xnorm_fixed", "scale alone"),
    Contrast("layernorm", "rmsnorm", "centring and affine"),
    Contrast("xnorm_fixed", "none", "normalising at all"),
)

INTERACTIONS = (Interaction(CONTRASTS[1], CONTRASTS[2], "whether the axis matters more with a gain"),)

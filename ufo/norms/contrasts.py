"""Contrasts: pairs of normalisers that differ in one factor, and interactions of contrasts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contrast:
    """Two normalisers that differ in one factor, so that their difference measures its effect.

    Args:
        arm: name of the first normaliser.
        minus: name of the second, which is subtracted.
        isolates: factor in which they differ.
    """

    arm: str
    minus: str
    isolates: str


@dataclass(frozen=True)
class Interaction:
    """Difference of two contrasts that isolate the same factor under different conditions.

    Args:
        first: first contrast.
        second: second contrast, which is subtracted.
        isolates: question that the difference answers.
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

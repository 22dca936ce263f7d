"""The registry's contrasts as comparisons of a study's arms."""

from __future__ import annotations

from collections.abc import Iterable

from ablations.analysis import Comparison
from ufo.norms import CONTRASTS, INTERACTIONS


def contrasts_of(compare: str, arms: Iterable[str]) -> dict[Comparison, str]:
    """Map every contrast and interaction of the given arms to the factor that it isolates.

    Args:
        compare: the compared field; only ``norm`` has contrasts.
        arms: arm names.

    >>> list(contrasts_of("norm", ["xnorm", "l2", "xnorm_fixed"]).values())
    ['the gain', 'the axis, without a gain']
    """
    if compare != "norm":
        return {}
    known = {Comparison((c.arm,), (c.minus,)): c.isolates for c in CONTRASTS}
    for both in INTERACTIONS:
        plus, minus = (both.first.arm, both.second.minus), (both.first.minus, both.second.arm)
        known[Comparison(plus, minus)] = both.isolates
    have = set(arms)
    return {comparison: what for comparison, what in known.items() if set(comparison.arms) <= have}

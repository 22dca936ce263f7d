"""Power of the tests of a claim: the difference that its pairs detect, and the seeds that its margin needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ablations.analysis import Detectable, seeds_for


@dataclass(frozen=True, kw_only=True)
class Power:
    """What the pairs of a claim can detect.

    Args:
        pairs: the differences per seed of each comparison, from `ablations.analysis.differences`.
        margin_pct: margin of the claim, in points.
        detectable: detectable difference of the test.
        power: power of one of the claim's tests with which all of them have 80 %.
    """

    pairs: tuple[pd.DataFrame, ...]
    margin_pct: float
    detectable: Detectable
    power: float = 0.8

    def detectable_at(self, alpha: float) -> float:
        """Return the detectable difference, in points, the largest of the comparisons.

        Args:
            alpha: one-sided level.

        Returns:
            NaN if the spread of a comparison is unknown or zero.
        """
        return float(np.max([self.detectable(sd, n, alpha=2 * alpha, power=self.power) for sd, n in self._spreads]))

    def seeds_at(self, alpha: float) -> float:
        """Return the number of seeds that the margin needs, the largest of the comparisons.

        Args:
            alpha: one-sided level.

        Returns:
            NaN if the spread of a comparison is unknown or zero.
        """
        spreads = [sd for sd, _ in self._spreads]
        if any(map(math.isnan, spreads)):
            return math.nan
        return max(
            seeds_for(self.margin_pct, sd, alpha=2 * alpha, power=self.power, detectable=self.detectable)
            for sd in spreads
        )

    @cached_property
    def _spreads(self) -> list[tuple[float, int]]:
        """Standard deviation and number of the differences of each comparison."""
        found = []
        for own in self.pairs:
            values = own["difference_pct"].to_numpy(np.float64)
            is_unknown = own["has_chance"].any() or np.ptp(values) == 0
            found.append((math.nan if is_unknown else float(values.std(ddof=1)), len(values)))
        return found

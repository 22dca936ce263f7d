"""How a cost grows with the number of tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ablations.analysis.inference import t_interval

LINEAR = 1.2
"""Exponent of a cost in the number of tokens up to which it counts as linear; a quadratic one has 2."""


def cost_exponents(costs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Return the exponent b of a cost ~ N^b over the larger half of the numbers of tokens that were measured.

    At few tokens what does not depend on them still counts, so only the larger numbers are looked at: half of them, or
    all where there are two or three. A round that lacks one of them is left out.

    Args:
        costs: of one arm: `quantity`, `tokens`, `round`, `value`; several rounds of a time, one of a count. Rows
            without `tokens` are of a whole net and left out.
        level: confidence of the interval over rounds, in (0, 1).

    Returns:
        One row per quantity with at least two numbers of tokens: `quantity`, `exponent`, `low`, `high`, `rounds`; the
        bounds are the exponent itself where there is one round, or where all rounds give the same.

    >>> costs = pd.DataFrame({"quantity": "multiply_adds", "tokens": [64, 128, 256], "round": 0})
    >>> cost_exponents(costs.assign(value=[64.0**2, 128.0**2, 256.0**2]))["exponent"].round(6).tolist()
    [2.0]
    """
    rows = []
    for quantity, own in costs.dropna(subset="tokens").groupby("quantity", sort=False):
        counts = sorted(own["tokens"].unique())
        large = counts[len(counts) // 2 - (len(counts) < 4) :]
        if len(large) < 2:
            continue
        rounds = [one for _, one in own[own["tokens"].isin(large)].groupby("round") if set(one["tokens"]) == set(large)]
        slopes = [
            np.polyfit(np.log(one["tokens"].astype(np.float64)), np.log(one["value"].astype(np.float64)), 1)[0]
            for one in rounds
        ]
        if not slopes:
            continue
        mean = float(np.mean(slopes))
        low, high = t_interval(slopes, level)
        bounds = {"low": mean, "high": mean} if np.isnan(low) else {"low": low, "high": high}
        rows.append({"quantity": quantity, "exponent": mean, **bounds, "rounds": len(slopes)})
    return pd.DataFrame(rows, columns=["quantity", "exponent", "low", "high", "rounds"])

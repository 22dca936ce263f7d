"""Growth of costs with the number of tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ablations.analysis.inference import one_sided_p, t_interval

LINEAR = 1.2
"""Largest exponent in the number of tokens that counts as linear; a quadratic cost has 2."""


def cost_exponents(costs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Fit the exponent b of cost ~ N^b over the larger half of the measured numbers of tokens.

    At few tokens constant costs dominate, so only the larger half is used, or all if there are two or three. A round
    that lacks one of these numbers is left out.

    Args:
        costs: measurements of one arm: `quantity`, `tokens`, `round`, `value`; several rounds for a time, one for a
            count. Rows without `tokens` belong to a whole net and are left out.
        level: confidence level of the interval over rounds, in (0, 1).

    Returns:
        One row per quantity with at least two numbers of tokens: `quantity`, `exponent`, `low`, `high`, `rounds`, and
        `p_below` and `p_above`, one-sided t tests over rounds that the exponent is below or above `LINEAR`. Both bounds
        are the exponent if there is one round or all rounds agree; one round has no p.

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
        tests = {f"p_{side}": one_sided_p(slopes, LINEAR, below=side == "below") for side in ("below", "above")}
        rows.append({"quantity": quantity, "exponent": mean, **bounds, "rounds": len(slopes), **tests})
    return pd.DataFrame(rows, columns=["quantity", "exponent", "low", "high", "rounds", "p_below", "p_above"])

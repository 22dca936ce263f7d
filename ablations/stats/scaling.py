"""How a cost grows with the number of tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ablations.stats.inference import t_interval


def cost_exponents(costs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Return the exponent b of a cost ~ N^b between half of the numbers of tokens that were measured, the larger one.

    At few tokens what does not depend on them still counts, so only the larger numbers are looked at.

    Args:
        costs: of one arm: `quantity`, `tokens`, `round`, `value`; several rounds of a time, one of a count. Rows
            without `tokens` are of a whole net and left out.
        level: confidence of the interval over rounds, in (0, 1).

    Returns:
        One row per quantity with at least two numbers of tokens: `quantity`, `exponent`, `low`, `high`; the bounds are
        the exponent itself where there is one round.

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
        slopes = [
            np.polyfit(np.log(one["tokens"].astype(np.float64)), np.log(one["value"].astype(np.float64)), 1)[0]
            for _, one in own[own["tokens"].isin(large)].groupby("round")
        ]
        mean = float(np.mean(slopes))
        low, high = t_interval(slopes, level) if len(slopes) > 1 else (mean, mean)
        rows.append({"quantity": quantity, "exponent": mean, "low": low, "high": high})
    return pd.DataFrame(rows, columns=["quantity", "exponent", "low", "high"])

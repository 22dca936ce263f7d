"""Verdicts on claims in words, for tables and for the end of a run."""

from __future__ import annotations

import pandas as pd

from ablations.analysis import ALPHA, LINEAR
from ablations.config.values import plural

TESTS = (
    "tests, all one-sided: better: sign-flip; better than every other: the largest p of the differences, and against "
    "it the smallest, times their number; worse by a margin: t test against it; equivalent: TOST; fails to train: "
    "binomial, of a diverged share of one half; fails at any learning rate: binomial, that less than one fifth of "
    "the range trains, and a trial that trains contradicts it; linear cost: t test of the time's exponent in N "
    f"against {LINEAR} (a quadratic cost has 2), and multiply-adds above it contradict it; less stable: sign-flip, of "
    "the frontiers; explained by scale: the larger p of worse by the margin at the arm's own scale and equivalent at "
    "the matched one, and against it the smaller p against either, times two; a verdict by a trial that trains or by "
    "multiply-adds has no error and no p; t tests hold for differences that are not skewed"
)
SEEDS = (
    "seeds needed: for the claim's margin (0.5 points where it has none) with 80 % power at the family's level and the "
    "spread seen, never for the difference seen"
)


def claim_text(row: pd.Series) -> str:
    """Return a claim with its marks: whether it came late, and where its numbers were known.

    Args:
        row: row of `Results.claims`.
    """
    marks = ["post hoc"] if row["post_hoc"] else []
    marks += [f"numbers known from {row['known_from']}"] if row["known_from"] else []
    return f"{row['claim']} ({'; '.join(marks)})" if marks else str(row["claim"])


def family_text(claims: pd.DataFrame) -> str:
    """Describe the family that the verdicts hold in.

    Args:
        claims: verdicts, as `Results.claims` has them; at least one.
    """
    num_for, num_against = (int(claims[f"num_tests_{verdict}"].iloc[0]) for verdict in ("supported", "contradicted"))
    return (
        f"verdicts: p below {ALPHA} by Holm's method over all claims and conditions, {plural(num_for, 'test')} for and "
        f"{num_against} against, each direction by itself: a false verdict in at most 5 % of studies; alone: the "
        "verdict if the claim were the only one"
    )


def verdict_lines(claims: pd.DataFrame) -> list[str]:
    """Return the verdict on each claim as a line, and first what they hold for; empty without claims.

    Args:
        claims: verdicts, as `Results.claims` has them.
    """
    lines = [] if claims.empty else [family_text(claims)]
    for _, row in claims.iterrows():
        where = f" at {row['condition']}" if row["condition"] else ""
        alone = "" if row["alone"] == row["verdict"] else f" (alone: {row['alone']})"
        lines.append(f"{row['verdict']}{alone}{where}: {claim_text(row)}")
    return lines

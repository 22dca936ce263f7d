"""Tables of the failure map and the frontier, for studies with several learning rates."""

from __future__ import annotations

import math

import pandas as pd

from ablations.analysis import ALPHA, can_decide
from ablations.analysis.results import Results
from ablations.config.values import plural
from ablations.report.notes import looks, sign_flip_text
from ablations.report.text import TextTable, interval, number, p_text
from ablations.report.text_table import Row, text_table

OPEN = "open"
"""Bound of an interval on a side where a seed is censored."""


def frontier_table(results: Results) -> TextTable:
    """Return the largest learning rate at which each arm learns, and its difference to the reference."""
    ref = results.reference

    def write(row: pd.Series) -> Row:
        own = {
            results.compare: results.arm_text(row["arm"]),
            "n": str(row["n"]),
            "frontier lr": _rate(row["frontier_lr"]),
            "95 % interval": _rates(row),
            "below": str(row["num_below"]),
            "above": str(row["num_above"]),
            "gaps": str(row["num_gaps"]),
            "unknown": str(row["num_unknown"]),
        }
        is_reference = row["arm"] == ref
        against = {
            f"decades - {ref}": "ref" if is_reference else number(row["decades"], sign="+"),
            "95 % interval ": interval(row["decades_low"], row["decades_high"], sign="+"),
            "pairs": "" if is_reference else str(row["num_pairs"]),
            "tied": "" if is_reference else str(row["num_tied"]),
            "p Holm": p_text(row["p_holm"]),
        }
        return own | (against if ref else {})

    table = results.frontier
    notes = [
        "frontier: largest tested learning rate at which a cell learns, geometric mean over seeds; a frontier is only "
        "known to lie between two tested rates, so the interval reaches from the t bound of the lower to that of the "
        f"upper ones; {OPEN}: a seed learns at no tested rate (below; placed one grid step below the smallest) or at "
        "the largest (above; placed there); gaps: seeds that fail at a rate below their frontier; unknown: seeds with "
        "a failed or missing cell above the largest rate that learns",
    ]
    tested = table[table["p"].notna()]
    if len(tested):
        notes.append(
            "decades: mean paired difference of log10, to the resolution of the tested rates, with its t interval, "
            "empty if all are equal; tied: pairs that are censored on the same side, whose difference is unknown and "
            f"counts as 0; p: {sign_flip_text(tested['num_pairs'])}, Holm over {plural(len(tested), 'comparison')}; "
            f"in bold: below {ALPHA}"
        )
        short = sum(not can_decide(int(pairs), len(tested)) for pairs in tested["num_pairs"])
        notes += [f"comparisons whose pairs are too few for p Holm to reach {ALPHA}: {short}"] if short else []
        notes += looks(results, table.rename(columns={"setting": "condition"}))
    title = "Largest learning rate at which each arm learns"
    return text_table("frontier", title, table, write, place="setting", bold=f"decades - {ref}", notes=notes)


def frontier_depth_table(results: Results) -> TextTable:
    """Return the change of each arm's frontier per doubling of the depth."""

    def write(row: pd.Series) -> Row:
        return {
            results.compare: results.arm_text(row["arm"]),
            "n": str(row["n"]),
            "decades per doubling": number(row["decades_per_doubling"], sign="+"),
            "95 % interval": interval(row["low"], row["high"], sign="+"),
            "censored": str(row["num_censored"]),
        }

    notes = [
        "slope of log10 of the frontier over log2 of the depth, by least squares per seed; mean over seeds and t "
        "interval, empty if all slopes are equal; censored: frontiers at an edge of the tested rates, which make a "
        "slope unreliable; seeds without a known frontier at every depth are left out"
    ]
    title = "Change of the frontier per doubling of the depth"
    return text_table("frontier_depth", title, results.frontier_depth, write, place="setting", notes=notes)


def failure_map_table(results: Results) -> TextTable:
    """Return the cells that learn and their training loss, per condition and arm; no row without a frontier."""

    def write(row: pd.Series) -> Row:
        return {
            results.compare: results.arm_text(row["arm"]),
            "lr": _rate(row["lr"]),
            "learned": f"{row['num_learned']} of {row['n']}",
            "95 % interval": interval(row["low"], row["high"]),
            "train loss": _loss(row["train_loss"]),
            "excess": _loss(row["excess_loss"]),
            "missing": str(row["num_missing"]),
        }

    table = results.failure_map if len(results.frontier) else results.failure_map.iloc[:0]
    notes = [
        "learned: cells with outcome ok, of those that did not fail, with Wilson's interval of their share; train "
        "loss: of the last epoch that a cell ran, mean over seeds, empty if one is not finite; excess: over the "
        "smallest of any arm in the row's condition; missing: seeds without a result"
    ]
    return text_table("failure_map", "Cells that learn", table, write, place="setting", notes=notes)


def _rate(value: float) -> str:
    """Format a learning rate; empty for NaN.

    >>> _rate(0.0031622), _rate(float("nan"))
    ('0.00316', '')
    """
    return "" if math.isnan(value) else f"{value:.3g}"


def _loss(value: float) -> str:
    """Format a loss with four significant digits; empty for NaN.

    >>> _loss(2.30259), _loss(1e6)
    ('2.303', '1e+06')
    """
    return "" if math.isnan(value) else f"{value:.4g}"


def _rates(row: pd.Series) -> str:
    """Format the interval of a frontier; empty for fewer than two seeds."""
    if row["n"] < 2:
        return ""
    low = OPEN if row["num_below"] else _rate(row["low"])
    high = OPEN if row["num_above"] else _rate(row["high"])
    return f"[{low}, {high}]"

"""Notes below the tables: tests, power, pairing, tuning and caveats in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ablations.analysis import ALPHA, CHANCE_KINDS, MOST_EXACT, coverage
from ablations.analysis.results import Results
from ablations.config import Study
from ablations.config.values import plural
from ufo.norms import NORMS

MOST_SIMULATED = 100
"""Largest number of pairs whose coverage is simulated: from 80 on it is kept for every distribution."""

SETTING_FIELDS = ("precision", "deterministic", "cudnn_benchmark", "cuda_graph")
"""Fields of a cell that determine the recorded settings of CUDA."""


def main_notes(results: Results) -> list[str]:
    """Return the notes of the main table, the caveats of its arms last."""
    table, cells, measure = results.table, results.cells, results.measure
    notes = [
        f"{measure}: mean over seeds at the last epoch; brackets: 95 % t intervals; differences are paired by seed"
    ]
    pairs = table.loc[table["p"].notna()]
    if num_comparisons := len(pairs):
        family = plural(num_comparisons, "comparison")
        notes.append(
            f"p: {sign_flip_text(pairs['num_pairs'])}, Holm over {family}; in bold or asterisks: p below {ALPHA}"
        )
    if results.reference is not None and len(table):
        notes += [*_lacking(results), detectable_text(pairs["detectable_pct"]), *_coverage(pairs)]
        notes += [pairing_text(results)] if num_comparisons else []
    notes += looks(results, table) + tuned_notes(results)
    chance = ", ".join(f"{level:g} %" for level in sorted(cells["chance_pct"].unique()))
    counts = {
        "cells of this study without a readable result": len(results.missing),
        "failed cells, whose pairs are left out": int((cells["outcome"] == "failed").sum()),
        f"diverged cells scored as chance ({chance}), whose means carry no interval": int(
            cells["kind"].isin(CHANCE_KINDS).sum()
        ),
        f"cells that did not learn, which keep the {measure} measured": int((cells["kind"] == "no_learning").sum()),
        "stale cells, which come from another version of the numerics": int(cells["stale"].sum()),
        "pairs of a stale cell and a fresh one": int(table["num_pairs_mixed"].sum()),
    }
    notes += [f"{what}: {count}" for what, count in counts.items() if count]
    notes += _machine_notes(results) + _plugin_notes(results)
    return notes + list(results.problems) + list(results.caveats)


def _plugin_notes(results: Results) -> list[str]:
    """Name the normalisers whose plug-in is not imported."""
    norms = [norm for study in results.studies for norm in study.axes["norm"] if norm not in NORMS]
    names = ", ".join(dict.fromkeys(norms))
    why = "reading a study imports no plug-in"
    return [f"it is not known whether cells of {names} are stale, since {why}"] if names else []


def _machine_notes(results: Results) -> list[str]:
    """Warn of cells, and of pairs of cells, that were computed differently without having been asked to be."""
    parts = {"device": "devices", "cuda_settings": "settings of CUDA", "torch": "versions of torch"}
    if any(len(study.axes.get(field, [])) > 1 for study in results.studies for field in SETTING_FIELDS):
        del parts["cuda_settings"]  # they differ on request
    cells, pairing = results.cells, results.pairing
    notes = [
        f"cells were run {how} different {what}: {'; '.join(sorted(cells[field].unique()))}"
        for field, what in parts.items()
        for how in ("on" if field == "device" else "with",)
        if cells[field].nunique() > 1
    ]
    if all(study.axes.get("stack", [1]) == [1] for study in results.studies):
        parts["stacked_seeds"] = "stacks"
    mixed = {what: int((pairing["num_pairs"] - pairing[f"num_same_{field}"]).sum()) for field, what in parts.items()}
    return notes + [f"pairs of cells of different {what}: {count}" for what, count in mixed.items() if count]


def tuned_notes(results: Results) -> list[str]:
    """Describe the tuning of the arms; empty without one."""
    if not len(results.trials):
        return []
    notes = []
    for study in results.studies:
        if study.search is None:
            continue
        own = results.of_study(results.tuned, study)
        points = "; ".join(f"{p.arm} {_point(p.values)}" for p in study.points if p.arm in study.arm_names)
        if points and not study.is_tuning:
            notes.append(f"each arm has its own tuned values: {points}")
        notes += [points_text(study, own), *edge_notes(own)]
        if num_stale := int(results.of_study(results.trials, study)["stale"].sum()):
            notes.append(f"stale trials, which come from another version of the numerics: {num_stale}")
        notes += [
            f"alarm: on its own seeds {row['arm']} scores {row['confirmed_pct']:.2f} % on validation, where its "
            f"winning trial had {row['best_pct']:.2f} %: a lucky trial, or one at the edge of what trains"
            for row in own[own["is_short"]].to_dict("records")
        ]
        lost = own.loc[own["num_diverged"] + own["num_failed"] == own["num_trials"], "arm"]
        if len(lost):
            best = "the winner of such an arm is the one with the highest score, of equal ones the longest"
            notes.append(f"every trial of {', '.join(lost)} diverged or failed: {best}")
    return notes


def points_text(study: Study, tuned: pd.DataFrame) -> str:
    """Describe the source of a tuning's points and the selection of winners.

    Args:
        study: the tuning, or the study of its winners.
        tuned: rows of `Results.tuned` for that study.
    """
    assert study.search is not None, "nothing was tuned"
    counts = sorted({int(n) for n in tuned["num_trials"] - tuned["num_failed"]})
    budget = plural(counts[0], "trial") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} trials, no equal budget,"
    how = f"at the same points (scrambled Sobol, seed {study.search.seed})"
    if study.search.sampler == "tpe":
        how = (
            "at points that TPE chose from the arm's own results after the first, so that arms are not compared at the "
            "same points, shares and sensitivities depend on results, and fewer trials have no expected best,"
        )
    return (
        f"tuning: {budget} of every arm {how} of {study.search}; each winner is the trial of the highest validation "
        f"{study.metric.name} at the last epoch, and no trial has read the test split"
    )


def edge_notes(tuned: pd.DataFrame) -> list[str]:
    """Return an alarm for each end of a range at which best values lie."""
    ends: dict[str, list[str]] = {}
    for row in tuned.to_dict("records"):
        for edge in filter(None, str(row["edges"]).split(", ")):
            ends.setdefault(edge, []).append(str(row["arm"]))
    return [
        f"alarm: the best {edge.split()[0]} of {', '.join(arms)} lies at the {edge.split()[1]} end of its range; a "
        "better one may lie beyond"
        for edge, arms in ends.items()
    ]


def _point(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{field} {value:g}" for field, value in values.items())


def sign_flip_text(num_pairs: pd.Series[int]) -> str:
    """Name the method behind the p values: exact, or random patterns for many pairs."""
    how = "exact" if num_pairs.max() <= MOST_EXACT else f"exact up to {MOST_EXACT} pairs, above that drawn,"
    return f"{how} sign-flip permutation"


def detectable_text(points: pd.Series[float]) -> str:
    """Describe the detectable differences.

    Args:
        points: detectable difference of each comparison; infinite if none is detectable, NaN if unknown.

    >>> detectable_text(pd.Series([0.5, 1.25])).partition(": ")[2]
    '0.50 to 1.25 points'
    """
    what = "what could have been detected, with 80 % power at these spreads: "
    known, parts = points[points.map(math.isfinite)], []
    if points.empty:
        return f"{what}nothing, for there is no complete pair"
    if len(known):
        low, high = (f"{known.min():.2f}", f"{known.max():.2f}")
        parts.append(f"{low if low == high else f'{low} to {high}'} points")
    counts = {
        "no difference, however large: too few seeds": int(points.map(math.isinf).sum()),
        "not known: chance scores have entered, or all differences are equal": int(points.isna().sum()),
    }
    for why, n in counts.items():
        if n:
            parts.append(why if n == len(points) else f"{why} (in {plural(n, 'comparison')})")
    return what + "; ".join(parts)


def looks(results: Results, table: pd.DataFrame | None) -> list[str]:
    """Count the extensions of each study after results were visible, and the differences that remain at a lower alpha.

    Args:
        results: results of the studies.
        table: comparisons with `p_holm` and `supported`; None if the p values are not from one family of tests.
    """
    notes = []
    for study in results.studies:
        if not study.num_looks:
            continue
        note = (
            f"{study.name} was extended {plural(study.num_looks, 'time')} after results could be "
            "seen; p are not adjusted for these looks"
        )
        if table is not None:
            alpha, own = ALPHA / (study.num_looks + 1), results.of_study(table, study)
            note += (
                f": at {ALPHA} / {study.num_looks + 1} = {alpha:.4f} {int((own['p_holm'] < alpha).sum())} of "
                f"{int(own['supported'].sum())} supported differences remain"
            )
        notes.append(note)
    return notes


def pairing_text(results: Results) -> str:
    """Count the pairs that share weights, batches and split, and describe the correlation of their scores."""
    pairs = results.pairing
    total = int(pairs["num_pairs"].sum())
    if not total:
        return "pairing: there is no complete pair"
    init, split, batches = (int(pairs[f"num_same_{what}"].sum()) for what in ("init", "split", "batches"))
    said = (
        f"pairing, of {total} pairs: {init} share every initial weight outside the normaliser, "
        f"{batches} every batch and its augmentation, {split} the split"
    )
    known = pairs["correlation"].dropna()
    if known.empty:
        return said
    low, high = f"{known.min():+.2f}", f"{known.max():+.2f}"
    num_above = int((pairs["correlation_low"] > 0).sum())
    by_chance = total - int(pairs["num_pairs_without_chance"].sum())
    return (
        f"{said}; scores of a pair correlate by {low if low == high else f'{low} to {high}'}, "
        f"with a 95 % interval above 0 in {num_above} of {len(known)} comparisons"
        + (f" (pairs with a chance score left out: {by_chance})" if by_chance else "")
    )


def _lacking(results: Results) -> list[str]:
    """Name the conditions in which the reference has no cell."""
    has = results.cells.groupby("condition", sort=False)["arm"].agg(lambda arms: results.reference in set(arms))
    lacking = [str(condition) for condition, is_there in has.items() if not is_there]
    never = [condition for condition in lacking if results.reference not in results.arms_asked.get(condition, [])]
    notes = []
    for what, where in (("has ended", [each for each in lacking if each not in never]), ("is asked for", never)):
        at = f" at {'; '.join(where)}" if len(has) > 1 else ""
        notes += [f"no cell of {results.reference} {what}{at}: there are no differences to it"] if where else []
    return notes


def _coverage(pairs: pd.DataFrame) -> list[str]:
    """Name the distributions for which a 95 % t interval misses its nominal coverage at these numbers of pairs."""
    num_pairs = pairs.loc[pairs["difference_low_pct"].notna(), "num_pairs"]  # pairs with an interval
    table = coverage(sorted({int(n) for n in num_pairs if n <= MOST_SIMULATED}))
    short = table[~table["is_kept"]]
    return [
        f"95 % t intervals over {own['n'].iloc[0]} pairs cover the truth as they should where differences are normal; "
        + ", ".join(f"where they are {row.distribution}, in {row.coverage_pct:.1f} %" for row in own.itertuples())
        + " of simulated studies: the sign-flip p, not the interval, decides"
        for _, own in short.groupby("n")
    ]

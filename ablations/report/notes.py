"""What must be read with the numbers, in sentences."""

from __future__ import annotations

import pandas as pd

from ablations.report.tables import detectable_text, sign_flip_text
from ablations.results import Results
from ablations.stats import ALPHA, CHANCE_KINDS, coverage


def main_notes(results: Results) -> list[str]:
    """Return what must be read with the main table, the caveats of its arms last."""
    table, cells = results.table, results.cells
    notes = ["accuracy: mean over seeds at the last epoch; brackets: 95 % t intervals; differences are paired by seed"]
    pairs = table.loc[table["p"].notna()]
    if num_comparisons := len(pairs):
        family = f"{num_comparisons} comparison{'s' * (num_comparisons > 1)}"
        notes.append(
            f"p: {sign_flip_text(pairs['num_pairs'])}, Holm over {family}; in bold or asterisks: p below {ALPHA}"
        )
        notes += [detectable_text(pairs["detectable_pct"]), *_coverage(pairs["num_pairs"]), _pairing(results)]
        notes += _looks(results)
    chance = ", ".join(f"{level:g} %" for level in sorted(cells["chance_pct"].unique()))
    counts = {
        "cells of this study have not been run": len(results.missing),
        "cells failed; their pairs are left out": int((cells["outcome"] == "failed").sum()),
        f"cells diverged and are scored as chance, {chance}; their means carry no interval": int(
            cells["kind"].isin(CHANCE_KINDS).sum()
        ),
        "cells did not learn; they keep the accuracy measured": int((cells["kind"] == "no_learning").sum()),
        "cells come from other sources than these (stale)": int(cells["stale"].sum()),
        "pairs join a stale cell and a fresh one": int(table["num_pairs_mixed"].sum()),
    }
    notes += [f"{count} {what}" for what, count in counts.items() if count]
    for field, what in (("device", "devices"), ("torch", "versions of torch")):
        if cells[field].nunique() > 1:
            notes.append(f"cells were run on different {what}: {', '.join(sorted(cells[field].unique()))}")
    for column, what in (("num_same_device", "devices"), ("num_same_torch", "versions of torch")):
        if num_mixed := int((results.pairing["num_pairs"] - results.pairing[column]).sum()):
            notes.append(f"{num_mixed} pairs join cells of different {what}")
    return notes + list(results.problems) + list(results.caveats)


def _coverage(num_pairs: pd.Series[int]) -> list[str]:
    """Say for which differences a 95 % t interval does not keep its promise, at the numbers of pairs that there are."""
    table = coverage(sorted({int(n) for n in num_pairs if n > 1}))
    short = table[~table["is_kept"]]
    return [
        f"95 % t intervals over {own['n'].iloc[0]} pairs cover the truth as they should where differences are normal; "
        + ", ".join(f"where they are {row.distribution}, in {row.coverage_pct:.1f} %" for row in own.itertuples())
        + " of simulated studies: the sign-flip p, not the interval, decides"
        for _, own in short.groupby("n")
    ]


def _pairing(results: Results) -> str:
    pairs = results.pairing
    total = int(pairs["num_pairs"].sum())
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
    return (
        f"{said}; scores of a pair correlate by {low if low == high else f'{low} to {high}'}, "
        f"with a 95 % interval above 0 in {num_above} of {len(known)} comparisons"
    )


def _looks(results: Results) -> list[str]:
    """Count how often the studies were extended when results could be seen, and say what survives a stricter alpha."""
    notes = []
    for study in results.studies:
        if not study.num_looks:
            continue
        alpha = ALPHA / (study.num_looks + 1)
        own = results.of_study(results.table, study)
        kept = int((own["p_holm"] < alpha).sum())
        notes.append(
            f"{study.name} was extended {study.num_looks} time{'s' * (study.num_looks > 1)} after results could be "
            f"seen; p are not adjusted for these looks: at {ALPHA} / {study.num_looks + 1} = {alpha:.4f} {kept} of "
            f"{int(own['supported'].sum())} supported differences remain"
        )
    return notes

"""Tables of a report as text: columns and notes."""

from __future__ import annotations

import math

import pandas as pd

from ablations.analysis import STABLE_OVER
from ablations.analysis.caveats import other_differences
from ablations.analysis.results import Results
from ablations.config.claim import TRIAL_KINDS
from ablations.config.task import average_precisions
from ablations.config.values import plural
from ablations.report.notes import detectable_text, looks, sign_flip_text, tuned_notes
from ablations.report.text import TextTable, interval, number, p_text, seeds_text
from ablations.report.text_table import Row, text_table
from ablations.report.verdicts import SEEDS, TESTS, claim_text, family_text


def main_table(results: Results, notes: list[str]) -> TextTable:
    """Return the main table: each arm's mean and its difference to the reference."""
    ref = results.reference

    def write(row: pd.Series) -> Row:
        own = {
            results.compare: results.arm_text(row["arm"]),
            "n": str(row["n"]),
            _test_column(results): number(row["mean_pct"]),
            "95 % interval": interval(row["low_pct"], row["high_pct"]),
        }
        against = {
            f"- {ref}": "ref" if row["is_reference"] else number(row["difference_pct"], sign="+"),
            "95 % interval ": interval(row["difference_low_pct"], row["difference_high_pct"], sign="+"),
            "p Holm": p_text(row["p_holm"]),
        }
        return own | (against if ref else {}) | {"div.": str(row["num_diverged"]), "fail": str(row["num_failed"])}

    return text_table("main", f"Test {results.measure} by arm", results.table, write, bold=f"- {ref}", notes=notes)


def _test_column(results: Results) -> str:
    """Return the head of the column with the test metric."""
    return "test %" if results.measure == "accuracy" else f"test {results.measure}"


def precisions_table(results: Results) -> TextTable:
    """Return the average precisions of detectors, as means over seeds."""
    cells = results.cells[results.cells["outcome"] != "failed"]
    figures = average_precisions(results.studies[0].metric)
    names = {figure: figure.removesuffix("_pct").replace("_", " ").replace("ap", "AP") for figure in figures}
    columns = {f"test_{figure}": name for figure, name in names.items()}
    means = cells.groupby(["condition", "arm"], sort=False)[list(columns)].mean(numeric_only=False).reset_index()

    def write(row: pd.Series) -> Row:
        known = {head: number(row[column]) for column, head in columns.items()}
        return {results.compare: results.arm_text(row["arm"]), **known}

    notes = [
        "AP: average precision over IoU 0.50 to 0.95, mean over categories and seeds, as COCO computes it; AP50, AP75: "
        "at one IoU; small, medium, large: of objects of up to 32 x 32, up to 96 x 96 and more px; empty where there "
        "are none; cells that ended before their test have none"
    ]
    return text_table("precisions", "Average precisions", means, write, notes=notes)


def details_table(results: Results) -> TextTable:
    """Return further statistics of each arm: spread, pairs, tests, power, failures."""

    def write(row: pd.Series) -> Row:
        return {
            results.compare: results.arm_text(row["arm"]),
            "median %": number(row["median_pct"]),
            "sd": number(row["sd_pct"]),
            "pairs": str(row["num_pairs"]) if not row["is_reference"] else "",
            "left out": str(row["num_pairs_left_out"]) if not row["is_reference"] else "",
            "won": number(row["won_share"]),
            "p": p_text(row["p"]),
            "p equivalent": p_text(row["equivalence_p"]),
            "detectable": "none" if math.isinf(row["detectable_pct"]) else number(row["detectable_pct"]),
            "diverged": f"{row['num_diverged']} of {row['n']}",
            "95 % interval": interval(row["diverged_low_share"], row["diverged_high_share"]),
            "failed": f"{row['num_failed']} of {row['n'] + row['num_failed']}",
            "95 % interval ": interval(row["failed_low_share"], row["failed_high_share"]),
        }

    notes = [
        "won: share of pairs above the reference, a tie counts half; p: before adjustment; p equivalent: TOST within "
        "0.5 points; detectable: points, with 80 % power; diverged: of the cells that did not fail; failed: of all; "
        "both with Wilson's interval of the share"
    ]
    return text_table("details", "Each arm in detail", results.table, write, notes=notes)


def success_table(results: Results) -> TextTable:
    """Return the secondary analysis: only cells with outcome ok."""

    def write(row: pd.Series) -> Row:
        is_reference = row["is_reference"]
        return {
            results.compare: results.arm_text(row["arm"]),
            "n ok": str(row["success_n"]),
            _test_column(results): number(row["success_mean_pct"]),
            "95 % interval": interval(row["success_low_pct"], row["success_high_pct"]),
            "pairs ok": "" if is_reference else str(row["success_num_pairs"]),
            f"- {results.reference}": "ref" if is_reference else number(row["success_difference_pct"], sign="+"),
            "95 % interval ": interval(row["success_difference_low_pct"], row["success_difference_high_pct"], sign="+"),
        }

    notes = ["secondary: over the cells that ended ok alone; an arm that often fails shows its lucky seeds here"]
    pairs = results.table.loc[results.table["success_num_pairs"] > 0, "success_detectable_pct"]
    notes += [detectable_text(pairs)] if len(pairs) else []
    return text_table("success", "Given success", results.table, write, notes=notes)


def contrasts_table(results: Results) -> TextTable:
    """Return the contrasts: differences of arms that differ in one thing."""

    def write(row: pd.Series) -> Row:
        return {
            "difference": str(row["comparison"]),
            "isolates": str(row["isolates"]),
            "pairs": str(row["num_pairs"]),
            "points": number(row["difference_pct"], sign="+"),
            "95 % interval": interval(row["difference_low_pct"], row["difference_high_pct"], sign="+"),
            "p Holm": p_text(row["p_holm"]),
        }

    table = results.contrasts
    tested = table[table["p"].notna()]
    family = f"the {plural(len(tested), 'contrast')} of this table"
    notes = [f"p: {sign_flip_text(tested['num_pairs'])}, Holm over {family}; in bold: below 0.05"]
    notes += [detectable_text(tested["detectable_pct"]), *looks(results, table)]
    notes += ["each arm at its own tuned values, which may differ too"] if results.searched else []
    notes += [line for study in results.studies for line in other_differences(study)]
    counts = {
        "pairs left out, since a cell of them failed or is missing": "num_pairs_left_out",
        "pairs with a chance score, whose mean carries no interval": "num_pairs_chance",
        "pairs of a stale cell and a fresh one": "num_pairs_mixed",
    }
    sums = {what: int(table[column].sum()) for what, column in counts.items()}
    notes += [f"{what}: {count}" for what, count in sums.items() if count]
    return text_table("contrasts", "Contrasts", results.contrasts, write, bold="points", notes=notes)


def claims_table(results: Results) -> TextTable:
    """Return the verdicts on the claims."""

    def write(row: pd.Series) -> Row:
        return {
            "claim": claim_text(row),
            "verdict": str(row["verdict"]),
            "alone": str(row["alone"]),
            "p for": p_text(row["p_supported_holm"]),
            "p against": p_text(row["p_contradicted_holm"]),
            "evidence": str(row["evidence"]),
            "seeds needed": seeds_text(row["seeds_for_margin"]),
            "source": str(row["source"]),
        }

    notes = [family_text(results.claims), TESTS, SEEDS] if len(results.claims) else []
    known = results.claims["detectable_pct"].dropna()
    notes += [detectable_text(known)] if len(known) else []
    notes += looks(results, None)
    if results.claims["post_hoc"].any():
        notes.append("post hoc: added or changed when cells had been run, so suggested by what they showed")
    if (results.claims["known_from"] != "").any():
        notes.append("numbers known from a study: it had results of these very cells before the claim was made here")
    return text_table("claims", "Claims", results.claims, write, notes=notes)


def pairing_table(results: Results) -> TextTable:
    """Return the checks of the pairing and its benefit."""

    def write(row: pd.Series) -> Row:
        return {
            results.compare: results.arm_text(row["arm"]),
            "pairs": str(row["num_pairs"]),
            "same weights": str(row["num_same_init"]),
            "same batches": str(row["num_same_batches"]),
            "same split": str(row["num_same_split"]),
            "correlation": number(row["correlation"], sign="+"),
            "95 % interval": interval(row["correlation_low"], row["correlation_high"], sign="+"),
            "paired width": number(row["paired_width_pct"]),
            "unpaired width": number(row["unpaired_width_pct"]),
            "seeds saved": "" if math.isnan(row["variance_ratio"]) else f"{row['variance_ratio']:.1f} x",
        }

    notes = [
        "correlation of the paired scores, by Fisher's transformation; widths of the 95 % intervals, in points, paired "
        "and by Welch as if the cells were independent; seeds saved: variance of the difference were they independent "
        "over the paired one: below 1, pairing has cost seeds",
    ]
    by_chance = results.pairing["num_pairs"].sum() - results.pairing["num_pairs_without_chance"].sum()
    notes += [f"pairs with a chance score, left out of both: {by_chance:.0f}"] if by_chance else []
    return text_table("pairing", "What the pairing bought", results.pairing, write, notes=notes)


def power_table(results: Results, delta_pct: float) -> TextTable:
    """Return the seeds that a margin needs and the difference that the present seeds detect."""

    def write(row: pd.Series) -> Row:
        low, high = (seeds_text(row[name]) for name in ("seeds_low", "seeds_high"))
        return {
            "difference": str(row["comparison"]),
            "pairs": str(row["num_pairs"]),
            "sd": number(row["sd_pct"]),
            "95 % interval": interval(row["sd_low_pct"], row["sd_high_pct"]),
            "detectable": "none" if math.isinf(row["detectable_pct"]) else number(row["detectable_pct"]),
            f"seeds for {delta_pct:g}": seeds_text(row["seeds"]),
            "at the sd's bounds": f"{low} to {high}" if low else "",
        }

    table = results.power(delta_pct)
    num_comparisons = max(1, int((table["num_pairs"] > 0).sum()))
    notes = [
        f"80 % power at 0.05 / {num_comparisons}, the number of comparisons; sd of the paired differences in points, "
        "with its chi-square interval; detectable: with the present seeds, none where they are too few for any p to "
        "reach it",
    ]
    return text_table("power", f"Seeds that a difference of {delta_pct:g} points takes", table, write, notes=notes)


def tuning_table(results: Results) -> TextTable:
    """Return each arm's best trial, with the counts and the time of all its trials."""

    def write(row: pd.Series) -> Row:
        return {
            results.compare: results.arm_text(row["arm"]),
            "trials": str(row["num_trials"]),
            "best %": number(row["best_pct"]),
            **({} if results.is_tuning else {"on its seeds %": number(row["confirmed_pct"])}),
            **{field: _best_value(row, field) for field in results.searched},
            "median %": number(row["median_pct"]),
            "best of half": number(row["expected_half_pct"]),
            "div.": str(row["num_diverged"]),
            "95 % interval": interval(row["diverged_low_share"], row["diverged_high_share"]),
            "fail": str(row["num_failed"]),
            "seconds": f"{row['seconds']:.0f}",
        }

    notes = tuned_notes(results) if results.is_tuning else []
    notes += [
        f"validation {results.measure}, and the values that gave the best; on its seeds: the mean of the winner's own; "
        "(low), (high): in the outer tenth of the range, or the outermost that was tried; best of half: what half as "
        "many trials are expected to reach (mean over all subsets, the unbiased estimator of arXiv 2004.13705); "
        "div.: trials that diverged, and Wilson's interval of their share of those that did not fail; seconds: of all "
        "trials of the arm, one after the other",
    ]
    if results.is_tuning:
        notes += [f"trials without a readable result: {len(results.missing)}"] if len(results.missing) else []
        waiting = sum(claim.kind not in TRIAL_KINDS for study in results.studies for claim in study.claims)
        notes += [f"claims that wait for the winners: {waiting}"] if waiting else []
        notes += [*results.problems, *results.caveats]
    return text_table("tuning", "Trials by arm", results.tuned, write, notes=notes)


def _best_value(row: pd.Series, field: str) -> str:
    """Format an arm's best value of a field, with the end of the range if it lies there."""
    ends = [edge.split()[1] for edge in str(row["edges"]).split(", ") if edge.startswith(f"{field} ")]
    return "" if pd.isna(row[field]) else " ".join([f"{row[field]:g}", *(f"({end})" for end in ends)])


def stability_table(results: Results) -> TextTable:
    """Return each arm's sensitivity to the searched fields."""

    def write(row: pd.Series) -> Row:
        cells = {results.compare: results.arm_text(row["arm"])}
        cells |= {f"{field} sensitivity": number(row[f"{field}_sensitivity_pct"]) for field in results.searched}
        for field in (field for field in results.searched if field in STABLE_OVER):
            low, high = row[f"{field}_stable_low"], row[f"{field}_stable_high"]
            cells |= {
                f"{field} stable": "nowhere" if math.isnan(low) else f"{low:.3g} to {high:.3g}",
                "decades": "" if math.isnan(low) else number(math.log10(high / low)),
            }
        return cells

    notes = [
        "sensitivity: points by which the best trial within each part of the range falls short of the best of all, on "
        "average over the parts (after the learning-rate sensitivity of Wortsman et al., arXiv 2309.14322); stable: "
        "the widest range between trials of which none diverged",
    ]
    return text_table("stability", "What each arm's result depends on", results.tuned, write, notes=notes)


def failures_table(results: Results) -> TextTable:
    """Return every diverged or failed cell."""

    def write(row: pd.Series) -> Row:
        return {
            results.compare: results.arm_text(row["arm"]),
            "seed": str(row["seed"]),
            "outcome": f"{row['outcome']}: {row['kind']}",
            "epochs": str(row["epochs_run"]),
            "tries": str(row["num_attempts"]),
            "why": str(row["detail"]),
        }

    return text_table("failures", "Runs that did not end well", results.cells[results.cells["outcome"] != "ok"], write)

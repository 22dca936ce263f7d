"""The numbers against hand computation, scipy, enumeration; the table against what the design promises."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ablations import analysis as stats
from ablations.analysis import inference
from ablations.analysis import table as main_table

CHANCE = 10.0
ORDER = {"xnorm": 0, "l2": 1, "single_l2": 2, "layernorm": 3}


def cell(arm: str, seed: int, score: float, **changes: object) -> dict[str, object]:
    """Return a cell that ended ok, but for the changes."""
    columns: dict[str, object] = {
        "cell": f"{arm}-{seed}-{changes.get('condition', '')}",
        "arm": arm,
        "arm_label": arm.upper(),
        "arm_order": ORDER[arm],
        "condition": "",
        "seed": seed,
        "outcome": "ok",
        "kind": "",
        "score_pct": score,
        "test_accuracy_pct": score,
        "chance_pct": CHANCE,
        "stale": False,
        "init_hash": f"init{seed}",
        "split_hash": "split",
        "batches": f"epoch1-{seed} epoch2-{seed}",
        "device": "cpu",
        "cuda_settings": "none",
        "torch": "2.15.0",
    }
    return columns | changes


def exploded(arm: str, seed: int) -> dict[str, object]:
    return cell(arm, seed, CHANCE, outcome="diverged", kind="exploded")


def oom(arm: str, seed: int) -> dict[str, object]:
    return cell(arm, seed, math.nan, outcome="failed", kind="oom")


def grid(**scores: list[float]) -> list[dict[str, object]]:
    """Return cells that ended ok: each arm's scores, seed by seed."""
    return [cell(arm, seed, score) for arm, row in scores.items() for seed, score in enumerate(row)]


def row(table: pd.DataFrame, arm: str, condition: str = "") -> pd.Series:
    (found,) = [r for _, r in table.iterrows() if (r["arm"], r["condition"]) == (arm, condition)]
    return found


def test_t_interval_is_scipys():
    values = [61.2, 60.1, 63.4, 59.9, 62.0]
    ours = stats.t_interval(values, level=0.9)
    assert ours == pytest.approx(tuple(scipy_stats.ttest_1samp(values, 0).confidence_interval(0.9)))


@pytest.mark.parametrize("values", [[], [3.0]])
def test_t_interval_needs_two_values(values):
    assert np.isnan(stats.t_interval(values)).all()


def test_equal_values_have_no_t_interval():
    assert np.isnan(stats.t_interval([2.0, 2.0, 2.0])).all()
    assert np.isnan(stats.t_interval([0.1 * 3, 0.3])).all()  # equal but for rounding
    assert np.isnan(stats.welch_interval([1.0, 1.0], [2.0, 2.0])).all()


def test_wilson_interval_by_hand():
    """Wilson (1927): centre (x + z^2/2) / (n + z^2), half z / (n + z^2) sqrt(x (n - x) / n + z^2 / 4)."""
    x, n, z = 2, 8, 1.959964
    centre, half = (x + z**2 / 2) / (n + z**2), z / (n + z**2) * math.sqrt(x * (n - x) / n + z**2 / 4)
    assert stats.wilson_interval(x, n) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_wilson_interval_of_nothing_is_nan():
    assert np.isnan(stats.wilson_interval(0, 0)).all()


def test_sign_flip_by_hand():
    # The sums of +-1 +-2 +-4: 7, 5, 3, 1 and mirrors. |1 - 2 + 4| = 3 is reached or passed by 7, 5, 3: 6 of 8.
    assert stats.sign_flip_p([1.0, -2.0, 4.0]) == 6 / 8


@pytest.mark.parametrize("n", [2, 5, 9])
def test_sign_flip_is_scipys_exact_test(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    scipys = scipy_stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert stats.sign_flip_p(d) == pytest.approx(scipys.pvalue)


@pytest.mark.parametrize("n", [6, 8])
def test_sign_flip_keeps_its_level(n):
    """Over all equally likely sign patterns, at most 5 % of the p are <= 0.05: that is what the test promises."""
    d = np.abs(np.random.default_rng(n).normal(size=n))
    p = [stats.sign_flip_p(d * signs) for signs in itertools.product((-1, 1), repeat=n)]
    assert 0 < np.mean(np.array(p) <= 0.05) <= 0.05


@given(st.lists(st.integers(-300, 300), min_size=1, max_size=10))
def test_sign_flip_counts_ties_despite_rounding(steps):
    """Accuracies are multiples of 0.01, whose sums round differently pattern by pattern: integers tell the truth."""
    sums = [
        abs(sum(s * x for s, x in zip(signs, steps, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(steps))
    ]
    exact = sum(s >= abs(sum(steps)) for s in sums) / len(sums)
    assert stats.sign_flip_p([x / 100 for x in steps]) == exact >= stats.smallest_p(len(steps))


def test_sign_flip_draws_above_sixteen():
    d = np.random.default_rng(0).normal(0.4, 1, 17)
    exact = scipy_stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=2**17).pvalue
    p = stats.sign_flip_p(d, seed=1)
    assert p == stats.sign_flip_p(d, seed=1) != stats.sign_flip_p(d, seed=2)
    assert p == pytest.approx(exact, abs=5 * math.sqrt(exact / inference.NUM_FLIPS))  # five standard errors


def test_drawn_p_is_never_zero():
    assert 0 < stats.sign_flip_p(np.ones(40)) <= 2 / (inference.NUM_FLIPS + 1)


def test_sign_flip_edges():
    assert math.isnan(stats.sign_flip_p([]))
    assert stats.sign_flip_p([0.0, 0.0, 0.0]) == 1.0
    assert stats.sign_flip_p(np.zeros(20)) == 1.0
    with pytest.raises(ValueError, match="finite"):
        stats.sign_flip_p([1.0, math.nan])


def test_holm_textbook():
    """Holm (1979), in R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") is 0.05 0.08 0.09 0.09 0.09."""
    assert stats.holm([0.04, 0.01, 0.05, 0.02, 0.03]) == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])


def test_holm_leaves_nan_out():
    assert stats.holm([math.nan, 0.03, 0.02]) == pytest.approx([math.nan, 0.04, 0.04], nan_ok=True)
    assert len(stats.holm([])) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_properties(p):
    adjusted = stats.holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, len(p) * np.array(p))).all()  # never above Bonferroni
    order = np.argsort(p)
    assert (np.diff(adjusted[order]) >= 0).all()
    assert stats.holm(p[::-1]) == pytest.approx(adjusted[::-1])


@pytest.mark.parametrize(("num_comparisons", "seeds"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8), (7, 9), (14, 10)])
def test_seeds_needed(num_comparisons, seeds):
    assert stats.seeds_needed(num_comparisons) == seeds
    assert stats.can_decide(seeds, num_comparisons)
    assert not stats.can_decide(seeds - 1, num_comparisons)


def test_seeds_needed_refuses_level_zero():
    with pytest.raises(ValueError, match="alpha"):
        stats.seeds_needed(1, alpha=0)


@pytest.mark.parametrize("n", [3, 7, 10])
def test_smallest_p_is_reached_by_equal_signs(n):
    assert stats.sign_flip_p(np.arange(1.0, n + 1)) == stats.smallest_p(n)


def test_detectable_difference_from_tables():
    """Cohen (1988), table 2.4.1: a paired t test of size d = 1 needs 10 pairs for 80 % power at two-sided 0.05."""
    assert stats.t_detectable_difference(1.0, 10, alpha=0.05) <= 1.0 < stats.t_detectable_difference(1.0, 9, alpha=0.05)


def test_t_detectable_difference_is_detected_at_its_power():
    d = stats.t_detectable_difference(2.0, 8, alpha=0.05 / 6)
    draws = np.random.default_rng(0).normal(d, 2.0, (20_000, 8))
    power = np.mean(scipy_stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05 / 6)
    assert power == pytest.approx(0.8, abs=0.015)  # five standard errors


@pytest.mark.parametrize(
    ("n", "num_comparisons"), [(6, 1), (7, 2), (8, 1), (8, 2), (8, 4), (8, 6), (9, 12), (10, 9), (12, 3)]
)
def test_what_could_be_detected_is_detected_by_the_test_that_is_made(n, num_comparisons):
    """In 2,000 studies with that difference the exact sign-flip test finds it in 80 %, give or take four errors."""
    alpha = 0.05 / num_comparisons
    d = stats.detectable_difference(2.0, n, alpha=alpha)
    draws = np.random.default_rng(1).normal(d, 2.0, (2000, n))
    assert np.mean([stats.sign_flip_p(own) <= alpha for own in draws]) == pytest.approx(0.8, abs=0.036)


def test_where_all_signs_must_be_equal_the_power_is_known():
    """At 8 pairs and alpha 0.05 / 6 p is small enough only if all signs are equal: for sd 1 in Phi(d)^8 of studies."""
    d = scipy_stats.norm.ppf(0.8 ** (1 / 8))
    assert stats.detectable_difference(1.0, 8, alpha=0.05 / 6) == pytest.approx(d, rel=0.02)


def test_the_two_ways_to_a_detectable_difference_meet():
    """Where simulation ends, at 50 patterns, the t test's power is nearly the same; and so above 16 pairs."""
    for n in (12, 14, 16):
        below, above = (stats.detectable_difference(1.0, n, alpha=k / 2 ** (n - 1)) for k in (49, 50))
        assert below == pytest.approx(above, rel=0.03)
    few, many = (stats.detectable_difference(1.0, n, alpha=0.05) for n in (16, 17))
    assert 0.95 < many / few < 1


def test_detectable_difference_edges():
    assert math.isnan(stats.detectable_difference(1.0, 1, alpha=0.05))
    assert math.isnan(stats.detectable_difference(math.nan, 8, alpha=0.05))
    assert stats.detectable_difference(0.0, 8, alpha=0.05) == 0.0
    assert stats.detectable_difference(3.0, 8, alpha=0.01) == 3 * stats.detectable_difference(1.0, 8, alpha=0.01)
    assert stats.detectable_difference(1.0, 8, alpha=0.05 / 7) == math.inf  # 7 x 2 / 2^8 > 0.05
    assert stats.detectable_difference(1.0, 8, alpha=2 / 2**8) < math.inf
    assert math.isfinite(stats.t_detectable_difference(1.0, 2, alpha=0.05 / 60))  # noncentrality of thousands


def test_differences_are_within_seed_and_condition():
    cells = pd.DataFrame(
        [
            cell("xnorm", 0, 60.0, condition="lr=1"),
            cell("xnorm", 1, 62.0, condition="lr=1"),
            cell("xnorm", 0, 10.0, condition="lr=2"),
            cell("l2", 1, 61.0, condition="lr=1"),
            cell("l2", 0, 63.0, condition="lr=1"),
            cell("l2", 0, 12.0, condition="lr=2"),
            cell("l2", 5, 99.0, condition="lr=2"),
        ]
    ).sample(frac=1, random_state=0)
    table = stats.summarise(cells, "xnorm")
    assert {r["condition"]: (r["num_pairs"], r["difference_pct"]) for _, r in table.iterrows() if r["arm"] == "l2"} == {
        "lr=1": (2, 1.0),
        "lr=2": (1, 2.0),
    }


def test_stale_with_fresh_is_marked():
    cells = pd.DataFrame(grid(xnorm=[60, 60, 60, 60], l2=[61, 61, 61, 61]))
    cells["stale"] = [True, True, False, False, True, False, True, False]
    l2 = row(stats.summarise(cells, "xnorm"), "l2")
    assert (l2["num_pairs"], l2["num_pairs_mixed"], l2["num_stale"]) == (4, 2, 2)


def test_two_cells_of_one_seed_are_refused():
    cells = pd.DataFrame([cell("xnorm", 0, 60.0), cell("l2", 3, 60.0), cell("l2", 3, 61.0)])
    for table in (stats.summarise, stats.pairing_held):
        with pytest.raises(ValueError, match=r"two cells of arm l2.*seed 3"):
            table(cells, "xnorm")


def test_pairing_held_counts_equal_hashes():
    cells = pd.DataFrame([*grid(xnorm=[60, 60, 60], l2=[61, 61, 61], layernorm=[62, 62, 62]), oom("single_l2", 0)])
    cells.loc[4, "init_hash"] = "another"
    cells.loc[8, "torch"] = "2.11.0"
    cells.loc[[2, 5], "cuda_settings"] = ["mps=on", "mps=off"]
    cells.loc[[0, 3], "split_hash"] = ""  # unknown on both sides is not the same
    held = stats.pairing_held(cells, "xnorm")
    assert held.to_dict("list") == {
        "condition": ["", "", ""],
        "arm": ["l2", "single_l2", "layernorm"],
        "num_pairs": [3, 0, 3],
        "num_same_init": [2, 0, 3],
        "num_same_split": [2, 0, 2],
        "num_same_batches": [3, 0, 3],
        "num_same_device": [3, 0, 3],
        "num_same_cuda_settings": [2, 0, 2],
        "num_same_torch": [3, 0, 2],
    }


def test_pairing_held_compares_batches_over_the_epochs_that_both_ran():
    cells = pd.DataFrame(grid(xnorm=[60, 60, 60, 60], l2=[61, 61, 61, 61]))
    cells["batches"] = ["a b c", "a b c", "a b c", "a b c", "a b", "a x", "", "a b c"]
    assert stats.pairing_held(cells, "xnorm")["num_same_batches"].tolist() == [2]


def test_table_by_hand():
    cells = pd.DataFrame(grid(l2=[61.0, 60.0, 64.0], xnorm=[60.0, 60.0, 60.0]))
    table = stats.summarise(cells, "xnorm")
    assert table["arm"].tolist() == ["xnorm", "l2"]
    assert table["is_reference"].tolist() == [True, False]
    l2 = row(table, "l2")
    # mean 185 / 3; deviations -2/3, -5/3, 7/3: variance 13/3; t(0.975, 2) = 4.302653; differences 1, 0, 4.
    half = 4.302653 * math.sqrt(13 / 9)
    expected = {
        "arm_label": "L2",
        "arm_order": 1,
        "n": 3,
        "mean_pct": 185 / 3,
        "median_pct": 61.0,
        "sd_pct": math.sqrt(13 / 3),
        "low_pct": 185 / 3 - half,
        "high_pct": 185 / 3 + half,
        "diverged_share": 0.0,
        "num_pairs": 3,
        "num_pairs_left_out": 0,
        "difference_pct": 5 / 3,
        "difference_low_pct": 5 / 3 - half,
        "difference_high_pct": 5 / 3 + half,
        "p": 0.5,  # 5 and 3 are the largest sums of +-1 +-4: 5 in both of the zero's signs, and mirrors: 4 of 8
        "p_holm": 0.5,
        "won_share": 2.5 / 3,
        "detectable_pct": math.inf,  # three pairs reach 0.25 at best
        "supported": False,
        "success_n": 3,
        "success_num_pairs": 3,
        "success_difference_pct": 5 / 3,
    }
    assert {name: l2[name] for name in expected} == pytest.approx(expected)


def test_reference_row_has_no_comparison():
    xnorm = row(stats.summarise(pd.DataFrame([*grid(xnorm=[60, 61], l2=[59, 58]), oom("xnorm", 2)]), "xnorm"), "xnorm")
    assert (xnorm["num_pairs"], xnorm["num_pairs_left_out"], xnorm["num_failed"]) == (0, 0, 1)
    assert xnorm[["difference_pct", "p", "p_holm", "won_share", "detectable_pct"]].isna().all()
    assert not xnorm["supported"]


def test_oom_costs_only_its_pair():
    scores = {"xnorm": [60.0] * 8, "l2": [61.0, 62, 63, 61, 62, 63, 61, 62], "layernorm": [59.0] * 8}
    whole = stats.summarise(pd.DataFrame(grid(**scores)), "xnorm")
    cells = [c if (c["arm"], c["seed"]) != ("l2", 3) else oom("l2", 3) for c in grid(**scores)]
    table = stats.summarise(pd.DataFrame(cells), "xnorm")
    l2 = row(table, "l2")
    assert (l2["n"], l2["num_failed"], l2["num_diverged"], l2["num_pairs"], l2["num_pairs_left_out"]) == (7, 1, 0, 7, 1)
    assert l2["mean_pct"] == pytest.approx(434 / 7)
    assert l2["p"] == 2 / 2**7
    for arm in ("xnorm", "layernorm"):
        unchanged = ["n", "mean_pct", "low_pct", "num_pairs", "num_pairs_left_out", "difference_pct", "p"]
        pd.testing.assert_series_equal(row(table, arm)[unchanged], row(whole, arm)[unchanged], check_names=False)


def test_pairs_left_out_on_either_side():
    cells = [*grid(xnorm=[60, 60], l2=[61, 61]), oom("xnorm", 2), cell("l2", 2, 61.0), cell("xnorm", 3, 60.0)]
    l2 = row(stats.summarise(pd.DataFrame(cells), "xnorm"), "l2")
    assert (l2["num_pairs"], l2["num_pairs_left_out"], l2["n"]) == (2, 2, 3)  # seed 2 failed there, seed 3 is not here


def test_chance_scores_take_the_intervals_away():
    cells = [
        *grid(xnorm=[60, 61, 62, 60, 61, 62, 60], l2=[61, 62, 63, 61, 62, 63, 61]),
        cell("xnorm", 7, 61.0),
        exploded("l2", 7),
    ]
    table = stats.summarise(pd.DataFrame(cells), "xnorm")
    l2, xnorm = row(table, "l2"), row(table, "xnorm")
    assert l2["mean_pct"] == pytest.approx((433 + 10) / 8)
    assert l2["difference_pct"] == pytest.approx((7 - 51) / 8)
    assert l2[["low_pct", "high_pct", "difference_low_pct", "difference_high_pct", "detectable_pct"]].isna().all()
    assert xnorm[["low_pct", "high_pct"]].notna().all()
    assert (l2["num_diverged"], l2["diverged_share"]) == (1, 1 / 8)
    assert (l2["diverged_low_share"], l2["diverged_high_share"]) == stats.wilson_interval(1, 8)
    assert (l2["success_n"], l2["success_num_pairs"], l2["success_difference_pct"]) == (7, 7, 1.0)
    assert l2["success_mean_pct"] == pytest.approx(433 / 7)
    # Seven wins of 1 against one loss of 51: whatever the signs, the sum is at least 44 away from 0.
    assert (l2["p"], l2["won_share"]) == (1.0, 7 / 8)


def test_a_diverged_reference_takes_the_differences_interval_away():
    cells = [*grid(xnorm=[60, 61], l2=[61, 63, 62]), exploded("xnorm", 2)]
    l2 = row(stats.summarise(pd.DataFrame(cells), "xnorm"), "l2")
    assert l2[["low_pct", "high_pct"]].notna().all()
    assert l2[["difference_low_pct", "difference_high_pct"]].isna().all()


def test_no_learning_keeps_its_measured_value():
    stuck = cell("l2", 2, 11.5, outcome="diverged", kind="no_learning")
    l2 = row(stats.summarise(pd.DataFrame([*grid(xnorm=[60, 61, 62], l2=[61, 63]), stuck]), "xnorm"), "l2")
    assert l2["mean_pct"] == pytest.approx((61 + 63 + 11.5) / 3)
    assert l2[["low_pct", "difference_low_pct"]].notna().all()
    assert (l2["num_diverged"], l2["success_n"], l2["success_difference_pct"]) == (1, 2, 1.5)


def test_failed_cells_are_in_no_share():
    cells = [exploded("l2", 0), cell("l2", 1, 60.0), oom("l2", 2), oom("l2", 3)]
    assert row(stats.summarise(pd.DataFrame(cells), None), "l2")["diverged_share"] == 0.5


def test_conditions_are_never_pooled():
    ones = [c | {"condition": "lr=1"} for c in grid(xnorm=[60, 61, 60], l2=[61, 63, 62])]
    twos = [c | {"condition": "lr=2"} for c in grid(xnorm=[20, 21, 20, 20], l2=[11, 13, 12, 12])]
    both = stats.summarise(pd.DataFrame(twos + ones), "xnorm")
    assert list(zip(both["condition"], both["arm"], strict=True)) == [
        ("lr=2", "xnorm"),
        ("lr=2", "l2"),
        ("lr=1", "xnorm"),
        ("lr=1", "l2"),
    ]
    alone = pd.concat([stats.summarise(pd.DataFrame(cells), "xnorm") for cells in (twos, ones)], ignore_index=True)
    adjusted = ["p_holm"]  # the one column that knows of the whole table
    pd.testing.assert_frame_equal(both.drop(columns=adjusted), alone.drop(columns=adjusted))


def test_holm_is_over_the_whole_table():
    differences = {"l2": [1, 2, 3, 4, 5, 6, 7, 8], "layernorm": [1, 2, 3, 4, 5, 6, 7, -1], "single_l2": [1, -1] * 4}
    scores = {arm: [60.0 + d for d in row] for arm, row in differences.items()}
    cells = [c | {"condition": condition} for condition in ("a", "b") for c in grid(xnorm=[60.0] * 8, **scores)]
    table = stats.summarise(pd.DataFrame(cells), "xnorm")
    compared = table[~table["is_reference"]]
    assert compared["p_holm"].tolist() == stats.holm(compared["p"]).tolist()
    l2 = row(table, "l2", "b")
    assert l2["p_holm"] == 6 * 2 / 2**8  # six comparisons: 8 seeds just suffice
    assert table["supported"].sum() == 2
    sd = np.std(differences["l2"], ddof=1)
    assert l2["detectable_pct"] == stats.detectable_difference(sd, 8, alpha=0.05 / 6)


def test_missing_reference_leaves_nan():
    cells = pd.DataFrame([*grid(l2=[61, 62]), *(c | {"condition": "x"} for c in grid(l2=[61, 60], xnorm=[60, 60]))])
    l2 = row(stats.summarise(cells, "xnorm"), "l2")
    assert (l2["num_pairs"], l2["num_pairs_left_out"], l2["mean_pct"]) == (0, 2, 61.5)
    assert l2[["difference_pct", "difference_low_pct", "p", "p_holm", "won_share", "detectable_pct"]].isna().all()
    assert row(stats.summarise(cells, "xnorm"), "l2", "x")["p_holm"] == 1.0  # the only comparison: 1 and 0


def test_one_arm_alone():
    table = stats.summarise(pd.DataFrame(grid(xnorm=[60.0])), None)
    assert (table["mean_pct"].item(), table["n"].item(), table["num_pairs_left_out"].item()) == (60.0, 1, 0)
    assert table[["sd_pct", "low_pct", "p_holm"]].isna().all(axis=None)


def test_all_failed_is_a_row_of_nan():
    l2 = row(stats.summarise(pd.DataFrame([*grid(xnorm=[60.0]), oom("l2", 0)]), "xnorm"), "l2")
    assert (l2["n"], l2["num_failed"], l2["num_pairs_left_out"]) == (0, 1, 1)
    assert l2[["mean_pct", "diverged_share", "diverged_low_share", "p"]].isna().all()


def test_no_cells_no_rows():
    empty = pd.DataFrame(grid(xnorm=[60.0])).iloc[:0]
    assert list(stats.summarise(empty, "xnorm").columns) == list(main_table.TABLE)
    assert stats.summarise(empty, "xnorm").empty
    assert stats.pairing_held(empty, "xnorm").empty


def test_input_is_left_as_it_was():
    cells = pd.DataFrame([*grid(xnorm=[60, 61], l2=[61, 63]), exploded("single_l2", 0)])
    before = cells.copy()
    stats.summarise(cells, "xnorm")
    stats.pairing_held(cells, "xnorm")
    pd.testing.assert_frame_equal(cells, before)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)))
def test_order_of_rows_does_not_matter(order):
    cells = pd.DataFrame([*grid(xnorm=[60.0, 61, 62], l2=[61.0, 63]), exploded("l2", 2)])
    pd.testing.assert_frame_equal(
        stats.summarise(cells, "xnorm"), stats.summarise(cells.iloc[list(order)], "xnorm"), check_exact=False
    )

"""Comparisons of arms: whatever is compared, the same rules; agreement of what two runs get right."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from ablations import analysis
from ablations.analysis import Comparison
from ablations.analysis.scaling import cost_exponents

AB = Comparison(("a",), ("b",))


def frame(condition: str = "", **scores: list[float | str]) -> pd.DataFrame:
    """Return cells: each arm's scores seed by seed; "nan" diverged, "oom" failed, "stale" is 90 % of other numerics."""
    stories = {"nan": (10.0, "diverged", "nan", False), "oom": (math.nan, "failed", "oom", False)}
    stories["stale"] = (90.0, "ok", "", True)
    rows = []
    for order, (arm, own) in enumerate(scores.items()):
        for seed, story in enumerate(own):
            score, outcome, kind, stale = stories.get(story, (story, "ok", "", False))
            keys = {"condition": condition, "arm": arm, "arm_label": arm.upper(), "arm_order": order, "seed": seed}
            rows.append(keys | {"score_pct": score, "outcome": outcome, "kind": kind, "stale": stale})
    return pd.DataFrame(rows)


def only(table: pd.DataFrame) -> dict[str, object]:
    (row,) = table.to_dict("records")
    return row


def test_the_main_table_and_a_comparison_say_the_same():
    cells = frame(xnorm=[90, 91, 92, 93], l2=[89, "nan", "oom", 93], sima=[91, 93, 92, "stale"])
    main = analysis.summarise(cells, "xnorm").set_index("arm")
    table = analysis.compare(cells, analysis.with_reference(cells, "xnorm")).set_index("comparison")
    for arm in ("l2", "sima"):
        ours, theirs = main.loc[arm, list(table.columns[1:])], table.loc[f"{arm} - xnorm"].iloc[1:]
        pd.testing.assert_series_equal(ours, theirs, check_names=False, check_dtype=False)


def test_a_failed_cell_costs_its_pair_alone():
    row = only(analysis.compare(frame(a=[91, "oom", 93, 94], b=[90, 91, 92, 93]), [AB]))
    assert (row["num_pairs"], row["num_pairs_left_out"], row["difference_pct"]) == (3, 1, 1.0)
    assert row["p"] == 0.25


def test_chance_scores_enter_the_test_and_no_interval():
    row = only(analysis.compare(frame(a=[90, "nan", 90, 90], b=[90.5] * 4), [AB]))
    assert row["difference_pct"] == pytest.approx((-0.5 * 3 - 80.5) / 4)
    assert row["num_pairs_chance"] == 1
    assert row["p"] == 0.125
    for name in ("difference_low_pct", "equivalence_p", "detectable_pct"):
        assert math.isnan(row[name])
    assert (row["success_num_pairs"], row["success_difference_pct"]) == (3, -0.5)
    assert math.isnan(row["success_difference_low_pct"])  # all equal: no spread to make an interval of


def test_what_could_be_detected_is_by_the_pairs_of_each_analysis():
    rng = np.random.default_rng(0)
    a, b = list(rng.normal(90, 1, 8)), list(rng.normal(90, 1, 8))
    whole = only(analysis.compare(frame(a=a, b=b), [AB]))
    assert whole["detectable_pct"] == whole["success_detectable_pct"]
    sd = np.subtract(a, b).std(ddof=1)
    assert whole["detectable_pct"] == pytest.approx(analysis.detectable_difference(sd, 8, alpha=0.05))
    hurt = only(analysis.compare(frame(a=["nan", *a], b=[90.0, *b]), [AB]))
    assert math.isnan(hurt["detectable_pct"])
    assert hurt["success_detectable_pct"] == whole["detectable_pct"]
    few = only(analysis.compare(frame(a=["nan", *a[:5]], b=[90.0, *b[:5]]), [AB]))
    assert few["success_detectable_pct"] == math.inf


def test_an_interaction_is_the_difference_of_two_differences():
    scores = {"a": [95.0, 96.0, 97.5], "b": [90.0, 92.0, 93.0], "c": [80.0, 82.5, 83.0], "d": [79.0, 80.0, 81.0]}
    comparison = Comparison(("a", "d"), ("b", "c"))
    row = only(analysis.compare(frame(**scores), [comparison]))
    by_hand = [(a - b) - (c - d) for a, b, c, d in zip(*scores.values(), strict=True)]
    assert row["comparison"] == "(a - b) - (c - d)"
    assert row["difference_pct"] == pytest.approx(np.mean(by_hand))
    assert (row["difference_low_pct"], row["difference_high_pct"]) == pytest.approx(analysis.t_interval(by_hand))


def test_equal_scores_differ_by_nothing():
    """Sums of these shares differ by 1e-14 from 0, which a sign-flip test would take for eight equal signs."""
    scores = {arm: [100 * x / 360] * 8 for arm, x in zip("abcd", (349, 342, 341, 334), strict=True)}
    row = only(analysis.compare(frame(**scores), [Comparison(("a", "d"), ("b", "c"))]))
    assert (row["difference_pct"], row["p"], row["supported"], row["won_share"]) == (0.0, 1.0, False, 0.5)


def test_differences_without_a_spread_have_neither_interval_nor_power():
    row = only(analysis.compare(frame(a=[91.0] * 8, b=[90.0] * 8), [AB]))
    assert (row["difference_pct"], row["p"]) == (1.0, 2 / 2**8)
    for name in ("difference_low_pct", "difference_high_pct", "detectable_pct"):
        assert math.isnan(row[name])


def test_an_interaction_needs_all_four():
    scores = {"a": [95.0, 96.0], "b": [90.0, 92.0], "c": [80.0, "oom"], "d": [79.0, 80.0]}
    row = only(analysis.compare(frame(**scores), [Comparison(("a", "d"), ("b", "c"))]))
    assert (row["num_pairs"], row["num_pairs_left_out"]) == (1, 1)
    assert analysis.compare(frame(**{k: scores[k] for k in "abc"}), [Comparison(("a", "d"), ("b", "c"))]).empty


def test_holm_counts_every_comparison_of_the_table_over_all_conditions():
    rng = np.random.default_rng(0)
    scores = {"a": list(rng.normal(92, 1, 8)), "b": list(rng.normal(90, 1, 8)), "c": list(rng.normal(90, 1, 8))}
    cells = pd.concat([frame("lr=1", **scores), frame("lr=2", **scores)])
    table = analysis.compare(cells, [AB, Comparison(("a",), ("c",))])
    assert len(table) == 4
    assert table["p_holm"].tolist() == analysis.holm(table["p"].to_numpy()).tolist()
    assert table["p_holm"].min() == pytest.approx(4 * table["p"].min())


def test_conditions_are_never_pooled():
    cells = pd.concat([frame("lr=1", a=[90, 91], b=[80, 82]), frame("lr=2", a=[50, 51], b=[60, 63])])
    table = analysis.compare(cells, [AB]).set_index("condition")
    assert table["difference_pct"].to_dict() == {"lr=1": 9.5, "lr=2": -11.0}
    assert (table["num_pairs"] == 2).all()


def test_a_pair_of_a_stale_and_a_fresh_cell_is_counted():
    row = only(analysis.compare(frame(a=["stale", 91, "stale"], b=[90, 91, "stale"]), [AB]))
    assert (row["num_pairs"], row["num_pairs_mixed"]) == (3, 1)


def test_two_cells_of_one_seed_are_refused():
    cells = pd.concat([frame(a=[90, 91], b=[90, 91]), frame(a=[90])])
    with pytest.raises(ValueError, match="two cells of arm a"):
        analysis.compare(cells, [AB])


def test_rows_of_pairs_carry_what_the_test_says():
    cells = frame(xnorm=[90, 91, 92], l2=[91, 93, 95])
    rows = analysis.paired(cells, analysis.with_reference(cells, "xnorm"))
    assert rows["difference_pct"].tolist() == [1, 2, 3]
    assert rows["mean_pct"].unique().tolist() == [2]
    assert rows["p_holm"].unique().tolist() == [0.25]
    assert rows["arm_order"].unique().tolist() == [1]


def test_no_reference_is_no_comparison():
    cells = frame(a=[90, 91])
    assert analysis.with_reference(cells, None) == []
    assert analysis.compare(cells, []).empty
    assert analysis.paired(cells, []).empty


def correct(**arms: list[list[int]]) -> pd.DataFrame:
    rows = [
        {"condition": "", "arm": arm, "arm_label": arm, "arm_order": i, "seed": seed, "correct": np.array(own, bool)}
        | {"stale": False}
        for i, (arm, seeds) in enumerate(arms.items())
        for seed, own in enumerate(seeds)
    ]
    return pd.DataFrame(rows)


def test_agreement_by_hand():
    cells = correct(a=[[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], b=[[1, 0, 1, 0], [1, 0, 0, 0], [0, 1, 1, 0]])
    table = analysis.agreement(cells).set_index(["arm", "other"])
    assert table.loc[("a", "b"), "disagreement_pct"] == pytest.approx(100 * (2 + 0 + 1) / 12)
    assert table.loc[("a", "a"), "disagreement_pct"] == pytest.approx(100 * (1 + 1 + 2) / 12)
    assert table["num_pairs"].to_dict() == dict.fromkeys(itertools.product("ab", repeat=2), 3)
    assert (table["num_pairs_mixed"] == 0).all()
    assert (table.loc[("a", "b")].iloc[-4:] == table.loc[("b", "a")].iloc[-4:]).all()


def test_the_same_seed_gives_the_same_bootstrap():
    rng = np.random.default_rng(0)
    cells = correct(a=list(rng.random((5, 40)) < 0.8), b=list(rng.random((5, 40)) < 0.8))
    assert analysis.agreement(cells, seed=1).equals(analysis.agreement(cells, seed=1))
    assert not analysis.agreement(cells, seed=1).equals(analysis.agreement(cells, seed=2))


@pytest.mark.slow
def test_the_bootstrap_covers_what_new_seeds_and_new_images_give():
    """Arms that differ at random in 20 % of images: 95 % intervals hold it in nearly 95 % of 200 studies."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        a = rng.random((8, 300)) < 0.5
        flips = rng.random((8, 300)) < 0.2
        table = analysis.agreement(correct(a=list(a), b=list(a ^ flips))).set_index(["arm", "other"])
        low, high = table.loc[("a", "b"), ["low_pct", "high_pct"]]
        hits += low <= 20 <= high
    assert hits / 200 > 0.9


def test_agreement_of_one_seed_has_no_interval():
    table = analysis.agreement(correct(a=[[1, 0]], b=[[1, 1]])).set_index(["arm", "other"])
    assert table.loc[("a", "b"), "disagreement_pct"] == 50
    assert math.isnan(table.loc[("a", "b"), "low_pct"])
    assert table.loc[("a", "a"), "num_pairs"] == 0
    assert analysis.agreement(correct(a=[[1]]).iloc[:0]).empty


def test_agreement_counts_pairs_of_a_stale_and_a_fresh_cell():
    cells = correct(a=[[1, 0], [1, 1], [0, 1]], b=[[1, 1], [1, 0], [0, 0]])
    cells["stale"] = (cells["arm"] == "a") & (cells["seed"] > 0)
    mixed = analysis.agreement(cells).set_index(["arm", "other"])["num_pairs_mixed"].to_dict()
    assert mixed == {("a", "a"): 2, ("a", "b"): 2, ("b", "a"): 2, ("b", "b"): 0}


def test_the_intervals_of_agreement_stay_what_they_were():
    """Values of the loop over every pair of cells, in float32, that the sums over arms have replaced."""
    rng, rows = np.random.default_rng(7), []
    for order, (arm, seeds) in enumerate({"a": [0, 1, 2, 5], "b": [0, 2, 5], "c": [1]}.items()):
        for seed in seeds:
            keys = {"condition": "", "arm": arm, "arm_label": arm, "arm_order": order, "seed": seed, "stale": seed == 2}
            rows.append({**keys, "correct": rng.random(60) < 0.7})
    table = analysis.agreement(pd.DataFrame(rows), seed=3).set_index(["arm", "other"])
    numbers = table[["num_pairs", "num_pairs_mixed", "disagreement_pct", "low_pct", "high_pct"]]
    expected = {
        ("a", "a"): [6, 3, 44.999998807907104, 31.666666269302368, 56.66666677594184],
        ("a", "b"): [3, 0, 42.77777671813965, 31.666669249534607, 53.33333611488342],
        ("a", "c"): [1, 0, 51.66666507720947, math.nan, math.nan],
        ("b", "b"): [3, 2, 50.0, 31.666669324040413, 71.66666984558105],
        ("b", "c"): [0, 0, math.nan, math.nan, math.nan],
        ("c", "c"): [0, 0, math.nan, math.nan, math.nan],
    }
    for pair, values in expected.items():
        assert numbers.loc[pair].tolist() == pytest.approx(values, rel=2e-7, nan_ok=True)
        assert numbers.loc[pair[::-1]].tolist() == pytest.approx(values, rel=2e-7, nan_ok=True)


def test_agreement_of_other_test_sets_is_refused():
    with pytest.raises(ValueError, match="2 and 3 images"):
        analysis.agreement(correct(a=[[1, 0]], b=[[1, 0, 1]]))


def costs(exponent: float, *, rounds: int = 1, noise: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"quantity": "time_s", "tokens": n, "round": r, "value": (100 + n**exponent) * math.exp(rng.normal(0, noise))}
        for r in range(rounds)
        for n in (256, 512, 1024, 2048, 4096)
    ]
    return pd.DataFrame([*rows, {"quantity": "inference_s", "tokens": None, "round": 0, "value": 1.0}])


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_an_exponent_is_that_of_many_tokens(exponent):
    row = only(cost_exponents(costs(exponent)))
    assert row["quantity"] == "time_s"
    assert row["exponent"] == pytest.approx(exponent, abs=0.06)
    assert row["low"] == row["high"] == row["exponent"]


def test_a_round_that_was_cut_short_is_left_out():
    whole = costs(2.0, rounds=3)
    cut = pd.concat([whole, costs(2.0).query("tokens <= 1024").assign(round=3)])
    assert only(cost_exponents(cut)) == only(cost_exponents(whole))
    assert only(cost_exponents(whole))["rounds"] == 3


def test_an_exponent_has_an_interval_over_rounds():
    row = only(cost_exponents(costs(1.0, rounds=5, noise=0.05)))
    assert row["low"] < 1 < row["high"]
    assert row["high"] - row["low"] > 0.01

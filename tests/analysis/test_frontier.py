"""The failure map and the frontier, on numbers made by hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.analysis import failure_map, frontier_change, frontier_table, frontiers, settings_of, wilson_interval

RATES = (0.001, 0.01, 0.1, 1.0)
OUTCOMES = {"o": "ok", "x": "diverged", "f": "failed"}
ARMS = ("xnorm", "l2", "none")


def cells(letters: dict[tuple[str, int], list[str]], rates: tuple[float, ...] = RATES) -> pd.DataFrame:
    """Return cells: for each arm and depth one text a seed, with a letter a rate; a blank has no cell."""
    rows = []
    for (arm, depth), seeds in letters.items():
        for seed, text in enumerate(seeds):
            for lr, letter in zip(rates, text, strict=True):
                if letter != " ":
                    place = {"condition": f"depth={depth}, lr={lr}", "depth": depth, "lr": lr, "seed": seed}
                    name = {"arm": arm, "arm_label": arm.upper(), "arm_order": ARMS.index(arm)}
                    rows.append(name | place | {"outcome": OUTCOMES[letter]})
    return pd.DataFrame(rows)


def row(table: pd.DataFrame, arm: str, setting: str = "depth=4") -> pd.Series:
    (found,) = [own for _, own in table.iterrows() if (own["arm"], own["setting"]) == (arm, setting)]
    return found


def curves_of(frame: pd.DataFrame, losses: list[float]) -> pd.DataFrame:
    """Return two epochs of training loss, of which the last has the given values, and a validation loss."""
    keys = frame[["condition", "arm", "seed"]]
    last = keys.assign(epoch=2, split="train", metric="loss", value=losses)
    others = [keys.assign(epoch=1, split="train", metric="loss", value=9.0)]
    others += [keys.assign(epoch=2, split="val", metric="loss", value=7.0)]
    return pd.concat([last, *others], ignore_index=True)


def test_a_setting_is_a_condition_without_its_learning_rate():
    names = {"lr=0.1": "", "lr=0.1, depth=4": "depth=4", "depth=4, lr=0.1": "depth=4", "": ""}
    names |= {"a=1, lr=0.1, b=2": "a=1, b=2", "min_lr=0.1, lr=0.1": "min_lr=0.1", "lr=0.15": "lr=0.15"}
    names |= {"min_lr=0.1": "min_lr=0.1", "study=a, lr=0.1": "study=a"}
    frame = pd.DataFrame({"condition": list(names), "lr": 0.1}, index=range(5, 5 + len(names)))
    assert settings_of(frame).tolist() == list(names.values())
    assert settings_of(frame).index.tolist() == frame.index.tolist()


@pytest.mark.parametrize(
    ("condition", "setting"),
    [
        ("data=imagefolder:a, lr=0.1, b, lr=0.1, depth=4", "data=imagefolder:a, lr=0.1, b, depth=4"),
        ("lr=0.1, data=imagefolder:a, lr=0.1, b", "data=imagefolder:a, lr=0.1, b"),
        ("data=imagefolder:a, lr=0.1, b", "data=imagefolder:a, lr=0.1, b"),
        ("study=my, lr=0.1, study, lr=0.1", "study=my, lr=0.1, study"),
    ],
)
def test_values_of_other_fields_may_look_like_a_learning_rate(condition, setting):
    frame = pd.DataFrame({"condition": [condition], "data": ["imagefolder:a, lr=0.1, b"], "lr": [0.1]})
    assert settings_of(frame).tolist() == [setting]


def test_without_a_learning_rate_every_condition_is_a_setting():
    frame = pd.DataFrame({"condition": ["depth=4", "depth=8"]})
    assert settings_of(frame).tolist() == ["depth=4", "depth=8"]
    assert settings_of(frame.iloc[:0]).tolist() == []


def test_the_frontier_is_the_largest_rate_that_learns():
    found = frontiers(cells({("xnorm", 4): ["oxxx", "ooxx", "xoxx", "oxox", "oooo", "xxxx"]}))
    assert found["frontier_lr"].tolist() == pytest.approx([0.001, 0.01, 0.01, 0.1, 1.0, 0.0001])
    assert found["log10_lr"].tolist() == pytest.approx([-3, -2, -2, -1, 0, -4])
    assert found["next_lr"].fillna(-1).tolist() == [0.01, 0.1, 0.1, 1.0, -1, 0.001]
    assert found["censored"].tolist() == ["", "", "", "", "above", "below"]
    assert found["gaps"].tolist() == [0, 0, 1, 1, 0, 0]
    assert found["seed"].tolist() == list(range(6))
    assert found.columns.tolist() == [
        *("setting", "arm", "arm_label", "arm_order", "seed", "frontier_lr", "log10_lr", "next_lr"),
        *("censored", "gaps"),
    ]


def test_the_step_below_the_grid_is_that_of_its_two_smallest_rates():
    found = frontiers(cells({("xnorm", 4): ["xxx"]}, rates=(0.03, 0.1, 1.0)))
    assert found["frontier_lr"].tolist() == pytest.approx([0.009])
    assert found["next_lr"].tolist() == [0.03]


def test_a_failed_or_missing_cell_above_the_largest_rate_that_learns_leaves_the_frontier_unknown():
    seeds = ["ooxf", "oox ", "xxfx", " oxx", "fofo", "oxxx"]
    frame = cells({("xnorm", 4): seeds})
    assert frontiers(frame)["seed"].tolist() == [3, 4, 5]
    assert frontiers(frame)["gaps"].tolist() == [0, 0, 0]
    assert row(frontier_table(frame, None), "xnorm")[["n", "num_unknown"]].tolist() == [3, 3]


def test_tested_rates_are_those_of_the_setting_not_of_the_arm():
    frame = cells({("xnorm", 4): ["ooxx"], ("l2", 4): ["oo  "], ("l2", 8): ["  ox"]})
    found = frontiers(frame).set_index(["setting", "arm"])
    assert ("depth=4", "l2") not in found.index
    assert found.loc[("depth=8", "l2"), "next_lr"] == 1.0
    assert row(frontier_table(frame, "xnorm"), "l2")[["n", "num_unknown"]].tolist() == [0, 1]


def test_a_seed_without_any_cell_of_an_arm_is_counted():
    frame = cells({("xnorm", 4): ["ooxx", "ooxx"], ("l2", 4): ["oxxx"]})
    assert row(frontier_table(frame, "xnorm"), "l2")[["n", "num_unknown"]].tolist() == [1, 1]


def test_one_learning_rate_has_no_frontier():
    frame = cells({("xnorm", 4): ["o", "x"], ("l2", 4): ["x", "x"]}, rates=(0.1,))
    for found in (frontiers(frame), frontier_table(frame, "xnorm"), frontier_change(frame)):
        assert not len(found)
    assert (
        frontier_table(frame, "xnorm").columns.tolist()
        == frontier_table(cells({("l2", 4): ["ox"]}, RATES[:2]), None).columns.tolist()
    )
    assert failure_map(frame, curves_of(frame, [1.0] * 4))["share"].tolist() == [0.5, 0.0]


def test_rates_that_are_arms_have_no_frontier():
    frame = cells({("xnorm", 4): ["oo"], ("l2", 4): ["ox"]}, rates=RATES[:2]).assign(condition="")
    frame = frame.assign(arm=frame["lr"].astype(str), seed=range(4))
    assert not len(frontiers(frame))


def test_no_cells_have_no_frontier():
    frame = cells({("xnorm", 4): ["ox"]}, RATES[:2]).iloc[:0]
    curves = curves_of(frame, [])
    assert not sum(map(len, (frontiers(frame), frontier_table(frame, "l2"), frontier_change(frame))))
    assert not len(failure_map(frame, curves))


@pytest.mark.parametrize(
    "function", [frontiers, lambda frame: failure_map(frame, curves_of(frame, [1.0] * len(frame)))]
)
def test_two_cells_of_one_place_are_refused(function):
    frame = cells({("xnorm", 4): ["ooxx"]})
    with pytest.raises(ValueError, match="two cells of arm xnorm"):
        function(pd.concat([frame, frame.iloc[:1]], ignore_index=True))


def test_the_table_has_means_brackets_and_differences():
    frame = cells({("xnorm", 4): ["ooox", "oooo", "ooox"], ("l2", 4): ["oxxx", "ooxx", "oxxx"]})
    table = frontier_table(frame, "xnorm")
    ours, theirs = row(table, "l2"), row(table, "xnorm")
    assert ours["frontier_lr"] == pytest.approx(10 ** (-8 / 3))
    half = 4.302652729911275 * np.std([-3, -2, -3], ddof=1) / math.sqrt(3)
    assert math.log10(ours["low"]) == pytest.approx(-8 / 3 - half)
    assert math.log10(ours["high"]) == pytest.approx(-5 / 3 + half)
    assert ours["num_above"] == 0
    assert theirs["num_above"] == 1
    assert math.isnan(theirs["high"])
    assert math.log10(theirs["low"]) == pytest.approx(-2 / 3 - half)
    assert ours["decades"] == pytest.approx(-2)
    assert ours["p"] == ours["p_holm"] == 0.25
    assert math.isnan(ours["decades_low"])  # equal differences
    assert np.isnan(theirs[["decades", "decades_low", "decades_high", "p", "p_holm"]].astype(float)).all()
    assert (theirs["num_pairs"], ours["num_pairs"], ours["num_tied"]) == (0, 3, 0)


def test_differences_have_a_t_interval():
    frame = cells({("xnorm", 4): ["ooox", "ooox", "ooox"], ("l2", 4): ["oxxx", "ooxx", "oxxx"]})
    half = 4.302652729911275 * np.std([-2, -1, -2], ddof=1) / math.sqrt(3)
    own = row(frontier_table(frame, "xnorm"), "l2")
    assert own[["decades_low", "decades_high"]].tolist() == pytest.approx([-5 / 3 - half, -5 / 3 + half])


def test_seeds_in_one_bracket_have_that_bracket_and_one_seed_has_none():
    table = frontier_table(cells({("xnorm", 4): ["ooxx"] * 8, ("l2", 4): ["oxxx"]}), "xnorm")
    assert row(table, "xnorm")[["low", "high"]].tolist() == pytest.approx([0.01, 0.1])
    assert row(table, "l2")[["low", "high"]].isna().all()


def test_seeds_that_fail_below_their_frontier_are_counted():
    table = frontier_table(
        cells({("xnorm", 4): ["oxxo", "oooo", "xoox"], ("l2", 4): ["oxxx", "ooxx", "xxxx"]}), "xnorm"
    )
    assert row(table, "xnorm")["num_gaps"] == 2
    assert row(table, "l2")["num_gaps"] == 0


def test_seeds_below_the_grid_leave_the_lower_side_open():
    own = row(frontier_table(cells({("xnorm", 4): ["xxxx", "xxxx", "oxxx"]}), None), "xnorm")
    assert (own["num_below"], own["num_above"]) == (2, 0)
    assert math.isnan(own["low"])
    assert own["high"] > 0.001
    assert own["frontier_lr"] == pytest.approx(10 ** (-11 / 3))


def test_pairs_that_are_censored_on_the_same_side_count_as_zero():
    frame = cells({("xnorm", 4): ["oooo", "xxxx", "ooox"], ("l2", 4): ["oooo", "xxxx", "xxxx"]})
    own = row(frontier_table(frame, "xnorm"), "l2")
    assert own["num_tied"] == 2
    assert own["decades"] == pytest.approx((0 + 0 - 3) / 3)
    assert own["p"] == 1.0


def test_opposite_censoring_is_no_tie():
    frame = cells({("xnorm", 4): ["oooo"], ("l2", 4): ["xxxx"]})
    own = row(frontier_table(frame, "xnorm"), "l2")
    assert (own["num_tied"], own["decades"]) == (0, pytest.approx(-4))


def test_holm_covers_all_settings_of_the_table():
    ends = {("xnorm", 4): ["ooox"] * 8, ("l2", 4): ["ooxx"] * 8, ("xnorm", 8): ["ooxx"] * 8, ("l2", 8): ["oxxx"] * 8}
    table = frontier_table(cells(ends), "xnorm")
    assert table["p"].dropna().tolist() == [2 / 256] * 2
    assert table["p_holm"].dropna().tolist() == [4 / 256] * 2
    assert table["supported"].tolist() == [False, True] * 2


def test_only_common_seeds_are_paired():
    frame = cells({("xnorm", 4): ["ooxx", "ooxf", "oooo"], ("l2", 4): ["oxxx", "oxxx", "f  x"]})
    own = row(frontier_table(frame, "xnorm"), "l2")
    assert (own["num_pairs"], own["decades"]) == (1, pytest.approx(-1))


def test_the_change_is_a_slope_per_doubling():
    ends = {("xnorm", 2): ["oooo", "ooox"], ("xnorm", 4): ["ooox", "ooxx"], ("xnorm", 8): ["ooxx", "ooxx"]}
    (own,) = frontier_change(cells(ends)).to_dict("records")
    half = 12.706204736174698 * np.std([-1.0, -0.5], ddof=1) / math.sqrt(2)
    assert own["decades_per_doubling"] == pytest.approx(-0.75)
    assert (own["low"], own["high"]) == (pytest.approx(-0.75 - half), pytest.approx(-0.75 + half))
    assert (own["setting"], own["arm"], own["n"], own["num_censored"]) == ("", "xnorm", 2, 1)


def test_the_change_leaves_out_seeds_that_lack_a_depth_that_others_have():
    ends = {("l2", 2): ["ooox", "ooox"], ("l2", 4): ["ooxx", "ooox"], ("l2", 8): ["oxxx", "fff "]}
    (own,) = frontier_change(cells(ends)).to_dict("records")
    assert (own["n"], own["decades_per_doubling"]) == (1, pytest.approx(-1))
    lost = {("l2", 2): ["ooox", "ooox"], ("l2", 4): ["ooxx", "ooox"], ("l2", 8): ["ffff", "ffff"]}
    (own,) = frontier_change(cells(lost)).to_dict("records")
    assert (own["n"], own["decades_per_doubling"]) == (2, pytest.approx(-0.5))
    alone = {("l2", 2): ["ooox", "ooox"], ("l2", 4): ["ffff", "ffff"]}
    (own,) = frontier_change(cells(alone)).to_dict("records")
    assert own["n"] == 0
    assert math.isnan(own["decades_per_doubling"])


def test_the_change_is_per_combination_of_the_other_axes():
    frame = cells({("l2", 2): ["ooxx"], ("l2", 4): ["ooox"]})
    wide = frame.assign(condition="scale=0.1, " + frame["condition"])
    steep = cells({("l2", 2): ["oxxx"], ("l2", 4): ["ooox"]})
    steep = steep.assign(condition="scale=1.0, " + steep["condition"])
    found = frontier_change(pd.concat([wide, steep], ignore_index=True))
    assert found.set_index("setting")["decades_per_doubling"].to_dict() == {
        "scale=0.1": pytest.approx(1),
        "scale=1.0": pytest.approx(2),
    }


def test_a_depth_that_another_study_lacks_is_no_obstacle():
    frame = cells({("l2", 2): ["ooxx"], ("l2", 4): ["ooox"]})
    frame = frame.assign(condition="study=a, " + frame["condition"])
    other = cells({("l2", 2): ["ooxx"]}).drop(columns="depth")
    other = other.assign(condition=[f"study=b, lr={lr}" for lr in other["lr"]])
    (own,) = frontier_change(pd.concat([frame, other], ignore_index=True)).to_dict("records")
    assert (own["setting"], own["decades_per_doubling"]) == ("study=a", pytest.approx(1))


def test_without_the_axis_there_is_no_change():
    assert not len(frontier_change(cells({("l2", 2): ["ooxx"]})))
    assert not len(frontier_change(cells({("l2", 2): ["ooxx"]}).drop(columns="depth")))


def test_the_map_counts_what_learns_per_condition():
    frame = cells({("xnorm", 4): ["oo", "ox", "of"], ("l2", 4): ["ox", "xx", "x "]}, rates=RATES[:2])
    found = failure_map(frame, curves_of(frame, [1.0] * len(frame)))
    assert found["condition"].unique().tolist() == ["depth=4, lr=0.001", "depth=4, lr=0.01"]
    assert (found["setting"] == "depth=4").all()
    assert found["lr"].tolist() == [0.001, 0.001, 0.01, 0.01]
    assert found["arm"].tolist() == ["xnorm", "l2"] * 2
    assert found["n"].tolist() == [3, 3, 2, 2]
    assert found["num_learned"].tolist() == [3, 1, 1, 0]
    assert found["num_missing"].tolist() == [0, 0, 1, 1]
    assert found["share"].tolist() == pytest.approx([1, 1 / 3, 0.5, 0])
    assert found.loc[1, ["low", "high"]].tolist() == pytest.approx(wilson_interval(1, 3))


def test_the_map_has_the_last_training_loss_and_its_excess():
    frame = cells({("xnorm", 4): ["oo", "oo"], ("l2", 4): ["ox", "of"], ("none", 4): ["xx", "xx"]}, rates=RATES[:2])
    losses = [1.0, 2.0, 2.0, 4.0, 5.0, 1e6, 3.0, math.nan, math.inf, 3.0, 3.0, math.nan]
    found = failure_map(frame, curves_of(frame, losses)).set_index(["lr", "arm"])
    assert found.loc[0.001, "train_loss"].fillna(-1).tolist() == [1.5, 4.0, -1]
    assert found.loc[0.001, "excess_loss"].fillna(-1).tolist() == [0.0, 2.5, -1]
    assert found.loc[0.001, "best_loss"].tolist() == [1.5] * 3
    assert found.loc[0.01, "train_loss"].fillna(-1).tolist() == [3.0, 1e6, -1]  # without the failed cell


def test_the_map_of_failed_cells_and_of_cells_without_curves_is_empty_of_numbers():
    frame = cells({("xnorm", 4): ["ff"], ("l2", 4): ["oo"]}, rates=RATES[:2])
    found = failure_map(frame, curves_of(frame, [1.0] * 4).iloc[:0])
    assert found["n"].tolist() == [0, 1, 0, 1]
    assert found.loc[0, ["share", "low", "high"]].isna().all()
    assert found[["train_loss", "best_loss", "excess_loss"]].isna().all(axis=None)


letters = st.text(alphabet="oxf ", min_size=4, max_size=4)
grids = st.dictionaries(
    st.tuples(st.sampled_from(ARMS), st.sampled_from([2, 4, 8])), st.lists(letters, min_size=1, max_size=4), min_size=1
).filter(lambda grid: any(text.strip() for seeds in grid.values() for text in seeds))


def sorted_rows(frame: pd.DataFrame) -> pd.DataFrame:
    keys = [key for key in ("setting", "condition", "arm", "seed") if key in frame]
    return frame.sort_values(keys, ignore_index=True)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(grids, st.randoms(use_true_random=False))
def test_the_order_of_the_cells_changes_nothing(grid, random):
    frame = cells(grid)
    curves = curves_of(frame, [random.random() for _ in range(len(frame))])
    places = list(range(len(frame)))
    random.shuffle(places)
    mixed = frame.iloc[places]
    for function in (
        frontiers,
        frontier_change,
        lambda own: frontier_table(own, "xnorm"),
        lambda own: failure_map(own, curves.sample(frac=1, random_state=0)),
    ):
        pd.testing.assert_frame_equal(sorted_rows(function(mixed)), sorted_rows(function(frame)))


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(grids, st.sampled_from([0.5, 3.0, 10.0]))
def test_a_factor_of_every_rate_moves_the_frontiers_by_it_and_no_difference(grid, factor):
    def moved(rates: tuple[float, ...]) -> pd.DataFrame:
        return frontier_table(cells(grid, rates), "xnorm")

    ours, theirs = moved(RATES), moved(tuple(factor * rate for rate in RATES))
    for name in ("frontier_lr", "low", "high"):
        np.testing.assert_allclose(theirs[name].astype(float), factor * ours[name].astype(float), rtol=1e-9)
    same = ["n", "num_unknown", "num_below", "num_above", "num_tied", "decades", "decades_low", "p", "p_holm"]
    np.testing.assert_allclose(theirs[same].astype(float), ours[same].astype(float), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(grids)
def test_frontiers_are_those_of_a_loop(grid):
    frame = cells(grid)
    expected = {}
    for setting in frame["condition"].str.partition(", ")[0].unique():
        here = frame[frame["condition"].str.startswith(setting)]
        rates = sorted(here["lr"].unique())
        for (arm, seed), own in here.groupby(["arm", "seed"]):
            known = dict(zip(own["lr"], own["outcome"], strict=True))
            top = max((lr for lr in rates if known.get(lr) == "ok"), default=0.0)
            above = [lr for lr in rates if lr > top]
            if len(rates) > 1 and all(known.get(lr) == "diverged" for lr in above):
                value = top or rates[0] ** 2 / rates[1]
                censored = "below" if not top else "" if above else "above"
                expected[setting, arm, seed] = (value, above[0] if above else -1, censored)
    found = frontiers(frame).fillna(-1)
    have = {
        (row.setting, row.arm, row.seed): (row.frontier_lr, row.next_lr, row.censored) for row in found.itertuples()
    }
    assert have == expected


def drawn(rng: np.random.Generator, means: tuple[float, float], spread: float) -> pd.DataFrame:
    """Return the cells of two arms of eight seeds over ten decades, with normal log10 frontiers around the means."""
    rates = tuple(10.0**power for power in range(-5, 5))
    ends = {}
    for arm, mean in zip(("xnorm", "l2"), means, strict=True):
        frontier = 10 ** (mean + spread * rng.standard_normal(8))
        ends[arm, 4] = ["".join("o" if rate <= each else "x" for rate in rates) for each in frontier]
    return cells(ends, rates)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_intervals_cover_the_truth_within_the_resolution_of_the_grid(spread):
    rng = np.random.default_rng(0)
    num_studies, covered, near = 60, 0, 0
    for _ in range(num_studies):
        mean = rng.uniform(-1, 1)
        own = row(frontier_table(drawn(rng, (0.3, mean), spread), "xnorm"), "l2")
        covered += own["low"] <= 10**mean <= own["high"]
        half = 0.0 if math.isnan(own["decades_low"]) else (own["decades_high"] - own["decades_low"]) / 2
        near += abs(own["decades"] - (mean - 0.3)) <= half + 1  # decade between two rates
    assert covered >= 0.93 * num_studies
    assert near >= 0.93 * num_studies


@pytest.mark.slow
def test_ten_thousand_cells_take_about_a_second():
    grid = {(arm, depth): ["ooxx", "oxxx", "oooo", "xxxx"] * 4 for arm in ARMS for depth in range(2, 54)}
    frame = cells(grid)
    curves = curves_of(frame, [1.0] * len(frame))
    assert len(frame) > 9_900
    started = time.perf_counter()
    frontier_table(frame, "xnorm")
    frontier_change(frame)
    failure_map(frame, curves)
    assert time.perf_counter() - started < 4  # 1 s on an idle core


def test_seeds_that_an_arm_was_not_asked_for_are_not_missing():
    """Here l2 has one seed of three, and perhaps a second one whose cell at the largest rate is missing."""
    frame = cells({("xnorm", 4): ["ooxx", "ooxx", "ooxx"], ("l2", 4): ["ooxx"]})
    assert row(frontier_table(frame, None), "l2")["num_unknown"] == 2
    last = frame["condition"].iloc[-1]
    lacking = pd.DataFrame({"condition": [last], "arm": ["l2"], "seed": [1]})
    for missing, number in ((lacking.iloc[:0], 0), (lacking, 1)):
        assert row(frontier_table(frame, None, missing=missing), "l2")["num_unknown"] == number
        found = failure_map(frame, curves_of(frame, [1.0] * len(frame)), missing=missing)
        assert found.loc[found["arm"] == "l2", "num_missing"].tolist() == [0, 0, 0, number]

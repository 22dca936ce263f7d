"""What trials say, on numbers made by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ablations.analysis import confirmed, expected_best, profile, stable_range, tuned, winners
from ablations.analysis.tuning import sensitivity_pct

RATES = [10 ** (-4 + 2 * (k + 0.5) / 8) for k in range(8)]
"""In the middle of each eighth of 1e-4 to 1e-2."""


def trials(scores: dict[str, list[float]], outcomes: dict[str, str] | None = None, **columns: Any) -> pd.DataFrame:
    """Return trials over the learning rate; of an outcome's letters ``x`` is diverged and ``f`` failed."""
    rows = []
    for order, (arm, own) in enumerate(scores.items()):
        letters = (outcomes or {}).get(arm, "." * len(own))
        for k, (score, letter) in enumerate(zip(own, letters, strict=True)):
            rows.append(
                {
                    "condition": "",
                    "arm": arm,
                    "arm_label": arm.upper(),
                    "arm_order": order,
                    "seed": 10_000 + k,
                    "outcome": {".": "ok", "x": "diverged", "f": "failed"}[letter],
                    "score_pct": None if letter == "f" else score,
                    "val_loss": None if letter != "." else 1.0,
                    "epochs_run": 3,
                    "seconds": 10.0,
                    "lr": RATES[k],
                    "lr_place": (k + 0.5) / 8,
                }
            )
    frame = pd.DataFrame(rows)
    for name, values in columns.items():
        frame[name] = values
    return frame.astype({"score_pct": float, "val_loss": float})


def best_of(frame: pd.DataFrame) -> dict[str, int]:
    return {row["arm"]: row["seed"] - 10_000 for row in winners(frame).to_dict("records")}


def test_the_winner_has_the_highest_score_of_those_that_trained():
    frame = trials({"a": [50.0, 90.0, 70.0], "b": [99.0, 20.0, 30.0]}, {"b": "x.."})
    assert best_of(frame) == {"a": 1, "b": 2}


def test_among_equals_the_lower_loss_wins_and_then_the_earlier_trial():
    frame = trials({"a": [90.0, 90.0, 90.0]}, val_loss=[0.5, 0.3, 0.3])
    assert best_of(frame) == {"a": 1}


def test_where_every_trial_diverged_the_one_that_came_furthest_wins():
    frame = trials({"a": [10.0, 10.0, 10.0]}, {"a": "xxx"}, epochs_run=[0, 4, 2])
    assert best_of(frame) == {"a": 1}


@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")  # which may be of another test
def test_an_arm_whose_trials_all_failed_has_no_winner():
    frame = trials({"a": [1.0, 2.0], "b": [1.0, 2.0]}, {"a": "ff"})
    assert best_of(frame) == {"b": 1}
    table = tuned(frame, ["lr"]).set_index("arm")
    assert math.isnan(table.loc["a", "best_pct"])
    assert math.isnan(table.loc["a", "diverged_share"])
    assert (table.loc["a", "num_failed"], table.loc["a", "edges"]) == (2, "")


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_the_expected_best_is_the_mean_over_all_subsets(n):
    scores = np.random.default_rng(n).random(n) * 100
    frame = expected_best(trials({"a": scores.tolist()}))
    for k in range(1, n + 1):
        subsets = [max(subset) for subset in itertools.combinations(scores, k)]
        assert frame["expected_pct"].iloc[k - 1] == pytest.approx(np.mean(subsets))
    assert frame["k"].tolist() == list(range(1, n + 1))


@pytest.mark.slow
def test_the_expected_best_is_unbiased_where_trials_are_drawn_at_random():
    """Of 3 draws from three values the best is the largest with probability 1 - (2/3)^3, and so on."""
    rng, values, k = np.random.default_rng(0), [0.0, 50.0, 100.0], 3
    truth = 100 * (1 - (2 / 3) ** k) + 50 * ((2 / 3) ** k - (1 / 3) ** k)
    estimates = []
    for _ in range(2000):
        frame = expected_best(trials({"a": rng.choice(values, 6).tolist()}))
        estimates.append(frame["expected_pct"].iloc[k - 1])
    assert np.mean(estimates) == pytest.approx(truth, abs=3 * np.std(estimates) / math.sqrt(2000))


def test_the_profile_is_the_best_of_each_part_and_the_sensitivity_its_mean_shortfall():
    frame = trials({"a": [10.0, 20.0, 80.0, 60.0, 90.0, 70.0, 5.0, 10.0]})
    assert profile(frame, "lr")["score_pct"].tolist() == [20.0, 80.0, 90.0, 10.0]
    assert profile(frame, "lr")["value"].tolist() == [RATES[1], RATES[2], RATES[4], RATES[7]]
    assert sensitivity_pct(frame, "lr") == pytest.approx(90 - (20 + 80 + 90 + 10) / 4)


def test_an_arm_that_does_not_depend_on_the_field_has_no_sensitivity():
    assert sensitivity_pct(trials({"a": [70.0] * 8}), "lr") == 0


@pytest.mark.parametrize(
    ("letters", "first", "last"),
    [
        ("........", 0, 7),
        (".....xxx", 0, 4),
        ("..x....x", 3, 6),
        ("x.x..x..", 3, 4),
        (".xxxxxxx", 0, 0),
        ("..f....x", 0, 6),
    ],
)
def test_the_stable_range_is_the_widest_without_divergence(letters, first, last):
    frame = trials({"a": [50.0] * 8}, {"a": letters})
    assert stable_range(frame, "lr") == (RATES[first], RATES[last])


def test_an_arm_that_always_diverges_is_stable_nowhere():
    low, high = stable_range(trials({"a": [10.0] * 8}, {"a": "x" * 8}), "lr")
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize(("best", "edge"), [(0, "lr low"), (1, ""), (4, ""), (7, "lr high")])
def test_a_best_value_on_the_edge_raises_an_alarm(best, edge):
    frame = trials({"a": [float(50 - abs(k - best)) for k in range(8)]})
    assert tuned(frame, ["lr"])["edges"].tolist() == [edge]


@pytest.mark.parametrize(
    ("places", "edge"), [([0.02, 0.09, 0.5], "lr low"), ([0.98, 0.91, 0.5], "lr high"), ([0.02, 0.11, 0.5], "")]
)
def test_the_outer_tenth_is_the_edge_also_where_others_lie_further_out(places, edge):
    frame = trials({"a": [40.0, 50.0, 30.0]}).assign(lr_place=places)
    assert tuned(frame, ["lr"])["edges"].tolist() == [edge]


def test_the_outermost_trial_is_the_edge_also_where_it_lies_further_in():
    frame = trials({"a": [50.0, 40.0, 30.0]}).assign(lr_place=[0.2, 0.5, 0.6])
    assert tuned(frame, ["lr"])["edges"].tolist() == ["lr low"]


def test_winners_that_fall_short_of_their_trials_are_told_from_those_that_hold():
    table = tuned(trials({"holds": [90.0, 80.0], "lucky": [90.0, 80.0], "none": [90.0, 80.0]}), ["lr"])
    rows = [("holds", 88.0, "ok"), ("holds", 86.0, "ok"), ("lucky", 90.0, "ok"), ("lucky", None, "diverged")]
    cells = pd.DataFrame(rows, columns=["arm", "val_score_pct", "outcome"]).assign(condition="", chance_pct=10.0)
    beside = confirmed(table, cells).set_index("arm")
    assert beside["confirmed_pct"].tolist()[:2] == [87, 50]
    assert beside["is_short"].tolist() == [False, True, False]
    assert math.isnan(beside.loc["none", "confirmed_pct"])


def test_the_table_counts_and_bounds_what_diverged():
    table = tuned(trials({"a": [50.0] * 8}, {"a": "xx.....f"}), ["lr"]).iloc[0]
    assert (table["num_trials"], table["num_diverged"], table["num_failed"]) == (8, 2, 1)
    assert table["diverged_share"] == pytest.approx(2 / 7)
    assert table["diverged_low_share"] < 2 / 7 < table["diverged_high_share"]
    assert table["seconds"] == 80

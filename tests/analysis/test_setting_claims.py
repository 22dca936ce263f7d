"""Claims about a setting as a whole: stability over learning rates, and what the scale explains."""

import math

import numpy as np
import pandas as pd
import pytest
from studies import make_study, make_tuned
from test_claims import BASE, NO_COSTS, WOBBLE, cells, shifted

from ablations import load
from ablations.analysis import seeds_for, t_detectable_difference
from ablations.analysis.claim_case import Case
from ablations.analysis.claims import judge
from ablations.api import read_results
from ablations.config import UsageError
from ablations.config.claim import Claim, merge_claims, parse_claims
from ablations.config.growth import extend
from ablations.config.settings import claims_changed, settings_of
from ablations.store import Store

RATES = (0.001, 0.01, 0.1)
PAIR = {"arm": "l2", "than": "xnorm"}
STABLE = Claim(kind="less_stable_than", **PAIR)
SCALE = Claim(kind="explained_by_scale", margin_pct=1, **PAIR)


def frontier_cells(setting: str, **places: list[int]) -> pd.DataFrame:
    """Return cells whose arms learn up to a place of `RATES` in each seed: 0 at none of them, 3 at all."""
    frames = []
    for place, rate in enumerate(RATES, start=1):
        condition = f"{setting}, lr={rate}".removeprefix(", ")
        scores = {arm: [90.0 if place <= top else "stuck" for top in tops] for arm, tops in places.items()}
        frames.append(cells(condition, **scores).assign(lr=rate))
    return pd.concat(frames, ignore_index=True)


def judged(claim: Claim, frame: pd.DataFrame, settings: dict[str, list[str]]) -> pd.DataFrame:
    arms, conditions = list(frame["arm"].unique()), list(frame["condition"].unique())
    own = {claim.statement: settings}
    return judge([Case(claims=[claim], arms=arms, conditions=conditions, settings=own, cells=frame, costs=NO_COSTS)])


def stability(frame: pd.DataFrame) -> pd.Series:
    (row,) = [row for _, row in judged(STABLE, frame, {"": list(frame["condition"].unique())}).iterrows()]
    return row


def test_a_frontier_below_the_other_in_every_seed_supports_less_stable():
    row = stability(frontier_cells("", xnorm=[2] * 8, l2=[1] * 8))
    assert (row["verdict"], row["p_supported"], row["p_contradicted"]) == ("supported", 1 / 256, 1.0)
    assert row["evidence"].startswith("-1.00 decades, frontiers 0.001")  # all equal: no interval
    assert "frontiers 0.001 and 0.01, 8 pairs; sign-flip" in row["evidence"]
    assert stability(frontier_cells("", xnorm=[1] * 8, l2=[2] * 8))["verdict"] == "contradicted"
    equal = stability(frontier_cells("", xnorm=[2] * 8, l2=[2] * 8))
    assert (equal["verdict"], equal["p_supported"]) == ("undecided", 1.0)


def test_the_p_is_that_of_flipping_the_signs_of_the_differences_in_decades():
    """Differences -1 five times, 0 twice, +1 once: of 2^6 flips of the six, those with a sum of at most -4 are 7."""
    row = stability(frontier_cells("", xnorm=[2, 2, 2, 2, 2, 2, 2, 1], l2=[1, 1, 1, 1, 1, 2, 2, 2]))
    assert row["p_supported"] == pytest.approx(7 / 64)
    assert row["evidence"].startswith("-0.50 decades [-1.13, +0.13], frontiers")


def test_frontiers_beyond_the_same_end_count_as_equal_and_are_counted():
    row = stability(frontier_cells("", xnorm=[3] * 8, l2=[3, 3, 1, 1, 1, 1, 1, 1]))
    assert "2 beyond the same end of the range, counted as equal" in row["evidence"]
    assert row["p_supported"] == pytest.approx(1 / 64)


def test_a_seed_whose_frontier_is_not_known_is_left_out():
    frame = frontier_cells("", xnorm=[2] * 8, l2=[1] * 8)
    failed = (frame["arm"] == "l2") & (frame["seed"] == 0) & (frame["lr"] == 0.1)
    frame.loc[failed, ["outcome", "kind", "score_pct"]] = ["failed", "oom", math.nan]
    row = stability(frame)
    assert row["num_pairs"] == 7
    assert "7 pairs, 1 left out" in row["evidence"]
    assert row["p_supported"] == 1 / 128


def test_each_setting_has_its_own_verdict_and_no_other_condition_enters():
    frame = pd.concat(
        [frontier_cells("depth=2", xnorm=[2] * 8, l2=[2] * 8), frontier_cells("depth=4", xnorm=[2] * 8, l2=[1] * 8)]
    )
    names = {depth: [f"{depth}, lr={rate}" for rate in RATES] for depth in ("depth=2", "depth=4")}
    table = judged(STABLE, frame, names)
    assert table[["condition", "verdict"]].values.tolist() == [["depth=2", "undecided"], ["depth=4", "supported"]]
    assert set(table["num_tests_supported"]) == {2}


def test_a_setting_with_one_learning_rate_is_not_tested_and_does_not_count():
    frame = frontier_cells("", xnorm=[2] * 8, l2=[1] * 8)
    (row,) = [row for _, row in judged(STABLE, frame, {}).iterrows()]
    assert (row["verdict"], row["num_tests_supported"]) == ("undecided", 0)
    assert row["evidence"] == "no setting has both l2 and xnorm at several values of lr"


def scale_verdict(own: float, matched: float) -> pd.Series:
    frame = pd.concat(
        [
            cells(f"scale={name}", xnorm=BASE, l2=shifted(points)).assign(scale=name)
            for name, points in (("own", own), ("matched", matched))
        ]
    )
    (row,) = [row for _, row in judged(SCALE, frame, {"": ["scale=own", "scale=matched"]}).iterrows()]
    return row


@pytest.mark.parametrize(
    ("own", "matched", "expected"),
    [
        (-3, 0, "supported"),
        (-3, -3, "contradicted"),  # still worse at the matched scale
        (-3, 3, "contradicted"),  # better there, and so not equivalent
        (0, 0, "contradicted"),  # not worse at its own
        (-1, 0, "undecided"),
        (-3, -1, "undecided"),
    ],
)
def test_scale_explains_only_what_is_worse_at_its_own_and_equal_at_the_matched(own, matched, expected):
    row = scale_verdict(own, matched)
    assert row["verdict"] == expected
    assert "at scale=own" in row["evidence"]
    assert "at scale=matched" in row["evidence"]


def test_the_p_of_scale_are_those_of_its_two_parts():
    parts = [
        Claim(kind="worse_by", arm="l2", than="xnorm", margin_pct=1),
        Claim(kind="equivalent_within", arm="l2", than="xnorm", margin_pct=1),
    ]
    found = []
    for part, points in zip(parts, (-1.1, 1.3), strict=True):
        frame = cells("", xnorm=BASE, l2=shifted(points))
        table = judge([Case(claims=[part], arms=["xnorm", "l2"], conditions=[""], cells=frame, costs=NO_COSTS)])
        found.append(table.iloc[0])
    row = scale_verdict(-1.1, 1.3)
    assert row["p_supported"] == max(one["p_supported"] for one in found)
    assert row["p_contradicted"] == 2 * min(one["p_contradicted"] for one in found)
    assert row["num_pairs"] == 8


def test_the_seeds_for_scale_give_80_percent_power_to_its_three_tests_together():
    """One against worse by less than the margin, and two for equivalence."""
    wide = 8 * WOBBLE
    frame = pd.concat(
        [
            cells(f"scale={name}", xnorm=BASE, l2=list(np.array(BASE) + points + wide)).assign(scale=name)
            for name, points in (("own", -1), ("matched", 0))
        ]
    )
    row = judged(SCALE, frame, {"": ["scale=own", "scale=matched"]}).iloc[0]
    options = {"alpha": 0.1, "power": 1 - 0.2 / 3, "detectable": t_detectable_difference}
    assert row["seeds_for_margin"] == seeds_for(1, wide.std(ddof=1), **options)


def test_a_claim_at_a_value_is_judged_there_alone(tmp_path):
    claims = [
        {"kind": "fails_to_train", "arm": "l2", "at": {"depth": 4}},
        {"kind": "less_stable_than", "arm": "l2", "than": "xnorm", "at": {"depth": 4}},
        {"kind": "less_stable_than", "arm": "l2", "than": "xnorm"},
        {"kind": "fails_to_train", "arm": "l2", "at": {"depth": 8}},
        {"kind": "fails_to_train", "arm": "l2", "at": {"norm": "xnorm"}},
        {"kind": "fails_to_train", "arm": "l2", "at": {"epochs": 3, "depth": 2}},
    ]
    study = Store(make_study(tmp_path, claims=claims, depth=[2, 4], lr=[0.001, 0.01])).read_study()
    assert [settings_of(study, claim) for claim in study.claims] == [
        {name: [name] for name in ("depth=4, lr=0.001", "depth=4, lr=0.01")},
        {"depth=4": ["depth=4, lr=0.001", "depth=4, lr=0.01"]},
        {f"depth={d}": [f"depth={d}, lr=0.001", f"depth={d}, lr=0.01"] for d in (2, 4)},
        {},
        {},
        {name: [name] for name in ("depth=2, lr=0.001", "depth=2, lr=0.01")},
    ]


def test_a_value_of_one_data_set_or_one_arm_is_a_value_of_its_cells(tmp_path):
    claims = [{"kind": "fails_to_train", "arm": "l2", "at": at} for at in ({"patch": 4}, {"lr": 0.01}, {"lr": 0.02})]
    study = Store(make_study(tmp_path, claims=claims, data=["digits", "cifar10"])).read_study()
    study = study.model_copy(
        update={
            "fixed": {field: value for field, value in study.fixed.items() if field not in ("patch", "lr")},
            "per_data": {"data=digits": {"patch": 2}, "data=cifar10": {"patch": 4}},
            "per_arm": {arm: {"lr": 0.01 if arm == "l2" else 0.02} for arm in study.arm_names},
        }
    )
    assert [list(settings_of(study, claim)) for claim in study.claims] == [
        ["data=cifar10"],
        ["data=digits", "data=cifar10"],
        [],
    ]


def test_other_rates_in_a_setting_or_other_arms_in_a_condition_make_another_claim(tmp_path):
    """A setting is the same one if only its name has changed; a new one says nothing of the claim so far."""
    claims = [
        {"kind": "less_stable_than", "arm": "l2", "than": "xnorm"},
        {"kind": "better_than_every_other", "arm": "l2"},
    ]
    stable, best = (
        "l2 is less stable than xnorm: it trains up to a smaller learning rate",
        "l2 is better than every other arm",
    )

    def made(name, **options):
        return Store(make_study(tmp_path, name=name, claims=claims, **options)).read_study()

    old = made("old", depth=[2], lr=[0.001, 0.01])
    assert claims_changed(old, old) == []
    assert claims_changed(old, made("seeds", depth=[2], lr=[0.001, 0.01], seeds=5)) == []
    assert claims_changed(old, made("depth", depth=[2, 4], lr=[0.001, 0.01])) == []
    assert claims_changed(old, made("rates", depth=[2, 4], lr=[0.001, 0.01, 0.1])) == [stable]
    assert claims_changed(old, made("arms", depth=[2, 4], lr=[0.001, 0.01], norms=["xnorm", "l2"])) == [best]
    assert claims_changed(made("one", depth=[2], lr=[0.01]), old) == [stable]
    assert claims_changed(old, made("else", depth=[4], lr=[0.1], norms=["xnorm", "l2"])) == []


def test_a_study_with_results_that_grows_by_rates_marks_the_claim_of_its_frontiers(tmp_path):
    claims = [{"kind": "less_stable_than", "arm": "l2", "than": "xnorm"}, {"kind": "fails_to_train", "arm": "l2"}]
    old = Store(make_study(tmp_path, name="old", claims=claims, lr=[0.001, 0.01])).read_study()
    new = Store(make_study(tmp_path, name="new", claims=claims, lr=[0.001, 0.01, 0.1])).read_study()
    for num_results, marks in ((24, [True, False]), (0, [False, False])):
        grown = extend(old, new, named=["lr"], ref=None, num_results=num_results)
        assert [claim.post_hoc for claim in grown.claims] == marks


def test_a_claim_at_values_that_no_condition_has_is_not_tested(tmp_path):
    """Trials at another depth say nothing about it, and neither does a cost measured there."""
    at = {"at": {"depth": 99}}
    kinds = ("fails_at_any_lr", "cost_linear_in_tokens", "fails_to_train")
    claims = [{"kind": kind, "arm": "l2", **at} for kind in kinds]
    table = load(make_tuned(tmp_path, claims=[*claims, {"kind": "fails_to_train", "arm": "none", **at}])).claims
    assert set(table["verdict"]) == {"undecided"}
    assert table["evidence"].tolist() == ["no condition has these values"] * 3 + ["no cell of none has ended"]
    assert set(table["num_tests_supported"]) == {0}


def test_a_claim_that_no_condition_of_one_of_several_studies_judges_names_the_study(tmp_path):
    claims = [{"kind": "fails_to_train", "arm": "l2", "at": {"depth": 99}}, {"kind": "less_stable_than", **PAIR}]
    folders = [make_study(tmp_path, name=name, claims=claims) for name in ("first", "second")]
    table = read_results(folders).claims
    assert table["condition"].tolist() == ["study=first"] * 2 + ["study=second"] * 2
    assert set(table["num_tests_supported"]) == {0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": {"lr": 0.1}}, "less_stable_than is judged over all values of lr; leave it out of at"),
        (
            {"kind": "fails_at_any_lr", "than": None, "at": {"lr": 0.1}},
            "fails_at_any_lr is judged over all values of lr; leave it out of at",
        ),
        ({"at": {"seed": 1}}, "a claim is judged over all seeds; leave seed out of at"),
        ({"at": {"dept": 1}}, "unknown field 'dept', did you mean 'depth'?"),
        ({"at": {"depth": "deep"}}, "depth=deep: must be a valid integer"),
        ({"at": 4}, "at=4: must be a valid dictionary"),
        ({"margin_pct": 1}, "less_stable_than does not take the key margin_pct"),
        ({"than": None}, "less_stable_than needs the key than"),
    ],
)
def test_a_wrong_claim_is_one_line(change, message):
    value = {"kind": "less_stable_than", "arm": "l2", "than": "xnorm"} | change
    with pytest.raises(UsageError, match=message.replace("?", r"\?")) as caught:
        parse_claims([value])
    assert "\n" not in str(caught.value)


def test_the_statement_names_where_it_is_judged():
    claim = parse_claims(
        [{"kind": "fails_to_train", "arm": "l2", "at": {"depth": 24, "layer_scale": 1, "lpi": "off"}}]
    )[0]
    assert claim.statement == "l2 fails to train, at depth=24, layer_scale=1.0, lpi=off"
    assert Claim.model_validate_json(claim.model_dump_json()) == claim


def test_the_order_of_at_makes_no_other_claim():
    one, other = (
        {"kind": "fails_to_train", "arm": "l2", "at": at} for at in ({"lr": 1, "depth": 2}, {"depth": 2, "lr": 1})
    )
    with pytest.raises(UsageError, match=r"claim 'l2 fails to train, at depth=2, lr=1\.0' is given twice"):
        parse_claims([one, other])
    stored = parse_claims([one])
    assert merge_claims(stored, parse_claims([other])) == stored

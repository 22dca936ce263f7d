"""Claims: how they are written down, and every verdict of every kind by hand-made numbers."""

import math
import re
from collections import Counter
from dataclasses import replace
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import yaml

from ablations import analysis
from ablations.analysis import claim_case, claim_power
from ablations.analysis.claim_case import Case
from ablations.analysis.claims import judge
from ablations.config import UsageError
from ablations.config.claim import Claim, Kind, merge_claims, parse_claims
from ablations.config.experiment import load_experiment
from ablations.report.verdicts import TESTS

NO_COSTS = pd.DataFrame(columns=["condition", "arm", "quantity", "tokens", "round", "value"])
BASE = [90.0, 91.0, 89.5, 90.5, 91.5, 90.2, 89.8, 90.9]
WOBBLE = np.array([0.1, -0.2, 0.3, -0.1, 0.2, -0.3, 0.15, -0.05])


def cells(condition: str = "", **scores: object) -> pd.DataFrame:
    """Return cells of arms: scores of eight seeds; "nan" diverged in the seed, "oom" failed, "stuck" did not learn."""
    stories = {"nan": (10.0, "diverged", "nan"), "stuck": (11.0, "diverged", "no_learning")}
    stories["oom"] = (math.nan, "failed", "oom")
    rows = []
    for order, (arm, own) in enumerate(scores.items()):
        for seed, story in enumerate(own):
            score, outcome, kind = stories[story] if isinstance(story, str) else (story, "ok", "")
            keys = {"condition": condition, "arm": arm, "arm_label": arm, "arm_order": order, "seed": seed}
            rows.append(keys | {"score_pct": score, "outcome": outcome, "kind": kind, "stale": False})
    return pd.DataFrame(rows)


def shifted(points: float) -> list[float]:
    return list(np.array(BASE) + points + WOBBLE)


def judged(claims: list[Claim], frame: pd.DataFrame, costs: pd.DataFrame = NO_COSTS) -> pd.DataFrame:
    arms, conditions = list(frame["arm"].unique()), list(frame["condition"].unique()) or [""]
    return judge([Case(claims=claims, arms=arms, conditions=conditions, cells=frame, costs=costs)])


def verdict(claim: Claim, frame: pd.DataFrame, costs: pd.DataFrame = NO_COSTS) -> pd.Series:
    (row,) = [row for _, row in judged([claim], frame, costs).iterrows()]
    return row


@pytest.mark.parametrize(("points", "expected"), [(2, "supported"), (-2, "contradicted"), (0, "undecided")])
def test_greater_than(points, expected):
    claim = Claim(kind="greater_than", arm="l2", than="xnorm")
    assert verdict(claim, cells(xnorm=BASE, l2=shifted(points)))["verdict"] == expected


def test_every_claim_and_condition_counts_in_either_direction():
    """Eight pairs have 1 / 2^8 at least: Holm's method over twelve tests leaves that below 0.05, over thirteen not."""
    arms = {f"a{k}": shifted(2) for k in range(12)}
    frame = cells(xnorm=BASE, **arms)
    claims = [Claim(kind="greater_than", arm=arm, than="xnorm") for arm in arms]
    reverse = [Claim(kind="greater_than", arm="xnorm", than=arm) for arm in arms]
    late = Claim(kind="equivalent_within", arm="a0", than="xnorm", margin_pct=2)  # as far away as its margin
    for twelve, decided in ((claims, "supported"), (reverse, "contradicted")):
        assert set(judged(twelve, frame)["verdict"]) == {decided}
        table = judged([*twelve, late], frame)
        assert set(table["verdict"]) == {"undecided"}
        assert set(table["alone"].iloc[:12]) == {decided}
        assert table[["num_tests_supported", "num_tests_contradicted"]].to_numpy().tolist() == [[13, 13]] * 13
    again = pd.concat([cells(name, xnorm=BASE, **arms) for name in ("lr=1", "lr=2")])
    assert set(judged(claims[:6], again)["verdict"]) == {"supported"}
    assert set(judged(claims[:7], again)["verdict"]) == {"undecided"}


def test_the_adjusted_p_are_those_of_holm_over_all_kinds_of_claims():
    frame = cells(xnorm=BASE, l2=shifted(-1.3), none=["nan"] * 7 + [90.0], elu=shifted(0.1))
    claims = [
        Claim(kind="worse_by", arm="l2", than="xnorm", margin_pct=1),
        Claim(kind="equivalent_within", arm="elu", than="xnorm", margin_pct=0.5),
        Claim(kind="greater_than", arm="l2", than="elu"),
        Claim(kind="better_than_every_other", arm="xnorm"),
        Claim(kind="fails_to_train", arm="none"),
        Claim(kind="cost_linear_in_tokens", arm="xnorm"),  # not measured: tested neither way, and counted in both
    ]
    table = judged(claims, frame)
    for verdict_, other in (("supported", "contradicted"), ("contradicted", "supported")):
        raw = table[f"p_{verdict_}"]
        assert raw.isna().tolist() == [False] * 5 + [True]
        adjusted = analysis.holm(raw.fillna(1.0))
        np.testing.assert_allclose(table[f"p_{verdict_}_holm"].iloc[:5], adjusted[:5])
        assert ((table["verdict"] == verdict_) == (adjusted < 0.05)).all(), other
        assert ((table["alone"] == verdict_) == (raw < 0.05)).all()
    values = np.array(shifted(-1.3)) - BASE
    assert table["p_supported"].iloc[0] == pytest.approx(analysis.one_sided_p(values, -1, below=True))
    assert table["p_supported"].iloc[4] == 9 / 256  # 7 or 8 heads of 8
    assert table["p_contradicted"].iloc[4] == 255 / 256


def test_a_verdict_that_only_the_single_claim_has_is_named():
    frame = cells(xnorm=BASE, l2=shifted(-1.2))
    claim = Claim(kind="worse_by", arm="l2", than="xnorm", margin_pct=1)
    alone = verdict(claim, frame)
    assert (alone["verdict"], alone["alone"]) == ("supported", "supported")
    others = [
        Claim(kind="equivalent_within", arm="l2", than="xnorm", margin_pct=m) for m in np.linspace(1.15, 1.25, 40)
    ]
    row = judged([claim, *others], frame).iloc[0]
    assert (row["verdict"], row["alone"]) == ("undecided", "supported")
    assert row["p_supported"] == alone["p_supported"] == alone["p_supported_holm"]


def test_power_uses_the_level_of_the_family():
    claims = [Claim(kind="worse_by", arm=arm, than="xnorm", margin_pct=1) for arm in ("l2", "none", "elu")]
    wide = {arm: list(np.array(BASE) - 1 + 4 * WOBBLE) for arm in ("l2", "none", "elu")}
    row = judged(claims, cells(xnorm=BASE, **wide)).iloc[0]
    sd, of_t = (4 * WOBBLE).std(ddof=1), {"detectable": analysis.t_detectable_difference}
    assert row["detectable_pct"] == pytest.approx(analysis.t_detectable_difference(sd, 8, alpha=2 * 0.05 / 3))
    assert row["seeds_for_margin"] == analysis.seeds_for(1, sd, alpha=2 * 0.05 / 3, **of_t)
    assert row["seeds_for_margin"] > analysis.seeds_for(1, sd, alpha=2 * 0.05, **of_t)


def test_what_too_few_cells_can_never_say_is_said():
    frame = cells(xnorm=BASE[:4], l2=shifted(2)[:4], none=["nan"] * 4)
    claims = [Claim(kind="greater_than", arm="l2", than="xnorm"), Claim(kind="fails_to_train", arm="none")]
    table = judged(claims, frame)
    assert table["verdict"].tolist() == ["undecided"] * 2
    assert (
        table["evidence"]
        .str.endswith("; too few cells to be supported or contradicted among these claims, whatever the scores")
        .all()
    )
    assert "too few cells" not in judged(claims, cells(xnorm=BASE, l2=shifted(0), none=BASE))["evidence"].str.cat()


def test_several_studies_share_one_correction():
    frame = cells(xnorm=BASE[:5], l2=shifted(-2)[:5])
    claim, arms = Claim(kind="greater_than", arm="xnorm", than="l2"), ["xnorm", "l2"]
    case = Case(claims=[claim], arms=arms, conditions=[""], cells=frame, costs=NO_COSTS)
    assert judge([case])["verdict"].tolist() == ["supported"]
    assert judge([case, case])["verdict"].tolist() == ["undecided"] * 2  # 2 / 2^5 > 0.05


def test_claims_that_wait_for_the_winners_of_a_tuning_count():
    claims, many = [Claim(kind="fails_at_any_lr", arm="l2")], {"trials": trials("x" * 16), "sampler": "sobol"}
    case = Case(claims=claims, arms=["l2"], conditions=[""], cells=cells(l2=BASE), costs=NO_COSTS, **many)
    assert judge([case])["verdict"].tolist() == ["supported"]  # 0.8^16 = 0.028
    (row,) = judge([replace(case, num_waiting=1)]).to_dict("records")
    assert (row["verdict"], row["alone"], row["num_tests_supported"]) == ("undecided", "supported", 2)
    assert row["num_tests_contradicted"] == 1  # a trial that trains contradicts without error


def test_what_has_no_error_is_outside_the_family():
    claims = [Claim(kind="cost_linear_in_tokens", arm="xnorm"), Claim(kind="fails_to_train", arm="xnorm")]
    table = judged(claims, cells(xnorm=BASE), costs(2, 2))
    assert table[["num_tests_supported", "num_tests_contradicted"]].to_numpy().tolist() == [[1, 1]] * 2
    assert table["verdict"].tolist() == table["alone"].tolist() == ["contradicted"] * 2
    assert table["p_contradicted_holm"].isna().tolist() == [True, False]
    assert judged(claims, cells(xnorm=BASE), costs(2, 1))["num_tests_contradicted"].tolist() == [2, 2]
    absent = Claim(kind="fails_to_train", arm="l2")  # no arm of the study
    assert judged([absent, claims[1]], cells(xnorm=BASE))["num_tests_contradicted"].tolist() == [1, 1]


def test_better_than_every_other_needs_every_other_arm_of_the_study():
    frame = cells(xnorm=BASE, single_l2=shifted(-2))
    claim = Claim(kind="better_than_every_other", arm="xnorm")
    arms = ["xnorm", "l2", "single_l2"]
    case = Case(claims=[claim], arms=arms, conditions=[""], cells=frame, costs=NO_COSTS)
    (row,) = judge([case]).to_dict("records")
    assert (row["verdict"], "no cell of l2 has ended" in row["evidence"]) == ("undecided", True)
    assert verdict(claim, frame)["verdict"] == "supported"


@pytest.mark.parametrize(
    ("others", "expected"),
    [((-2, -3), "supported"), ((-2, 0), "undecided"), ((-2, 3), "contradicted"), ((0, 3), "contradicted")],
)
def test_better_than_every_other(others, expected):
    frame = cells(xnorm=BASE, l2=shifted(others[0]), none=shifted(others[1]))
    assert verdict(Claim(kind="better_than_every_other", arm="xnorm"), frame)["verdict"] == expected


@pytest.mark.parametrize(("points", "expected"), [(-2, "supported"), (0.0, "contradicted"), (-1, "undecided")])
def test_worse_by_a_margin(points, expected):
    claim = Claim(kind="worse_by", arm="l2", than="xnorm", margin_pct=1)
    row = verdict(claim, cells(xnorm=BASE, l2=shifted(points)))
    assert row["verdict"] == expected
    bound = analysis.t_interval(points + WOBBLE, level=0.9)  # one-sided bounds of 95 %
    assert (bound[1] < -1) == (expected == "supported")
    assert (bound[0] > -1) == (expected == "contradicted")


def test_an_arm_that_always_explodes_is_worse_by_any_margin_though_it_has_no_interval():
    claim = Claim(kind="worse_by", arm="l2", than="xnorm", margin_pct=1)
    row = verdict(claim, cells(xnorm=BASE, l2=["nan"] * 8))
    assert row["verdict"] == "supported"
    assert "sign-flip" in row["evidence"]
    row = verdict(claim, cells(xnorm=BASE, l2=["nan", *shifted(0)[1:]]))
    assert row["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("points", "margin", "expected"),
    [(0, 0.5, "supported"), (1, 0.5, "contradicted"), (0.45, 0.5, "undecided"), (-1, 0.5, "contradicted")],
)
def test_equivalent_within(points, margin, expected):
    claim = Claim(kind="equivalent_within", arm="l2", than="xnorm", margin_pct=margin)
    assert verdict(claim, cells(xnorm=BASE, l2=shifted(points)))["verdict"] == expected


def test_equivalence_is_contradicted_where_the_interval_lies_outside():
    claim = Claim(kind="equivalent_within", arm="l2", than="xnorm", margin_pct=0.5)
    for points in np.linspace(0.4, 1, 61):
        low, _ = analysis.t_interval(np.array(shifted(points)) - BASE)
        row = verdict(claim, cells(xnorm=BASE, l2=shifted(points)))
        assert (row["verdict"] == "contradicted") == (low > 0.5)


@pytest.mark.parametrize(
    ("stories", "expected"),
    [
        (["nan"] * 8, "supported"),  # p of 8 of 8: 1 / 2^8
        (["stuck"] * 7 + [90.0], "supported"),  # of 7 of 8: 9 / 2^8
        (["nan"] * 6 + [90.0] * 2, "undecided"),  # of 6 of 8: 37 / 2^8
        ([90.0] * 8, "contradicted"),
        (["nan"] * 5 + ["oom"] * 3, "supported"),  # of 5 of 5: 1 / 2^5; what failed says nothing
        (["nan"] * 4 + ["oom"] * 4, "undecided"),  # of 4 of 4: 1 / 2^4
        (["oom"] * 8, "undecided"),
    ],
)
def test_fails_to_train(stories, expected):
    assert verdict(Claim(kind="fails_to_train", arm="l2"), cells(xnorm=BASE, l2=stories))["verdict"] == expected


def costs(times: float, counts: float) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"quantity": quantity, "tokens": n, "round": r, "value": float(n) ** power * math.exp(rng.normal(0, noise))}
        for quantity, power, rounds, noise in (("multiply_adds", counts, 1, 0), ("time_s", times, 5, 0.05))
        for r in range(rounds)
        for n in (256, 512, 1024, 2048, 4096)
    ]
    return pd.DataFrame(rows).assign(condition="", arm="xnorm")


@pytest.mark.parametrize(
    ("times", "counts", "expected"), [(1, 1, "supported"), (2, 2, "contradicted"), (1.2, 1, "undecided")]
)
def test_cost_linear_in_tokens(times, counts, expected):
    claim = Claim(kind="cost_linear_in_tokens", arm="xnorm")
    assert verdict(claim, cells(xnorm=BASE), costs(times, counts))["verdict"] == expected


@pytest.mark.parametrize(
    "claim",
    [
        Claim(kind="cost_linear_in_tokens", arm="xnorm"),
        Claim(kind="greater_than", arm="xnorm", than="l2"),
        Claim(kind="fails_to_train", arm="l2"),
        Claim(kind="better_than_every_other", arm="xnorm"),
        Claim(kind="worse_by", arm="xnorm", than="l2", margin_pct=1),
    ],
)
@pytest.mark.parametrize("frame", [cells(xnorm=BASE), cells(xnorm=BASE, l2=["oom"] * 8).iloc[:0]])
def test_without_numbers_a_claim_is_undecided_and_says_why(claim, frame):
    row = verdict(claim, frame)
    assert row["verdict"] == "undecided"
    assert row["evidence"]


def test_each_condition_has_its_own_verdict():
    frame = pd.concat([cells("lr=1", xnorm=BASE, l2=shifted(2)), cells("lr=2", xnorm=BASE, l2=shifted(-2))])
    table = judged([Claim(kind="greater_than", arm="l2", than="xnorm")], frame)
    assert dict(zip(table["condition"], table["verdict"], strict=True)) == {"lr=1": "supported", "lr=2": "contradicted"}


def test_many_conditions_take_few_computations(monkeypatch):
    """Differences are computed once per pair of arms, and seeds only for undecided claims with a spread."""
    calls: Counter[str] = Counter()

    def count(module, name):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **options: calls.update([name]) or real(*args, **options))

    count(claim_case, "differences")
    count(claim_power, "seeds_for")
    names = [f"lr={k}" for k in range(40)]
    frames = [cells(name, xnorm=BASE, l2=shifted(-2), none=shifted(0)) for name in names[:20]]
    kinds = [{"margin_pct": 1, "kind": "worse_by"}, {"margin_pct": 1, "kind": "equivalent_within"}]
    claims = [Claim(arm="l2", than="xnorm", **kind) for kind in (*kinds, {"kind": "greater_than"})]
    claims += [Claim(arm="none", kind="better_than_every_other")]
    case = Case(claims=claims, arms=["xnorm", "l2", "none"], conditions=names, cells=pd.concat(frames), costs=NO_COSTS)
    table = judge([case]).groupby(["claim", "verdict"], sort=False).size().unstack(fill_value=0)
    assert table["undecided"].tolist() == [20, 20, 40, 40]
    assert calls == {"differences": 3, "seeds_for": 20}  # none - l2 has no spread


def test_seeds_are_computed_for_the_margin_and_never_for_the_difference():
    claim = Claim(kind="worse_by", arm="l2", than="xnorm", margin_pct=1)
    wide = 8 * WOBBLE
    near, far = (verdict(claim, cells(xnorm=BASE, l2=list(np.array(BASE) + points + wide))) for points in (-1, -1.02))
    by_hand = analysis.seeds_for(1, wide.std(ddof=1), alpha=0.1, detectable=analysis.t_detectable_difference)
    assert near["seeds_for_margin"] == far["seeds_for_margin"] == by_hand > 8
    assert pd.isna(verdict(claim, cells(xnorm=BASE, l2=shifted(-3)))["seeds_for_margin"])


@pytest.mark.parametrize(
    ("kind", "points"), [("worse_by", -1.0), ("equivalent_within", 1.0), ("greater_than", 0.0)], ids=lambda x: str(x)
)
def test_as_many_seeds_as_there_are_are_never_asked_for(kind, points):
    margin = None if kind == "greater_than" else 1.0
    claim = Claim(kind=kind, arm="l2", than="xnorm", margin_pct=margin)
    row = verdict(claim, cells(xnorm=BASE, l2=shifted(points)))
    assert row["verdict"] == "undecided"
    assert pd.isna(row["seeds_for_margin"])
    assert "the difference is too near" in row["evidence"]
    assert row["detectable_pct"] < 1


def test_an_arm_without_pairs_hides_no_contradiction():
    claim = Claim(kind="better_than_every_other", arm="xnorm")
    row = verdict(claim, cells(xnorm=BASE, l2=shifted(3), none=["oom"] * 7 + [90.0]))
    assert row["verdict"] == "contradicted"
    assert "fewer than two complete pairs with none" in row["evidence"]
    row = verdict(claim, cells(xnorm=BASE, l2=shifted(-3), none=["oom"] * 8))
    assert row["verdict"] == "undecided"


def test_the_seeds_that_are_needed_do_not_depend_on_the_order_of_the_arms():
    claim = Claim(kind="better_than_every_other", arm="xnorm")
    scores = {"l2": ["nan", *shifted(0)[1:]], "none": shifted(0)}
    for order in (("l2", "none"), ("none", "l2")):
        row = verdict(claim, cells(xnorm=BASE, **{arm: scores[arm] for arm in order}))
        assert pd.isna(row["seeds_for_margin"])
        assert math.isnan(row["detectable_pct"])


def test_evidence_counts_what_is_left_out_and_what_is_mixed():
    frame = cells(xnorm=BASE, l2=["oom", "nan", *shifted(-2)[2:]])
    frame.loc[(frame["arm"] == "l2") & (frame["seed"] > 4), "stale"] = True
    counts = "7 pairs, 1 left out, 1 with a chance score, 3 of a stale cell and a fresh one"
    for claim in (
        Claim(kind="worse_by", arm="l2", than="xnorm", margin_pct=1),
        Claim(kind="greater_than", arm="l2", than="xnorm"),
        Claim(kind="better_than_every_other", arm="xnorm"),
    ):
        assert counts in verdict(claim, frame)["evidence"]
    evidence = verdict(Claim(kind="fails_to_train", arm="l2"), frame)["evidence"]
    assert evidence.endswith("; 1 failed and are left out; 3 are stale")


def test_equivalence_into_which_chance_has_entered_is_not_tested():
    claim = Claim(kind="equivalent_within", arm="l2", than="xnorm", margin_pct=0.5)
    row = verdict(claim, cells(xnorm=BASE, l2=["nan"] * 8))
    assert row["verdict"] == "contradicted"
    assert "equivalence is not tested" in row["evidence"]
    assert "nan" not in row["evidence"]


@pytest.mark.parametrize(
    ("left", "expected", "words"),
    [
        ("quantity == 'multiply_adds'", "undecided", "time_s is not measured"),
        ("quantity == 'time_s'", "undecided", "multiply_adds is not measured"),
        ("quantity == 'multiply_adds' or tokens == 256", "undecided", "time_s is not measured"),
        ("round == 0", "undecided", "time_s has only one complete round"),
        ("round < 4", "supported", "time_s ~ N^"),
    ],
)
def test_a_cost_is_linear_only_where_counts_and_times_say_so(left, expected, words):
    claim = Claim(kind="cost_linear_in_tokens", arm="xnorm")
    row = verdict(claim, cells(xnorm=BASE), costs(1, 1).query(left))
    assert (row["verdict"], words in row["evidence"]) == (expected, True)


def test_a_condition_without_cells_has_its_verdicts_too():
    claims = [Claim(kind="cost_linear_in_tokens", arm="xnorm"), Claim(kind="fails_to_train", arm="xnorm")]
    measured = pd.concat([costs(1, 1).assign(condition=condition) for condition in ("lr=1", "lr=2")])
    case = Case(
        claims=claims, arms=["xnorm"], conditions=["lr=1", "lr=2"], cells=cells("lr=1", xnorm=BASE), costs=measured
    )
    table = judge([case]).set_index(["claim", "condition"])["verdict"]
    cost, fails = (claim.statement for claim in claims)
    assert table[cost].to_dict() == {"lr=1": "supported", "lr=2": "supported"}
    assert table[fails].to_dict() == {"lr=1": "contradicted", "lr=2": "undecided"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "greater_than"}, "must be a list of claims"),
        ([{"kind": "greater", "arm": "l2"}], "kind=greater: must"),
        ([{"kind": "greater_than", "arm": "l2"}], "greater_than needs the key than"),
        ([{"kind": "worse_by", "arm": "l2", "than": "xnorm"}], "worse_by needs the key margin_pct"),
        ([{"kind": "fails_to_train", "arm": "l2", "margin_pct": 1}], "fails_to_train does not take the key margin_pct"),
        ([{"kind": "worse_by", "arm": "l2", "than": "xnorm", "margin_pct": 0}], "margin_pct=0: "),
        (
            [{"kind": "equivalent_within", "arm": "l2", "than": "xnorm", "margin_pct": 1e-9}],
            "margin_pct=1e-09: .* 0.001",
        ),
        ([{"kind": "greater_than", "arm": "l2", "than": "l2"}], "l2 cannot be compared with itself"),
        ([{"kind": "fails_to_train", "arm": "l2", "post_hoc": True}], "post_hoc is set automatically; leave it out"),
        ([{"kind": "fails_to_train", "arm": "l2"}] * 2, "'l2 fails to train' is given twice"),
        ([{"kind": "fails_to_train", "arm": "l2", "seed": 1}], "seed=1: "),
    ],
)
def test_a_claim_that_is_none_is_refused_in_one_line(tmp_path, values, message):
    with pytest.raises(UsageError, match=message):
        parse_claims(values)
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump({"norm": ["xnorm", "l2"], "claims": values}))
    with pytest.raises(UsageError, match=message) as error:
        load_experiment(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_claims_that_come_later_are_post_hoc_and_none_goes():
    first = parse_claims([{"kind": "fails_to_train", "arm": "l2", "source": "a"}])
    later = parse_claims([{"kind": "fails_to_train", "arm": "none"}, {"kind": "fails_to_train", "arm": "l2"}])
    merged = merge_claims(first, later)
    assert [(claim.arm, claim.post_hoc, claim.source) for claim in merged] == [("l2", False, "a"), ("none", True, "")]
    assert merge_claims(merged, ()) == merged


def test_a_claim_that_means_something_else_is_post_hoc():
    claims = parse_claims([{"kind": "better_than_every_other", "arm": "l2"}, {"kind": "fails_to_train", "arm": "l2"}])
    changed = ["l2 is better than every other arm"]
    assert [c.post_hoc for c in merge_claims(claims, claims, changed=changed)] == [True, False]
    assert [c.post_hoc for c in merge_claims(claims, claims)] == [False, False]


def trials(outcomes: str, arm: str = "l2") -> pd.DataFrame:
    """Return trials of an arm over the learning rate: ``.`` ended ok, ``x`` diverged, ``f`` failed."""
    names = {".": "ok", "x": "diverged", "f": "failed"}
    rates = 10 ** np.linspace(-4, -1, len(outcomes))
    rows = [{"arm": arm, "outcome": names[letter], "stale": False} for letter in outcomes]
    return pd.DataFrame(rows).assign(condition="", lr=rates, lr_place=np.linspace(0, 1, len(outcomes)))


def judged_by(own: pd.DataFrame, sampler: str | None = "sobol") -> pd.Series:
    claim = Claim(kind="fails_at_any_lr", arm="l2")
    frame = cells(xnorm=BASE, l2=BASE)
    case = Case(
        claims=[claim], arms=["xnorm", "l2"], conditions=[""], cells=frame, costs=NO_COSTS, trials=own, sampler=sampler
    )
    return judge([case]).iloc[0]


@pytest.mark.parametrize(
    ("outcomes", "expected", "evidence"),
    [
        ("x" * 16, "supported", "16 trials, all diverged: at most 17 % of the searched range trains"),
        ("x" * 14, "supported", "at most 19 %"),
        ("x" * 13, "undecided", "at most 21 %"),
        ("x" * 15 + ".", "contradicted", "1 of 16 trials train, at lr 0.1 to 0.1"),
        ("..." + "x" * 13, "contradicted", "3 of 16 trials train, at lr 0.0001 to 0.000251"),
        ("x" * 14 + "ff", "supported", "14 trials, all diverged.*; 2 failed and are left out"),
        ("ff", "undecided", "no trial has a result; 2 failed"),
    ],
)
def test_fails_at_any_lr(outcomes, expected, evidence):
    row = judged_by(trials(outcomes))
    assert row["verdict"] == expected
    assert re.search(evidence, row["evidence"]), row["evidence"]
    assert row["claim"] == "l2 fails to train at any learning rate in the range"


def test_points_that_follow_from_results_bound_no_share_of_the_range():
    assert judged_by(trials("x" * 16), sampler="tpe")["verdict"] == "undecided"
    assert judged_by(trials("x" * 15 + "."), sampler="tpe")["verdict"] == "contradicted"


def test_without_a_search_of_the_learning_rate_the_claim_is_undecided():
    assert "was not searched" in judged_by(pd.DataFrame(), sampler=None)["evidence"]
    other = trials("x" * 16).drop(columns=["lr", "lr_place"])
    assert judged_by(other)["verdict"] == "undecided"


def test_the_notes_of_a_report_name_the_test_of_every_kind():
    names = {
        "greater_than": "better: ",
        "worse_by": "worse by a margin: ",
        "better_than_every_other": "better than every other: ",
        "equivalent_within": "equivalent: ",
        "fails_to_train": "fails to train: ",
        "fails_at_any_lr": "fails at any learning rate: ",
        "cost_linear_in_tokens": "linear cost: ",
        "less_stable_than": "less stable: ",
        "explained_by_scale": "explained by scale: ",
    }
    assert list(names) == list(get_args(Kind))
    assert not [kind for kind, name in names.items() if name not in TESTS]

"""What a plan says of the grids, the conditions and the seeds of a study that is no product."""

from __future__ import annotations

import pytest
import yaml

from ablations.config.commands import RunOptions
from ablations.config.request import make_request
from ablations.planning.layout import num_seeds_paired
from ablations.planning.plan import make_plan
from ablations.planning.summary import describe_plan


@pytest.fixture
def lines(tmp_path):
    """Describe the plan of a file, and count the seeds of its pairs."""

    def make(**content) -> tuple[list[str], int]:
        (tmp_path / "asked.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        options = RunOptions(experiment=str(tmp_path / "asked.yaml"), study="s", out=tmp_path, devices="cpu")
        plan = make_plan(make_request(options))
        return describe_plan(plan), num_seeds_paired(plan.study)

    return make


def test_a_plan_shows_grids_and_the_arms_of_each_condition(lines):
    said, _ = lines(seeds=8, norm="xnorm,l2", grids=[{"lr": "1e-3,3e-3"}, {"norm": "l2,none", "lr": "1e-2"}])
    assert "grid 1: norm=xnorm,l2; lr=0.001,0.003; seeds 0-7" in said
    assert "grid 2: norm=l2,none; lr=0.01; seeds 0-7" in said
    each = "lr=0.001: xnorm, l2; lr=0.003: xnorm, l2; lr=0.01: l2, none"
    assert f"arms are compared within a condition: {each}" in said
    assert "no difference to xnorm at lr=0.01, without a cell of it" in said


def test_a_plan_of_many_grids_is_short(lines):
    said, _ = lines(seeds=1, norm="xnorm,l2", grids=[{"lr": i / 1000} for i in range(1, 21)])
    assert sum(line.startswith("grid ") for line in said) == 8
    assert "and 12 more grids" in said


def test_a_plan_of_a_product_says_nothing_of_it(lines):
    said, number = lines(seeds=8, norm="xnorm,l2", lr="1e-3,3e-3")
    assert not [line for line in said if line.startswith(("grid", "arms are", "no "))]
    assert number == 8


def test_seeds_of_a_condition_count_together_whichever_grid_has_them(lines):
    halves = [{"lr": 1e-3, "seeds": "0-3"}, {"lr": 1e-3, "seeds": "4-7"}]
    said, number = lines(norm="xnorm,l2", grids=halves)
    assert number == 8
    assert not [line for line in said if "cannot reach significance" in line]


def test_arms_without_a_common_seed_are_named(lines):
    apart = [{"norm": "xnorm", "seeds": "0-5"}, {"norm": "l2", "seeds": "6-9"}, {"norm": "none", "seeds": "4-9"}]
    said, number = lines(norm="xnorm,l2,none", grids=apart)
    assert "no seed in common with xnorm, so no pair: l2" in said
    assert number == 2
    assert "2 seeds cannot reach significance in 2 comparisons, whatever the results: give at least 7 seeds" in said


def test_a_claim_is_planned_for_the_condition_with_the_fewest_seeds(lines):
    claims = [{"kind": "greater_than", "arm": "xnorm", "than": "l2"}]
    grids = [{"lr": 1e-3}, {"lr": 3e-3, "seeds": 3}]
    said, _ = lines(seeds=12, norm="xnorm,l2", grids=grids, claims=claims)
    assert any(line.startswith("3 seeds can support") for line in said)


def test_a_claim_is_planned_with_the_seeds_of_its_own_arms_and_conditions(lines):
    """Not with those that an arm shares with the reference, nor with those of other conditions."""
    stable = {"kind": "less_stable_than", "arm": "l2", "than": "none", "at": {"depth": 2}}
    fails = {"kind": "fails_to_train", "arm": "xnorm", "at": {"depth": 2}}
    worse = {"kind": "worse_by", "arm": "l2", "than": "none", "margin_pct": 1, "at": {"depth": 4}}
    grids = [
        {"norm": "xnorm,l2,none", "depth": 2, "lr": "1e-3,3e-3", "seeds": 8},
        {"norm": "xnorm", "depth": 4, "lr": 1e-3, "seeds": "0-3"},
        {"norm": "l2", "depth": 4, "lr": 1e-3, "seeds": "0-3"},
        {"norm": "none", "depth": 4, "lr": 1e-3, "seeds": "3-9"},
    ]
    said, _ = lines(norm="xnorm,l2,none", grids=grids, claims=[stable, fails])
    assert not [line for line in said if "claim of the kind" in line]
    said, _ = lines(norm="xnorm,l2,none", grids=grids, claims=[stable, worse])
    (line,) = [line for line in said if "claim of the kind" in line]
    assert line.startswith("1 seed can support or contradict no claim of the kind worse_by, whatever the results")
    assert line.endswith("give at least 2 seeds")


def test_seeds_that_suffice_in_one_condition_do_not_hide_those_that_lack_in_another(lines):
    claims = [{"kind": "greater_than", "arm": "l2", "than": "none"}]
    seeds = {"xnorm": "0-15", "l2": "0-11", "none": "8-15"}
    grids = [{"lr": 1e-3}, *({"lr": 3e-3, "norm": arm, "seeds": own} for arm, own in seeds.items())]
    said, _ = lines(seeds=12, norm="xnorm,l2,none", grids=grids, claims=claims)
    assert [line.partition(" seeds can")[0] for line in said if "claim of the kind" in line] == ["4"]

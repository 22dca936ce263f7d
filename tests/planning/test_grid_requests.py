"""What files, options, smoke runs and stored studies make of a study that is no product."""

from __future__ import annotations

import pytest
import yaml
from published import OUTCOME, publish

from ablations.config import UsageError
from ablations.config.commands import RunOptions, TuneOptions
from ablations.config.numerics import numerics_text
from ablations.config.request import make_request, make_tuning
from ablations.config.search import Point, parse_search
from ablations.planning.plan import Plan, make_plan
from ablations.planning.summary import describe_plan

BASE = {"norm": "xnorm,l2", "seeds": "0,"}


@pytest.fixture
def plan(tmp_path):
    """Plan what a file, if any, and options ask for."""

    def make(content: dict | None = None, **options) -> Plan:
        if content is not None:
            (tmp_path / "asked.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
            options["experiment"] = str(tmp_path / "asked.yaml")
        return make_plan(make_request(RunOptions(study="s", out=tmp_path, devices="cpu", **options)))

    return make


@pytest.fixture
def stored(plan):
    """Store a study, each of whose cells has a result."""

    def make(content: dict, **options) -> Plan:
        made = plan(content, **options)
        made.store.write_study(made.study)
        for cell in made.cells:
            numerics = numerics_text(cell.task, plugin_hash="")
            publish(made.store, cell, made.study, OUTCOME | {"numerics": numerics})
        return made

    return make


def of(made: Plan, *fields: str) -> list[tuple]:
    return [tuple(cell[field] for field in fields) for cell in made.cells]


LEFT_OUT = BASE | {"lr": "1e-3,3e-3", "exclude": {"norm": "l2", "lr": "3e-3"}}


def test_a_command_without_the_file_takes_what_a_stored_study_leaves_out(stored, plan):
    stored(LEFT_OUT)
    more = plan(seeds="0-1")
    assert more.count("done") == 3
    assert of(more, "norm", "lr", "seed")[3:] == [("xnorm", 0.001, 1), ("xnorm", 0.003, 1), ("l2", 0.001, 1)]
    assert "taken from the stored study: exclude norm=l2 with lr=0.003" in describe_plan(more)
    arm = plan(norm="none")
    assert of(arm, "norm", "lr") == [("none", 0.001), ("none", 0.003)]
    assert arm.study.arms_by_condition == {"lr=0.001": ["xnorm", "l2", "none"], "lr=0.003": ["xnorm", "none"]}
    assert of(plan(lr="1e-3"), "norm", "lr") == [("xnorm", 0.001), ("l2", 0.001)]


def test_a_file_that_leaves_nothing_out_any_more_is_taken_at_its_word(stored, plan):
    stored(LEFT_OUT)
    grown = plan({name: value for name, value in LEFT_OUT.items() if name != "exclude"})
    assert (grown.count("done"), grown.count("missing")) == (3, 1)
    assert grown.study.grids == ()


def test_a_file_without_grids_asks_for_no_combination_of_a_stored_study_but_its_own(stored, plan):
    stored(BASE | {"grids": [{"lr": 1e-3}, {"lr": 3e-3, "depth": "1,2"}]})
    grown = plan({"norm": "none", "lr": "1e-3"})
    assert of(grown, "norm", "lr", "depth", "seed") == [("none", 0.001, None, 0)]


PER_ARM = BASE | {"lr": 1e-3, "per_arm": {"l2": {"lr": 3e-3}}}


def test_a_command_without_the_file_takes_the_values_per_arm(stored, plan):
    stored(PER_ARM)
    assert of(plan(norm="l2", seeds="0-1"), "norm", "lr", "seed") == [("l2", 0.003, 0), ("l2", 0.003, 1)]
    assert of(plan(norm="none", fields={"lr": "2e-3"}), "norm", "lr") == [("none", 0.002)]
    with pytest.raises(UsageError, match="has values of lr per arm: give that of none too"):
        plan(norm="xnorm,none")
    with pytest.raises(UsageError, match=r"its lr is 0.003 for l2, not 0.001"):
        plan(fields={"lr": "1e-3"})


def test_an_option_for_another_arm_has_the_value_of_the_file(stored, plan):
    stored(PER_ARM)
    assert of(plan(PER_ARM, norm="none"), "norm", "lr") == [("none", 0.001)]


def test_an_arm_of_two_spellings_is_given_twice(plan):
    twice = {"norm": "xnorm", "compare": "lr", "lr": "1e-3,3e-3"}
    with pytest.raises(UsageError, match=r"per_arm: 0.001 is given twice"):
        plan(twice | {"per_arm": {"0.001": {"depth": 2}, "0.0010": {"depth": 3}}})


def test_a_smoke_run_leaves_no_arm_out(plan):
    asked = BASE | {"batch_size": "64,32", "exclude": {"norm": "l2", "batch_size": 64}}
    made = plan(asked, smoke=True)
    assert of(made, "norm", "batch_size", "seed") == [(norm, 64, seed) for seed in (0, 1) for norm in ("xnorm", "l2")]
    assert made.request.notes == (
        "a smoke run has one value of batch_size: exclude norm=l2 with batch_size=64 has no effect",
    )


def test_a_smoke_run_has_what_is_zipped_with_a_field_that_it_shortens_once(plan):
    asked = BASE | {"epochs": [2, 3, 3], "lr": [1e-3, 1e-3, 3e-3], "depth": [1, 1, 2]}
    pair = plan({name: values for name, values in asked.items() if name != "depth"} | {"zip": "epochs,lr"}, smoke=True)
    assert of(pair, "norm", "lr")[:4] == [("xnorm", 0.001), ("xnorm", 0.003), ("l2", 0.001), ("l2", 0.003)]
    triple = plan(asked | {"zip": "epochs,lr,depth"}, smoke=True)
    assert of(triple, "norm", "lr", "depth")[:2] == [("xnorm", 0.001, 1), ("xnorm", 0.003, 2)]
    assert "a smoke run has one value of epochs, which is zipped otherwise" in triple.request.notes


@pytest.mark.parametrize(
    "layout",
    [
        {"zip": "depth,num_heads", "depth": "1,2", "num_heads": "2,4"},
        {"exclude": {"norm": "l2"}},
        {"grids": [{"norm": "xnorm"}, {"norm": "l2"}]},
        {"per_arm": {"l2": {"depth": 2}}},
    ],
)
def test_a_tuning_takes_no_file_of_a_study_that_is_no_product(tmp_path, layout):
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump({"norm": "xnorm,l2"} | layout))
    options = TuneOptions(experiment=str(tmp_path / "asked.yaml"), search="lr=1e-4..1e-2:log")
    with pytest.raises(UsageError, match=f"{next(iter(layout))} is not for a tuning"):
        make_tuning(options)


def test_the_winners_of_a_tuning_are_a_product(stored, plan):
    made = stored(BASE)
    search = parse_search("lr=1e-4..1e-2:log")
    points = tuple(Point(arm=arm, values={"lr": 0.004}) for arm in ("xnorm", "l2"))
    fixed = {name: value for name, value in made.study.fixed.items() if name != "lr"}
    made.store.write_study(made.study.model_copy(update={"search": search, "points": points, "fixed": fixed}))
    with pytest.raises(UsageError, match="the winners of a tuning: zip, exclude, grids and per_arm do not apply"):
        plan(BASE | {"per_arm": {"l2": {"depth": 2}}})


def test_the_axes_of_grids_that_are_taken_are_said_once(stored, plan):
    stored(BASE | {"grids": [{"lr": 1e-3}, {"lr": 3e-3}]})
    taken = [line for line in describe_plan(plan(seeds="0-1")) if line.startswith("taken")]
    assert taken == ["taken from the stored study: its 2 grids"]


def test_an_option_that_replaces_values_per_arm_is_said(plan):
    made = plan(BASE | {"lr": "1e-3", "per_arm": {"l2": {"lr": "2e-3"}}}, lr="3e-3")
    assert "per_arm has no effect here: lr is given for all arms" in describe_plan(made)
    assert of(made, "norm", "lr") == [("xnorm", 0.003), ("l2", 0.003)]


def test_combinations_left_out_by_options_must_be_there_as_those_of_a_file(plan):
    for exclude, value in (("norm=softmx", "norm=softmx"), ("norm=l2,lr=1e-3,3e-3", "lr=0.003")):
        with pytest.raises(UsageError, match=f"no cell has {value}"):
            plan(norm="xnorm,l2", lr="1e-3,2e-3", exclude=exclude)
    made = plan(BASE | {"exclude": {"norm": "l2", "lr": "3e-3"}, "lr": "1e-3,3e-3"}, lr="1e-3")
    assert "exclude has no effect here: no cell has lr=0.003" in describe_plan(made)

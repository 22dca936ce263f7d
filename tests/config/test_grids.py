"""Studies that are no product of their axes: cells, conditions and growth, against lists written by hand."""

from __future__ import annotations

import pytest

from ablations.config import Study, UsageError, recipes
from ablations.config.expand import design
from ablations.config.grid import Grid, GridRequest
from ablations.config.grid_options import parse_exclusions, parse_grids, parse_per_arm, parse_zipped
from ablations.config.growth import extend
from ablations.config.limits import MOST_EXCLUSIONS, MOST_GRIDS


def defaults(fields):
    """Digits have 8 px; what else there is has 32."""
    side = fields.get("image_size") or (8 if fields["data"] == "digits" else 32)
    own = recipes.defaults(image_side=side, flips=False, batch_size=fields.get("batch_size"))
    return {**own, "data_fingerprint": f"{fields['data']} at {side}"}


def make(*, compare="norm", ref=None, grids=(), per_arm=None, zipped=(), exclude=(), **asked) -> tuple[Study, list]:
    requests = list(grids) or ([GridRequest()] if zipped or exclude else [])
    requests = [
        GridRequest(asked=each.asked, zipped=(*zipped, *each.zipped), exclude=(*exclude, *each.exclude))
        for each in requests
    ]
    base = {"data": ["digits"], "norm": ["xnorm", "l2"], "seed": [0, 1]}
    return design(
        name="s",
        asked=base | asked,
        compare=compare,
        ref=ref,
        recipe="quick",
        defaults=defaults,
        grids=requests,
        per_arm=per_arm or {},
    )


def rows(cells, *fields):
    return [tuple(cell[field] for field in fields) for cell in cells]


def identity(**values):
    """Return the id of one cell, made by a study of nothing else."""
    _, cells = make(**{field: [value] for field, value in values.items()})
    assert len(cells) == 1
    return cells[0].id


def grow(stored, asked, **options):
    given = {"named": {*asked.axes, *asked.fixed, *asked.fields_per_arm}, "ref": None, "num_results": 0} | options
    return extend(stored, asked, **given)


def test_zipped_fields_pair_up_in_order_and_may_repeat_a_value():
    study, cells = make(
        model=["ufo_vit_pico", "ufo_vit_nano", "ufo_vit_nano"],
        lr=[0.1, 0.2, 0.1],
        zipped=[("model", "lr")],
        seed=[0, 1],
    )
    small, large = "ufo_vit_pico", "ufo_vit_nano"
    at_seed = [("xnorm", small, 0.1), ("xnorm", large, 0.2), ("xnorm", large, 0.1)]
    at_seed += [("l2", small, 0.1), ("l2", large, 0.2), ("l2", large, 0.1)]
    assert rows(cells, "norm", "model", "lr", "seed") == [(*row, seed) for seed in (0, 1) for row in at_seed]
    assert study.axes["lr"] == [0.1, 0.2]
    assert study.condition_names == [f"model={small}, lr=0.1", f"model={large}, lr=0.2", f"model={large}, lr=0.1"]
    assert study.num_conditions == 3
    assert all(map(study.has, cells))
    _, every = make(model=[small, large], lr=[0.1, 0.2])
    assert {cell.id for cell in cells} < {cell.id for cell in every}
    assert [study.has(cell) for cell in every].count(False) == 2 * 2  # small at 0.2: two norms, two seeds


def test_a_cell_has_the_id_that_any_other_study_gives_it():
    _, cells = make(model=["ufo_vit_pico", "ufo_vit_nano"], lr=[0.1, 0.2], zipped=[("model", "lr")], seed=[3])
    expected = [
        identity(norm=norm, model=model, lr=lr, seed=3)
        for norm in ("xnorm", "l2")
        for model, lr in (("ufo_vit_pico", 0.1), ("ufo_vit_nano", 0.2))
    ]
    assert [cell.id for cell in cells] == expected
    _, cells = make(per_arm={"l2": {"lr": 0.2}}, lr=[0.1], seed=[3])
    assert [cell.id for cell in cells] == [identity(norm="xnorm", lr=0.1, seed=3), identity(norm="l2", lr=0.2, seed=3)]
    _, cells = make(lr=[0.1, 0.2], exclude=[{"norm": ["l2"], "lr": [0.2]}], seed=[3])
    by_hand = [("xnorm", 0.1), ("xnorm", 0.2), ("l2", 0.1)]
    assert [cell.id for cell in cells] == [identity(norm=norm, lr=lr, seed=3) for norm, lr in by_hand]


def test_a_field_that_is_zipped_with_the_arm_is_no_condition():
    study, cells = make(compare="model", norm=["xnorm"], model=["ufo_vit_pico", "ufo_vit_nano"], lr=[0.1, 0.2],
                        zipped=[("model", "lr")])  # fmt: skip
    assert study.conditions == {}
    assert study.condition_names == [""]
    assert study.tied == ["lr"]
    assert study.tied_texts == {"ufo_vit_pico": "lr=0.1", "ufo_vit_nano": "lr=0.2"}
    assert rows(cells, "model", "lr", "seed") == [
        ("ufo_vit_pico", 0.1, 0),
        ("ufo_vit_nano", 0.2, 0),
        ("ufo_vit_pico", 0.1, 1),
        ("ufo_vit_nano", 0.2, 1),
    ]


def test_an_arm_has_one_value_of_what_is_zipped_with_it():
    models = ["ufo_vit_pico", "ufo_vit_nano"]
    paired = GridRequest(asked={"model": models, "lr": [0.1, 0.2]}, zipped=(("model", "lr"),))
    other = GridRequest(asked={"model": models[:1], "lr": [0.3]})
    with pytest.raises(UsageError, match=r"ufo_vit_pico has lr=0.1 and lr=0.3, but an arm has one value"):
        make(compare="model", norm=["xnorm"], grids=[paired, other])
    stored = make(compare="model", norm=["xnorm"], grids=[paired])[0]
    more = GridRequest(asked={"model": models, "lr": [0.3, 0.2]}, zipped=(("model", "lr"),))
    with pytest.raises(UsageError, match=r"study 's': ufo_vit_pico has lr=0.1 and lr=0.3"):
        grow(stored, make(compare="model", norm=["xnorm"], grids=[more])[0])


def test_combinations_are_left_out():
    study, cells = make(
        norm=["xnorm", "l2", "none"],
        lr=[0.1, 0.2, 0.3],
        exclude=[{"norm": ["l2", "none"], "lr": [0.3]}, {"norm": ["none"], "lr": [0.1]}],
        seed=[0],
    )
    by_hand = [("xnorm", 0.1), ("xnorm", 0.2), ("xnorm", 0.3), ("l2", 0.1), ("l2", 0.2), ("none", 0.2)]
    assert rows(cells, "norm", "lr") == by_hand
    assert study.arms_by_condition == {
        "lr=0.1": ["xnorm", "l2"],
        "lr=0.2": ["xnorm", "l2", "none"],
        "lr=0.3": ["xnorm"],
    }
    other, _ = make(lr=[0.1, 0.2], exclude=[{"norm": ["xnorm"], "lr": [0.1]}])
    assert other.condition_names == ["lr=0.1", "lr=0.2"]  # as they were given, though the first arm has only the second
    assert study.places == [
        ("xnorm", "lr=0.1", 0),
        ("l2", "lr=0.1", 0),
        ("xnorm", "lr=0.2", 0),
        ("l2", "lr=0.2", 0),
        ("none", "lr=0.2", 0),
        ("xnorm", "lr=0.3", 0),
    ]


def test_grids_are_united_seed_by_seed_and_a_common_cell_comes_once():
    study, cells = make(
        grids=[
            GridRequest(asked={"lr": [0.1, 0.2]}),
            GridRequest(asked={"norm": ["xnorm", "none"], "lr": [0.2], "depth": [3], "seed": [0, 1, 2]}),
            GridRequest(asked={"norm": ["xnorm"], "lr": [0.2]}),  # all in the first
        ]
    )
    first = [("xnorm", 0.1, None), ("xnorm", 0.2, None), ("l2", 0.1, None), ("l2", 0.2, None)]
    second = [("xnorm", 0.2, 3), ("none", 0.2, 3)]
    expected = [(*row, seed) for seed in (0, 1) for row in first + second] + [(*row, 2) for row in second]
    assert rows(cells, "norm", "lr", "depth", "seed") == expected
    assert study.axes == {"norm": ["xnorm", "l2", "none"], "lr": [0.1, 0.2], "depth": [None, 3], "seed": [0, 1, 2]}
    assert study.arms_by_condition == {
        "lr=0.1, depth=none": ["xnorm", "l2"],
        "lr=0.2, depth=none": ["xnorm", "l2"],
        "lr=0.2, depth=3": ["xnorm", "none"],
    }


def test_grids_of_one_product_are_a_product():
    study, _ = make(grids=[GridRequest(asked={"lr": [0.1, 0.2]})])
    assert study == make(lr=[0.1, 0.2])[0]
    named = make(grids=[GridRequest(asked={"lr": [0.1]}), GridRequest(asked={"lr": [0.2], "depth": [2]})])[0]
    assert "depth" in named.axes
    default = make(grids=[GridRequest(asked={"lr": [0.1]}), GridRequest(asked={"lr": [0.2], "patch": [2]})])[0]
    assert "patch" not in default.axes  # which is the default of digits


def test_a_default_that_varies_within_a_grid_must_be_given():
    grids = [GridRequest(asked={"data": ["digits", "cifar10"]}), GridRequest(asked={"patch": [1]})]
    with pytest.raises(UsageError, match="grid 1: give patch, since its default varies within the grid"):
        make(grids=grids)


def test_grids_over_data_sets_have_the_defaults_of_each():
    grids = [GridRequest(asked={"lr": [0.1]}), GridRequest(asked={"data": ["cifar10"], "norm": ["none"], "lr": [0.1]})]
    study, cells = make(grids=grids, seed=[0])
    expected = [("xnorm", "digits", 2), ("l2", "digits", 2), ("none", "cifar10", 4)]
    assert rows(cells, "norm", "data", "patch") == expected
    assert study.per_data.keys() == {"data=digits", "data=cifar10"}
    assert all(map(study.has, cells))


def test_values_per_arm_are_complete_and_no_condition():
    study, cells = make(norm=["xnorm", "l2", "none"], lr=[0.1], per_arm={"l2": {"lr": 0.2, "weight_decay": 0.5}})
    assert study.per_arm == {
        "xnorm": {"lr": 0.1, "weight_decay": 0.05},
        "l2": {"lr": 0.2, "weight_decay": 0.5},
        "none": {"lr": 0.1, "weight_decay": 0.05},
    }
    assert rows(cells[:3], "norm", "lr", "weight_decay") == [
        ("xnorm", 0.1, 0.05),
        ("l2", 0.2, 0.5),
        ("none", 0.1, 0.05),
    ]
    assert not {"lr", "weight_decay"} & {*study.fixed, *study.axes}
    assert study.conditions == {}
    assert not study.has(make(norm=["l2"], lr=[0.1], seed=[0])[1][0])


MANY = [i / 1000 for i in range(1, 301)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": [0.1, 0.2], "zipped": [("lr", "model")]}, "zip lr,model: give the values of model"),
        (
            {"lr": [0.1, 0.2], "depth": [1, 2, 3], "zipped": [("lr", "depth")]},
            "zip lr,depth: lr has 2 values, depth has 3 values; values pair up in order, so give equally many",
        ),
        ({"lr": [0.1, 0.1], "depth": [1, 1], "zipped": [("lr", "depth")]}, "lr=0.1, depth=1 is given twice"),
        ({"lr": [0.1, 0.2], "zipped": [("lr", "seed")]}, "seeds are replicates"),
        ({"data": ["digits", "cifar10"], "zipped": [("norm", "data")]}, "data is zipped with norm, but arms see"),
        ({"lr": [0.1, 0.2], "zipped": [("lr",)]}, "zip lr: give two fields or more"),
        (
            {"lr": [0.1, 0.2], "depth": [1, 2], "zipped": [("lr", "depth"), ("norm", "lr")]},
            "lr is zipped twice; give each field in one group",
        ),
        ({"exclude": [{"norm": ["none"]}]}, "exclude norm=none: no cell has norm=none; leave it out"),
        (
            {"lr": [0.1, 0.2], "exclude": [{"norm": ["l2"], "lr": [0.2, 0.3]}]},
            "exclude norm=l2 with lr=0.2,0.3: no cell has lr=0.3 with the others; leave it out",
        ),
        ({"exclude": [{"norm": ["l2"], "depth": [3]}]}, "exclude norm=l2 with depth=3: depth does not vary"),
        ({"exclude": [{"norm": ["l2", "xnorm"]}]}, "exclude: it leaves out every cell"),
        ({"exclude": [{"data": ["digits"]}]}, "exclude: it leaves out every cell"),
        ({"lr": [0.1, 0.2], "exclude": [{"norm": ["l2"]}]}, "no cell has norm=l2: leave it out"),
        (
            {
                "compare": "lr",
                "lr": [0.1, 0.2, 0.3],
                "depth": [1, 2, 3],
                "zipped": [("lr", "depth")],
                "exclude": [{"depth": [2]}],
            },
            "no cell has lr=0.2: leave it out",
        ),
        (
            {"lr": [0.1, 0.2], "exclude": [{"norm": ["l2"]}], "per_arm": {"l2": {"depth": 2}}},
            "no cell has norm=l2: leave it out",
        ),
        ({"exclude": [{"norm": ["l2"], "seed": [1]}]}, "seeds are replicates"),
        ({"per_arm": {"none": {"lr": 0.1}}}, "per_arm: none is not one of the arms: xnorm, l2"),
        ({"lr": [0.1, 0.2], "per_arm": {"l2": {"lr": 0.1}}}, "per_arm: lr is an axis too; leave one out"),
        ({"grids": [GridRequest()] * (MOST_GRIDS + 1)}, "1,001 grids are above the limit of 1,000"),
        ({"exclude": [{"norm": ["l2"]}] * (MOST_EXCLUSIONS + 1)}, "101 entries are above the limit of 100"),
        (
            {"lr": MANY, "weight_decay": MANY, "grids": [GridRequest()] * 2},
            "a study of 720,000 cells",
        ),
    ],
)  # fmt: skip
def test_mistakes_have_one_line(options, message):
    with pytest.raises(UsageError, match=message) as raised:
        make(**options)
    assert "\n" not in str(raised.value)


def test_a_default_that_follows_from_an_axis_must_be_given():
    """The learning rate of this recipe grows with the batch."""

    def deit(fields):
        own = recipes.defaults(image_side=8, flips=False, recipe="deit", batch_size=fields.get("batch_size"))
        return {**own, "data_fingerprint": "f"}

    asked = {field: [value] for field, value in recipes.recipe_fields("deit", "classify").items()}
    asked |= {"data": ["digits"], "norm": ["xnorm"], "seed": [0], "batch_size": [64, 128]}
    with pytest.raises(UsageError, match=r"by default lr is 6\.25e-05 in some cells and 0\.000125 in others; give it"):
        design(name="s", asked=asked, compare="norm", ref=None, recipe="deit", defaults=deit)


PAIRED = {"model": ["ufo_vit_pico", "ufo_vit_nano"], "lr": [0.1, 0.2], "zipped": [("model", "lr")]}


def test_a_zipped_study_grows_by_seeds_and_by_another_pair():
    stored = make(**PAIRED)[0]
    more = grow(stored, make(**PAIRED, seed=[1, 2])[0])
    assert more.axes["seed"] == [0, 1, 2]
    assert [grid.axes["seed"] for grid in more.grids] == [[0, 1, 2]]
    assert more.history == ("extended: seed=2",)
    three = {"model": ["ufo_vit_pico", "ufo_vit_nano", "ufo_vit_micro"], "lr": [0.1, 0.2, 0.3]}
    wider = grow(stored, make(**{**PAIRED, **three})[0])
    assert len(wider.grids) == 1
    assert wider.history == ("extended: model=ufo_vit_micro, lr=0.3",)
    assert all(map(wider.has, make(**PAIRED)[1]))
    other = grow(stored, make(model=["ufo_vit_pico"], lr=[0.2])[0])
    assert other.history == ("extended: other combinations of its values",)
    assert other.condition_names == [
        "model=ufo_vit_pico, lr=0.1",
        "model=ufo_vit_nano, lr=0.2",
        "model=ufo_vit_pico, lr=0.2",
    ]


def test_asking_for_a_part_of_the_grids_changes_nothing():
    stored = make(**PAIRED)[0]
    assert grow(stored, stored) == stored
    assert grow(stored, make(**PAIRED, norm=["l2"], seed=[1])[0]) == stored
    assert grow(stored, make(model=["ufo_vit_nano"], lr=[0.2], norm=["l2"], seed=[1])[0]) == stored


def test_a_product_grows_by_a_grid_over_a_field_that_it_held_fixed():
    stored, before = make(lr=[0.1, 0.2])
    asked, cells = make(grids=[GridRequest(asked={"lr": [0.1, 0.2]}), GridRequest(asked={"lr": [0.1], "depth": [3]})])
    grown = grow(stored, asked, num_results=4)
    assert grown.axes == {"norm": ["xnorm", "l2"], "lr": [0.1, 0.2], "depth": [None, 3], "seed": [0, 1]}
    assert grown.condition_names == ["lr=0.1, depth=none", "lr=0.2, depth=none", "lr=0.1, depth=3"]
    assert grown.history == ("extended (cells with results: 4): depth=3",)
    assert grown.num_looks == 1
    assert all(map(grown.has, cells))
    assert {cell.id for cell in before} < {cell.id for cell in cells}
    assert Study.model_validate(grown.model_dump(mode="json")) == grown


def test_a_study_grows_by_a_grid_over_another_data_set():
    stored = make(lr=[0.1])[0]
    both = [GridRequest(), GridRequest(asked={"data": ["cifar10"], "seed": [0]})]
    asked, cells = make(lr=[0.1], grids=both)
    grown = grow(stored, asked)
    assert grown.condition_names == ["data=digits", "data=cifar10"]
    assert all(map(grown.has, cells))


def test_a_grid_with_another_fixed_value_alone_is_another_question():
    stored = make(lr=[0.1, 0.2])[0]
    asked = make(
        grids=[GridRequest(asked={"lr": [0.1], "depth": [2]}), GridRequest(asked={"lr": [0.2], "depth": [3]})]
    )[0]
    with pytest.raises(UsageError, match="study 's' asks another question: its depth is none, not 2,3"):
        grow(stored, asked)


def test_a_study_without_some_combinations_grows_by_them():
    left_out = {"lr": [0.1, 0.2], "exclude": [{"norm": ["l2"], "lr": [0.2]}]}
    stored = make(**left_out)[0]
    grown = grow(stored, make(lr=[0.1, 0.2])[0])
    assert grown.grids == ()
    assert grown.history == ("extended: other combinations of its values",)


def test_values_per_arm_grow_by_arms_and_never_change():
    stored = make(lr=[0.1], per_arm={"l2": {"lr": 0.2}})[0]
    more = make(norm=["xnorm", "l2", "none"], lr=[0.1], per_arm={"l2": {"lr": 0.2}, "none": {"lr": 0.3}})[0]
    assert grow(stored, more).per_arm == {"xnorm": {"lr": 0.1}, "l2": {"lr": 0.2}, "none": {"lr": 0.3}}
    with pytest.raises(UsageError, match=r"its lr is 0.2 for l2, not 0.4"):
        grow(stored, make(lr=[0.1], per_arm={"l2": {"lr": 0.4}})[0])
    with pytest.raises(UsageError, match=r"its lr is 0.2 for l2, not 0.1"):
        grow(stored, make(lr=[0.1])[0])
    assert grow(stored, make(norm=["none"], lr=[0.3])[0]).per_arm == grow(stored, more).per_arm
    assert grow(stored, make(norm=["xnorm"], lr=[0.1])[0]) == stored
    with pytest.raises(UsageError, match="has values of lr per arm: give one value of it"):
        grow(stored, make(norm=["none"], lr=[0.1, 0.3])[0])
    with pytest.raises(UsageError, match="has values of lr per arm: give that of none too"):
        grow(stored, make(norm=["none"], lr=[0.1])[0], named={"norm"})
    with pytest.raises(UsageError, match=r"its lr is 0.1, not 0.1,0.2"):
        grow(make(lr=[0.1])[0], make(lr=[0.1], per_arm={"l2": {"lr": 0.2}})[0])


def test_a_product_grows_by_an_arm_with_values_of_its_own():
    stored = make(lr=[0.1])[0]
    asked, cells = make(norm=["xnorm", "l2", "none"], lr=[0.1], per_arm={"none": {"weight_decay": 0.3}})
    grown = grow(stored, asked)
    assert grown.per_arm == {
        "xnorm": {"weight_decay": 0.05},
        "l2": {"weight_decay": 0.05},
        "none": {"weight_decay": 0.3},
    }
    assert all(map(grown.has, cells))
    assert Study.model_validate(grown.model_dump(mode="json")) == grown
    changed = make(norm=["xnorm", "l2", "none"], lr=[0.1], per_arm={"l2": {"weight_decay": 0.3}})[0]
    with pytest.raises(UsageError, match=r"its weight_decay is 0.05, not 0.05,0.3;"):
        grow(stored, changed)


def test_zipped_fields_stay_paired_without_one_that_a_study_holds_fixed():
    three = {"lr": [0.1, 0.1], "depth": [1, 2], "weight_decay": [0.1, 0.2], "zipped": [("lr", "depth", "weight_decay")]}
    stored = make(lr=[0.1], depth=[1, 2], weight_decay=[0.1, 0.2], zipped=[("depth", "weight_decay")])[0]
    grown = grow(stored, make(**three, norm=["none"])[0])
    assert grown.condition_names == ["depth=1, weight_decay=0.1", "depth=2, weight_decay=0.2"]


@pytest.mark.parametrize(
    "change",
    [
        {"grids": [{"axes": {"norm": ["xnorm"], "seed": [0]}}]},
        {"grids": [{"axes": {"norm": ["xnorm", "l2"], "lr": [0.1], "seed": [0, 1]}}]},
        {"grids": [{"axes": {"norm": ["xnorm", "l2"], "seed": [0, 1]}, "zipped": [["norm", "lr"]]}]},
        {"grids": [{"axes": {"norm": ["xnorm", "l2"], "seed": [0, 1]}, "exclude": [{"seed": [1]}]}]},
        {"grids": [{"axes": {"norm": ["xnorm", "xnorm"], "seed": [0, 1]}}]},
        {
            "axes": {"norm": ["xnorm", "l2"], "lr": [0.1, 0.2], "seed": [0]},
            "grids": [
                {"axes": {"norm": ["xnorm", "l2"], "lr": [0.1, 0.2], "seed": [0]}, "exclude": [{"norm": ["l2"]}]}
            ],
        },
        {"per_arm": {"xnorm": {"lr": 0.1}}},
        {"per_arm": {"xnorm": {"lr": 0.1}, "l2": {"lr": 0.1}}},  # which is fixed too
        {"per_arm": {"xnorm": {"what": 0.1}, "l2": {"what": 0.1}}},
    ],
)
def test_a_damaged_study_is_refused(change):
    study = make()[0].model_dump(mode="json")
    with pytest.raises(ValueError, match=r"grid|per_arm|fixed|zip|no cell has"):
        Study.model_validate(study | change)


def test_what_files_and_options_may_say():
    assert parse_zipped(["model,lr", "depth,patch"]) == (("model", "lr"), ("depth", "patch"))
    assert parse_exclusions([{"norm": "l2", "lr": "1e-1,2e-1"}, "depth=2"]) == (
        {"norm": ["l2"], "lr": [0.1, 0.2]},
        {"depth": [2]},
    )
    (grid,) = parse_grids([{"lr": "0.1,0.2", "depth": [1, 2], "zip": "lr,depth", "seeds": 2, "exclude": {"lr": 0.1}}])
    assert grid.asked == {"lr": [0.1, 0.2], "depth": [1, 2], "seed": [0, 1]}
    assert (grid.zipped, grid.exclude) == ((("lr", "depth"),), ({"lr": [0.1]},))
    assert parse_per_arm({"l2": {"lr": "1e-3"}, 0.5: {"depth": 2}}) == {"l2": {"lr": 0.001}, "0.5": {"depth": 2}}


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (parse_zipped, "model,lrr", "unknown field 'lrr'"),
        (parse_zipped, {"a": 1}, "write fields with commas"),
        (parse_zipped, "lr", "zip lr: give two fields or more"),
        (parse_zipped, [["lr"], ["model", "depth"]], "zip lr: give two fields or more"),
        (parse_zipped, [[]], r"zip \[\]: give two fields or more"),
        (parse_exclusions, "norm", "write FIELD=VALUE"),
        (parse_exclusions, 3, "write FIELD=VALUE"),
        (parse_exclusions, [{}], "write FIELD=VALUE"),
        (parse_exclusions, "norm=l2,norm=xnorm", "norm is given twice"),
        (parse_grids, {}, "grids must be a list"),
        (parse_grids, [], "grids must be a list"),
        (parse_grids, [{}], "grid 1: give values of fields"),
        (parse_grids, [{"lr": 1}, {"lrr": 1}], "unknown key of grid 2 'lrr', did you mean 'lr'?"),
        (parse_grids, [{"lr": None}], "grid 1: lr has no value"),
        (parse_grids, [{"seed": [1], "seeds": 2}], "grid 1: give seeds or seed, not both"),
        (parse_per_arm, {"l2": 3}, "per_arm must be a mapping of arms"),
        (parse_per_arm, {"l2": {"lr": "1,2"}}, "per_arm: give one value of lr for l2"),
        (parse_per_arm, {"l2": {"data": "digits"}}, "data cannot depend on the arm"),
        (parse_per_arm, {"l2": {"lrr": 1}}, "unknown field 'lrr'"),
    ],
)
def test_what_files_and_options_may_not_say(read, value, message):
    with pytest.raises(ValueError, match=message):
        read(value)


def test_a_grid_tells_which_combinations_it_has():
    axes = {"norm": ["xnorm", "l2"], "lr": [0.1, 0.2], "depth": [1, 2], "seed": [0]}
    grid = Grid(axes=axes, zipped=(("lr", "depth"),), exclude=({"norm": ["l2"], "lr": [0.2]},))
    rows_by_hand = [("xnorm", 0.1, 1), ("xnorm", 0.2, 2), ("l2", 0.1, 1)]
    assert [tuple(row.values()) for row in grid.rows()] == rows_by_hand
    assert grid.num_cells == 4
    has = [
        grid.has({"norm": n, "lr": lr, "depth": d, "seed": 0})
        for n in axes["norm"]
        for lr in (0.1, 0.2)
        for d in (1, 2)
    ]
    assert has == [True, False, False, True, True, False, False, False]
    assert not grid.has({"norm": "xnorm", "lr": 0.1, "depth": 1, "seed": 5})

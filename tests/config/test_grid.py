"""From what is asked to cells, and how a study grows."""

from __future__ import annotations

import pytest

from ablations.config import Study, UsageError, recipes
from ablations.config.cell import FIELDS
from ablations.config.claim import parse_claims
from ablations.config.expand import design
from ablations.config.growth import extend

NAMED = {"data", "norm", "seed"}


def defaults(fields):
    """Digits have 8 px; what else there is has 32."""
    side = fields.get("image_size") or (8 if fields["data"] == "digits" else 32)
    return {**recipes.defaults(image_side=side, flips=False), "data_fingerprint": f"{fields['data']} at {side}"}


def make(compare: str = "norm", ref: str | None = None, **asked: list) -> tuple[Study, list]:
    base = {"data": ["digits"], "norm": ["xnorm", "l2"], "seed": [0, 1]}
    return design(name="s", asked=base | asked, compare=compare, ref=ref, recipe="quick", defaults=defaults)


def test_cells_come_seed_by_seed():
    _, cells = make(lr=[1e-3, 3e-3])
    order = [(cell.seed, cell.net.norm, cell.optimisation.lr) for cell in cells]
    assert order == sorted(order, key=lambda key: key[0])
    assert len(set(order[:4])) == len(order) / 2 == 4


def test_fixed_is_complete_and_axes_hold_the_rest():
    study, _ = make(lr=[1e-3, 3e-3])
    assert set(study.axes) == {"norm", "seed", "lr"}
    assert set(study.axes) | set(study.fixed) == set(FIELDS)
    assert study.conditions == {"lr": [1e-3, 3e-3]}


@pytest.mark.parametrize(
    ("norms", "ref", "expected"),
    [
        (["l2", "xnorm"], None, "xnorm"),
        (["l2", "none"], None, "l2"),
        (["l2", "none"], "none", "none"),
        (["l2"], None, None),
    ],
)
def test_reference(norms, ref, expected):
    assert make(norm=norms, ref=ref)[0].ref == expected


def test_a_reference_that_is_no_arm_is_refused():
    with pytest.raises(UsageError, match="--ref softmax is not one of the arms: xnorm, l2"):
        make(ref="softmax")


def test_another_field_can_be_compared():
    study, _ = make(compare="lr", norm=["xnorm"], lr=[1e-3, 3e-3])
    assert study.arms == [1e-3, 3e-3]
    assert study.ref == "0.001"


def test_comparing_a_field_without_values_is_refused():
    with pytest.raises(UsageError, match="--compare lr: give the values"):
        make(compare="lr")


def test_a_study_grows_along_its_axes_and_remembers():
    grown = extend(make()[0], make(norm=["xnorm", "softmax"], seed=[0, 1, 2])[0], named=NAMED, ref=None, num_results=0)
    assert grown.axes == {"norm": ["xnorm", "l2", "softmax"], "seed": [0, 1, 2]}
    assert grown.history == ("extended: norm=softmax, seed=2",)


def test_growing_with_results_in_sight_is_another_look():
    asked = make(seed=[0, 1, 2])[0]
    grown = extend(make()[0], asked, named=NAMED, ref=None, num_results=4)
    assert (grown.num_looks, grown.history) == (1, ("extended (cells with results: 4): seed=2",))
    again = extend(grown, make(seed=[3])[0], named=NAMED, ref=None, num_results=6)
    assert again.num_looks == 2
    assert extend(again, asked, named=NAMED, ref=None, num_results=8) == again
    assert extend(make()[0], asked, named=NAMED, ref=None, num_results=0).num_looks == 0
    assert extend(make()[0], make()[0], named=NAMED, ref="l2", num_results=4).num_looks == 0  # no new numbers


def test_a_claim_that_comes_with_results_in_sight_is_post_hoc_and_remembered():
    claims = parse_claims([{"kind": "fails_to_train", "arm": "l2"}])
    asked = make()[0].model_copy(update={"claims": claims})
    grown = extend(make()[0], asked, named=NAMED, ref=None, num_results=4)
    assert [claim.post_hoc for claim in grown.claims] == [True]
    assert grown.history == ("extended (cells with results: 4): claim 'l2 fails to train'",)
    assert extend(grown, asked, named=NAMED, ref=None, num_results=4) == grown


def test_a_claim_about_every_other_arm_is_post_hoc_where_arms_come_with_results_in_sight():
    claims = parse_claims([{"kind": "better_than_every_other", "arm": "xnorm"}])
    stored = make()[0].model_copy(update={"claims": claims})
    more = make(norm=["xnorm", "l2", "none"])[0].model_copy(update={"claims": claims})
    assert [c.post_hoc for c in extend(stored, more, named=NAMED, ref=None, num_results=4).claims] == [True]
    assert [c.post_hoc for c in extend(stored, more, named=NAMED, ref=None, num_results=0).claims] == [False]
    assert [c.post_hoc for c in extend(stored, stored, named=NAMED, ref=None, num_results=4).claims] == [False]


def test_asking_for_a_part_changes_nothing():
    stored = make()[0]
    assert extend(stored, make(norm=["l2"], seed=[1])[0], named=NAMED, ref=None, num_results=0) == stored


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"epochs": [3]}, "epochs is 8, not 3"), ({"lr": [1e-3, 3e-3]}, "lr is 0.004, not 0.001,0.003")],
)
def test_a_changed_fixed_field_is_another_question(asked, field):
    with pytest.raises(UsageError, match=f"another question: its {field}"):
        extend(make()[0], make(**asked)[0], named=NAMED, ref=None, num_results=0)


def test_another_compared_field_is_another_question():
    with pytest.raises(UsageError, match="its compare is norm, not lpi"):
        extend(make()[0], make(compare="lpi", lpi=[True, False])[0], named=NAMED, ref=None, num_results=0)


def test_a_field_that_came_later_counts_as_its_default():
    stored = make()[0]
    older = stored.model_copy(update={"fixed": {k: v for k, v in stored.fixed.items() if k != "drop_path"}})
    assert extend(older, stored, named=NAMED, ref=None, num_results=0) == older
    with pytest.raises(UsageError, match=r"its drop_path is 0\.0, not 0\.1"):
        extend(older, make(drop_path=[0.1])[0], named=NAMED, ref=None, num_results=0)


def test_what_a_data_set_decides_stands_with_it_and_what_was_asked_for_is_fixed():
    study, cells = make(data=["digits", "big"], lr=[1e-3])
    assert study.conditions == {"data": ["digits", "big"]}
    assert study.fixed["lr"] == 1e-3
    assert {name: own["patch"] for name, own in study.per_data.items()} == {"data=digits": 2, "data=big": 4}
    assert {(cell.images.data, cell.net.patch, cell.net.model) for cell in cells} == {
        ("digits", 2, "ufo_vit_pico"),
        ("big", 4, "ufo_vit_nano"),
    }
    for own in study.per_data.values():
        assert set(study.axes) | set(study.fixed) | set(own) == set(FIELDS)
        assert not set(study.fixed) & set(own)


def test_image_sizes_are_data_sets_of_their_own():
    study, cells = make(data=["big"], image_size=[16, 32])
    assert {name: own["patch"] for name, own in study.per_data.items()} == {"image_size=16": 2, "image_size=32": 4}
    assert {(cell["image_size"], cell["data_fingerprint"]) for cell in cells} == {
        (16, "big at 16"),
        (32, "big at 32"),
    }


def test_a_study_of_several_data_sets_grows_by_another_and_checks_the_old():
    stored = make(data=["digits", "big"])[0]
    for part in (["digits"], ["big"], ["big", "digits"]):
        assert extend(stored, make(data=part)[0], named=NAMED, ref=None, num_results=0) == stored
    grown = extend(stored, make(data=["new"])[0], named=NAMED, ref=None, num_results=0)
    assert grown.axes["data"] == ["digits", "big", "new"]
    assert grown.per_data["data=new"] == {**grown.per_data["data=big"], "data_fingerprint": "new at 32"}
    assert grown.history == ("extended: data=new",)
    assert grown.data_points["data=new"]["patch"] == 4
    with pytest.raises(UsageError, match="its epochs is 8 for data=digits, not 5; choose another name"):
        extend(stored, make(data=["digits"], epochs=[5])[0], named=NAMED, ref=None, num_results=0)
    with pytest.raises(UsageError, match=r"its lr is 0\.004 for data=digits, not 0\.001,0\.003"):
        extend(stored, make(data=["digits"], lr=[1e-3, 3e-3])[0], named=NAMED, ref=None, num_results=0)
    for values in ([5], [5, 6]):
        with pytest.raises(UsageError, match="its epochs is the data set's own for data=new, not 5"):
            extend(stored, make(data=["new"], epochs=values)[0], named=NAMED | {"epochs"}, ref=None, num_results=0)
    other = stored.model_copy(
        update={
            "per_data": {**stored.per_data, "data=big": {**stored.per_data["data=big"], "data_fingerprint": "gone"}}
        }
    )
    with pytest.raises(UsageError, match="its data_fingerprint is gone for data=big, not big at 32"):
        extend(other, make(data=["big"])[0], named=NAMED, ref=None, num_results=0)


def test_what_was_fixed_for_all_data_sets_stays_so():
    stored = make(data=["digits", "big"], epochs=[5])[0]
    assert make(data=["digits", "big"])[0].fixed.keys() < stored.fixed.keys()
    with pytest.raises(UsageError, match="its epochs is 5 for data=new, not 20"):
        extend(stored, make(data=["new"])[0], named=NAMED, ref=None, num_results=0)
    assert (
        "data=new" in extend(stored, make(data=["new"], epochs=[5])[0], named=NAMED, ref=None, num_results=0).per_data
    )


def test_one_data_set_does_not_grow_into_several():
    with pytest.raises(UsageError, match="its data is digits, not digits,big"):
        extend(make()[0], make(data=["digits", "big"])[0], named=NAMED, ref=None, num_results=0)


def test_a_growing_product_of_data_sets_and_sizes_records_each_point():
    stored = make(data=["a", "b"], image_size=[16, 32])[0]
    grown = extend(stored, make(data=["c"], image_size=[16])[0], named=NAMED | {"image_size"}, ref=None, num_results=0)
    assert len(grown.per_data) == len(grown.data_points) == 5  # c at 32 px was not asked for yet
    again = extend(grown, make(data=["c"], image_size=[32])[0], named=NAMED | {"image_size"}, ref=None, num_results=0)
    assert len(again.per_data) == 6
    assert again.data_points["data=c, image_size=32"]["patch"] == 4


def test_an_axis_does_not_grow_by_a_default():
    stored = make(lr=[1e-3, 3e-3])[0]
    with pytest.raises(UsageError, match=r"has lr=0\.001,0\.003, and the default .* is not among them: give --set lr"):
        extend(stored, make()[0], named=NAMED, ref=None, num_results=0)
    assert extend(stored, make(lr=[3e-3])[0], named=NAMED | {"lr"}, ref=None, num_results=0) == stored


def test_the_reference_may_be_any_arm_of_the_grown_study():
    stored = make()[0]
    for ref, asked in (("xnorm", ["l2"]), ("l2", ["softmax"]), ("softmax", ["softmax"])):
        assert extend(stored, make(norm=asked)[0], named=NAMED, ref=ref, num_results=0).ref == ref
    with pytest.raises(UsageError, match="--ref none is not one of the arms: xnorm, l2"):
        extend(stored, make()[0], named=NAMED, ref="none", num_results=0)


def test_image_sizes_are_arms_only_if_nothing_else_differs():
    with pytest.raises(UsageError, match=r"--compare image_size: by default its values differ in model, .*patch"):
        make(compare="image_size", data=["big"], image_size=[16, 32])
    same = {"model": ["ufo_vit_pico"], "epochs": [1], "batch_size": [8], "lr": [1e-3], "patch": [2]}
    study, _ = make(compare="image_size", data=["big"], image_size=[16, 32], **same)
    assert study.arms == [16, 32]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ref": "softmax"}, "--ref softmax is not one of the arms"),
        ({"fixed": {}}, "fixed has no data"),
        ({"axes": {"norm": ["xnorm", "l2"], "seed": ["0"]}}, "axes has values of seed of a wrong type"),
        ({"axes": {"norm": ["xnorm", "l2"], "seed": [0], "what": [1]}}, "unknown field 'what'"),
        ({"axes": {"norm": ["xnorm", "l2"], "seed": [0], "data": ["a", "b"]}}, "fixed has no data_fingerprint"),
    ],
)
def test_a_study_that_was_tampered_with_is_none(change, message):
    whole = make()[0].model_dump()
    if "data" in change.get("axes", {}):
        whole["fixed"] = {field: value for field, value in whole["fixed"].items() if field != "data_fingerprint"}
    with pytest.raises(ValueError, match=message):
        Study.model_validate(whole | change)


def test_another_wording_of_the_question_is_taken_and_remembered():
    stored = make()[0]
    asked = make()[0].model_copy(update={"question": "Which?"})
    grown = extend(stored, asked, named=NAMED, ref=None, num_results=0)
    assert (grown.question, grown.history) == ("Which?", ("extended: another wording of the question",))
    assert extend(grown, stored, named=NAMED, ref=None, num_results=0) == grown


@pytest.mark.parametrize("field", ["norm", "seed", "lr"])
def test_a_study_without_values_of_its_axes_is_none(field):
    study, _ = make(compare="lr", lr=[1e-3, 3e-3])
    axes = {name: values for name, values in study.axes.items() if name != field}
    with pytest.raises(ValueError, match=f"axes has no values of {field}"):
        Study.model_validate({**study.model_dump(), "axes": axes})

"""From what is asked to cells, and how a study grows."""

from __future__ import annotations

import pytest

from ablations import recipes
from ablations.study import Study, UsageError
from ablations.study.grid import design, extend


def defaults(fields):
    return {**recipes.defaults(image_side=8, flips=False), "data_fingerprint": "f"}


def make(compare: str = "norm", ref: str | None = None, **asked: list) -> tuple[Study, list]:
    base = {"data": ["digits"], "norm": ["xnorm", "l2"], "seed": [0, 1]}
    return design(name="s", asked=base | asked, compare=compare, ref=ref, defaults=defaults)


def test_cells_come_seed_by_seed():
    _, cells = make(lr=[1e-3, 3e-3])
    order = [(cell.seed, cell.norm, cell.lr) for cell in cells]
    assert order == sorted(order, key=lambda key: key[0])
    assert len(set(order[:4])) == len(order) / 2 == 4


def test_fixed_is_complete_and_axes_hold_the_rest():
    study, cells = make(lr=[1e-3, 3e-3])
    assert set(study.axes) == {"norm", "seed", "lr"}
    assert set(study.axes) | set(study.fixed) == set(type(cells[0]).model_fields)
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
    with pytest.raises(UsageError, match="--ref softmax is none of the arms: xnorm, l2"):
        make(ref="softmax")


def test_another_field_can_be_compared():
    study, _ = make(compare="lr", norm=["xnorm"], lr=[1e-3, 3e-3])
    assert study.arms == [1e-3, 3e-3]
    assert study.ref == "0.001"


def test_comparing_a_field_without_values_is_refused():
    with pytest.raises(UsageError, match="--compare lr: give the values"):
        make(compare="lr")


def test_a_study_grows_along_its_axes_and_remembers():
    grown = extend(make()[0], make(norm=["xnorm", "softmax"], seed=[0, 1, 2])[0], explicit_ref=False)
    assert grown.axes == {"norm": ["xnorm", "l2", "softmax"], "seed": [0, 1, 2]}
    assert grown.history == ("extended: norm=softmax, seed=2",)


def test_asking_for_a_part_changes_nothing():
    stored = make()[0]
    assert extend(stored, make(norm=["l2"], seed=[1])[0], explicit_ref=False) == stored


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"epochs": [3]}, "epochs is 8, not 3"), ({"lr": [1e-3, 3e-3]}, "lr is 0.004, not 0.001,0.003")],
)
def test_a_changed_fixed_field_is_another_question(asked, field):
    with pytest.raises(UsageError, match=f"another question: its {field}"):
        extend(make()[0], make(**asked)[0], explicit_ref=False)


def test_another_compared_field_is_another_question():
    with pytest.raises(UsageError, match="its compare is norm, not lpi"):
        extend(make()[0], make(compare="lpi", lpi=[True, False])[0], explicit_ref=False)


def test_a_field_that_came_later_counts_as_its_default():
    stored = make()[0]
    older = stored.model_copy(update={"fixed": {k: v for k, v in stored.fixed.items() if k != "drop_path"}})
    assert extend(older, stored, explicit_ref=False) == older
    with pytest.raises(UsageError, match=r"its drop_path is 0\.0, not 0\.1"):
        extend(older, make(drop_path=[0.1])[0], explicit_ref=False)

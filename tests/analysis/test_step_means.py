"""Probes of single steps over seeds and layers, by numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from ablations.analysis.steps import largest_over_layers, step_means


def frame(*rows: tuple[Any, ...]) -> pd.DataFrame:
    """Return rows of cell, arm, step, layer and value; a cell named x has diverged, one named f has failed."""
    read = pd.DataFrame(rows, columns=["cell", "arm", "step", "layer", "value"])
    outcome = read["cell"].str[0].map({"x": "diverged", "f": "failed"}).fillna("ok")
    order = read["layer"].map({"a": 0, "b": 1}).astype("Int64")
    return read.assign(
        condition="", probe="output_rms", arm_label=read["arm"], arm_order=0, outcome=outcome, layer_order=order
    )


def value(means: pd.DataFrame, arm: str, layer: str, step: int) -> float:
    (found,) = means.query(f"arm == '{arm}' and layer == '{layer}' and step == {step}")["value"]
    return float(found)


def test_a_mean_is_geometric_over_the_seeds_that_have_the_step():
    means = step_means(frame(("s0", "p", 1, "a", 2.0), ("s1", "p", 1, "a", 8.0), ("s0", "p", 2, "a", 3.0)))
    assert value(means, "p", "a", 1) == pytest.approx(4)
    assert value(means, "p", "a", 2) == pytest.approx(3)
    assert (means["least"].unique(), means["largest"].unique()) == (pytest.approx([3]), pytest.approx([4]))
    assert set(means["num_seeds"]) == {2}


def test_every_arm_has_the_layers_and_steps_of_all_and_the_same_range():
    means = step_means(frame(("s0", "p", 1, "a", 2.0), ("s0", "q", 5, "b", 1e-3)))
    assert len(means) == 2 * 2 * 2
    assert math.isnan(value(means, "q", "a", 1))
    assert means["least"].unique() == pytest.approx([1e-3])
    assert means["largest"].unique() == pytest.approx([2])
    assert means.groupby("layer")["layer_order"].unique().map(list).to_dict() == {"a": [0], "b": [1]}


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf, -1.0])
def test_a_value_that_is_not_finite_makes_its_mean_infinite_and_leaves_the_range(lost):
    means = step_means(frame(("s0", "p", 1, "a", lost), ("s1", "p", 1, "a", 0.0), ("s0", "p", 2, "a", 5.0)))
    assert value(means, "p", "a", 1) == math.inf
    assert means["largest"].unique() == pytest.approx([5])


def test_a_run_that_has_diverged_counts_as_infinite_afterwards_and_a_failed_one_not_at_all():
    rows = [("s0", "p", step, "a", 1.0) for step in (1, 2)]
    means = step_means(frame(*rows, ("x0", "p", 1, "a", 4.0), ("f0", "p", 1, "a", 1e6)))
    assert value(means, "p", "a", 1) == pytest.approx(2)
    assert value(means, "p", "a", 2) == math.inf
    assert set(means["num_seeds"]) == {2}
    assert set(means["num_diverged"]) == {1}


def test_a_zero_makes_its_mean_zero_and_leaves_the_range():
    means = step_means(frame(("s0", "p", 1, "a", 0.0), ("s1", "p", 1, "a", 3.0), ("s0", "p", 2, "a", 7.0)))
    assert value(means, "p", "a", 1) == 0
    assert means["least"].unique() == pytest.approx([7])


def test_the_largest_layer_of_each_cell_and_step_is_found():
    rows = frame(
        ("s0", "p", 1, "a", 1.0), ("s0", "p", 1, "b", 3.0), ("s0", "p", 2, "a", math.nan), ("s0", "p", 2, "b", 9)
    )
    assert largest_over_layers(rows)[["step", "layer", "value"]].to_numpy().tolist() == [
        [1, "b", 3.0],
        [2, "a", math.inf],
    ]

"""Failure map, frontier and own against matched scale: every point at its place, and what is missing or censored."""

import math
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablations.analysis import t_interval
from ablations.figures.failure_map import failure_map
from ablations.figures.frontier import frontier_over_depth
from ablations.figures.palette import arm_style
from ablations.figures.scale import scale_difference

NAN, INF = math.nan, math.inf
ARM = {"condition": "", "arm": "l2", "arm_label": "L2", "arm_order": 1}
POINTS = [  # group, setting, lr, n, num_learned, excess_loss
    ("layer_scale=none", "depth=4", 0.1, 3, 0, 0.9),
    ("layer_scale=none", "depth=4", 0.01, 3, 3, 0.0),
    ("layer_scale=none", "depth=4", 0.001, 3, 2, 0.3),
    ("layer_scale=none", "depth=8", 0.001, 4, 2, 0.1),
    ("layer_scale=none", "depth=8", 0.01, 3, 0, NAN),
    ("layer_scale=none", "depth=8", 0.1, 0, 0, NAN),
    ("layer_scale=1.0", "depth=4", 0.001, 3, 3, INF),
]


def points() -> pd.DataFrame:
    frame = pd.DataFrame(POINTS, columns=["group", "setting", "lr", "n", "num_learned", "excess_loss"])
    share = frame["num_learned"] / frame["n"].where(frame["n"] > 0)
    return frame.assign(share=share, limit=0.6, **ARM)


def drawn(figure, frame: pd.DataFrame) -> Axes:
    axes = Figure(figsize=(7, 4.2), layout="constrained").subplots()
    assert figure(frame, axes) is axes
    axes.figure.savefig(BytesIO(), format="png", dpi=50)
    return axes


def crosses(axes: Axes) -> list[Line2D]:
    return [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]


def test_the_map_has_crosses_where_at_most_half_of_the_seeds_learn_and_counts_where_some_do():
    axes = drawn(failure_map, points())
    at = {(math.floor(line.get_xdata()[0]), round(line.get_ydata()[0], 2)) for line in crosses(axes)}
    assert at == {(2, 1.25), (0, 2.05), (1, 2.25)}  # the second of them leaves room for its count
    assert {text.get_text(): math.floor(text.get_position()[0]) for text in axes.texts} == {"2/3": 0, "2/4": 0}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]


def test_the_map_names_groups_above_their_settings():
    axes = drawn(failure_map, points())
    labels = [(label.get_text(), label.get_fontweight()) for label in axes.get_yticklabels()]
    assert labels == [
        ("layer_scale=none", "bold"),
        ("depth=4", "normal"),
        ("depth=8", "normal"),
        ("layer_scale=1.0", "bold"),
        ("depth=4", "normal"),
    ]
    ungrouped = drawn(failure_map, points().drop(columns="group").iloc[:6])
    assert [label.get_text() for label in ungrouped.get_yticklabels()] == ["depth=4", "depth=8"]


def test_the_colours_of_the_map_are_those_of_the_scale_and_a_loss_that_is_not_finite_is_hatched():
    axes = drawn(failure_map, points())
    (mesh,) = [each for each in axes.collections if isinstance(each, QuadMesh)]
    assert (mesh.get_cmap().name, mesh.get_clim()) == ("cividis_r", (0, 0.6))
    values = mesh.get_array()
    assert values.compressed().tolist() == [0.3, 0.0, 0.9, 0.1]
    hatched = {(patch.get_x(), patch.get_y()) for patch in axes.patches if patch.get_hatch()}
    assert hatched == {(1, 1.75), (0, 3.5)}
    (cross,) = [line for line in crosses(axes) if line.get_xdata()[0] == 2.5]
    assert cross.get_color() == "white"  # on the darkest blue
    light, *_, dark = colormaps["cividis_r"]([0.0, 0.5, 1.0])
    assert light[:3].sum() > dark[:3].sum()


def test_the_colour_bar_of_the_map_says_if_losses_are_above_it():
    for limit, extend in ((0.6, "max"), (0.9, "neither")):
        axes = drawn(failure_map, points().assign(limit=limit))
        (mesh,) = [each for each in axes.collections if isinstance(each, QuadMesh)]
        assert mesh.colorbar.extend == extend


def test_the_map_counts_seeds_and_refuses_several_arms():
    assert drawn(failure_map, points()).get_title(loc="left").endswith("\nn = 3 to 4")
    assert drawn(failure_map, points().assign(n=0)).get_title(loc="left").endswith("\nno result")
    with pytest.raises(ValueError, match="a failure map shows one arm, got 2: l2, xnorm"):
        failure_map(pd.concat([points(), points().assign(arm="xnorm")]), Figure().subplots())


FRONTIERS = [  # arm_order, depth, n, num_unknown, num_below, num_above, frontier_lr, low, high
    (0, 4, 3, 0, 0, 3, 0.1, 0.1, NAN),
    (0, 16, 3, 0, 0, 0, 0.01, 0.005, 0.02),
    (0, 8, 3, 0, 0, 0, 0.03, 0.01, 0.1),
    (1, 4, 3, 0, 0, 0, 0.02, 0.01, 0.04),
    (1, 8, 2, 1, 1, 0, 0.002, NAN, 0.01),
    (1, 16, 1, 2, 0, 0, 0.001, NAN, NAN),
]


def frontiers() -> pd.DataFrame:
    names = ["arm_order", "depth", "n", "num_unknown", "num_below", "num_above", "frontier_lr", "low", "high"]
    frame = pd.DataFrame(FRONTIERS, columns=names)
    return frame.assign(condition="", arm=[f"arm{order}" for order in frame["arm_order"]], arm_label=frame["arm_order"])


def lines_of(axes: Axes, order: int, linestyle: str) -> list[Line2D]:
    colour = arm_style(order).colour
    found = [line for line in axes.lines if to_hex(line.get_color()) == colour and len(line.get_xdata())]
    return [line for line in found if line.get_linestyle() == linestyle]


def test_the_frontier_is_drawn_over_the_depth_in_order():
    axes = drawn(frontier_over_depth, frontiers())
    for order, expected in ((0, [0.1, 0.03, 0.01]), (1, [0.02, 0.002, 0.001])):
        (line,) = lines_of(axes, order, "-")
        assert line.get_ydata().tolist() == expected
        assert line.get_xdata() == pytest.approx([4, 8, 16], rel=0.05)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "8", "16"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    places = [lines_of(axes, order, "-")[0].get_xdata()[0] for order in (0, 1)]
    assert places[0] < 4 < places[1]
    low, high = axes.get_xlim()
    assert low < places[0]
    assert high > 16


def test_a_censored_frontier_is_hollow_and_its_open_end_an_arrow():
    axes = drawn(frontier_over_depth, frontiers())
    for order, hollow in ((0, [0.1]), (1, [0.002])):
        marks = lines_of(axes, order, "None")
        shown = [line for line in marks if line.get_marker() == arm_style(order).marker]
        assert [line.get_ydata().tolist() for line in shown if line.get_markerfacecolor() == "white"] == [hollow]
        assert sum(len(line.get_ydata()) for line in shown) == 3
    arrows = {(each.xy[1], math.copysign(1, each.xyann[1])) for each in axes.texts}
    assert arrows == {(0.1, 1), (0.002, -1)}  # none for an interval that one seed cannot have
    bars = [segment[:, 1].tolist() for each in axes.containers for segment in each.lines[2][0].get_segments()]
    expected = [[0.1, 0.1], [0.01, 0.1], [0.005, 0.02], [0.01, 0.04], [0.002, 0.01], [0.001, 0.001]]
    assert np.array(bars) == pytest.approx(np.array(expected))
    title = axes.get_title(loc="left")
    assert title.endswith("\nn = 1 to 3, censored: 4 of 15\nunknown: 3")


def test_an_interval_of_many_decades_is_cut_and_counted():
    wide = frontiers()
    wide.loc[(wide["arm_order"] == 0) & (wide["depth"] == 16), ["low", "high"]] = 1e-9, 1e5
    axes = drawn(frontier_over_depth, wide)
    low, high = axes.get_ylim()
    assert 1e-4 <= low < 0.001
    assert 0.1 < high <= 1
    assert axes.get_title(loc="left").endswith("intervals cut: 1")
    assert "cut" not in drawn(frontier_over_depth, frontiers()).get_title(loc="left")


def test_arms_in_the_background_of_the_frontier_are_grey_and_are_not_counted():
    frame = frontiers().assign(is_background=lambda rows: rows["arm_order"] == 1)
    axes = drawn(frontier_over_depth, frame)
    assert [line.get_ydata().tolist() for line in axes.lines if line.get_color() == "0.88"] == [[0.02, 0.002, 0.001]]
    assert not lines_of(axes, 1, "-")
    caption, counts = axes.get_title(loc="left").split("\n")
    assert caption.endswith("Grey: means of the other arms.")
    assert counts == "n = 3, censored: 3 of 9"


def test_one_depth_is_drawn_too():
    axes = drawn(frontier_over_depth, frontiers().query("depth == 8"))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8"]


def pairs() -> pd.DataFrame:
    rows = []
    for order, scale, values in (
        (2, "own", [1.0, 2.0, 3.0]),
        (2, "matched", [0.1, -0.1]),
        (1, "matched", [0.5, 0.7]),
        (1, "own", [-1.0, -40.0]),
    ):
        low, high = t_interval(np.array(values)) if min(values) > -40 else (NAN, NAN)
        bounds = {"mean_pct": np.mean(values), "low_pct": low, "high_pct": high}
        names = {"condition": "", "arm": f"arm{order}", "arm_label": f"Arm {order}", "arm_order": order, "scale": scale}
        names["margin_pct"] = 0.5 * order
        for seed, value in enumerate(values):
            both = {"seed": seed, "difference_pct": value, "has_chance": value == -40, "comparison": "a - xnorm"}
            rows.append(names | bounds | both)
    return pd.DataFrame(rows)


def test_each_arm_has_a_row_at_own_and_a_hollow_one_at_matched_scale():
    axes = drawn(scale_difference, pairs())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Arm 1, own", "matched", "Arm 2, own", "matched"]
    expected = [(-20.5, False), (0.6, True), (2.0, False), (0.0, True)]
    for row, (container, (mean, is_hollow)) in enumerate(zip(axes.containers, expected, strict=True)):
        mark, _, (bar,) = container.lines
        assert mark.get_xdata() == pytest.approx([mean])
        assert (mark.get_markerfacecolor() == "white") == is_hollow
        assert math.floor(mark.get_ydata()[0]) == row
        own = pairs()[np.isclose(pairs()["mean_pct"], mean)]
        ends = [segment[:, 0].tolist() for segment in bar.get_segments() if segment.size and np.isfinite(segment).all()]
        bounds = own[["low_pct", "high_pct"]].iloc[0].tolist()
        assert ends == ([] if row == 0 else [pytest.approx(bounds)])
        dots = [line for line in axes.lines if line.get_alpha() == 0.6 and len(line.get_xdata())]
        seeds = [value for line in dots for value, y in zip(*line.get_data(), strict=True) if abs(y - row) < 0.31]
        assert sorted(seeds) == sorted(own.loc[~own["has_chance"], "difference_pct"])
    (cross,) = crosses(axes)
    assert cross.get_xdata().tolist() == [-40]
    beside = ["-20.50\nn = 2", "+0.60\nn = 2", "+2.00\nn = 3", "+0.00\nn = 2"]
    assert [text.get_text() for text in axes.texts[:4]] == beside
    assert axes.get_xlabel() == "Difference in test accuracy to xnorm (points)"


def test_the_line_at_zero_has_each_arms_margin_of_equivalence_around_it():
    axes = drawn(scale_difference, pairs())
    bands = [band.get_paths()[0].get_extents() for band in axes.collections if len(band.get_facecolor())]
    assert [(band.x0, band.x1, band.y0, band.y1) for band in bands] == [(-0.5, 0.5, -0.5, 1.5), (-1, 1, 1.5, 3.5)]
    assert [0, 0] in [list(line.get_xdata()) for line in axes.lines]
    assert "± 0.5\nor ± 1 points" in axes.texts[4].get_text()


def test_an_arm_without_pairs_at_one_scale_says_so():
    axes = drawn(scale_difference, pairs().query("arm_order == 1 or scale == 'own'"))
    assert axes.texts[3].get_text() == "no pairs"
    assert len(axes.containers) == 3

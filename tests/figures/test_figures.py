"""What every figure keeps: styles that stay with the arm, one condition, named axes, crosses, and nothing global."""

import math
import subprocess
import sys
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablations.analysis import t_interval
from ablations.figures.arms import accuracy_per_arm
from ablations.figures.curves import accuracy_curves, loss_curves
from ablations.figures.palette import arm_style

EPOCHS = 5
CURVES = [loss_curves, accuracy_curves]
FIGURES = [*CURVES, accuracy_per_arm]
STORIES = {  # outcome, kind, epochs, score
    "ok": ("ok", "", EPOCHS, None),
    "exploded": ("diverged", "exploded", 3, 10.0),
    "stuck": ("diverged", "no_learning", EPOCHS, 12.0),
    "oom": ("failed", "oom", 2, math.nan),
}


def frames(arms: dict[int, list[str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return cells and curves: each arm, by its place in the registry, with the stories of its seeds."""
    cells, curves = [], []
    for order, stories in arms.items():
        for seed, story in enumerate(stories):
            outcome, kind, epochs, score = STORIES[story]
            common = {
                "cell": f"{order}-{seed}",
                "arm": f"arm{order}",
                "arm_label": f"Arm {order}",
                "arm_order": order,
                "condition": "",
                "seed": seed,
                "outcome": outcome,
                "kind": kind,
            }
            accuracy = 60.0 - order + seed if score is None else score
            cells.append(common | {"score_pct": accuracy, "chance_pct": 10.0, "stale": False})
            for epoch in range(1, epochs + 1):
                loss = 2.0 / epoch + 0.1 * order + 0.01 * seed
                if story == "exploded" and epoch == epochs:
                    loss = 1e6
                values = {("train", "loss"): loss, ("val", "loss"): 9.0, ("train", "accuracy_pct"): 99.0}
                values |= {("val", "accuracy_pct"): 50.0 - order + seed + epoch}
                for (split, metric), value in values.items():
                    curves.append(common | {"epoch": epoch, "split": split, "metric": metric, "value": value})
    return pd.DataFrame(cells), pd.DataFrame(curves)


def draw(figure, arms: dict[int, list[str]]) -> Axes:
    cells, curves = frames(arms)
    axes = Figure(figsize=(7, 4.2), layout="constrained").subplots()
    assert figure(cells if figure is accuracy_per_arm else curves, axes) is axes
    return axes


def mean_line(axes: Axes, label: str) -> Line2D:
    """Return the bold line of an arm, found by the first line of its label in the legend."""
    (line,) = [line for line in axes.lines if str(line.get_label()).split("\n")[0] == label]
    return line


def crosses(axes: Axes) -> list[Line2D]:
    return [line for line in axes.lines if line.get_marker() in ("x", "+") and len(line.get_xdata())]


def words(axes: Axes) -> str:
    return " ".join([axes.get_title(loc="left"), *(text.get_text() for text in axes.get_legend().get_texts())])


@pytest.mark.parametrize("figure", FIGURES)
def test_an_arm_looks_the_same_in_any_company(figure):
    def looks(axes: Axes) -> set[tuple[str, object]]:
        wanted = arm_style(9).colour
        return {
            (to_hex(line.get_color()), line.get_marker()) for line in axes.lines if to_hex(line.get_color()) == wanted
        }

    alone = looks(draw(figure, {9: ["ok"] * 3}))
    assert (arm_style(9).colour, arm_style(9).marker) in alone
    assert alone == looks(draw(figure, {0: ["ok"], 9: ["ok"] * 3, 12: ["ok"] * 2}))


@pytest.mark.parametrize("figure", FIGURES)
def test_axes_are_named_with_units(figure):
    axes = draw(figure, {0: ["ok"] * 2})
    value = axes.get_xlabel() if figure is accuracy_per_arm else axes.get_ylabel()
    assert value in ("Training loss (nats)", "Validation accuracy (%)", "Test accuracy (%)")
    assert figure is accuracy_per_arm or axes.get_xlabel() == "Epoch"


@pytest.mark.parametrize("figure", FIGURES)
def test_conditions_are_not_pooled(figure):
    cells, curves = frames({0: ["ok"] * 2})
    frame = cells if figure is accuracy_per_arm else curves
    frame["condition"] = ["lr=1"] + ["lr=2"] * (len(frame) - 1)
    with pytest.raises(ValueError, match=r"lr=1.*lr=2"):
        figure(frame, Figure().subplots())


@pytest.mark.parametrize("figure", FIGURES)
def test_an_empty_frame_says_so(figure):
    frame = frames({0: ["ok"]})[0 if figure is accuracy_per_arm else 1].iloc[:0]
    axes = figure(frame, Figure().subplots())
    assert [text.get_text() for text in axes.texts] == ["no finished cells"]


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")  # which may be of another test
def test_nothing_global_changes_and_all_of_it_is_drawn(figure):
    before = dict(mpl.rcParams)
    for arms in ({0: ["ok"]}, {1: ["oom", "oom"]}, {0: ["ok"] * 3, 2: ["exploded"] * 3, 3: ["stuck", "oom", "ok"]}):
        axes = draw(figure, arms)
        axes.figure.savefig(BytesIO(), format="png", dpi=50)
        assert not axes.get_legend().get_window_extent().overlaps(axes.get_window_extent())
        drawn, page = axes.get_tightbbox(), axes.figure.bbox.padded(1)
        assert page.x0 <= drawn.x0 < drawn.x1 <= page.x1
        assert page.y0 <= drawn.y0 < drawn.y1 <= page.y1
    assert dict(mpl.rcParams) == before


@pytest.mark.process
def test_pyplot_is_not_imported():
    code = "import sys, ablations.figures.arms, ablations.figures.curves; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("figure", CURVES)
def test_curves_show_every_seed_the_mean_and_its_band(figure):
    axes = draw(figure, {0: ["ok"] * 4, 1: ["ok"] * 3})
    thin = [line for line in axes.lines if line.get_linewidth() < 1]
    assert len(thin) == 7
    assert len(axes.collections) == 2  # bands
    values = np.array([line.get_ydata() for line in thin[:4]], dtype=float)
    assert mean_line(axes, "Arm 0").get_ydata() == pytest.approx(values.mean(axis=0))
    vertices = axes.collections[0].get_paths()[0].vertices
    last = vertices[vertices[:, 0] == EPOCHS][:, 1]
    assert (last.min(), last.max()) == pytest.approx(t_interval(values[:, -1]))
    assert not crosses(axes)
    assert "n = 3 to 4 per arm" in words(axes)
    assert "n = 3" in [text.get_text() for text in axes.get_legend().get_texts()][1]


def test_curves_pick_their_split_and_metric():
    assert mean_line(draw(loss_curves, {0: ["ok"]}), "Arm 0").get_ydata() == pytest.approx([2, 1, 2 / 3, 0.5, 0.4])
    assert mean_line(draw(accuracy_curves, {0: ["ok"]}), "Arm 0").get_ydata() == pytest.approx([51, 52, 53, 54, 55])


@pytest.mark.parametrize("figure", CURVES)
def test_a_diverged_run_has_its_cross_and_ends_the_mean(figure):
    axes = draw(figure, {0: ["ok"] * 3, 2: ["ok", "ok", "exploded"]})
    (cross,) = crosses(axes)
    assert (cross.get_marker(), to_hex(cross.get_color())) == ("x", arm_style(2).colour)
    assert list(cross.get_xdata()) == [3]
    assert list(mean_line(axes, "Arm 2").get_xdata()) == [1, 2, 3]
    assert list(mean_line(axes, "Arm 0").get_xdata()) == [1, 2, 3, 4, 5]
    assert len(axes.collections) == 1  # no band for the arm that exploded
    assert "1 diverged" in words(axes)


def test_an_explosion_does_not_flatten_the_others():
    axes = draw(loss_curves, {0: ["ok"] * 3, 2: ["ok", "ok", "exploded"]})
    low, high = axes.get_ylim()
    assert 0 < low < high < 3
    assert crosses(axes)[0].get_ydata() == [high]


@pytest.mark.parametrize("figure", CURVES)
def test_a_failed_run_is_marked_and_not_in_the_mean(figure):
    axes = draw(figure, {0: ["ok", "ok", "oom"]})
    (cross,) = crosses(axes)
    assert (cross.get_marker(), list(cross.get_xdata())) == ("+", [2])
    assert list(mean_line(axes, "Arm 0").get_xdata()) == [1, 2, 3, 4, 5]
    expected = mean_line(draw(figure, {0: ["ok", "ok"]}), "Arm 0").get_ydata()
    assert mean_line(axes, "Arm 0").get_ydata() == pytest.approx(expected)
    assert "1 failed" in words(axes)
    assert "n = 2 per arm" in words(axes)


def test_the_mean_does_not_come_back_after_a_gap():
    curves = frames({0: ["ok", "ok"]})[1]
    curves.loc[(curves["cell"] == "0-1") & (curves["epoch"] == 3), "value"] = math.nan
    assert list(mean_line(loss_curves(curves, Figure().subplots()), "Arm 0").get_xdata()) == [1, 2]


@pytest.mark.parametrize(("figure", "edge"), [(loss_curves, 1), (accuracy_curves, 0)])
def test_a_run_without_a_finite_value_still_has_its_cross(figure, edge):
    curves = frames({0: ["ok", "ok", "exploded"]})[1]
    curves.loc[curves["cell"] == "0-2", "value"] = [math.nan, math.inf] * 6
    axes = figure(curves, Figure().subplots())
    (cross,) = crosses(axes)
    assert (list(cross.get_xdata()), list(cross.get_ydata())) == ([1], [axes.get_ylim()[edge]])
    assert len(mean_line(axes, "Arm 0").get_xdata()) == 0


def test_wide_bands_leave_the_axis_to_the_runs():
    axes = draw(accuracy_curves, {0: ["ok", "ok"]})  # with two runs the interval is 12.7 standard errors to each side
    assert axes.get_ylim() == pytest.approx((51 - 0.25, 56 + 0.25))


def test_arms_show_every_seed_mean_and_interval():
    axes = draw(accuracy_per_arm, {0: ["ok"] * 3, 1: ["ok"] * 3})
    dots = [line for line in axes.lines if line.get_alpha() == 0.6]
    assert [sorted(line.get_xdata()) for line in dots] == [[60, 61, 62], [59, 60, 61]]
    heights = [np.asarray(line.get_ydata()) for line in dots]
    assert heights[1] - heights[0] == pytest.approx([1, 1, 1])  # a seed stands at the same height in every row
    first = axes.containers[0]
    assert first.lines[0].get_xdata() == pytest.approx([61])
    assert first.lines[2][0].get_segments()[0][:, 0] == pytest.approx(t_interval([60, 61, 62]))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Arm 0 (n = 3)", "Arm 1 (n = 3)"]
    assert axes.yaxis_inverted()  # the registry's first arm on top


def test_chance_is_no_reason_to_squash():
    axes = draw(accuracy_per_arm, {0: ["ok"] * 3})
    assert axes.get_xlim()[0] > 50
    assert "chance" not in words(axes)


def test_diverged_cells_are_crosses_at_their_score():
    axes = draw(accuracy_per_arm, {0: ["ok"] * 2, 1: ["ok", "exploded", "stuck", "oom"]})
    (crossed,) = crosses(axes)
    assert list(crossed.get_xdata()) == [10, 12]
    assert to_hex(crossed.get_color()) == arm_style(1).colour
    (chance,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert list(chance.get_xdata()) == [10, 10]
    assert "chance, 10 %" in words(axes)
    assert [label.get_text() for label in axes.get_yticklabels()][1] == "Arm 1 (n = 3, 2 diverged, 1 failed)"
    mean = axes.containers[1]
    assert mean.lines[0].get_xdata() == pytest.approx([(59 + 10 + 12) / 3])
    assert not any(
        np.isfinite(segment).any() for segment in mean.lines[2][0].get_segments()
    )  # no interval: a chance score is in the mean


def test_stale_cells_are_counted_in_the_label():
    cells = frames({0: ["ok"] * 3})[0]
    cells.loc[1, "stale"] = True
    axes = accuracy_per_arm(cells, Figure().subplots())
    assert axes.get_yticklabels()[0].get_text() == "Arm 0 (n = 3, 1 stale)"


def test_wide_intervals_do_not_show_impossible_accuracies():
    cells = frames({0: ["ok"] * 2})[0].assign(score_pct=[5.0, 95.0])
    assert accuracy_per_arm(cells, Figure().subplots()).get_xlim() == (-2, 102)

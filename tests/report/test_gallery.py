"""The figures of whole studies: each on its page, true to its frame, and the same in any company."""

import inspect
import math
import time
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from studies import LAYERS, make_study, make_tuned

from ablations.analysis import CHANCE_KINDS, MARGIN_PCT, t_interval, wilson_interval
from ablations.api import read_results
from ablations.figures.agreement import agreement
from ablations.figures.cost import accuracy_against_cost
from ablations.figures.differences import contrasts, paired_differences
from ablations.figures.failures import failures_by_kind
from ablations.figures.palette import arm_style
from ablations.figures.probes import probes_over_depth, probes_over_time
from ablations.report.drawing import drawing
from ablations.report.gallery import all_figures, core_figures
from ablations.report.kinds import FIGURES, FigureSpec
from ablations.report.notebook import StudyResults
from ablations.report.panels import draw_panels
from ablations.report.plot import Plot
from ufo.norms import NORMS

TEN = (
    "xnorm",
    "l2",
    "single_l2",
    "layernorm",
    "softmax",
    "xnorm_fixed",
    "xnorm_value",
    "single_l2_kv",
    "rmsnorm",
    "none",
)
ENDS = {("l2", 0): "nan", ("single_l2", 1): "oom", ("softmax", 2): "stuck", ("none", 0): "exploded", ("none", 1): "nan"}
STUDIES = {
    "three arms": {"seeds": 8, "probe_steps": (1, 2, 5, 10)},
    "ten arms, every end": {"norms": TEN, "seeds": 4, "stories": ENDS, "probe_steps": (1, 2, 5, 10, 20)},
    "one arm, one seed": {"norms": ("xnorm",), "seeds": 1},
    "one arm, all failed": {"norms": ("l2",), "seeds": 2, "stories": {("l2", 0): "oom", ("l2", 1): "error"}},
    "an arm explodes": {
        "norms": ("xnorm", "l2"),
        "seeds": 4,
        "stories": {("l2", seed): "exploded" for seed in range(4)},
    },
    "two learning rates": {"lr": [1e-3, 3e-3], "seeds": 4, "stories": {("l2", 0): "exploded", ("l2", 1): "oom"}},
    "seven learning rates": {"lr": [1e-4 * 2**i for i in range(7)], "seeds": 2},
    "rates, depths and scales": {
        "norms": ("xnorm", "l2", "softmax"),
        "lr": [1e-3, 3e-3, 1e-2],
        "depth": [2, 4],
        "layer_scale": [None, 1.0],
        "seeds": 3,
        "epochs": 1,
        "stories": {("l2", 0): "nan", ("softmax", 0): "stuck", ("softmax", 1): "oom"},
    },
    "own and matched scale": {
        "scale": ["own", "matched"],
        "seeds": 4,
        "stories": {("l2", 1): "nan"},
        "claims": [{"kind": "explained_by_scale", "arm": "l2", "than": "xnorm", "margin_pct": 3}],
    },
    "detectors": {
        "norms": ("xnorm", "l2", "softmax"),
        "task": ["detect"],
        "seeds": 3,
        "stories": {("l2", 1): "nan", ("softmax", 2): "stuck"},
    },
    "tuned": {
        "norms": TEN[:5],
        "trials": 16,
        "stories": {("l2", k): "nan" for k in range(16)} | {("xnorm", 2): "exploded", ("softmax", 3): "oom"},
    },
    "one arm, one trial": {"norms": ("xnorm",), "trials": 1, "seeds": 1},
    "trials that all failed": {
        "norms": ("xnorm",),
        "trials": 2,
        "confirmed": False,
        "stories": {("xnorm", k): "oom" for k in range(2)},
    },
}
OF_DETECTORS = ("test_ap", "validation_ap", "ap_against_cost", "precision_recall", "ap_by_size", "found_objects")
WITHOUT_ARMS = (
    "agreement",
    "failures",
    "contrasts",
    "found_objects",
    "precision_recall",
    "failure_map",
    "probes_over_steps",
)
"""Figures whose arms have no marker of their own."""

TUNED = ("tuned", "one arm, one trial", "trials that all failed")


@cache
def results(name: str) -> StudyResults:
    folder = (make_tuned if name in TUNED else make_study)(Path(mkdtemp()), **STUDIES[name])
    costs = [
        {"condition": "", "arm": arm, "quantity": quantity, "tokens": None, "round": number, "value": value * (1 + i)}
        for i, arm in enumerate(STUDIES[name].get("norms", ("xnorm", "l2")))
        for quantity, values in (("multiply_adds", [3e9]), ("inference_s", [0.010, 0.011, 0.013]))
        for number, value in enumerate(values)
    ]
    pd.DataFrame(costs).astype({"tokens": "Int64"}).to_csv(folder / "cost.csv", index=False)
    return read_results([folder])


@cache
def figures(name: str) -> tuple[FigureSpec, ...]:
    return tuple(all_figures(results(name)))


def spec(name: str, figure: str, part: str = "", *, panel: str = "", condition: str = "") -> FigureSpec:
    (found,) = [
        one
        for one in figures(name)
        if (one.name, one.part, one.panel, one.condition) == (figure, part, panel, condition)
    ]
    return found


def draw(one: FigureSpec) -> Axes:
    axes = Figure(figsize=one.size, layout="constrained").subplots()
    assert one.draw(axes) is axes
    return axes


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def crosses(axes: Axes) -> list[Line2D]:
    return [line for line in axes.lines if line.get_marker() in ("x", "+") and len(line.get_xdata())]


def thin(axes: Axes) -> list[Line2D]:
    return [line for line in axes.lines if line.get_linewidth() == 0.6]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name.startswith("one arm") else pytest.mark.slow)
        for name in STUDIES
        if "rates" not in name
    ],
)
@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")  # which may be of another test
def test_every_figure_of_a_study_is_on_its_page_with_named_axes(name):
    before = dict(mpl.rcParams)
    specs = list(figures(name))
    for one in specs:
        axes = draw(one)
        figure = axes.figure
        figure.savefig(BytesIO(), format="png", dpi=50)
        drawn, page = figure.get_tightbbox(), figure.bbox_inches.padded(0.01)
        assert page.x0 <= drawn.x0 < drawn.x1 <= page.x1, one.name
        assert page.y0 <= drawn.y0 < drawn.y1 <= page.y1, one.name
        across = axes.get_xlabel() or axes.get_xticklabels()[0].get_text()
        named = across and (axes.get_ylabel() or axes.get_yticklabels()[0].get_text())
        assert named or one.name in ("agreement", "found_objects"), one.name
        if (legend := axes.get_legend()) is not None:
            assert not legend.get_window_extent().overlaps(axes.get_window_extent()), one.name
    assert dict(mpl.rcParams) == before
    assert [one for one in specs if FIGURES[one.name].after_run] == [
        one for one in specs if any(one.name == core.name for core in core_figures(results(name)))
    ]


def test_every_figure_is_seen_in_one_of_these_studies():
    assert {one.name for name in STUDIES for one in figures(name)} == set(FIGURES)


@pytest.mark.parametrize("figure", FIGURES)
def test_one_condition_is_drawn_and_an_empty_frame_says_so(figure):
    for name in STUDIES:
        if found := [one for one in figures(name) if one.name == figure]:
            break
    frame = found[0].frame
    two = pd.concat([frame, frame.assign(condition="lr=1")], ignore_index=True)
    with pytest.raises(ValueError, match="one condition, got 2"):
        FIGURES[figure].draw(two, Figure().subplots())
    if "against_cost" not in figure:
        axes = FIGURES[figure].draw(frame.iloc[:0], Figure().subplots())
        assert texts(axes) in (["no finished cells"], ["no complete pairs"])


@pytest.mark.parametrize("figure", [name for name in FIGURES if name not in WITHOUT_ARMS])
def test_an_arm_looks_the_same_in_any_company(figure):
    studies = {"lr_sensitivity": "two learning rates", "frontier": "rates, depths and scales"}
    study = studies.get(figure, "own and matched scale" if figure == "scale_difference" else "three arms")
    study = "tuned" if figure.startswith("tuning") else study
    study = "detectors" if figure in OF_DETECTORS else study
    one = next(one for one in figures(study) if one.name == figure)
    style = arm_style(list(NORMS).index("l2"))

    def looks(frame: pd.DataFrame) -> set[tuple[str, object, str]]:
        lines = FIGURES[figure].draw(frame, Figure().subplots()).lines
        found = {(to_hex(line.get_color()), line.get_marker(), line.get_linestyle()) for line in lines}
        return {look for look in found if look[0] == style.colour}

    alone = looks(one.frame[one.frame["arm"] == "l2"])
    assert style.marker in {marker for _, marker, _ in alone}
    assert looks(one.frame) == alone


def test_trials_are_drawn_over_the_range_with_the_best_of_each_part_and_what_diverged():
    axes = draw(spec("tuned", "tuning_sensitivity", "lr"))
    colour = arm_style(list(NORMS).index("xnorm")).colour
    own = [line for line in axes.lines if to_hex(line.get_color()) == colour]
    dots, diverged, best = (len(line.get_xdata()) for line in own)
    assert (dots, diverged, best) == (15, 1, 4)
    assert axes.get_xscale() == "log"
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[0].startswith("XNorm\nsensitivity ")
    assert "decades)" in legend[0]
    assert legend[1].endswith("nowhere stable")
    assert axes.get_title(loc="left").startswith("n = 16 trials per arm.")


def test_the_isolation_plot_has_each_arms_best_and_says_what_lies_outside():
    one = spec("tuned", "tuning_isolation")
    axes = draw(one)
    best = [line for line in axes.lines if line.get_markersize() == 7]
    assert len(best) == 5
    row = results("tuned").tuned.iloc[0]
    assert best[0].get_xdata() == row["best_pct"]
    beside = texts(axes)[0].split("\n")
    assert beside[:2] == [f"{row['best_pct']:.2f} % at", f"lr {row['lr']:g}"]
    outside = (one.frame.query("arm == 'xnorm'")["score_pct"] < axes.get_xlim()[0]).sum()
    assert beside[-1] == f"{outside} to the left"


def test_the_expected_best_reaches_the_best():
    axes = draw(spec("tuned", "tuning_best_of_k"))
    assert [len(line.get_xdata()) for line in axes.lines] == [16, 16, 16, 16, 15]
    assert axes.lines[0].get_ydata()[-1] == results("tuned").tuned["best_pct"].iloc[0]


def test_differences_show_every_pair_the_mean_and_the_test():
    one = spec("three arms", "paired_differences")
    axes = draw(one)
    table = results("three arms").table.set_index("arm")
    for row, arm in enumerate(("l2", "single_l2")):
        own = one.frame[one.frame["arm"] == arm]
        (dots,) = [line for line in axes.lines if line.get_alpha() == 0.6 and round(np.mean(line.get_ydata())) == row]
        assert sorted(dots.get_xdata()) == pytest.approx(sorted(own["difference_pct"]))
        mean = axes.containers[row].lines
        assert mean[0].get_xdata() == pytest.approx([table.loc[arm, "difference_pct"]])
        ends = mean[2][0].get_segments()[0][:, 0]
        assert ends == pytest.approx(table.loc[arm, ["difference_low_pct", "difference_high_pct"]].tolist())
    assert [label.get_text() for label in axes.get_yticklabels()] == [NORMS["l2"].label, NORMS["single_l2"].label]
    assert axes.get_xlabel() == "Difference in test accuracy to xnorm (points)"
    assert texts(axes)[0].startswith("n = 8\np ")
    assert {line.get_xdata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 0]} == {0}


def test_bold_is_what_the_test_supports_and_nothing_else():
    frame = spec("three arms", "paired_differences").frame
    for is_supported in (True, False):
        marked = frame.assign(supported=(frame["arm"] == "l2") & is_supported, p_holm=0.0004)
        axes = paired_differences(marked, Figure().subplots())
        weights = {text.get_text(): text.get_fontweight() for text in axes.texts[:2]}
        assert list(weights) == ["n = 8\np < 0.001"]
        assert [text.get_fontweight() for text in axes.texts[:2]] == ["bold" if is_supported else "normal", "normal"]


def test_a_pair_with_a_chance_score_is_a_cross_and_its_mean_has_no_interval():
    one = spec("an arm explodes", "paired_differences")
    axes = draw(one)
    (cross,) = crosses(axes)
    assert sorted(cross.get_xdata()) == pytest.approx(sorted(one.frame["difference_pct"]))
    assert not any(len(line.get_xdata()) for line in axes.lines if line.get_alpha() == 0.6)  # no dot under a cross
    (bar,) = axes.containers
    assert not any(np.isfinite(segment).any() for segment in bar.lines[2][0].get_segments())
    assert "with a chance score" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_contrasts_say_what_each_isolates():
    one = spec("ten arms, every end", "contrasts")
    labels = [label.get_text() for label in draw(one).get_yticklabels()]
    assert "xnorm - xnorm_fixed\nthe gain" in [" ".join(label.split(" ")) for label in labels]
    assert len(labels) == one.frame["comparison"].nunique() == 10  # nine contrasts and the interaction
    assert draw(one).get_xlabel() == "Difference in test accuracy (points)"
    assert contrasts(one.frame, Figure().subplots()).yaxis_inverted()


def test_failures_are_counted_with_wilsons_interval():
    one = spec("ten arms, every end", "failures")
    axes = draw(one)
    arms = list(one.frame.sort_values("arm_order")["arm"].unique())
    for row, arm in enumerate(arms):
        widths = [bar.get_width() for bar in axes.patches if bar.get_y() + bar.get_height() / 2 == pytest.approx(row)]
        assert sum(widths) == 4
        low, high = wilson_interval(sum(ENDS.get((arm, s), "oom") != "oom" for s in range(4)), 4 - (arm == "single_l2"))
        assert any(f"[{100 * low:.0f}, {100 * high:.0f}] %" in text for text in texts(axes)), arm
    assert "2 of 4 diverged\n[15, 85] %" in texts(axes)
    assert "0 of 3 diverged\n[0, 56] %" in texts(axes)
    told = {text.get_text() for text in axes.get_legend().get_texts()}
    assert told == {"ok", "diverged: nan", "diverged: exploded", "diverged: no_learning", "failed: oom"}
    with pytest.raises(ValueError, match=r"unknown kind of outcome 'bored'\. Valid: nan, exploded"):
        failures_by_kind(one.frame.assign(kind="bored"), Figure().subplots())


def test_sensitivity_has_a_mean_per_arm_and_learning_rate():
    one = spec("two learning rates", "lr_sensitivity")
    axes = draw(one)
    for container, (arm, own) in zip(axes.containers, one.frame.groupby("arm", sort=False), strict=True):
        means = own.groupby("lr")["score_pct"].mean()
        assert container.lines[0].get_ydata().astype(float) == pytest.approx(means.to_numpy()), arm
        assert container.lines[0].get_xdata().astype(float) == pytest.approx(means.index.to_numpy(), rel=0.02)
        for (_, group), segment in zip(own.groupby("lr"), container.lines[2][0].get_segments(), strict=True):
            if group["kind"].isin(CHANCE_KINDS).any():
                assert not np.isfinite(segment).any()
            else:
                assert segment[:, 1] == pytest.approx(t_interval(group["score_pct"].to_numpy()))
    assert sum(len(line.get_xdata()) for line in crosses(axes)) == 2  # the explosion, at both learning rates
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.003"]
    told = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"{NORMS['l2'].label}\n2 diverged, 2 failed" in told
    assert axes.get_title(loc="left").startswith("n = 3 to 4 per point")


def test_sensitivity_to_seven_learning_rates_names_them_all():
    axes = draw(spec("seven learning rates", "lr_sensitivity"))
    axes.figure.savefig(BytesIO(), format="png", dpi=50)
    assert axes.figure.get_tightbbox().width <= axes.figure.bbox_inches.width
    assert len(axes.get_xticklabels()) == 7
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {40}


def test_the_failure_map_has_a_panel_per_arm_with_the_same_rows_columns_and_colours():
    panels = [one for one in figures("rates, depths and scales") if one.name == "failure_map"]
    assert [one.panel for one in panels] == [NORMS[arm].label for arm in ("xnorm", "l2", "softmax")]
    frames = [one.frame for one in panels]
    assert all(frame["limit"].nunique() == 1 for frame in frames)
    assert len({frame["limit"].iloc[0] for frame in frames}) == 1
    rows = frames[0][["group", "setting"]].drop_duplicates().to_numpy().tolist()
    names = ("layer_scale=none", "layer_scale=1.0")
    assert rows == [[group, f"depth={depth}"] for group in names for depth in (2, 4)]
    assert all(frame[["group", "setting", "lr"]].equals(frames[0][["group", "setting", "lr"]]) for frame in frames)
    figure = draw_panels(panels, ())
    figure.savefig(BytesIO(), format="png", dpi=50)
    assert figure.get_figwidth() == 7
    *maps, bar = figure.axes
    assert len(maps) == 3
    assert bar.get_ylabel() == "Training loss above the best arm (nats)"
    assert [axes.get_title() for axes in maps] == [
        "XNorm (n\xa0=\xa03)",
        "L2 (n\xa0=\xa03)",
        "softmax (n\xa0=\xa02)",
    ]
    assert figure.get_suptitle().startswith("x: at most half of the seeds learn.")


def test_the_lowest_maps_have_the_rates_and_none_is_on_top_of_another():
    (one, *_) = (one for one in figures("rates, depths and scales") if one.name == "failure_map")
    panels = [replace(one, panel=f"arm {number}") for number in range(6)]
    figure = draw_panels(panels, ("a caveat",))
    figure.savefig(BytesIO(), format="png", dpi=50)
    maps = figure.axes[:6]
    assert [axes.get_xlabel() for axes in maps] == [""] * 4 + ["Learning rate"] * 2
    assert [len([text for text in texts(axes) if text == "0.003"]) for axes in maps] == [0, 0, 1, 1, 0, 0]
    boxes = [axes.get_tightbbox() for axes in (*maps, figure.axes[6])]
    assert not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])
    heights = {round(axes.get_window_extent().height) for axes in maps}
    assert len(heights) == 1


def test_a_study_without_learning_rates_or_of_one_rate_per_setting_has_no_map():
    assert not [one for one in figures("own and matched scale") if one.name in ("failure_map", "frontier")]
    assert not [one for one in figures("two learning rates") if one.name == "frontier"]


def test_the_frontier_has_a_panel_per_layer_scale_with_the_depths():
    panels = [one for one in figures("rates, depths and scales") if one.name == "frontier"]
    assert [one.panel for one in panels] == ["layer_scale=none", "layer_scale=1.0"]
    for one in panels:
        assert one.frame.groupby("arm")["depth"].agg(list).tolist() == [[2, 4]] * 3
    table = results("rates, depths and scales").frontier
    row = table[(table["setting"] == "depth=4, layer_scale=1.0") & (table["arm"] == "l2")].iloc[0]
    shown = panels[1].frame.query("arm == 'l2' and depth == 4").iloc[0]
    assert shown["frontier_lr"] == row["frontier_lr"]


def test_own_and_matched_scale_stand_together():
    one = spec("own and matched scale", "scale_difference")
    assert one.frame.groupby(["arm", "scale"]).size().tolist() == [4] * 4
    assert one.frame.groupby("arm")["margin_pct"].unique().map(list).to_dict() == {"l2": [3], "single_l2": [MARGIN_PCT]}
    labels = [label.get_text() for label in draw(one).get_yticklabels()]
    assert labels == ["L2, own", "matched", "single L2 (q), own", "matched"]


def test_costs_are_drawn_in_their_unit_with_the_quartiles_of_times():
    axes = draw(spec("three arms", "accuracy_against_cost", "inference_s"))
    assert axes.get_xlabel() == "Inference time per image (ms)"
    first = axes.containers[0].lines
    assert first[0].get_xdata() == pytest.approx([11.0])
    assert first[2][0].get_segments()[0][:, 0] == pytest.approx([10.5, 12.0])
    axes = draw(spec("three arms", "accuracy_against_cost", "multiply_adds"))
    assert axes.get_xlabel() == "Multiply-adds per image (billions)"
    assert [container.lines[0].get_xdata()[0] for container in axes.containers] == pytest.approx([3.0, 6.0])


def test_arms_of_equal_cost_stand_side_by_side():
    one = spec("three arms", "accuracy_against_cost", "parameters")
    assert one.frame["cost"].tolist() == [100_024, 100_000, 100_000]
    axes = draw(one)
    places = [container.lines[0].get_xdata()[0] for container in axes.containers]
    assert len(set(places)) == 3
    assert places == pytest.approx([100.024, 100.0, 100.0], abs=0.001)
    assert "arms of equal cost side by side" in axes.get_title(loc="left")
    with pytest.raises(ValueError, match="one quantity of parameters, multiply_adds, inference_s, training_step_s"):
        accuracy_against_cost(one.frame.assign(quantity="euros"), Figure().subplots())


def test_probes_over_depth_are_the_last_epochs_and_leave_failed_runs_out_of_the_mean():
    one = spec("ten arms, every end", "probes_over_depth", "output_rms")
    axes = draw(one)
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "RMS of the attention output"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "class 1"]
    label = NORMS["single_l2"].label
    (mean,) = [line for line in axes.lines if str(line.get_label()).split("\n")[0] == label]
    assert mean.get_label() == f"{label}\nn = 3, 1 failed"
    own = one.frame[(one.frame["arm"] == "single_l2") & (one.frame["outcome"] != "failed") & (one.frame["epoch"] == 3)]
    assert mean.get_ydata() == pytest.approx(own.groupby("layer_order")["value"].mean().to_numpy())
    assert len(thin(axes)) == 40


def test_layers_of_another_net_leave_no_room_over_depth():
    frame = spec("three arms", "probes_over_depth", "output_rms").frame
    own = frame[frame["layer_order"] != 1].assign(layer_order=lambda rows: 10 * rows["layer_order"])
    axes = probes_over_depth(own, Figure().subplots())
    assert axes.get_xticks().tolist() == [0, 1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "class 1"]


def test_what_a_logarithmic_axis_cannot_show_is_counted():
    frame = spec("three arms", "probes_over_depth", "grad_norm").frame.copy()
    last = frame.index[frame["epoch"] == 3]
    frame.loc[last[:2], "value"] = [math.nan, math.inf]
    frame.loc[last[2], "value"] = 0.0
    title = probes_over_depth(frame, Figure().subplots()).get_title(loc="left")
    assert "Values not drawn: 2 not finite, 1 not positive." in title
    with pytest.raises(ValueError, match="shows one probe, got 2: grad_norm, output_rms"):
        probes_over_depth(frame.assign(probe=["grad_norm", "output_rms"] * (len(frame) // 2)), Figure().subplots())


def test_probes_over_time_have_a_cross_where_a_run_ended():
    one = spec("an arm explodes", "probes_over_time", "grad_norm", panel=LAYERS[0])
    axes = draw(one)
    assert len(thin(axes)) == 8
    assert [list(line.get_xdata()) for line in crosses(axes)] == [[1]] * 4
    assert {to_hex(line.get_color()) for line in crosses(axes)} == {arm_style(list(NORMS).index("l2")).colour}
    assert "diverged: its last epoch" in [text.get_text() for text in axes.get_legend().get_texts()]
    everything = results("an arm explodes").probes.query("probe == 'grad_norm'")
    with pytest.raises(ValueError, match="shows one layer, got 3"):
        probes_over_time(everything, Figure().subplots())


def test_panels_say_once_what_holds_for_all_and_no_title_covers_another():
    panels = [one for one in figures("an arm explodes") if (one.name, one.part) == ("probes_over_time", "grad_norm")]
    frame = panels[1].frame.copy()
    frame.loc[frame.index[0], "value"] = math.nan
    panels[1] = replace(panels[1], frame=frame)
    figure = draw_panels(panels, ("a caveat",))
    figure.savefig(BytesIO(), format="png", dpi=50)
    titles = [axes.title for axes in figure.axes]
    assert [title.get_text() for title in titles] == [
        LAYERS[0],
        f"{LAYERS[1]}\nValues not drawn: 1 not finite.",
        LAYERS[2],
    ]
    assert not any(axes.get_title(loc="left") for axes in figure.axes)
    assert figure.get_suptitle() == "n = 4 per arm. Thin: a seed. Bold: mean, as long as all its runs last."
    values = pd.concat(one.frame for one in panels)["value"]
    assert all(axes.get_ylim() == figure.axes[0].get_ylim() for axes in figure.axes)
    low, high = figure.axes[0].get_ylim()
    assert low <= values.min() <= values.max() <= high
    boxes = [title.get_window_extent() for title in titles]
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    assert [axes.get_legend() is not None for axes in figure.axes] == [False, False, True]


@dataclass(frozen=True)
class Marked(FigureSpec):
    """A figure that leaves a file, its title, when it is drawn; one of the part "broken" raises."""

    def draw(self, axes: Axes) -> Axes:
        if self.part == "broken":
            raise ValueError("broken")
        Path(self.title).touch()
        time.sleep(0.2)
        return axes


@pytest.mark.process
def test_a_report_that_stops_waits_for_no_figure_that_has_not_begun(tmp_path):
    names = [("broken", "none"), *(("", str(tmp_path / f"drawn-{i}")) for i in range(40))]
    frame = pd.DataFrame()
    specs = [Marked("test_accuracy", part, str(i), title, frame) for i, (part, title) in enumerate(names)]
    with pytest.raises(ValueError, match="broken"), drawing(tmp_path / "figures", specs, ()) as finish:
        finish()
    assert len(list(tmp_path.glob("drawn-*"))) < 20


def test_gains_have_a_linear_axis():
    axes = draw(spec("three arms", "probes_over_time", "mean_gain_q", panel=LAYERS[1]))
    assert (axes.get_yscale(), axes.get_ylabel()) == ("linear", "Mean of gain_q")


def test_agreement_frames_what_the_seed_does_and_names_its_unit():
    one = spec("three arms", "agreement")
    axes = draw(one)
    shares = one.frame.pivot(index="arm", columns="other", values="disagreement_pct")
    arms = list(one.frame.sort_values("arm_order")["arm"].unique())
    expected = [f"{shares.loc[row, column]:.1f}" for row in arms for column in arms]
    assert texts(axes) == expected
    assert sum(patch.get_edgecolor()[:3] != (0, 0, 0) for patch in axes.patches) == 3
    assert axes.figure.axes[1].get_ylabel() == "Images on which two runs differ (%)"
    assert "same seed (n = 8)" in axes.get_title(loc="left")
    nothing = one.frame.assign(disagreement_pct=math.nan)
    assert texts(agreement(nothing, Figure().subplots())) == ["no two runs to compare"]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_method_with_help(name):
    method = getattr(Plot, name)
    assert inspect.getdoc(method) == FIGURES[name].help
    selecting = [each[0] for each in (FIGURES[name].part, FIGURES[name].panel) if each]
    assert {*inspect.signature(method).parameters} == {"self", *selecting, "condition", "axes"}


def test_an_unknown_figure_is_named_with_those_that_there_are(tmp_path):
    with pytest.raises(AttributeError, match="no figure 'heat'; there are test_accuracy, paired_differences"):
        read_results([make_study(tmp_path)]).plot.heat()

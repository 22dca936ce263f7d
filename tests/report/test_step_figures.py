"""Figures of single training steps: where and when an arm leaves the others."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from studies import LAYERS, make_study

from ablations.api import read_results
from ablations.figures.steps import failure_explained, probes_over_steps
from ablations.report.gallery import FigureSpec, all_figures
from ablations.report.notebook import StudyResults
from ablations.report.panels import draw_panels
from ablations.report.step_figures import MOST_LINES, step_figures

STEPS = (1, 2, 5, 10, 20)
NORMS = ("l2", "single_l2", "layernorm", "none", "xnorm", "softmax")


@cache
def results() -> StudyResults:
    stories = {("l2", 0): "nan", ("none", 1): "stuck", ("softmax", 0): "oom"}
    return read_results([make_study(Path(mkdtemp()), norms=NORMS, seeds=2, stories=stories, probe_steps=STEPS)])


def specs(name: str, part: str = "") -> list[FigureSpec]:
    return [one for one in all_figures(results()) if (one.name, one.part) == (name, part)]


def hatched(axes: Axes) -> dict[str, int]:
    """Return the number of cells by hatch."""
    found = {each.get_hatch(): len(each.get_paths()) for each in axes.collections if each.get_hatch()}
    return {hatch: count for hatch, count in found.items() if count}


def test_each_probe_has_a_panel_per_arm_with_the_reference_first():
    for probe in ("output_rms", "grad_norm"):
        panels = specs("probes_over_steps", probe)
        assert [one.frame["arm"].iloc[0] for one in panels] == ["xnorm", *NORMS[:3], "softmax", "none"]
        assert len({(one.frame["least"].iloc[0], one.frame["largest"].iloc[0]) for one in panels}) == 1
    assert [one.panel for one in specs("failure_explained")] == ["training loss", "output RMS", "gradient norm"]


def test_a_study_without_single_steps_has_no_such_figure(tmp_path):
    figures = all_figures(read_results([make_study(tmp_path, norms=["xnorm"], seeds=1)]))
    assert not [one for one in figures if one.name in ("failure_explained", "probes_over_steps")]


def test_a_heat_map_has_the_means_of_an_arm_over_steps_and_depth():
    axes = specs("probes_over_steps", "output_rms")[0].draw(Figure().subplots())
    (mesh,) = [each for each in axes.collections if each.get_array() is not None]
    own = results().steps.query("arm == 'xnorm' and probe == 'output_rms'")
    for row, layer in enumerate(LAYERS):
        for column, step in enumerate(STEPS):
            values = own.query(f"layer == '{layer}' and step == {step}")["value"]
            assert mesh.get_array()[row, column] == pytest.approx(np.sqrt(np.prod(values)))
    assert mesh.get_cmap().name == "cividis"
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(step) for step in STEPS]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["1", "2", "class 1"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Training step", "Block")
    assert not hatched(axes)


def test_what_is_lost_is_hatched_from_there_on_and_zero_is_dotted():
    frame = specs("probes_over_steps", "output_rms")[1].frame
    axes = probes_over_steps(frame, Figure().subplots())
    assert hatched(axes) == {"/////": 3 * len(LAYERS)}  # two steps that are not finite, and one after its end
    assert axes.get_title(loc="left").endswith("n = 2, 1 diverged")
    frame = frame.assign(value=frame["value"].where(frame["step"] > 1, 0.0))
    assert hatched(probes_over_steps(frame, Figure().subplots())) == {"/////": 3 * len(LAYERS), "....": len(LAYERS)}


def test_a_map_without_a_colour_is_drawn():
    frame = specs("probes_over_steps", "output_rms")[0].frame
    lost = frame.assign(value=np.inf, least=np.nan, largest=np.nan)
    axes = probes_over_steps(lost, Figure().subplots())
    assert hatched(axes) == {"/////": len(STEPS) * len(LAYERS)}
    assert len(axes.figure.axes) == 1
    same = frame.assign(value=2.0, least=2.0, largest=2.0)
    assert len(probes_over_steps(same, Figure().subplots()).figure.axes) == 2


@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
def test_panels_have_four_in_a_row_and_one_colour_bar():
    made = draw_panels(specs("probes_over_steps", "grad_norm"), ("a caveat",))
    made.draw_without_rendering()
    *maps, bar = made.axes
    assert [re.split(r"\s\(n", axes.get_title())[0] for axes in maps] == [
        one.panel for one in specs("probes_over_steps", "grad_norm")
    ]
    rows = [axes.get_subplotspec().rowspan.start for axes in maps]
    assert rows == [0, 0, 0, 0, 1, 1]
    assert bar.get_ylabel() == "Gradient norm of the attention"
    widths = [axes.get_window_extent().width for axes in maps]
    assert max(widths) == pytest.approx(min(widths), rel=0.01)
    limits = {each.get_clim() for axes in maps for each in axes.collections if each.get_array() is not None}
    assert len(limits) == 1


@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
def test_quantities_stand_side_by_side_each_on_its_own_scale():
    made = draw_panels(specs("failure_explained"), ())
    made.draw_without_rendering()
    loss, rms, norm = made.axes
    assert [axes.get_ylabel() for axes in made.axes] == [
        "Training loss (nats)",
        "Output RMS, largest layer",
        "Gradient norm, largest layer",
    ]
    assert (loss.get_yscale(), rms.get_yscale(), norm.get_yscale()) == ("linear", "log", "log")
    assert loss.get_ylim()[1] < 3 < rms.get_ylim()[1]
    assert [axes.get_legend() is not None for axes in made.axes] == [False, False, True]
    assert all(any(label.get_visible() for label in axes.get_yticklabels()) for axes in made.axes)


def test_a_wide_loss_is_on_a_logarithmic_axis_and_a_lost_one_has_a_cross():
    frame = specs("failure_explained")[0].frame
    axes = failure_explained(frame.assign(value=frame["value"] * 10.0 ** frame["seed"]), Figure().subplots())
    assert axes.get_yscale() == "log"
    crosses = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert sorted(line.get_xdata()[0] for line in crosses) == [2, 20]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "diverged: its last finite value" in labels


@pytest.mark.parametrize(
    ("change", "said"),
    [({"probe": ["grad_norm", "output_rms"]}, "one probe, got 2"), ({"arm": ["l2", "xnorm"]}, "one arm, got 2")],
)
def test_a_map_of_several_arms_or_probes_is_refused(change, said):
    frame = specs("probes_over_steps", "output_rms")[0].frame.iloc[:2]
    with pytest.raises(ValueError, match=said):
        probes_over_steps(frame.assign(**change), Figure().subplots())


def test_many_layers_and_steps_are_thinned_which_the_title_says():
    steps = pd.concat(
        [results().steps.query("seed == 0 and arm == 'xnorm' and probe == 'output_rms' and step == 1").head(1)] * 300,
        ignore_index=True,
    )
    places = pd.Series(range(300))
    many = steps.assign(layer=[f"blocks.{i}.attn" for i in places], layer_order=places.astype("Int64"))
    panel = list(step_figures(many, "", "xnorm"))[-1]
    assert panel.frame["layer"].nunique() == MOST_LINES
    assert panel.title.endswith(f"over steps and depth, {MOST_LINES} of 300 layers")


def test_the_figures_are_methods():
    axes = results().plot.probes_over_steps("XNorm", "grad_norm")
    assert axes.get_xlabel() == "Training step"
    assert results().plot.failure_explained("output RMS").get_ylabel() == "Output RMS, largest layer"

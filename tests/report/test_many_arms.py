"""Figures of thirty arms: a few in each row, the others in grey, nothing cut off, nothing on top of another."""

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from studies import make_study, make_tuned

from ablations.api import read_results
from ablations.figures.agreement import agreement
from ablations.figures.canvas import BACKGROUND
from ablations.figures.palette import arm_style
from ablations.report import arm_rows as rows_module
from ablations.report.arm_rows import MOST_IN_ROW, MOST_TOGETHER, arm_rows
from ablations.report.gallery import all_figures
from ablations.report.kinds import IN_ROWS, FigureSpec
from ablations.report.notebook import StudyResults
from ablations.report.panels import ACROSS, OWN_HEIGHTS, draw_panels
from ufo.norms import NORMS

NUM_ARMS = 30
DECAYS = [round(0.01 * (place + 1), 2) for place in range(NUM_ARMS)]
ARMS = {"compare": "weight_decay", "norms": ["xnorm"], "weight_decay": DECAYS, "seeds": 2, "epochs": 2}
ENDS = {("0.02", 0): "nan", ("0.02", 1): "exploded", ("0.17", 0): "stuck", ("0.3", 1): "oom"}
STUDIES = {
    "thirty arms": {**ARMS, "stories": ENDS, "probe_steps": (1, 2, 5)},
    "two learning rates": {**ARMS, "lr": [0.001, 0.003]},
    "depths": {**ARMS, "lr": [0.001, 0.003], "depth": [2, 4], "seeds": 1, "epochs": 1},
    "detectors": {**ARMS, "task": ["detect"], "stories": {("0.02", 0): "nan"}},
    "tuned": {"norms": list(NORMS), "trials": 4, "seeds": 2, "confirmed": False, "stories": {("l2", 1): "nan"}},
}


@cache
def results(name: str) -> StudyResults:
    make = make_tuned if name == "tuned" else make_study
    return read_results([make(Path(mkdtemp()), **STUDIES[name])])


@cache
def figures(name: str) -> list[FigureSpec]:
    return all_figures(results(name))


def panels(name: str, figure: str) -> list[FigureSpec]:
    """Return the panels of the first figure of a name."""
    found = [one for one in figures(name) if one.name == figure]
    return [one for one in found if (one.part, one.condition) == (found[0].part, found[0].condition)]


@cache
def drawn(name: str, figure: str) -> Figure:
    """Return a figure as a report draws it, laid out."""
    figure = draw_panels(panels(name, figure), ("a caveat",))
    figure.draw_without_rendering()
    return figure


def own_colours(axes: Axes) -> set[str]:
    colours = {to_hex(line.get_color()) for line in axes.lines if len(line.get_xdata())}
    return colours & {arm_style(order).colour for order in range(NUM_ARMS)}


CASES = [
    *product(["thirty arms"], ["training_loss", "validation_accuracy", "probes_over_depth", "accuracy_against_cost"]),
    *product(["thirty arms"], ["test_accuracy", "paired_differences", "failures", "agreement"]),
    *product(["thirty arms"], ["failure_explained", "probes_over_steps"]),
    *product(["detectors"], ["precision_recall", "ap_by_size", "found_objects", "ap_against_cost", "validation_ap"]),
    *product(["tuned"], ["tuning_sensitivity", "tuning_isolation", "tuning_best_of_k"]),
    *[("thirty arms", "probes_over_time"), ("two learning rates", "lr_sensitivity"), ("depths", "frontier")],
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "figure"), CASES)
@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")  # of the layout; which may be of another test
def test_a_figure_of_many_arms_is_on_its_page_and_covers_nothing(name, figure):
    made = drawn(name, figure)
    box, page = made.get_tightbbox(), made.bbox_inches.padded(0.01)
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert page.y0 <= box.y0 < box.y1 <= page.y1
    boxes = [axes.get_window_extent() for axes in made.axes]
    legends = [axes.get_legend().get_window_extent() for axes in made.axes if axes.get_legend() is not None]
    assert not any(legend.overlaps(other) for legend in legends for other in boxes)
    assert not any(one.overlaps(other) for one, other in pairwise(legends))
    assert all(box.height > 0.9 * made.dpi for box in boxes)  # in inches: no panel has collapsed


@pytest.mark.slow
@pytest.mark.parametrize(("name", "figure"), [case for case in CASES if case[1] in IN_ROWS])
def test_each_arm_has_its_colour_in_one_row_and_the_reference_in_all(name, figure):
    made = drawn(name, figure)
    rows = [axes for axes in made.axes if axes.get_legend() is not None]
    assert len(rows) == len(arm_rows(results(name)))
    coloured = Counter(colour for axes in rows for colour in own_colours(axes))
    orders = {order for panel in panels(name, figure) for order in panel.frame["arm_order"]}
    expected = {arm_style(int(order)).colour for order in orders}
    assert {colour: n for colour, n in coloured.items() if n > 1} == {arm_style(0).colour: len(rows)}
    assert set(coloured) >= expected - ({arm_style(1).colour} if name == "detectors" else set())
    num_scales = len(panels(name, figure)) if figure in OWN_HEIGHTS else 1
    assert len({axes.get_ylim() for axes in made.axes}) == num_scales
    assert len({axes.get_xlim() for axes in rows}) == 1
    named = [axes.get_legend().get_title().get_text() for axes in rows]
    assert named[0] == ("paper" if name == "tuned" else "1 of 5")
    assert not any(axes.get_xlabel() for axes in rows[:-1])


@pytest.mark.slow
@pytest.mark.parametrize("figure", ["training_loss", "test_accuracy", "accuracy_against_cost", "agreement"])
@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
def test_long_labels_leave_room_for_the_panels(figure):
    more = " (model=timm:swin_tiny_patch4_window7_224, lr=0.001, weight_decay=0.05)"
    (one,) = panels("thirty arms", figure)
    frame = one.frame.assign(arm_label=one.frame["arm_label"] + more)
    made = draw_panels([replace(one, frame=frame)], ("a caveat",))
    made.draw_without_rendering()
    assert made.get_tightbbox().width <= made.get_figwidth() + 0.01
    assert made.axes[0].get_window_extent().width > 2.4 * made.dpi
    assert one.size[0] == 7


def test_the_others_are_grey_means_that_the_caption_names():
    made = drawn("thirty arms", "training_loss")
    grey = [line for line in made.axes[0].lines if line.get_color() == BACKGROUND["color"]]
    assert len(grey) == NUM_ARMS - MOST_IN_ROW
    assert not any(str(line.get_label()).startswith("0") for line in grey)
    assert " ".join(made.get_suptitle().split()).endswith("Band: 95 % t interval. Grey: means of the other arms.")
    assert made.get_supylabel() == "Training loss (nats)"


def test_the_mean_of_one_epoch_is_a_grey_dot(tmp_path):
    study = make_study(tmp_path, **ARMS | {"weight_decay": DECAYS[: MOST_TOGETHER + 1], "epochs": 1})
    (one,) = (spec for spec in all_figures(read_results([study])) if spec.name == "training_loss")
    for axes in draw_panels([one], ()).axes:
        grey = [line for line in axes.lines if line.get_color() == BACKGROUND["color"]]
        assert grey
        assert {line.get_marker() for line in grey} == {"o"}


def test_few_arms_are_drawn_together(tmp_path):
    study = make_study(tmp_path, **ARMS | {"weight_decay": DECAYS[:MOST_TOGETHER]})
    (one,) = (spec for spec in all_figures(read_results([study])) if spec.name == "training_loss")
    figure = draw_panels([one], ())
    assert len(figure.axes) == 1
    assert tuple(figure.get_size_inches()) == one.size == (7.0, 4.2)
    assert not any(line.get_color() == BACKGROUND["color"] for line in figure.axes[0].lines)


def test_one_panel_of_many_arms_has_room_for_its_legend_and_no_bands():
    (one,) = panels("thirty arms", "training_loss")
    axes = one.draw(Figure(figsize=one.size, layout="constrained").subplots())
    axes.figure.draw_without_rendering()
    assert axes.figure.get_tightbbox().y1 <= axes.figure.bbox_inches.y1
    assert len(axes.get_legend().get_texts()) > NUM_ARMS
    assert not axes.collections
    assert "Band" not in axes.get_title(loc="left")


def test_rows_have_the_groups_of_the_registry(tmp_path):
    norms = list(NORMS)
    rows = arm_rows(read_results([make_study(tmp_path, norms=norms, seeds=1, epochs=1)]))
    assert [row.name.split(" (")[0] for row in rows] == sorted(
        (row.name.split(" (")[0] for row in rows), key=["paper", "control", "related", "field", "plug-in"].index
    )
    assert all("xnorm" in row.arms and len(row.arms) <= MOST_IN_ROW + 1 for row in rows)
    assert sorted([arm for row in rows for arm in row.arms if arm != "xnorm"]) == sorted(set(norms) - {"xnorm"})


def test_arms_without_a_row_are_counted(monkeypatch):
    monkeypatch.setattr(rows_module, "MOST_ROWS", 2)
    (one,) = panels("thirty arms", "training_loss")
    made = draw_panels([replace(one, arm_rows=arm_rows(results("thirty arms")))], ())
    assert len(made.axes) == 2
    assert "Arms without a row, since there are so many: 18." in made.get_suptitle()


def test_images_of_many_arms_continue_in_the_next_row():
    made = drawn("detectors", "found_objects")
    places = [axes.get_subplotspec() for axes in made.axes]
    assert len(places) == NUM_ARMS  # the annotations, and all arms but one, whose first seed diverged
    assert max(place.colspan.stop for place in places) == ACROSS
    assert [axes.get_title() for axes in made.axes][:3] == ["annotated", "0.01", "0.03"]


@pytest.mark.parametrize(("num_arms", "number"), [(16, "12.3"), (17, "12"), (30, "12"), (40, "12"), (41, None)])
def test_shares_have_room_in_their_cells(num_arms, number):
    arms = [(f"arm {order}", order) for order in range(num_arms)]
    rows = [
        {"condition": "", "arm": arm, "arm_label": arm, "arm_order": order, "other": other, "other_order": place}
        for arm, order in arms
        for other, place in arms
    ]
    pairs = pd.DataFrame(rows).assign(disagreement_pct=12.3, num_pairs=3, num_pairs_mixed=0)
    spec = FigureSpec("agreement", "", "", "", pairs, min(num_arms, 17))
    axes = agreement(pairs, Figure(figsize=spec.size, layout="constrained").subplots())
    axes.figure.draw_without_rendering()
    assert {text.get_text() for text in axes.texts} == ({number} if number else set())
    cell = axes.get_window_extent().width / num_arms
    assert all(text.get_window_extent().width <= cell for text in axes.texts)
    names = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert not any(one.overlaps(other) for one, other in pairwise(names))
    assert ("whole percents" in axes.get_title(loc="left")) == (number == "12")
    assert np.isclose(*axes.get_window_extent().size)


def test_a_share_that_is_not_known_is_a_dash_in_black_on_the_empty_cell():
    arms = [("a", 0), ("b", 1)]
    rows = [
        {"condition": "", "arm": arm, "arm_label": arm, "arm_order": order, "other": other, "other_order": place}
        for arm, order in arms
        for other, place in arms
    ]
    pairs = pd.DataFrame(rows).assign(disagreement_pct=[12.3, np.nan, np.nan, 1.0], num_pairs=3, num_pairs_mixed=0)
    axes = agreement(pairs, Figure(layout="constrained").subplots())
    assert {text.get_color() for text in axes.texts if text.get_text() == "-"} == {"black"}

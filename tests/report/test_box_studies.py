"""Studies of detectors without masks: box AP is the metric everywhere."""

from __future__ import annotations

import pytest
from studies import make_study, make_tuned

from ablations.api import read_results
from ablations.config import Study, UsageError
from ablations.config.task import ACCURACY, BOX_AP, MASK_AP
from ablations.report import tables
from ablations.report.checklist import checklist
from ablations.report.gallery import all_figures
from ablations.tuning.propose import Ended

BOXES = {"norms": ("xnorm", "l2"), "task": ["detect"], "masks": [False], "seeds": 3}


@pytest.fixture
def results(tmp_path):
    return read_results([make_study(tmp_path, **BOXES)])


def test_the_score_is_box_ap(results):
    assert results.measure == "box AP"
    assert not results.problems
    cells = results.cells
    assert cells["score_pct"].tolist() == cells["test_box_ap_pct"].tolist()
    assert cells["val_score_pct"].tolist() == [31.0] * 6
    assert not [name for name in cells if "mask_ap" in name]
    assert set(results.curves["metric"]) == {"loss", "box_ap_pct"}


def test_tables_and_figures_are_of_boxes(results):
    assert "| test box AP |" in tables.main_table(results, []).markdown()
    precisions = tables.precisions_table(results).markdown()
    assert "| box AP | box AP50 | box AP75 |" in precisions
    assert "mask" not in precisions
    figures = all_figures(results)
    assert {figure.part for figure in figures if figure.name in ("precision_recall", "ap_by_size")} == {"box"}
    assert "test box AP" in {figure.title for figure in figures}
    assert "average precision of boxes on the test images" in dict(checklist(results))["Measure"]


def test_the_only_kind_of_objects_needs_no_name(results):
    assert results.plot.precision_recall() is not None
    with pytest.raises(UsageError, match=r"precision_recall: unknown 'mask'. Valid: box"):
        results.plot.precision_recall("mask")


def test_an_example_without_outlines_is_drawn_with_its_boxes(results):
    axes = results.plot.found_objects("7")
    assert len(axes.patches) == 1
    (image,) = axes.get_images()
    colours = {tuple(colour) for row in image.get_array().round(3).tolist() for colour in row}
    assert len(colours) == 1, "no pixel of the image is tinted"


def test_box_ap_and_mask_ap_are_not_reported_together(tmp_path):
    folders = [make_study(tmp_path, name=name, **BOXES | {"masks": [on]}) for name, on in (("a", True), ("b", False))]
    with pytest.raises(UsageError, match="mask AP and box AP are different metrics; report these studies one by one"):
        read_results(folders)


def test_no_study_has_both(tmp_path):
    axes = {"norm": ["xnorm"], "seed": [0], "masks": [True, False]}
    with pytest.raises(ValueError, match="axes has masks, whose values have different metrics"):
        Study(name="both", axes=axes, fixed={})


def test_a_tuning_is_by_box_ap(tmp_path):
    outcome = {"outcome": "ok", "val_box_ap_pct": 3.0, "val_mask_ap_pct": 2.0, "val_accuracy_pct": 1.0}
    scores = [Ended.of(outcome, {}, metric=metric).score_pct for metric in (BOX_AP, MASK_AP, ACCURACY)]
    assert scores == [3.0, 2.0, 1.0]
    folder = make_tuned(tmp_path, trials=2, seeds=2, task=["detect"], masks=[False], norms=("xnorm", "l2"))
    assert any("validation box AP at the last epoch" in note for note in read_results([folder]).main.notes)

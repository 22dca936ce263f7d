"""The tables of the failure map and the frontier: where they are, and what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from studies import make_study, make_tuned

from ablations.api import make_report, read_results
from ablations.report.frontier_tables import failure_map_table, frontier_depth_table, frontier_table
from ablations.store import Store

NAMES = ("failure_map", "frontier", "frontier_depth")
NORMS = ["xnorm", "l2"]
RATES = [1e-3, 1e-2, 1e-1]


def make_grid(out: Path, edges: dict[tuple[str, int], float]) -> Path:
    """Write a study of three learning rates; an arm at a depth diverges above its edge."""
    folder = make_study(out, norms=NORMS, seeds=3, lr=RATES, depth=[2, 4])
    for path in folder.glob("cells/*/outcome.json"):
        config, outcome = json.loads((path.parent / "config.json").read_text()), json.loads(path.read_text())
        edge = edges[config["norm"], config["depth"]]
        if config["lr"] > edge:
            path.write_text(json.dumps(outcome | {"outcome": "diverged", "kind": "no_learning", "detail": "stuck"}))
    return folder


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    edges = {("xnorm", 2): 0.05, ("xnorm", 4): 0.05, ("l2", 2): 0.005, ("l2", 4): 0.0005}
    return make_grid(tmp_path_factory.mktemp("out"), edges)


def test_the_frontier_has_a_row_for_each_setting_and_arm(grid):
    table = frontier_table(read_results([grid]))
    assert table.head[:4] == ["setting", "norm", "n", "frontier lr"]
    rows = {(row[0], row[1]): row for row in table.rows}
    assert list(rows) == [("depth=2", "xnorm"), ("depth=2", "l2"), ("depth=4", "xnorm"), ("depth=4", "l2")]
    assert rows["depth=2", "xnorm"][3:10] == ["0.01", "[0.01, 0.1]", "0", "0", "0", "0", "ref"]
    assert rows["depth=2", "l2"][3:10] == ["0.001", "[0.001, 0.01]", "0", "0", "0", "0", "-1.00"]
    assert rows["depth=4", "l2"][3:10] == ["0.0001", "[open, 0.001]", "3", "0", "0", "0", "-2.00"]
    assert any("Holm over 2 comparisons" in note for note in table.notes)
    assert any("too few for p Holm to reach 0.05: 2" in note for note in table.notes)


def test_the_change_with_depth_is_per_arm(grid):
    table = frontier_depth_table(read_results([grid]))
    assert table.head == ["norm", "n", "decades per doubling", "95 % interval", "censored"]
    assert table.rows == [["xnorm", "3", "+0.00", "", "0"], ["l2", "3", "-1.00", "", "3"]]


def test_the_map_has_a_row_for_each_condition_and_arm(grid):
    results = read_results([grid])
    table = failure_map_table(results)
    assert len(table.rows) == 12
    assert ["depth=4", "l2", "0.001", "0 of 3"] in [row[:4] for row in table.rows]
    losses = results.curves.query("split == 'train' and metric == 'loss' and epoch == 3 and arm == 'l2'")
    shown = table.frame.query("arm == 'l2'").set_index("condition")["train_loss"].to_dict()
    assert shown == pytest.approx(losses.groupby("condition")["value"].mean().to_dict())


def test_a_single_seed_has_no_interval(tmp_path):
    table = frontier_table(read_results([make_study(tmp_path, norms=NORMS, seeds=1, lr=RATES)]))
    place = table.head.index("95 % interval")
    assert [row[place] for row in table.rows] == ["", ""]


def test_one_arm_has_no_comparison(tmp_path):
    table = frontier_table(read_results([make_study(tmp_path, norms=["l2"], seeds=2, lr=RATES)]))
    assert not any("decades" in name for name in table.head)
    assert [row[:3] for row in table.rows] == [["l2", "2", "0.1"]]


def test_only_settings_of_strata_with_several_rates_have_a_frontier(tmp_path):
    one = make_study(tmp_path, name="one", norms=NORMS, seeds=2)
    two = make_study(tmp_path, name="two", norms=NORMS, seeds=2, lr=RATES)
    assert [row[0] for row in frontier_table(read_results([one, two])).rows] == ["study=two"] * 2


@pytest.mark.slow
def test_a_report_has_the_tables_in_every_format_and_on_its_page(grid):
    make_report([grid], full=False)
    files = {path.name for path in (grid / "tables").iterdir()}
    assert {f"{name}.{extension}" for name in NAMES for extension in ("csv", "md", "tex")} <= files
    page = (grid / "report.html").read_text()
    assert 'id="frontier"' in page
    assert "Change of the frontier per doubling of the depth" in page
    assert pd.read_csv(grid / "tables" / "frontier.csv")["decades"].dropna().tolist() == [-1.0, -2.0]


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["one rate", "no cell", "tuned", "rates as arms"])
def test_other_studies_have_no_such_table(tmp_path, shape):
    if shape == "tuned":
        folder = make_tuned(tmp_path, norms=NORMS, trials=4, seeds=2)
    elif shape == "rates as arms":
        folder = make_study(tmp_path, norms=["xnorm"], compare="lr", lr=RATES, seeds=2)
    else:
        missing = [(arm, 0) for arm in NORMS] if shape == "no cell" else []
        folder = make_study(tmp_path, norms=NORMS, seeds=1, missing=missing)
    make_report([folder], full=False)
    assert not [path.name for path in (folder / "tables").iterdir() if path.stem in NAMES]
    assert 'id="frontier"' not in (folder / "report.html").read_text()


def test_a_study_without_a_cell_has_an_empty_frontier(tmp_path):
    folder = make_study(tmp_path, norms=NORMS, seeds=1, lr=RATES, missing=[(arm, 0) for arm in NORMS])
    assert not list(Store(folder).cells.iterdir())
    results = read_results([folder])
    assert not any(table(results).rows for table in (frontier_table, frontier_depth_table, failure_map_table))

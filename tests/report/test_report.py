"""The report: what it shows, what it says of what is missing or damaged, and that nothing vanishes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import wait_for
from studies import make_study

import ablations
from ablations.analysis.claim_tests import COSTS
from ablations.analysis.results import Results
from ablations.api import IncompleteStudyWarning, make_report, read_results
from ablations.config import UsageError
from ablations.figures.cost import AXES
from ablations.report.again import command
from ablations.report.gallery import all_figures
from ablations.report.notebook import html_table
from ablations.report.page import render
from ablations.report.text import latex_text
from ablations.store.frames import QUANTITIES

ARMS = ("xnorm", "l2", "single_l2", "softmax", "xnorm_fixed")
EVIL = "<script>alert('it\"s')</script> & \\textbf{x} **b**"
CLAIMS = (
    {"kind": "fails_to_train", "arm": "l2", "source": "a paper"},
    {"kind": "worse_by", "arm": "single_l2", "than": "xnorm", "margin_pct": 1.0},
)


class Text(HTMLParser):
    """The text of a page, what a browser would show, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(folder: Path) -> Text:
    return Text((folder / "report.html").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study of the paper group with one cell of each bad end, reported in full."""
    stories = {("l2", 0): "nan", ("single_l2", 1): "oom", ("softmax", 2): "stuck"}
    folder = make_study(tmp_path_factory.mktemp("out"), norms=ARMS, seeds=5, stories=stories, claims=CLAIMS)
    return folder, make_report([folder], full=True)


@pytest.mark.process
def test_a_report_writes_what_it_says(whole):
    folder, report = whole
    assert all(file.is_file() and file.stat().st_size for file in report.files)
    names = {str(file.relative_to(folder)) for file in report.files}
    assert {"results.csv", "curves.csv", "probes.csv", "checklist.md", "report.html"} <= names
    tables = ("main", "details", "success", "contrasts", "claims", "pairing", "power", "failures")
    assert {f"tables/{name}.{extension}" for name in tables for extension in ("csv", "md", "tex")} <= names
    figures = {path.stem for path in report.files if path.suffix == ".pdf"}
    assert figures >= {"test_accuracy", "paired_differences", "training_loss", "validation_accuracy", "failures"}
    assert figures >= {"agreement", "accuracy_against_cost-parameters", "probes_over_depth-output_rms"}
    assert figures >= {"probes_over_time-grad_norm", "probes_over_depth-mean_gain_q"}
    assert figures == {path.stem for path in report.files if path.suffix == ".png"}


@pytest.mark.process
def test_tidy_files_have_a_row_for_each_cell_and_value(whole):
    folder, _ = whole
    cells, curves = pd.read_csv(folder / "results.csv"), pd.read_csv(folder / "curves.csv")
    assert len(cells) == 25
    assert cells["outcome"].value_counts().to_dict() == {"ok": 22, "diverged": 2, "failed": 1}
    assert len(curves) == 3 * (23 * 3 + 2)
    assert set(curves["cell"]) == set(cells["cell"])


@pytest.mark.process
def test_the_page_has_everything_and_needs_no_network(whole):
    folder, report = whole
    page = page_of(folder)
    for words in (
        "Which one trains?",
        "l2 fails to train",
        "single_l2 is worse than xnorm by at least 1 point",
        "Contrasts",
        "single_l2, seed 1: failed, oom: OutOfMemoryError: no room",
        "2026-01-01 INFO: epoch 1",
        "25 ended (22 ok, 2 diverged, 1 failed), 0 missing",
        "python -m ablations run",
        '"Single L2Norm" is not defined in the source',
        "left to the model or the data set: image_size, classes, train_limit",
    ):
        assert words in page.text, words
    assert page.tags.count("img") == sum(file.suffix == ".pdf" for file in report.files)
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)


@pytest.mark.process
def test_verdicts_stand_in_the_page_and_in_the_table(whole):
    folder, report = whole
    verdicts = dict(zip(report.results.claims["claim"], report.results.claims["verdict"], strict=True))
    assert verdicts["l2 fails to train"] == "undecided"  # one of five
    assert "undecided" in page_of(folder).text
    row = "| l2 fails to train | undecided | undecided | 0.969 | 0.375 | 1 of 5 cells diverged"
    assert row in (folder / "tables/claims.md").read_text()


@pytest.mark.process
def test_an_oom_cell_costs_the_arm_nothing_but_its_pair(whole):
    _, report = whole
    table = report.results.table.set_index("arm")
    assert table.loc["single_l2", ["n", "num_failed", "num_pairs", "num_pairs_left_out"]].tolist() == [4, 1, 4, 1]
    scores = report.results.cells.pivot(index="seed", columns="arm", values="test_accuracy_pct").drop(index=1)
    assert table.loc["single_l2", "mean_pct"] == pytest.approx(scores["single_l2"].mean())
    assert table.loc["single_l2", "difference_pct"] == pytest.approx((scores["single_l2"] - scores["xnorm"]).mean())
    assert table.loc["xnorm_fixed", "num_pairs"] == 5


@pytest.mark.process
def test_latex_has_the_rules_of_booktabs_and_every_sign_escaped(whole):
    folder, _ = whole
    tex = (folder / "tables" / "main.tex").read_text()
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert rule in tex
    assert r"single\_l2 & 4" in tex
    assert (
        r"\begin{tabular}{p{0.14\linewidth}llrrp{0.24\linewidth}rp{0.14\linewidth}}"
        in (folder / "tables/claims.tex").read_text()
    )
    assert not re.search(r"(?<!\\)_", tex.split(r"\toprule")[1].split(r"\bottomrule")[0])
    assert latex_text("a_b & 50 % {x} #1 $y ~ \\z ^") == (
        r"a\_b \& 50 \% \{x\} \#1 \$y \textasciitilde{} \textbackslash{}z \textasciicircum{}"
    )


@pytest.mark.slow
@pytest.mark.rendered
def test_the_same_results_make_the_same_files(whole, tmp_path):
    first, again = (make_report([whole[0]], full=True, to=tmp_path / name) for name in ("first", "again"))
    assert len(first.files) > 50
    for ours, theirs in zip(first.files, again.files, strict=True):
        assert ours.read_bytes() == theirs.read_bytes(), ours.name


@pytest.mark.process
def test_titles_arms_and_logs_stay_text(tmp_path):
    folder = make_study(
        tmp_path,
        compare="data",
        norms=["xnorm"],
        data=["plain", EVIL],
        question=EVIL,
        log=EVIL,
        stories={(EVIL, 0): "error"},
        seeds=2,
    )
    make_report([folder], full=False)
    page = page_of(folder)
    assert page.tags.count("script") == 1  # the one that sorts
    for place in ('<p class="question">', "<pre>", "<td class="):
        assert place in (folder / "report.html").read_text()
    assert page.text.count(" ".join(EVIL.split())) >= 4
    assert "<script>alert" not in (folder / "report.html").read_text()
    assert "**b**" in page.text
    assert r"\textbackslash{}textbf\{x\}" in (folder / "tables" / "main.tex").read_text()


@pytest.mark.process
def test_an_unfinished_study_says_what_is_missing(tmp_path):
    folder = make_study(tmp_path, missing=[("l2", 1), ("l2", 3), ("xnorm", 3)])
    report = make_report([folder], full=False)
    assert re.search(r"Unfinished. +No readable result of xnorm \(seeds 3\); l2 \(seeds 1, 3\)", page_of(folder).text)
    assert "cells of this study without a readable result: 3" in report.main.notes
    assert report.results.table.set_index("arm")["num_pairs"].to_dict() == {"xnorm": 0, "l2": 2, "single_l2": 3}
    with pytest.warns(IncompleteStudyWarning, match="cells without a readable result: 3 of 12"):
        ablations.load(folder)


@pytest.mark.process
def test_another_report_at_the_same_time_takes_no_figure_from_the_page(tmp_path, monkeypatch):
    folder = make_study(tmp_path)
    drawn = len(list((make_report([folder], full=False).files[0].parent / "figures").glob("*.png")))

    def render_late(page):
        for file in (folder / "figures").iterdir():
            file.unlink()
        return render(page)

    monkeypatch.setattr("ablations.report.write.render", render_late)
    make_report([folder], full=False)
    assert page_of(folder).tags.count("img") == drawn > 0
    assert [path for path in folder.rglob(".*") if path.is_file()] == []  # no half file stays


DAMAGE = {
    "metrics.csv": lambda path: path.write_text(path.read_text()[:-40]),
    "outcome.json": lambda path: path.write_text('{"format": 99}'),
    "correct.npy": lambda path: path.unlink(),
    "probes.csv": lambda path: path.write_text(""),
    "config.json": lambda path: path.write_text("{"),
}


@pytest.mark.process
@pytest.mark.parametrize("file", DAMAGE)
@pytest.mark.filterwarnings("ignore:.*without a readable result")
def test_what_is_damaged_is_said_and_the_rest_reported(file, tmp_path):
    folder = make_study(tmp_path, seeds=3)
    (cell,) = (folder / "cells").glob("l2-s1-*")
    DAMAGE[file](cell / file)
    report = make_report([folder], full=False)
    (problem,) = report.results.problems
    assert cell.name in problem
    assert file in problem
    assert problem in report.main.notes
    assert " ".join(problem.split()) in page_of(folder).text
    lost = file in ("outcome.json", "config.json")
    assert len(report.results.cells) == 9 - lost
    assert report.results.table.set_index("arm").loc["l2", "num_pairs"] == 3 - lost
    with pytest.warns(IncompleteStudyWarning, match=file):
        ablations.load(folder)


def test_a_cell_of_other_fields_is_none_of_the_study(tmp_path):
    """A folder that was copied from another study: its axes fit, and its epochs do not."""
    folder = make_study(tmp_path, seeds=3, missing=[("l2", 1)])
    other = make_study(tmp_path / "other", seeds=3, epochs=5)
    for name in ("l2-s1-*", "xnorm-s0-*"):
        (cell,) = (other / "cells").glob(name)
        shutil.copytree(cell, folder / "cells" / cell.name)
    results = read_results([folder])
    assert results.table.set_index("arm").loc["l2", ["n", "num_pairs"]].tolist() == [2, 2]
    assert len(results.problems) == 2
    assert all("not a cell of this study, left out" in problem for problem in results.problems)


MEASURED = "condition,arm,quantity,tokens,round,value\n,xnorm,multiply_adds,,0,5.0\n"


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (",l2,time_s,4096,0,", "invalid rows"),
        (",l2,time_s,many,0,1.0", "invalid rows"),
        (",l2,inference_s,,0,-1", "invalid rows"),
        ("lr=0.1,l2,time_s,4096,0,1.0", "rows of other arms"),
        (",sima,time_s,4096,0,1.0", "rows of other arms"),
        (",l2,energy_j,,0,1.0", "rows of unknown quantities"),
        (",l2,time_s,,0,1.0", "rows of unknown quantities"),
        (",l2,inference_s,4096,0,1.0", "rows of unknown quantities"),
    ],
)
def test_costs_that_are_cut_short_or_of_no_arm_are_said(rows, problem, tmp_path):
    claims = [{"kind": "cost_linear_in_tokens", "arm": "l2"}]
    folder = make_study(tmp_path, seeds=2, claims=claims)
    (folder / "cost.csv").write_text(f"{MEASURED}{rows}\n")
    results = read_results([folder])
    assert [one.split(" left out: 1;")[0] for one in results.problems] == [f"cost.csv: {problem}"]
    assert len(results.costs) == 1
    assert "accuracy_against_cost" in {figure.name for figure in all_figures(results)}
    assert results.claims["verdict"].tolist() == ["undecided"]


def test_every_quantity_is_drawn_or_tested():
    assert {"parameters", *QUANTITIES[0]} == AXES.keys()
    assert QUANTITIES[1] == COSTS


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (",l2,multiply_adds,,0,118", "cost.csv is truncated: its last row is left out"),  # of 1183664.0
        (
            ",l2,inference_s,,0,0.1\n,l2,inference_s,,1,0.1\n,xnorm,inference_s,,0,0.1\n",
            "timings are missing in some rounds",
        ),
    ],
)
def test_costs_that_are_cut_within_a_number_or_a_round_are_said(rows, problem, tmp_path):
    folder = make_study(tmp_path, seeds=2)
    (folder / "cost.csv").write_text(MEASURED + rows)
    results = read_results([folder])
    assert [problem in one for one in results.problems] == [True]
    assert 118 not in results.costs["value"].to_list()


def test_a_cell_that_failed_before_its_first_epoch_has_no_damaged_file(tmp_path):
    """A real one has neither metrics nor probes."""
    folder = make_study(tmp_path, seeds=2, stories={("l2", 0): "error"})
    (cell,) = (folder / "cells").glob("l2-s0-*")
    outcome = json.loads((cell / "outcome.json").read_text())
    (cell / "outcome.json").write_text(json.dumps(outcome | {"epochs_run": 0, "epoch_hashes": []}))
    for name in ("metrics.csv", "probes.csv", "timing.csv"):
        (cell / name).unlink()
    results = read_results([folder])
    assert results.problems == ()
    (rows,) = (own for key, own in results.curves.groupby(["arm", "seed"]) if key == ("l2", 0))
    assert rows["value"].isna().all()


@pytest.mark.process
@pytest.mark.parametrize("name", ["log.txt", "timing.csv"])
def test_a_file_that_is_missing_is_said(name, tmp_path):
    folder = make_study(tmp_path, seeds=2)
    (cell,) = (folder / "cells").glob("l2-s0-*")
    (cell / name).unlink()
    assert read_results([folder]).problems == (f"{cell.name}: {name} is missing",)


@pytest.mark.slow
def test_a_report_of_an_unfinished_study_does_not_end_as_if_it_were_whole(cli, tmp_path):
    folder = make_study(tmp_path, seeds=2, missing=[("l2", 1)])
    assert cli("report", folder)[0] == 1
    assert cli("report", make_study(tmp_path, name="whole", seeds=2))[0] == 0


@pytest.mark.slow
def test_a_report_is_written_over_another_report_and_nothing_else(tmp_path):
    one, two = (make_study(tmp_path, name=name, seeds=2) for name in ("one", "two"))
    paper = tmp_path / "paper"
    for _ in range(2):
        make_report([one], full=False, to=paper)
    assert make_report([one], full=False, to=one).files[0].parent == one
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.csv").write_text("kept")
    for place, message in (
        (two, "is a study; give a folder of its own"),
        (one / "cells", "is a study; give a folder of its own"),
        (tmp_path / "mine", "it has other files and no report"),
    ):
        with pytest.raises(UsageError, match=message):
            make_report([one], full=False, to=place)
    with pytest.raises(UsageError, match="is given twice"):
        make_report([one, tmp_path / "two" / ".." / "one"], full=False, to=paper)
    assert (tmp_path / "mine" / "results.csv").read_text() == "kept"
    assert sorted(path.name for path in two.iterdir()) == ["cells", "study.yaml"]


@pytest.mark.process
def test_what_cannot_be_printed_is_shown_as_escapes(tmp_path):
    red = "\x1b[31mred\x1b[0m\x00 alert"
    folder = make_study(tmp_path, seeds=2, stories={("l2", 0): "error"}, log=red)
    (cell,) = (folder / "cells").glob("l2-s0-*")
    outcome = json.loads((cell / "outcome.json").read_text())
    (cell / "outcome.json").write_text(json.dumps(outcome | {"detail": red}))
    make_report([folder], full=False)
    for name in ("report.html", "tables/failures.md", "tables/failures.tex"):
        text = (folder / name).read_text()
        escaped = r"\x1b[31mred\x1b[0m\x00 alert"
        known = {".html": escaped, ".md": escaped.replace("\\", r"\\").replace("[", r"\["), ".tex": latex_text(escaped)}
        assert known[Path(name).suffix] in text, name
        assert not re.search("[\x00\x1b]", text), name


def test_costs_of_arms_that_are_numbers_are_theirs(tmp_path):
    folder = make_study(tmp_path, compare="lr", norms=["xnorm"], lr=[1e-3, 3e-3], seeds=2)
    (folder / "cost.csv").write_text(MEASURED.replace("xnorm", "0.001"))
    results = read_results([folder])
    assert (results.costs["arm"].tolist(), results.problems) == (["0.001"], ())


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("metrics.csv", "\n2,", "\nx,", "metrics.csv: complete epochs: 1 of 3"),
        ("metrics.csv", "\n2,0.004,", "\n2,0.004,junk", "metrics.csv: values of train_loss that are not numbers: 1"),
        ("probes.csv", "\n2,blocks.0", "\n2.5,blocks.0", "probes.csv: complete epochs: 1 of 3"),
        ("probes.csv", "output_rms,", "output_rms,junk", "probes.csv: values of value that are not numbers: 9"),
        ("outcome.json", '"ok"', '"fine"', "outcome.json: outcome=fine: must"),
    ],
)
def test_what_is_no_number_costs_itself_and_is_said(file, old, new, problem, tmp_path):
    folder = make_study(tmp_path, seeds=2)
    (cell,) = (folder / "cells").glob("l2-s1-*")
    text = (cell / file).read_text()
    assert old in text
    (cell / file).write_text(text.replace(old, new))
    assert [problem in one for one in read_results([folder]).problems] == [True]


def test_a_table_of_a_spreadsheet_is_read(tmp_path):
    folder = make_study(tmp_path, seeds=2)
    for path in (folder / "cells").glob("l2-s1-*/*.csv"):
        path.write_text(re.sub(r"^(\d+),", r"\1.0,", path.read_text(), flags=re.MULTILINE))
    results = read_results([folder])
    assert results.problems == ()
    assert results.curves["epoch"].dtype == results.probes["epoch"].dtype == np.int64


@pytest.mark.process
def test_each_study_shows_its_own_logs(tmp_path):
    one = make_study(tmp_path, name="one", seeds=2, log="the log of one")
    two = make_study(tmp_path, name="two", seeds=2, log="the log of two", stories={("l2", 0): "error"})
    make_report([one, two], full=False, to=tmp_path / "both")
    page = page_of(tmp_path / "both")
    assert "the log of two" in page.text
    assert "the log of one" not in page.text


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "words", "rows"),
    [
        ({"seeds": 1}, "no difference, however large: too few seeds", 3),
        (
            {"stories": {(arm, s): "error" for arm in ("xnorm", "l2", "single_l2") for s in range(4)}},
            "failed cells, whose pairs are left out: 12",
            3,
        ),
        (
            {"missing": [(arm, s) for arm in ("xnorm", "l2", "single_l2") for s in range(4)]},
            "cells of this study without a readable result: 12",
            0,
        ),
        ({"stories": {("xnorm", s): "oom" for s in range(4)}}, "failed cells, whose pairs are left out: 4", 3),
        (
            {"stories": {("l2", s): "exploded" for s in range(4)}},
            "diverged cells scored as chance (10 %), whose means carry no interval: 4",
            3,
        ),
        ({"norms": ["xnorm"]}, "accuracy: mean over seeds", 1),
    ],
    ids=["one seed", "all failed", "no cell", "no reference", "an arm explodes", "one arm"],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_study_of_any_shape_has_a_report(arguments, words, rows, tmp_path):
    folder = make_study(tmp_path, claims=CLAIMS if len(arguments.get("norms", "123")) > 1 else (), **arguments)
    report = make_report([folder], full=True)
    assert len(report.main.rows) == rows
    assert words in " ".join(report.main.notes)
    assert words in page_of(folder).text


def test_a_folder_without_a_study_is_an_error_of_one_line(cli, tmp_path):
    code, out, err = cli("report", tmp_path)
    assert (code, out) == (2, "")
    assert err == f"error: no study in {tmp_path}: it has no study.yaml\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_conditions_have_rows_and_figures_of_their_own(tmp_path):
    folder = make_study(tmp_path, lr=[1e-3, 3e-3], seeds=3)
    report = make_report([folder], full=True)
    assert report.results.table.groupby("condition")["n"].sum().to_dict() == {"lr=0.001": 9, "lr=0.003": 9}
    scores = report.results.cells.query("arm == 'l2' and lr == 0.001")["test_accuracy_pct"]
    row = report.results.table.query("arm == 'l2' and condition == 'lr=0.001'").iloc[0]
    assert row["mean_pct"] == pytest.approx(scores.mean())
    stems = {path.stem for path in report.files if path.suffix == ".pdf"}
    assert {"test_accuracy-lr=0.001", "test_accuracy-lr=0.003", "lr_sensitivity"} <= stems
    assert report.main.head[0] == "condition"
    assert "Holm over 4 comparisons" in " ".join(report.main.notes)


@pytest.mark.slow
def test_figures_of_conditions_that_are_no_more_are_removed_and_others_are_kept(tmp_path):
    folder = make_study(tmp_path, lr=[1e-3, 3e-3], seeds=2)
    make_report([folder], full=False)
    (folder / "figures" / "mine.pdf").write_text("kept")
    (folder / "tables" / "mine.csv").write_text("kept")
    shutil.rmtree(folder / "cells")
    make_study(tmp_path / "other", name="made_up", seeds=2)
    shutil.copytree(tmp_path / "other" / "made_up", folder, dirs_exist_ok=True)
    make_report([folder], full=False)
    stems = {path.stem for path in (folder / "figures").iterdir()}
    assert "mine" in stems
    assert not any("lr=" in stem for stem in stems)
    assert (folder / "tables" / "mine.csv").is_file()


@pytest.mark.slow
def test_several_studies_are_strata(tmp_path, cli):
    one = make_study(tmp_path, name="one", seeds=3, claims=CLAIMS[:1])
    two = make_study(tmp_path, name="two", seeds=3, lr=[1e-3, 3e-3], stories={("l2", 0): "oom"})
    results = read_results([one, two])
    assert results.conditions == ["study=one", "study=two, lr=0.001", "study=two, lr=0.003"]
    assert len(results.table) == 9
    alone = read_results([one]).table.set_index("arm")
    within = results.table[results.table["condition"] == "study=one"].set_index("arm")
    same = ["mean_pct", "low_pct", "difference_pct", "p", "num_pairs"]
    pd.testing.assert_frame_equal(alone[same], within[same])
    assert results.table["p_holm"].max() == 1
    assert results.claims["condition"].tolist() == ["study=one"]
    code, _, err = cli("report", one, two)
    assert code == 2
    assert "give --to FOLDER" in err
    before = {path: path.stat().st_mtime_ns for path in one.rglob("*")}
    assert cli("report", one, two, "--to", tmp_path / "both")[0] == 1  # an oom cell
    assert "one + two" in page_of(tmp_path / "both").text
    assert (tmp_path / "both" / "figures" / "lr_sensitivity-study=two.pdf").is_file()
    assert {path: path.stat().st_mtime_ns for path in one.rglob("*")} == before


def test_studies_that_do_not_go_together_are_refused(tmp_path):
    one = make_study(tmp_path, name="one", seeds=2)
    other = make_study(tmp_path, name="two", norms=["l2", "softmax"], seeds=2)
    with pytest.raises(UsageError, match="different references: l2, xnorm; choose one with --ref"):
        read_results([one, other])
    assert read_results([one, other], ref="l2").reference == "l2"
    with pytest.raises(UsageError, match="have the same name"):
        read_results([one, make_study(tmp_path / "elsewhere", name="one", seeds=2)])
    with pytest.raises(UsageError, match="unknown arm 'sima'"):
        read_results([one], ref="sima")
    lpi = make_study(tmp_path, name="three", compare="lpi", norms=["xnorm"], lpi=[True, False], seeds=2)
    with pytest.raises(UsageError, match="compare different fields: lpi, norm"):
        read_results([one, lpi])


@pytest.mark.slow
def test_another_reference(tmp_path, cli):
    folder = make_study(tmp_path, seeds=3)
    assert cli("report", folder, "--ref", "l2")[0] == 0
    assert "| l2 | 3 |" in (folder / "tables" / "main.md").read_text()
    assert "- l2" in (folder / "tables" / "main.md").read_text().splitlines()[0]
    code, _, err = cli("report", folder, "--ref", "l3")
    assert (code, "unknown arm 'l3'" in err) == (2, True)


def test_power_says_how_many_seeds(tmp_path, cli):
    folder = make_study(tmp_path, seeds=5)
    code, out, _ = cli("power", folder, "--delta", 0.5)
    assert code == 0
    assert "seeds for 0.5" in out
    code, out, _ = cli("power", folder, "--delta", 2, "--json")
    assert json.loads(out)["delta_pct"] == 2
    rows = json.loads(out)["comparisons"]
    assert [row["comparison"] for row in rows] == ["l2 - xnorm", "single_l2 - xnorm"]
    frame = read_results([folder]).power(2.0)
    assert [row["seeds"] for row in rows] == frame["seeds"].tolist()
    code, _, err = cli("power", make_study(tmp_path, name="one", norms=["xnorm"]))
    assert (code, "nothing to compare" in err) == (2, True)


@pytest.mark.process
def test_hours_count_failed_attempts(tmp_path):
    folder = make_study(tmp_path, norms=["xnorm", "l2"], seeds=2, stories={("l2", 0): "oom"})
    for cell in (folder / "cells").glob("xnorm-s0-*"):
        outcome = json.loads((cell / "outcome.json").read_text())
        outcome["attempts"] = [{"outcome": "failed", "kind": "oom", "seconds": 72.0}]
        (cell / "outcome.json").write_text(json.dumps(outcome))
    make_report([folder], full=False)
    assert "- **Hours**: 0.06 in cells, 0.03 of them in failed ones" in (folder / "checklist.md").read_text()


@pytest.mark.process
def test_the_command_of_a_report_runs_the_same_cells(cli, tmp_path):
    quick = ("--epochs", 1, "--set", "train_limit=128", "--set", "warmup_epochs=0", "--out", tmp_path)
    cli("run", "--norm", "xnorm,l2", "--lr", "1e-3,3e-3", "--seeds", 1, "--ref", "l2", *quick)
    folder = tmp_path / "norm-digits"
    again = command(ablations.load(folder).studies[0], folder).replace("\\\n", " ").split()[3:]
    _, out, _ = cli(*again, "--dry-run")
    assert "4 cells: 4 done; 0 to run" in out


@pytest.mark.parametrize(
    ("classes", "written"),
    [
        (["a+b"], "a+b"),
        (["a+b", "c+d"], "a+b,c+d"),
        (["a,b+c"], "@FILE"),
        (["a,b+c", "cat+owl"], "@FILE"),
        (["cat+owl", "a,b+c"], "@FILE"),
    ],
)
def test_the_command_of_a_report_gives_names_with_commas_as_a_file(classes, written, tmp_path):
    folder = make_study(tmp_path, classes=classes)
    assert f"--classes {written} " in command(ablations.load(folder).studies[0], folder).replace("\\\n", " ")


@pytest.mark.process
def test_results_draw_their_figures(whole):
    results = ablations.load(whole[0])
    assert isinstance(results, Results)
    assert results.plot.test_accuracy().get_xlabel() == "Test accuracy (%)"
    assert results.plot.probes_over_time("blocks.1.attn", "grad_norm").get_xlabel() == "Epoch"
    with pytest.raises(UsageError, match=r"unknown 'heat'\. Valid: output_rms, grad_norm, mean_gain_q"):
        results.plot.probes_over_depth("heat")
    with pytest.raises(UsageError, match="no data for lr_sensitivity"):
        results.plot.lr_sensitivity()
    assert len(results.paired(ref="l2").query("arm == 'xnorm'")) == 5
    np.testing.assert_allclose(results.summary()["mean_pct"], results.table["mean_pct"])


DRAWS_FOR_EVER = """
import time
from pathlib import Path
from ablations.report import drawing
drawing._write = lambda *_: time.sleep(600)
with drawing._writing([(Path("x"), [], ())] * 8) as written:
    written()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="figures are drawn by several processes on Linux alone")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor draws by itself")
def test_what_draws_ends_with_a_report_that_is_killed():
    process = subprocess.Popen([sys.executable, "-c", DRAWS_FOR_EVER])
    parent = psutil.Process(process.pid)
    wait_for(lambda: len(parent.children()) >= 2)
    drawing = parent.children()
    time.sleep(0.2)  # they begin
    process.kill()
    process.wait()
    assert not psutil.wait_procs(drawing, timeout=10)[1]


def test_results_show_themselves_in_a_notebook_as_their_main_table_with_its_notes(tmp_path):
    results = ablations.load(make_study(tmp_path, seeds=6, stories={("l2", 0): "nan"}))
    html, table = results._repr_html_(), results.main
    for text in (*(cell for row in table.rows for cell in row), *table.head, *table.notes):
        assert escape(text) in html
    assert html.count("<tr>") == 1 + len(table.rows)
    assert html.count("<li>") == len(table.notes) > 2
    risky = replace(table, rows=[[EVIL] * len(table.head)], notes=[EVIL], bold=frozenset({(0, 1)}))
    page = html_table(risky, title=EVIL)
    assert "<script>" not in page
    assert page.count("<b>") == 1

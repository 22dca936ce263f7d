"""The sentences below the tables: what must be known of the numbers, and counted wherever they are shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from studies import make_study

from ablations.analysis import detectable_difference, t_detectable_difference
from ablations.api import make_report, read_results
from ablations.report import notes as report_notes
from ablations.report.checklist import checklist
from ablations.report.notes import main_notes
from ablations.store import Store


def notes_of(folder: Path, table: str) -> str:
    """Return what stands below a table."""
    return (folder / "tables" / f"{table}.md").read_text().rpartition("|")[2]


def look_at(folder: Path, num_looks: int) -> None:
    study = yaml.safe_load((folder / "study.yaml").read_text())
    (folder / "study.yaml").write_text(yaml.safe_dump({**study, "num_looks": num_looks}))


def make_stale(folder: Path, cells: str) -> None:
    for cell in (folder / "cells").glob(cells):
        outcome = json.loads((cell / "outcome.json").read_text())
        (cell / "outcome.json").write_text(json.dumps({**outcome, "numerics": "0"}))


@pytest.mark.process
def test_above_sixteen_pairs_p_are_called_drawn(tmp_path):
    notes = make_report([make_study(tmp_path, norms=["xnorm", "l2"], seeds=17)], full=False).main.notes
    assert "p: exact up to 16 pairs, above that drawn, sign-flip permutation, Holm over 1 comparison" in " ".join(notes)


def test_a_look_counts_the_differences_of_its_own_study(tmp_path):
    one, two = (make_study(tmp_path, name=name, norms=["xnorm", "l2"], seeds=6) for name in ("one", "two"))
    look_at(one, 1)
    results = read_results([one, two])
    is_two = results.table["condition"] == "study=two"
    results.table.loc[is_two, ["p_holm", "supported"]] = [0.001, True]
    (note,) = [note for note in main_notes(results) if "looks" in note]
    assert "0 of 0 supported differences remain" in note


@pytest.mark.process
def test_looks_are_counted(tmp_path):
    folder = make_study(tmp_path, norms=["xnorm", "l2"], seeds=6)
    look_at(folder, 2)
    notes = " ".join(make_report([folder], full=False).main.notes)
    assert "was extended 2 times after results could be seen; p are not adjusted for these looks" in notes
    assert "0.05 / 3 = 0.0167" in notes


@pytest.mark.process
def test_stale_pairs_are_marked(tmp_path):
    folder = make_study(tmp_path, seeds=3)
    make_stale(folder, "l2-*")
    notes = make_report([folder], full=False).main.notes
    assert "stale cells, which come from another version of the numerics: 3" in notes
    assert "pairs of a stale cell and a fresh one: 3" in notes


@pytest.mark.process
def test_cells_of_other_machines_are_said(tmp_path):
    folder = make_study(tmp_path, seeds=3)
    for cell in (folder / "cells").glob("l2-*"):
        outcome = json.loads((cell / "outcome.json").read_text())
        outcome |= {"device": "NVIDIA H100", "versions": {"python": "3.12.0", "torch": "2.11.0"}}
        outcome["cuda_settings"] = {"float32_matmul": "tf32", "mps": False}
        (cell / "outcome.json").write_text(json.dumps(outcome))
    notes = make_report([folder], full=False).main.notes
    assert "pairs of cells of different devices: 3" in notes
    assert "pairs of cells of different versions of torch: 3" in notes
    assert "pairs of cells of different settings of CUDA: 3" in notes
    assert "cells were run with different settings of CUDA: float32_matmul=tf32, mps=off; none" in notes


def test_settings_of_cuda_that_differ_on_request_are_no_warning():
    cells = pd.DataFrame({"device": "cpu", "cuda_settings": ["a", "b"], "torch": "2.15.0"})
    same = ("same_device", "same_torch", "same_stacked_seeds")
    pairing = pd.DataFrame({f"num_{name}": [1] for name in ("pairs", *same)}).assign(num_same_cuda_settings=0)
    asked = {"norm": ["xnorm", "l2"], "precision": ["32-true"]}
    for precisions, count in ((["32-true"], 2), (["32-true", "tf32"], 0)):
        study = SimpleNamespace(axes=asked | {"precision": precisions})
        results = SimpleNamespace(studies=[study], cells=cells, pairing=pairing)
        assert len(report_notes._machine_notes(results)) == count


@pytest.mark.process
def test_contrasts_say_what_could_be_detected_and_what_is_left_out(tmp_path):
    stories = {("xnorm_fixed", 0): "oom", ("l2", 1): "nan"}
    folder = make_study(tmp_path, norms=("xnorm", "l2", "xnorm_fixed"), seeds=8, stories=stories)
    make_report([folder], full=False)
    text = (folder / "tables" / "contrasts.md").read_text()
    assert re.search(
        r"80 % power at these spreads: \d+\.\d\d points; not known: chance scores .* \(in 1 comparison\)", text
    )
    assert "pairs left out, since a cell of them failed or is missing: 2" in text
    assert "pairs with a chance score, whose mean carries no interval: 1" in text


@pytest.mark.process
def test_the_secondary_table_says_what_it_could_have_detected(tmp_path):
    folder = make_study(tmp_path, norms=("xnorm", "l2"), seeds=8, stories={("l2", 0): "nan"})
    make_report([folder], full=False)
    assert "what could have been detected" in (folder / "tables" / "success.md").read_text()
    assert re.search(r"80 % power at these spreads: \d", (folder / "tables" / "success.md").read_text())


@pytest.mark.process
def test_looks_stand_below_every_table_with_p_also_where_the_reference_has_no_pair(tmp_path):
    claims = [{"kind": "fails_to_train", "arm": "l2"}]
    stories = {("xnorm", seed): "oom" for seed in range(6)}
    norms = ("xnorm", "l2", "xnorm_fixed")
    folder = make_study(tmp_path, norms=norms, seeds=6, claims=claims, stories=stories)
    look_at(folder, 3)
    make_report([folder], full=False)
    for table in ("main", "contrasts", "claims"):
        assert "was extended 3 times after results could be seen; p are not adjusted" in notes_of(folder, table), table
    assert re.search(r"0.05 / 4 = 0.0125 \d of \d supported", notes_of(folder, "contrasts"))
    assert "what could have been detected, with 80 % power at these spreads: nothing" in notes_of(folder, "main")


def test_where_the_reference_has_no_cell_is_said(tmp_path):
    one = make_study(tmp_path, name="one", seeds=3)
    two = make_study(tmp_path, name="two", seeds=3, missing=[("xnorm", seed) for seed in range(3)])
    notes = main_notes(read_results([one, two]))
    assert "no cell of xnorm has ended at study=two: there are no differences to it" in notes
    assert "no cell of xnorm has ended: there are no differences to it" in main_notes(read_results([two]))
    assert not [note for note in main_notes(read_results([one])) if "no cell of" in note]


@pytest.mark.process
def test_pairs_with_a_score_by_chance_are_left_out_of_the_correlation_and_that_is_said(tmp_path):
    folder = make_study(tmp_path, norms=("xnorm", "l2"), seeds=8, stories={("l2", 0): "nan", ("l2", 1): "nan"})
    report = make_report([folder], full=False)
    assert "pairs with a chance score, left out of both: 2" in notes_of(folder, "pairing")
    assert any("(pairs with a chance score left out: 2)" in note for note in report.main.notes)
    assert report.results.pairing["num_pairs_without_chance"].tolist() == [6]


def test_the_checklist_says_what_was_the_same_and_not_what_should_be(tmp_path):
    folder = make_study(tmp_path, norms=("xnorm", "l2"), seeds=3)
    (cell,) = (folder / "cells").glob("l2-s1-*")
    outcome = json.loads((cell / "outcome.json").read_text())
    (cell / "outcome.json").write_text(json.dumps(outcome | {"init_hash": "another"}))
    said = dict(checklist(read_results([folder])))["Initial weights and batches"]
    assert "of 3 pairs: 2 share every initial weight outside the normaliser, 3 every batch" in said


@pytest.mark.process
def test_claims_say_what_they_could_have_detected(tmp_path):
    claims = [
        {"kind": "greater_than", "arm": "xnorm", "than": "l2"},
        {"kind": "worse_by", "arm": "l2", "than": "xnorm", "margin_pct": 1},
        {"kind": "fails_to_train", "arm": "l2"},
    ]
    folder = make_study(tmp_path, norms=("xnorm", "l2"), seeds=8, claims=claims)
    results = make_report([folder], full=False).results
    greater, worse, fails = results.claims["detectable_pct"]
    sd = float(results.paired("l2")["difference_pct"].std())
    assert greater == pytest.approx(detectable_difference(sd, 8, alpha=2 * 0.05 / 3))
    assert worse == pytest.approx(t_detectable_difference(sd, 8, alpha=2 * 0.05 / 3))
    assert greater > worse > 0
    assert fails != fails
    assert f"at these spreads: {worse:.2f} to {greater:.2f} points" in notes_of(folder, "claims")


@pytest.mark.process
def test_failed_shares_have_an_interval_too(tmp_path):
    folder = make_study(tmp_path, norms=("xnorm", "l2"), seeds=8, stories={("l2", 0): "oom", ("l2", 1): "oom"})
    table = make_report([folder], full=False).results.table.set_index("arm")
    assert table.loc["l2", "failed_share"] == 2 / 8
    # Wilson (1927) for 2 of 8: (2 + z^2/2) / (8 + z^2) -+ z / (8 + z^2) sqrt(2 x 6 / 8 + z^2 / 4), z = 1.96
    assert table.loc["l2", ["failed_low_share", "failed_high_share"]].tolist() == pytest.approx(
        [0.0715, 0.5907], abs=1e-4
    )
    assert "| 2 of 8 | [0.07, 0.59] |" in (folder / "tables" / "details.md").read_text()


@pytest.mark.process
def test_verdicts_say_what_they_hold_for_what_each_claim_says_alone_and_what_was_known(tmp_path, cli):
    claims = [{"kind": "fails_to_train", "arm": arm} for arm in ("l2", "xnorm", "none")]
    stories = {("l2", seed): "nan" for seed in range(5)}
    folder = make_study(tmp_path, norms=("xnorm", "l2"), seeds=5, claims=claims, stories=stories)
    store = Store(folder)
    first, *others = (study := store.read_study()).claims
    known = first.model_copy(update={"known_from": ("elsewhere",)})
    store.write_study(study.model_copy(update={"claims": (known, *others)}))
    _, out, _ = cli("report", folder)
    family = (
        "verdicts: p below 0.05 by Holm's method over all claims and conditions, 2 tests for and 2 against, each "
        "direction by itself: a false verdict in at most 5 % of studies; alone: the verdict if the claim were the only "
        "one"
    )
    printed = [
        family,
        "undecided (alone: supported): l2 fails to train (numbers known from elsewhere)",
        "undecided (alone: contradicted): xnorm fails to train",
        "undecided: none fails to train",
    ]
    assert "\n".join(printed) in out
    table = (folder / "tables" / "claims.md").read_text()
    assert (
        "| l2 fails to train (numbers known from elsewhere) | undecided | supported | 0.062 | 1.000 | 5 of 5" in table
    )
    assert f"- {family}\n" in table
    page = (folder / "report.html").read_text()
    assert "l2 fails to train (numbers known from elsewhere)" in page
    assert "it had results of these very cells before the claim was made here" in page
    summary = json.loads(cli("report", folder, "--json")[1])
    assert [(row["verdict"], row["alone"], row["known_from"]) for row in summary["claims"]] == [
        ("undecided", "supported", "elsewhere"),
        ("undecided", "contradicted", ""),
        ("undecided", "undecided", ""),
    ]
    assert [row["p_supported_holm"] for row in summary["claims"]] == [2 / 32, 1.0, None]


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_a_limited_evaluation_is_named(tmp_path, task):
    made = {"norms": ["xnorm", "l2"], "seeds": 2, "task": [task]}
    made |= {"model": ["ufo_vit_nano"]} if task == "detect" else {}
    limited = read_results([make_study(tmp_path / "limited", eval_limit=[100], **made)])
    whole = read_results([make_study(tmp_path / "whole", **made)])
    said = "Scores are of at most 100 images of validation and of test, drawn once and the same for every cell"
    assert [said in note[: len(said)] for note in main_notes(limited)].count(True) == 1
    assert "on the test images (eval_limit: at most 100)" in dict(checklist(limited))["Measure"]
    assert said not in " ".join(main_notes(whole))
    assert "eval_limit" not in dict(checklist(whole))["Measure"]


def test_a_limit_that_only_some_conditions_have_is_named_with_them(tmp_path):
    made = {"norms": ["xnorm", "l2"], "seeds": 2, "eval_limit": [None, 100]}
    notes = " ".join(main_notes(read_results([make_study(tmp_path / "both", **made)])))
    assert "Scores at eval_limit=100 are of at most 100 images" in notes

"""The command line as a user meets it: real runs, small ones."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import signal
import time
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
import torch
import yaml
from conftest import ROOT, cells, numbers, start, workers_of, write_images
from studies import make_study

import ablations
from ablations.cli import listing
from ablations.config.values import check_field
from ablations.planning import estimate
from ablations.store import Store

QUICK = ("--epochs", 1, "--set", "train_limit=128")


@pytest.mark.process
@pytest.mark.rendered
def test_a_run_ends_with_table_figures_and_exit_code_0(cli, tmp_path):
    code, out, err = cli("run", "--norm", "xnorm,l2", "--seeds", 2, *QUICK, "--out", tmp_path)
    assert code == 0, err
    assert "4 cells: 4 missing; 4 to run on cpu" in out
    assert "2 seeds cannot reach significance in 1 comparison, whatever the results: give at least 6 seeds" in out
    for arm in ("xnorm seed 0: ok", "l2 seed 0: ok", "xnorm seed 1: ok", "l2 seed 1: ok"):
        assert arm in out
    folder = tmp_path / "norm-digits"
    for name in ("training_loss", "validation_accuracy", "test_accuracy"):
        for extension in ("png", "pdf"):
            assert (folder / "figures" / f"{name}.{extension}").stat().st_size > 5000
    assert len(pd.read_csv(folder / "results.csv")) == 4
    assert len(pd.read_csv(folder / "curves.csv")) == 4 * 3
    table = (folder / "tables" / "main.md").read_text()
    assert "| xnorm | 2 |" in table
    record = json.loads((cells(tmp_path)["l2-s1"] / "outcome.json").read_text())
    for key in ("outcome", "kind", "attempts", "git", "source_hash", "versions", "machine", "seconds", "init_hash"):
        assert key in record


def test_a_plan_says_where_its_contrasts_cannot_be_decided(cli, tmp_path):
    """Six comparisons take 8 seeds; the eight contrasts of these arms take 9."""
    norms = "xnorm,xnorm_fixed,xnorm_value,l2,single_l2,single_l2_kv,rmsnorm"
    _, out, _ = cli("run", "--norm", norms, "--seeds", 8, *QUICK, "--out", tmp_path, "--dry-run")
    assert "8 seeds cannot reach significance in 8 contrasts, whatever the results: give at least 9 seeds" in out
    assert "comparisons, whatever" not in out


@pytest.mark.slow
def test_a_second_run_finds_everything_done_and_a_longer_one_runs_the_rest(cli, finished_study, tmp_path):
    run = ("run", "--norm", "xnorm", *QUICK, "--out", tmp_path)
    finished_study("--norm", "xnorm", "--seeds", 1, *QUICK)
    first = (cells(tmp_path)["xnorm-s0"] / "outcome.json").read_bytes()
    code, out, _ = cli(*run, "--seeds", 1)
    assert code == 0
    assert "the cell is done" in out
    assert "- None" not in out
    code, out, _ = cli(*run, "--seeds", 2)
    assert "2 cells: 1 done, 1 missing; 1 to run" in out
    assert (cells(tmp_path)["xnorm-s0"] / "outcome.json").read_bytes() == first
    study = yaml.safe_load((tmp_path / "norm-digits" / "study.yaml").read_text())
    assert study["history"] == ["extended (cells with results: 1): seed=1"]


@pytest.mark.slow
def test_axes_that_are_not_asked_for_stay_as_the_study_has_them(cli, tmp_path):
    more = (*QUICK, "--study", "s", "--out", tmp_path)
    cli("run", "--norm", "xnorm,none", "--lr", "1e-3,3e-3", "--seeds", 1, *more)
    _, out, _ = cli("run", "--seeds", 2, *more, "--dry-run")
    assert "taken from the stored study: norm=xnorm,none; lr=0.001,0.003" in out
    assert "8 cells: 4 done, 4 missing" in out
    _, out, _ = cli("run", "--norm", "none,l2", *more, "--dry-run")
    assert "taken from the stored study: lr=0.001,0.003; 1 seed\n" in out
    assert "4 cells: 2 done, 2 missing" in out
    _, out, _ = cli("run", "--norm", "l2", "--ref", "none", *more, "--dry-run")
    assert "extended (cells with results: 4): norm=l2, ref=none" in out


def test_the_estimate_knows_the_epochs_of_each_cell(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "time_steps", lambda *_, **__: estimate.StepTimes(train_s=0.1, eval_s=0.0))

    def total(epochs: str) -> str:
        _, out, _ = cli("run", "--norm", "l2", "--seeds", 2, "--epochs", epochs, "--dry-run", "--out", tmp_path)
        (line,) = [line for line in out.splitlines() if "MiB of disk" in line]
        return line

    assert "2 s to 7 min a cell" in total("1,200")
    assert total("1,200") == total("200,1")


PLUGIN = (ROOT / "tests" / "arms.py").read_text().replace("no_cross", "mine")
PLUGGED = ("--norm", "xnorm,mine", "--seeds", 1, *QUICK, "--plugin", "mine")


@pytest.fixture(scope="module")
def plugged_once(tmp_path_factory):
    """A folder with a plug-in, and a study of it in runs/."""
    folder = tmp_path_factory.mktemp("plugged")
    (folder / "mine.py").write_text(PLUGIN)
    process = start(*PLUGGED, out=folder / "runs", cwd=folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "mine seed 0: ok" in out
    return folder


@pytest.fixture
def plugged(plugged_once, tmp_path):
    return shutil.copytree(plugged_once, tmp_path, dirs_exist_ok=True)


@pytest.mark.slow
def test_a_failed_rerun_takes_no_results_place(plugged):
    before = cells(plugged / "runs")["mine-s0"]
    score = json.loads((before / "outcome.json").read_text())["test_accuracy_pct"]
    (plugged / "mine.py").write_text(PLUGIN.replace("l2_normalise(q, dim=-1) @", "misspelt @"))
    again = start(*PLUGGED, "--rerun", "stale", out=plugged / "runs", cwd=plugged)
    out, _ = again.communicate(timeout=120)
    assert again.returncode == 1
    assert "its earlier result is kept" in out
    after = cells(plugged / "runs")["mine-s0"]
    record = json.loads((after / "outcome.json").read_text())
    assert (record["outcome"], record["test_accuracy_pct"]) == ("ok", score)
    assert "misspelt" in record["attempts"][0]["detail"]
    assert (after / "metrics.csv").exists()
    assert not list((after.parent / ".partial").iterdir())


@pytest.mark.slow
def test_a_plug_ins_file_counts_for_the_staleness_of_its_own_arms(plugged):
    (plugged / "mine.py").write_text(PLUGIN + "\n# changed\n")
    again = start(*PLUGGED, "--dry-run", out=plugged / "runs", cwd=plugged)
    assert "2 cells: 1 done, 1 stale" in again.communicate(timeout=120)[0]  # xnorm is not the plug-in's


@pytest.mark.slow
def test_a_studys_plug_in_that_is_not_here_is_named_before_anything_runs(cli, plugged):
    before = (plugged / "runs" / "norm-digits" / "study.yaml").read_bytes()
    code, _, err = cli("run", "--norm", "xnorm", "--seeds", 2, *QUICK, "--out", plugged / "runs")
    assert (code, err.count("\n")) == (2, 1)
    assert "--plugin mine: no such module in" in err
    assert (plugged / "runs" / "norm-digits" / "study.yaml").read_bytes() == before


@pytest.mark.slow
def test_figures_of_conditions_that_are_no_more_go_and_equal_names_do_not_collide(cli, images, tmp_path):
    other = tmp_path / "x" / "a b"
    write_images(other, {"train": 20, "test": 5})
    same = images.rename(tmp_path / "a_b")
    more = ("--norm", "l2", "--seeds", 1, "--epochs", 1, "--batch-size", 16, "--study", "s", "--out", tmp_path)
    cli("run", "--data", f"imagefolder:{other},imagefolder:{same}", *more)
    figures = tmp_path / "s" / "figures"
    names = {path.name for path in figures.glob("test_accuracy*.png")}
    assert names == {"test_accuracy-data=imagefolder_a_b.png", "test_accuracy-data=imagefolder_a_b_.png"}
    for name in ("test_accuracy.png", "test_accuracy-lr=0.1.pdf", "mine.png"):
        (figures / name).write_text("")
    cli("report", tmp_path / "s")
    assert names | {"mine.png"} == {path.name for path in figures.glob("*.png") if path.stem[:4] in ("test", "mine")}
    assert not (figures / "test_accuracy-lr=0.1.pdf").exists()


def test_a_smoke_run_keeps_the_arms_that_are_compared(cli, tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text("compare: batch_size\nbatch_size: [16, 32]\n")
    arguments = ("run", "--experiment", path, "--smoke", "--dry-run", "--json", "--out", tmp_path)
    assert json.loads(cli(*arguments)[1])["study"]["axes"]["batch_size"] == [16, 32]
    fixed = json.loads(cli("run", "--smoke", "--set", "train_limit=32", "--dry-run", "--json")[1])["study"]["fixed"]
    assert (fixed["train_limit"], fixed["batch_size"]) == (32, 32)


@pytest.mark.slow
def test_stale_cells_are_marked_and_run_again_on_request(cli, finished_study, tmp_path):
    run = ("run", "--norm", "xnorm,l2", "--seeds", 1, *QUICK, "--out", tmp_path)
    finished_study("--norm", "xnorm,l2", "--seeds", 1, *QUICK)
    path = cells(tmp_path)["l2-s0"] / "outcome.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"numerics": "0", "source_hash": "before"}))
    _, out, _ = cli(*run)
    assert "1 done, 1 stale; 0 to run" in out
    assert "stale cells, which come from another version of the numerics: 1" in out
    assert "pairs of a stale cell and a fresh one: 1" in out
    _, out, _ = cli(*run, "--rerun", "stale")
    assert "[1/1] l2 seed 0: ok" in out
    assert "(stale)" not in out
    record = json.loads(path.read_text())
    assert [attempt["source_hash"] for attempt in record["attempts"]] == ["before"]


@pytest.mark.process
@pytest.mark.parametrize(("norms", "code"), [("xnorm,turns_nan", 0), ("raises,out_of_memory", 3)])
@pytest.mark.usefixtures("arms")
def test_exit_codes(cli, tmp_path, norms, code):
    more = ("--epochs", 2, "--set", "augment=none", "--seeds", 1, "--plugin", "arms", "--out", tmp_path)
    assert cli("run", "--norm", norms, *more)[0] == code


@pytest.mark.slow
@pytest.mark.usefixtures("arms")
def test_a_failed_cell_costs_only_itself_and_runs_again(cli, tmp_path):
    run = ("run", "--norm", "xnorm,raises", "--seeds", 2, *QUICK, "--plugin", "arms", "--out", tmp_path)
    code, out, _ = cli(*run)
    assert code == 1
    assert "raises seed 0: failed error" in out
    assert "this arm is broken" in out
    assert "failed cells, whose pairs are left out: 2" in out
    assert (tmp_path / "norm-digits" / "tables" / "main.md").exists()
    _, out, _ = cli(*run)
    assert "4 cells: 2 done, 2 failed; 2 to run" in out
    record = json.loads((cells(tmp_path)["raises-s1"] / "outcome.json").read_text())
    assert record["kind"] == "error"
    assert len(record["attempts"]) == 1
    assert any("this arm is broken" in line for line in record["traceback"])


@pytest.mark.usefixtures("arms")
def test_class_attention_without_the_normaliser_is_said(cli, tmp_path):
    _, out, _ = cli("run", "--norm", "xnorm,no_cross", "--plugin", "arms", "--dry-run", "--out", tmp_path)
    assert "no_cross cannot serve one query against many keys: class attention uses softmax there" in out


@pytest.mark.process
def test_cells_without_their_study_are_not_run_over(cli, finished_study, tmp_path):
    run = ("run", "--norm", "l2", "--seeds", 1, *QUICK, "--out", tmp_path)
    finished_study("--norm", "l2", "--seeds", 1, *QUICK)
    (tmp_path / "norm-digits" / "study.yaml").unlink()
    before = (cells(tmp_path)["l2-s0"] / "outcome.json").read_bytes()
    code, _, err = cli(*run)
    assert (code, err.count("\n")) == (2, 1)
    assert "it has no study.yaml" in err
    assert (cells(tmp_path)["l2-s0"] / "outcome.json").read_bytes() == before


@pytest.mark.process
def test_a_study_without_cells_may_ask_another_question(cli, finished_study, tmp_path):
    from ablations.store import Store

    finished_study("--norm", "l2", "--seeds", 1, *QUICK)
    (folder,) = cells(tmp_path).values()
    shutil.rmtree(folder)
    code, out, _ = cli(
        "run", "--norm", "l2", "--seeds", 1, "--epochs", 2, "--set", "train_limit=128", "--out", tmp_path
    )
    assert code == 0
    assert "no cell of this study has a result yet, so its question is replaced" in out
    assert Store(tmp_path / "norm-digits").read_study().fixed["epochs"] == 2


def test_a_dry_run_writes_nothing(cli, tmp_path):
    code, out, _ = cli("run", "--seeds", "0-3", "--dry-run", "--out", tmp_path / "runs")
    assert code == 0
    assert "12 cells: 12 missing" in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.process
def test_a_study_grown_from_one_arm_gets_its_reference_and_says_what_was_added(cli, finished_study, tmp_path):
    finished_study("--norm", "xnorm", "--seeds", 1, *QUICK)
    _, out, _ = cli("run", "--norm", "l2", "--seeds", 1, *QUICK, "--out", tmp_path)
    assert "extended (cells with results: 1): norm=l2, ref=xnorm" in out
    assert "- xnorm" in out
    frame = pd.read_csv(tmp_path / "norm-digits" / "tables" / "main.csv")
    assert frame.set_index("arm").loc["l2", "num_pairs"] == 1


def test_without_a_command_the_help_is_printed(cli):
    code, out, _ = cli()
    assert code == 0
    assert len(out.splitlines()) > 8


@pytest.mark.process
def test_smoke_has_a_study_of_its_own(cli, tmp_path):
    code, out, _ = cli("run", "--norm", "xnorm,l2", "--smoke", "--out", tmp_path)
    assert code == 0
    assert "study norm-digits-smoke" in out
    config = json.loads((cells(tmp_path, "norm-digits-smoke")["l2-s1"] / "config.json").read_text())
    assert (config["epochs"], config["train_limit"], config["smoke"]) == (1, 256, True)
    assert len(cells(tmp_path, "norm-digits-smoke")) == 4


@pytest.mark.process
def test_smoke_takes_no_more_images_than_there_are(cli, images, tmp_path):
    code, _, err = cli("run", "--norm", "l2", "--data", f"imagefolder:{images}", "--smoke", "--out", tmp_path)
    assert code == 0, err
    config = json.loads((cells(tmp_path, "norm-images-smoke")["l2-s0"] / "config.json").read_text())
    assert (config["train_limit"], config["batch_size"]) == (72, 64)


@pytest.mark.process
def test_json_is_alone_on_standard_output(cli, tmp_path):
    code, out, err = cli("run", "--norm", "xnorm", "--seeds", 1, *QUICK, "--json", "--out", tmp_path)
    summary = json.loads(out)
    assert summary["exit_code"] == code == 0
    assert summary["cells"][0]["arm"] == summary["table"][0]["arm"] == "xnorm"
    assert "xnorm seed 0: ok" in err
    plan = json.loads(cli("run", "--norm", "xnorm", "--seeds", 2, *QUICK, "--dry-run", "--json", "--out", tmp_path)[1])
    assert sorted(plan["states"].values()) == ["done", "missing"]


@pytest.mark.process
def test_claims_stand_in_the_study_before_its_first_cell_and_later_ones_are_post_hoc(cli, tmp_path):
    path = tmp_path / "question.yaml"
    text = "data: digits\nnorm: [xnorm, l2]\nseeds: 1\nepochs: 1\ntrain_limit: 128\nclaims:\n"
    path.write_text(text + "- {kind: fails_to_train, arm: l2}\n")
    run = ("run", "--experiment", path, "--out", tmp_path)
    assert cli(*run)[0] == 0
    study = yaml.safe_load((tmp_path / "norm-digits" / "study.yaml").read_text())
    assert [(claim["kind"], claim["post_hoc"]) for claim in study["claims"]] == [("fails_to_train", False)]
    path.write_text(text + "- {kind: greater_than, arm: xnorm, than: l2}\n")
    _, out, _ = cli(*run)
    assert "extended (cells with results: 2): claim 'xnorm is better than l2'" in out
    study = yaml.safe_load((tmp_path / "norm-digits" / "study.yaml").read_text())
    assert [claim["post_hoc"] for claim in study["claims"]] == [False, True]
    assert "xnorm is better than l2 (post hoc)" in (tmp_path / "norm-digits" / "tables" / "claims.md").read_text()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("norm: [xnorm, l2]\nclaims: [{kind: fails_to_train, arm: l3}]", "unknown normaliser 'l3'. Valid: xnorm, l2"),
        (
            "compare: lpi\nlpi: [true, false]\nclaims: [{kind: fails_to_train, arm: l2}]",
            "a claim is about l2: lpi=l2: must be",
        ),
        (
            "compare: lr\nlr: [1e-3, 1e-2]\nclaims: [{kind: fails_to_train, arm: '3e-2'}]",
            "a claim is about 0.03, which is not one of the arms: 0.001, 0.01",
        ),
        (
            "compare: lr\nlr: [1e-3, 1e-2]\nclaims: [{kind: greater_than, arm: '1e-2', than: '0.010'}]",
            "0.01 cannot be compared with itself",
        ),
        ("compare: lpi\nclaims: [{kind: fails_to_train, arm: 'on'}]", "--compare lpi: give the values to compare"),
    ],
)
def test_a_claim_about_no_arm_is_refused(cli, tmp_path, lines, message):
    path = tmp_path / "question.yaml"
    path.write_text(lines)
    code, _, err = cli("run", "--experiment", path, "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "out").exists()


def test_the_experiments_are_listed_with_question_and_cost(cli):
    code, out, _ = cli("list", "experiments", "--json")
    listed = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert listed["tuned_digits"]["command"] == "tune"
    assert listed["norm_digits"] == {
        "name": "norm_digits",
        "command": "run",
        "question": "Which attention normaliser trains on 8 x 8 digits, and what does each contrast isolate?",
        "cost": "10 arms x 10 seeds, 8 minutes on two CPU cores.",
    }


def test_the_version_names_package_torch_and_python(cli):
    code, out, _ = cli("--version")
    package, *others = out.strip().split(", ")
    assert code == 0
    assert package == f"ufo-ablations {ablations.__version__}"
    assert others == [f"torch {importlib.metadata.version('torch')}", f"Python {platform.python_version()}"]
    assert importlib.metadata.version("torch").partition("+")[0] == torch.__version__.partition("+")[0]


def test_an_experiment_file_gives_all_of_it_and_flags_win(cli, tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text("study: mine\nquestion: Which?\nnorm: [xnorm, none]\nseeds: 5\nlr: 1e-3\nepochs: 9\nlpi: off\n")
    args = (
        "run",
        "--experiment",
        f"{path.parent}/./{path.name}",
        "--epochs",
        2,
        "--dry-run",
        "--json",
        "--out",
        tmp_path,
    )
    study = json.loads(cli(*args)[1])["study"]
    assert (study["name"], study["question"], study["ref"]) == ("mine", "Which?", "xnorm")
    assert study["axes"] == {"norm": ["xnorm", "none"], "seed": [0, 1, 2, 3, 4]}
    assert (study["fixed"]["epochs"], study["fixed"]["lr"], study["fixed"]["lpi"]) == (2, 0.001, False)


@pytest.mark.process
def test_another_field_is_compared_and_conditions_stand_apart(cli, tmp_path):
    args = ("--compare", "lpi", "--set", "lpi=on,off", "--lr", "1e-3,3e-3", "--seeds", 1, *QUICK, "--out", tmp_path)
    code, _, err = cli("run", *args)
    assert code == 0, err
    frame = pd.read_csv(tmp_path / "lpi-digits" / "tables" / "main.csv")
    assert frame[["condition", "arm"]].drop_duplicates().shape == (4, 2)
    assert (frame["n"] == 1).all()
    assert (tmp_path / "lpi-digits" / "figures" / "test_accuracy-lr=0.003.png").exists()


@pytest.mark.process
def test_an_image_folder_is_trained_on(cli, images, tmp_path):
    args = ("--norm", "xnorm,none", "--seeds", 1, "--epochs", 2, "--batch-size", 16, "--out", tmp_path)
    code, _, err = cli("run", "--data", f"imagefolder:{images}", *args)
    assert code == 0, err
    config = json.loads((cells(tmp_path, "norm-images")["xnorm-s0"] / "config.json").read_text())
    assert config["data"] == "imagefolder:images"
    assert str(tmp_path) not in json.dumps(config)


@pytest.mark.slow
def test_several_data_sets_are_conditions_each_with_its_own_defaults(cli, images, tmp_path):
    data = f"digits,imagefolder:{images}"
    more = ("--seeds", 1, "--epochs", 1, "--set", "train_limit=64", "--batch-size", 16, "--out", tmp_path)
    code, out, err = cli("run", "--norm", "xnorm,l2", "--data", data, *more)
    assert code == 0, err
    assert "from a few steps of the first), and" in out
    assert "xnorm (data=digits) seed 0: ok" in out
    assert "l2 (data=imagefolder:images) seed 0: ok" in out
    folder = tmp_path / "norm-digits-images"
    frame = pd.read_csv(folder / "tables" / "main.csv")
    assert set(frame["condition"]) == {"data=digits", "data=imagefolder:images"}
    study = yaml.safe_load((folder / "study.yaml").read_text())
    assert study["per_data"]["data=imagefolder:images"]["augment"] == "crop_flip"
    assert study["per_data"]["data=digits"]["augment"] == "shift"
    for name in ("digits", "imagefolder_images"):
        assert (folder / "figures" / f"test_accuracy-data={name}.png").exists()
    _, out, _ = cli("run", "--norm", "xnorm,l2", "--data", data, *more)
    assert "all 4 cells are done" in out
    code, out, _ = cli("run", "--norm", "l2", "--data", f"imagefolder:{images}", "--study", folder.name, *more)
    assert "the cell is done" in out


@pytest.mark.process
def test_several_image_sizes_are_conditions(cli, images, tmp_path):
    more = ("--set", "image_size=8,16", "--seeds", 1, "--epochs", 1, "--batch-size", 16, "--out", tmp_path)
    code, _, err = cli("run", "--norm", "xnorm", "--data", f"imagefolder:{images}", *more)
    assert code == 0, err
    frame = pd.read_csv(tmp_path / "norm-images" / "tables" / "main.csv")
    assert list(frame["condition"]) == ["image_size=8", "image_size=16"]


@pytest.mark.process
def test_a_renamed_folder_is_the_same_data_set_and_a_changed_one_another(cli, images, tmp_path):
    run = ("run", "--norm", "xnorm", "--seeds", 1, "--epochs", 1, "--batch-size", 16, "--study", "s", "--out", tmp_path)
    cli(*run, "--data", f"imagefolder:{images}")
    moved = images.rename(tmp_path / "moved")
    code, out, _ = cli(*run, "--data", f"imagefolder:{moved}")
    assert (code, "the cell is done" in out) == (0, True)
    assert "imagefolder:images: its folder is now moved" in out
    (moved / "train" / "cat" / "000.png").unlink()
    code, _, err = cli(*run, "--data", f"imagefolder:{moved}")
    assert (code, err.count("\n")) == (2, 1)
    assert "asks another question: its data is imagefolder:images, not imagefolder:moved" in err


def test_the_same_images_under_two_names_are_refused(cli, images, tmp_path):
    copy = shutil.copytree(images, tmp_path / "copy")
    code, _, err = cli("run", "--data", f"imagefolder:{images},imagefolder:{copy}", "--out", tmp_path / "runs")
    assert (code, err) == (2, "error: --data: imagefolder:images and imagefolder:copy are the same images; give one\n")
    other = tmp_path / "other" / "images"
    write_images(other, {"train": 20, "test": 5})
    code, _, err = cli("run", "--data", f"imagefolder:{images},imagefolder:{other}", "--out", tmp_path / "runs")
    assert (code, err) == (2, "error: --data: two data sets are called imagefolder:images; rename the folder of one\n")


BAD = {
    "normaliser": (("--norm", "xnrom"), "unknown normaliser 'xnrom', did you mean 'xnorm'? Valid: xnorm, l2"),
    "model": (("--model", "ufo_vit_nono"), "did you mean 'ufo_vit_nano'?"),
    "data set": (("--data", "digit"), "unknown data set 'digit', did you mean 'digits'?"),
    "field": (("--set", "epoch=3"), "unknown field 'epoch', did you mean 'epochs'?"),
    "field without a value": (("--set", "lpi"), "write FIELD=VALUE"),
    "field twice": (("--lr", "1", "--set", "lr=2"), "lr is given twice"),
    "several values of seed": (("--seed", "1,2"), "--seed 1,2: give one; several as --seeds 1,2"),
    "superscript jobs": (("--jobs", "\N{SUPERSCRIPT TWO}"), "give auto or a number"),
    "module that is no plug-in": (("--plugin", "json"), "--plugin json: it registers no normaliser"),
    "compared field": (("--compare", "normm"), "unknown field 'normm', did you mean 'norm'?"),
    "compared seeds": (("--compare", "seed"), "seeds are replicates"),
    "study's name": (("--study", "../x"), "--study ../x: a name has only letters"),
    "reference": (("--ref", "softmax"), "--ref softmax is not one of the arms"),
    "two references": (("--ref", "l2,xnorm"), "--ref l2,xnorm: give one arm"),
    "more than there is memory for": (("--set", "embed_dim=1000000000"), "ufo_vit_pico with xnorm on digits"),
    "more seeds than a range may have": (("--seeds", "99999999999"), "has more than 10,000 values"),
    "more layers than can be built": (("--set", "depth=99999999999"), "depth=99999999999: must"),
    "empty reference": (("--ref", ""), "norm='': must"),
    "empty recipe": (("--recipe", ""), "recipe"),
    "empty comparison": (("--compare", ""), "unknown field ''"),
    "empty study": (("--study", ""), "--study : a name has only letters"),
    "plug-in without a name": (("--plugin", ""), "give the module's full name"),
    "seeds": (("--seeds", "x"), "--seeds x: give how many"),
    "seeds and seed": (("--seeds", "2", "--seed", "1"), "not both"),
    "number": (("--lr", "fast"), "lr=fast: must"),
    "infinite number": (("--lr", "inf"), "lr=inf: must"),
    "epochs": (("--epochs", "0"), "epochs=0: must"),
    "batch": (("--batch-size", "5000"), "batch_size=5000: must be at most 1293, the training images"),
    "limit": (("--set", "train_limit=5000"), "train_limit=5000: must be at most 1293"),
    "limit of evaluation": (
        ("--set", "eval_limit=361"),
        "eval_limit=361: must be at most 360, the largest of validation (144) and test (360) of digits",
    ),
    "compared limit of evaluation": (
        ("--compare", "eval_limit", "--set", "eval_limit=50,100"),
        "--compare eval_limit: arms are evaluated on the same images",
    ),
    "missing folder": (("--data", "imagefolder:/no/where"), "no folder /no/where"),
    "missing cifar": (("--data", "cifar10"), "give --data-root DIR or --download"),
    "patch": (("--set", "patch=3"), "not a multiple of the patch, 3 px"),
    "patch and image": (("--set", "patch=16"), "8 x 8 px are not a multiple of the patch, 16 px"),
    "heads": (("--set", "num_heads=5"), "not divisible by 5 heads"),
    "device": (("--device", "tpu"), "device tpu: unknown; give auto, cpu"),
    "empty device": (("--device", ""), "--device '': give auto, cpu, cuda"),
    "two devices in place of one": (("--device", "0,1"), "--device 0,1: give one device"),
    "missing device": (("--device", "cuda:77"), "torch finds no such device on this machine"),
    "precision": (("--precision", "16-mixed", "--device", "cpu"), "16-mixed needs a GPU"),
    "TF32": (("--precision", "tf32", "--device", "cpu"), "precision=tf32 needs a CUDA GPU; on cpu give 32-true"),
    "deterministic operations of CUDA": (
        ("--set", "deterministic=on", "--device", "cpu"),
        "deterministic=on needs a CUDA GPU; on cpu leave it out: a CPU is deterministic anyway",
    ),
    "timing of cuDNN": (("--set", "cudnn_benchmark=on", "--device", "cpu"), "cudnn_benchmark=on needs a CUDA GPU"),
    "captured steps": (("--set", "cuda_graph=on", "--device", "cpu"), "cuda_graph=on needs a CUDA GPU; on cpu leave"),
    "stacked seeds of Lightning": (
        ("--set", "stack=2", "--trainer", "lightning"),
        "stack=2 needs the lean trainer; leave out --trainer lightning",
    ),
    "compiled stacks": (("--stack", 2, "--set", "compile=on"), "stack=2 does not apply to compiled steps"),
    "option": (("--nrom", "l2"), "--nrom"),
    "plug-in": (("--plugin", "no_such_module"), "--plugin no_such_module: no such module"),
    "experiment": (("--experiment", "none.yaml"), "experiment file none.yaml is not a file; give its path, or one of"),
    "superscript seeds": (("--seeds", "\N{SUPERSCRIPT TWO}"), "give how many"),
    "relative plug-in": (("--plugin", ".foo"), "--plugin .foo: give the module's full name"),
    "one data set missing": (("--data", "digits,cifar10"), "cifar10 not found"),
    "data sets as arms": (
        ("--compare", "data", "--data", "digits,cifar10"),
        "--compare data: arms see the same batches",
    ),
    "jobs": (("--jobs", "0"), "--jobs 0: give auto or a number"),
    "output": (("--out", "/proc/1/ablations"), "cannot be written"),
    "time": (("--timeout", "soon"), "--timeout soon: give 90s, 30m or 2h"),
    "memory": (("--memory-per-cell", "much"), "--memory-per-cell much: give 800MiB or 4GiB"),
    "shard": (("--shard", "3/2"), "--shard 3/2: give I/N with I from 1 to N"),
    "number of failures": (("--max-failures", "0"), "--max-failures 0: must be greater than or equal to 1"),
    "no number of failures": (("--max-failures", "few"), "--max-failures few: give a whole number"),
    "retry": (("--retry", "some"), "--retry"),
    "checkpoints": (
        ("--checkpoint-every", "often"),
        "--checkpoint-every often: give a number of epochs, or time",
    ),
    "weights": (("--save-weights", "best"), "--save-weights best: must be 'none' or 'last'"),
    "logger": (("--log", "mlflow"), "unknown logger 'mlflow'"),
    "classifiers twice": (("--init", "a,a"), "--init a,a: give one or several, each once"),
    "device and devices": (("--device", "cpu", "--devices", "0"), "give --device or --devices, not both"),
    "jobs of a GPU on a CPU": (("--jobs-per-gpu", "2", "--device", "cpu"), "--jobs-per-gpu 2 is for CUDA; on cpu give"),
    "GPUs": (("--devices", "0,0"), "torch finds no such device on this machine"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=list(BAD))
def test_bad_input_is_one_line_with_exit_code_2_and_writes_nothing(cli, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("run", *arguments)
    assert (code, out.count("error"), err.count("\n")) == (2, 0, 1), err
    assert err.startswith("error: ")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_image_is_named_and_nothing_is_written(cli, tmp_path):
    folder = write_images(tmp_path / "broken", {"train": 30, "test": 5}, classes=("a", "b"))
    (folder / "train" / "b" / "011.png").write_bytes(b"no image")
    code, _, err = cli("run", "--data", f"imagefolder:{folder}", "--out", tmp_path / "runs")
    assert code == 2
    assert "broken/train/b/011.png cannot be read" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("out", ["file", "file/deeper/still"])
def test_an_out_that_is_a_file_is_refused_before_the_plan_is_printed(cli, tmp_path, out):
    (tmp_path / "file").write_text("mine")
    code, printed, err = cli("run", "--norm", "l2", "--out", tmp_path / out)
    assert (code, printed, err.count("\n")) == (2, "", 1)
    assert f"{tmp_path / out / 'norm-digits'} cannot be written: {tmp_path / 'file'} is not a folder" in err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.process
def test_a_study_of_another_question_is_refused(cli, finished_study, tmp_path):
    finished_study("--norm", "xnorm", "--seeds", 1, *QUICK)
    before = (tmp_path / "norm-digits" / "study.yaml").read_bytes()
    other = ("--epochs", 2, "--set", "train_limit=128")
    code, _, err = cli("run", "--norm", "xnorm", "--seeds", 1, *other, "--out", tmp_path)
    assert code == 2
    assert "study 'norm-digits' asks another question: its epochs is 1, not 2; choose another name with --study" in err
    assert (tmp_path / "norm-digits" / "study.yaml").read_bytes() == before


@pytest.mark.slow
def test_report_rebuilds_everything_from_the_cells(cli, finished_study, tmp_path):
    finished_study("--norm", "xnorm,l2", "--seeds", 1, *QUICK)
    folder = tmp_path / "norm-digits"
    made = [path for path in folder.rglob("*") if path.is_file() and "cells" not in path.parts]
    before = {path: path.read_bytes() for path in made if path.name not in ("study.yaml", "report.html", "report.json")}
    assert len(before) == 4 + 3 * 5 + 2 * 4  # files, tables, figures
    for path in before:
        path.unlink()
    assert cli("report", folder)[0] == 0
    assert {path: path.read_bytes() for path in before} == before
    code, _, err = cli("report", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "no study in" in err


@pytest.mark.process
def test_show_prints_configuration_outcome_and_log(cli, finished_study, tmp_path):
    finished_study("--norm", "l2", "--seeds", 1, *QUICK)
    (folder,) = cells(tmp_path).values()
    code, out, _ = cli("show", folder.name, "--out", tmp_path)
    assert code == 0
    for part in ("batch_size", "test_accuracy_pct", "epoch 1: train_loss"):
        assert part in out
    shown = json.loads(cli("show", folder.name, "--json", "--out", tmp_path)[1])
    assert shown["config"]["norm"] == "l2"
    assert cli("show", "nothing", "--out", tmp_path)[0] == 2


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("norms", "L2_keychannel"),
        ("models", "20.79 M"),
        ("data", "imagefolder:DIR"),
        ("recipes", "small_data"),
        ("fields", "learned, sincos, none"),
        ("studies", "made_up"),
    ],
)
def test_list(cli, tmp_path, what, expected):
    make_study(tmp_path)
    code, out, _ = cli("list", what, "--out", tmp_path)
    assert code == 0
    assert expected in out
    assert len(json.loads(cli("list", what, "--json", "--out", tmp_path)[1])) >= 1


def test_every_field_is_explained():
    rows = {name: rest for name, *rest in listing.fields()[1]}
    assert rows["drop_path"][:2] == ["a number from 0 below 1", "0.0"]
    assert rows["lpi"][:2] == ["on, off, bn_first", "on"]
    assert rows["epochs"][:2] == ["an integer from 1", "by recipe and data"]
    assert all(what for *_, what in rows.values())
    for field in rows:
        check_field(field)


def test_a_markdown_list_of_studies_has_their_names_as_text(cli, tmp_path):
    (tmp_path / "[a](b)<img src=x>").mkdir()
    (tmp_path / "[a](b)<img src=x>" / "study.yaml").write_text("'<script>': 1")
    code, out, _ = cli("list", "studies", "--markdown", "--out", tmp_path)
    assert code == 0
    assert "[a](b)" not in out
    assert not re.findall(r"(?<!\\)<[a-z]", out)


@pytest.mark.parametrize("command", [("show", "l2-s1"), ("diff", "l2-s1", "xnorm-s0")], ids=lambda command: command[0])
def test_numbers_that_json_lacks_are_null(cli, tmp_path, command):
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=2)
    (path,) = study.glob("cells/l2-s1-*/outcome.json")
    losses = {"val_loss": math.nan, "test_loss": math.inf}
    path.write_text(json.dumps(json.loads(path.read_text()) | losses))
    code, out, _ = cli(*command, "--json", "--out", tmp_path)
    assert code == 0
    shown = json.loads(out, parse_constant=pytest.fail)
    one = shown["outcome"] if command[0] == "show" else {row["field"].partition(".")[2]: row["one"] for row in shown}
    assert (one["val_loss"], one["test_loss"]) == (None, None)


def test_list_refuses_what_it_would_ignore(cli, tmp_path):
    assert "not both" in cli("list", "norms", "--json", "--markdown")[2]
    code, _, err = cli("list", "studies", "--out", tmp_path / "nowhere")
    assert (code, err) == (2, f"error: no folder {tmp_path / 'nowhere'}; give the folder of the studies with --out\n")


@pytest.mark.process
def test_a_shard_runs_its_seeds_and_the_rest_stays_missing(cli, tmp_path):
    run = ("run", "--norm", "xnorm,l2", "--seeds", 3, *QUICK, "--out", tmp_path)
    _, out, _ = cli(*run, "--shard", "2/3", "--dry-run")
    assert "6 cells: 6 missing; 2 to run" in out
    code, out, _ = cli(*run, "--shard", "2/3")
    assert code == 0
    assert set(cells(tmp_path)) == {"xnorm-s1", "l2-s1"}
    assert "cells of this study without a readable result: 4" in out


def test_a_disk_that_is_too_small_is_named_in_the_plan(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**15))
    _, out, _ = cli("run", "--norm", "l2", "--dry-run", "--out", tmp_path / "runs")
    assert f"only 0.0 MiB are free in {tmp_path}" in out


@pytest.mark.process
@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]], ids=["the same", "another"])
def test_a_study_that_was_changed_since_the_plan_is_not_written_over(cli, tmp_path, monkeypatch, seeds):
    def another_runner_begins(plan):
        plan.store.write_study(plan.study.model_copy(update={"axes": plan.study.axes | {"seed": seeds}}))
        return []

    monkeypatch.setattr("ablations.tuning.steps.describe_plan", another_runner_begins)
    code, _, err = cli("run", "--norm", "l2", "--seeds", 1, *QUICK, "--out", tmp_path)
    if seeds == [0]:
        assert (code, err) == (0, "")
    else:
        assert (code, err.count("\n")) == (2, 1)
        assert "was changed by another runner meanwhile: run the command again" in err
        assert yaml.safe_load((tmp_path / "norm-digits" / "study.yaml").read_text())["axes"]["seed"] == seeds


@pytest.mark.process
def test_diff_says_in_what_two_cells_differ(cli, finished_study, tmp_path):
    finished_study("--norm", "xnorm,l2", "--seeds", 1, *QUICK)
    code, out, _ = cli("diff", "xnorm-s0", "l2-s0", "--out", tmp_path)
    assert code == 0
    shown = json.loads(cli("diff", "xnorm-s0", "l2-s0", "--out", tmp_path, "--json")[1])
    fields = {row["field"]: (row["one"], row["other"]) for row in shown}
    assert fields["norm"] == ("xnorm", "l2")
    assert {"outcome.seconds", "outcome.num_parameters"} <= set(fields)
    assert not {"seed", "outcome.init_hash", "outcome.split_hash", "outcome.versions.torch"} & set(fields)
    assert "outcome.num_parameters" in out
    assert "they do not differ" in cli("diff", "l2-s0", "l2-s0", "--out", tmp_path)[1]
    assert cli("diff", "l2-s0", "none", "--out", tmp_path)[0] == 2


@pytest.mark.process
def test_clean_says_what_it_would_remove_asks_and_leaves_results(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATIONS_CACHE", str(tmp_path / "cache"))
    cli("run", "--norm", "l2", "--seeds", 1, *QUICK, "--out", tmp_path / "runs")
    study = tmp_path / "runs" / "norm-digits"
    partial = study / "cells" / ".partial" / "0123456789.1"
    partial.mkdir()
    (partial / "metrics.csv").write_text("x" * 2**20)
    (cell,) = cells(tmp_path / "runs").values()
    (cell / "checkpoint.ckpt").write_text("")
    kept = {path: path.read_bytes() for path in cell.iterdir() if path.name != "checkpoint.ckpt"}
    decoded = list((tmp_path / "cache").iterdir())
    assert len(decoded) == 1
    code, out, _ = cli("clean", study, "--dry-run")
    assert code == 0
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [str(partial), str(cell / "checkpoint.ckpt"), str(decoded[0])]
    assert "1.0 MiB" in lines[0]
    code, _, err = cli("clean", study)
    assert (code, err.count("\n")) == (2, 1)
    assert "give --yes" in err
    assert partial.exists()
    code, out, _ = cli("clean", study, "--yes")
    assert "removed: 3" in out
    assert not partial.exists()
    assert {path: path.read_bytes() for path in cell.iterdir()} == kept
    assert list((tmp_path / "cache").iterdir()) == []
    assert "nothing to remove" in cli("clean", study)[1]
    assert cli("clean", tmp_path)[0] == 2


@pytest.mark.process
def test_clean_leaves_what_is_being_run(cli, finished_study, tmp_path):
    finished_study("--norm", "l2", "--seeds", 1, *QUICK)
    lease = Store(tmp_path / "norm-digits").leases.claim("0123456789")
    out = cli("clean", tmp_path / "norm-digits", "--dry-run")[1]
    assert str(lease.folder) not in out
    assert "decoded data" not in out  # which the cell may yet load
    assert "left unchanged, since they are running: 1 cell" in out


@pytest.mark.process
def test_clean_removes_the_logs_of_slurms_tasks_once_none_of_them_waits(cli, finished_study, tmp_path, monkeypatch):
    finished_study("--norm", "l2", "--seeds", 1, *QUICK)
    study, programs = tmp_path / "norm-digits", tmp_path / "bin"
    (study / "slurm").mkdir()
    (study / "slurm" / "array.json").write_text('{"job": "7"}')
    programs.mkdir()
    queue = programs / "squeue"
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    for waits, is_listed in (("PENDING", False), ("", True)):
        queue.write_text(f"#!/bin/sh\necho {waits}\n")
        queue.chmod(0o755)
        assert ("logs of Slurm's tasks" in cli("clean", study, "--dry-run")[1]) == is_listed
    cli("clean", study, "--yes")
    assert not (study / "slurm").exists()


@pytest.mark.process
def test_clean_leaves_what_has_come_to_be_needed_while_it_asked(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATIONS_CACHE", str(tmp_path / "cache"))
    runs = tmp_path / "runs"
    cli("run", "--norm", "l2", "--seeds", 1, *QUICK, "--out", runs)
    shutil.copytree(runs / "norm-digits", runs / "beside")
    left = runs / "norm-digits" / "cells" / ".partial" / "0123456789.1"
    left.mkdir()

    def confirm(_: str) -> bool:
        assert Store(runs / "beside").leases.claim("9876543210")  # another study, which loads the decoded data
        return True

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", confirm)
    out = cli("clean", runs / "norm-digits")[1]
    assert "removed: 1" in out
    assert "kept, since a runner uses them by now: 1" in out
    assert not left.exists()
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.process
def test_a_study_that_another_runner_is_about_to_run_keeps_its_question(cli, finished_study, tmp_path):
    run = ("run", "--seeds", 1, *QUICK, "--out", tmp_path)
    finished_study("--norm", "xnorm", "--seeds", 1, *QUICK)
    shutil.rmtree(*cells(tmp_path).values())
    assert "no cell of this study has a result yet" in cli(*run, "--norm", "l2", "--dry-run")[1]
    with Store(tmp_path / "norm-digits").opened() as is_first:
        assert is_first
        out = cli(*run, "--norm", "l2", "--dry-run")[1]
        assert "no cell of this study has a result yet" not in out


@pytest.mark.process
def test_a_study_that_runs_is_extended_without_waiting(cli, finished_study, tmp_path, monkeypatch):
    run = ("run", "--seeds", 1, *QUICK, "--out", tmp_path)
    finished_study("--norm", "xnorm", "--seeds", 1, *QUICK)
    monkeypatch.setattr("ablations.engine.runner.Runner.run", lambda _: None)
    monkeypatch.setattr("ablations.planning.execute.time.sleep", lambda _: pytest.fail("it waits"))
    store = Store(tmp_path / "norm-digits")
    with store.opened():
        cli(*run, "--norm", "xnorm,l2")
    assert store.read_study().axes["norm"] == ["xnorm", "l2"]


@pytest.mark.process
def test_retry_takes_the_folder_one_is_in(cli, finished_study, tmp_path, monkeypatch):
    finished_study("--norm", "l2", "--seeds", 1, *QUICK)
    monkeypatch.chdir(tmp_path / "norm-digits")
    code, out, err = cli("retry", ".", "--dry-run")
    assert (code, err) == (0, "")
    assert "1 cell: 1 done; 0 to run" in out


@pytest.mark.process
def test_a_log_of_any_bytes_is_shown(cli, finished_study, tmp_path):
    finished_study("--norm", "l2", "--seeds", 1, *QUICK)
    (cell,) = cells(tmp_path).values()
    (cell / "log.txt").write_bytes(b"caf\xe9\n")
    code, out, _ = cli("show", "l2-s0", "--out", tmp_path)
    assert code == 0
    assert "caf" in out


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.0, 3.0])
def test_an_interrupt_before_the_first_cell_is_one_word_and_no_traceback(tmp_path, after_s):
    process = start("--norm", "xnorm,l2", "--seeds", 3, out=tmp_path, new_group=True)
    assert "study norm-digits" in process.stdout.readline()  # the plan stands, and the workers are being started
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in out + err
    assert "Traceback" not in out + err


@pytest.mark.slow
def test_an_interrupt_that_a_library_swallows_as_it_is_loaded_stops_the_run_all_the_same(tmp_path):
    swallowed = (
        "\nimport signal\nwith contextlib.suppress(KeyboardInterrupt):\n    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    (tmp_path / "mine.py").write_text(PLUGIN + swallowed)
    process = start("--norm", "mine", *QUICK, "--plugin", "mine", out=tmp_path / "runs", cwd=tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert not cells(tmp_path / "runs")


def test_list_of_something_else(cli):
    code, _, err = cli("list", "colours")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(cli, tmp_path, number):
    arguments = ("--norm", "xnorm,l2", "--seeds", 3, "--set", "train_limit=256")
    process = start(*arguments, out=tmp_path)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "norm-digits" / "cells").glob("*-s*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted: finished cells are kept" in out
    kept = {name: (path / "metrics.csv").read_bytes() for name, path in cells(tmp_path).items()}
    assert 2 <= len(kept) < 6
    code, out, _ = cli("run", *arguments, "--out", tmp_path)
    assert code == 0
    assert f"{len(kept)} done" in out
    after = {name: (path / "metrics.csv").read_bytes() for name, path in cells(tmp_path).items()}
    assert len(after) == 6
    assert kept.items() <= after.items()
    assert not list((tmp_path / "norm-digits" / "cells" / ".partial").iterdir())


@pytest.mark.slow
def test_a_killed_worker_costs_its_cell_a_second_try_and_nothing_else(tmp_path):
    process = start("--norm", "xnorm,l2", "--seeds", 3, "--set", "train_limit=256", out=tmp_path)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "norm-digits" / "cells").glob("*-s*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    youngest = max(workers_of(process), key=lambda pid: psutil.Process(pid).create_time())  # others may be done
    os.kill(youngest, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "failed killed" in out
    assert "it will be retried with no other cell running" in out
    records = [json.loads((folder / "outcome.json").read_text()) for folder in cells(tmp_path).values()]
    assert [record["outcome"] for record in records] == ["ok"] * 6
    assert [[attempt["kind"] for attempt in record["attempts"]] for record in records].count(["killed"]) == 1


@pytest.mark.slow
def test_the_number_of_jobs_changes_no_number(cli, tmp_path):
    for name, jobs in (("one", 1), ("two", 2), ("three", 3)):
        cli("run", "--norm", "xnorm,l2", "--seeds", 2, *QUICK, "--jobs", jobs, "--out", tmp_path / name)
    one = numbers(tmp_path / "one")
    assert len(one) == 4
    for name in ("two", "three"):
        assert numbers(tmp_path / name) == one


@pytest.mark.slow
def test_a_new_process_gives_the_same_files_byte_for_byte(cli, tmp_path):
    arguments = ("--norm", "xnorm,layernorm", "--seeds", 1, "--epochs", 2, "--set", "train_limit=256")
    cli("run", *arguments, "--out", tmp_path / "here")
    process = start(*arguments, out=tmp_path / "there", PYTHONHASHSEED="7")
    process.communicate(timeout=120)
    assert process.returncode == 0
    here, there = cells(tmp_path / "here"), cells(tmp_path / "there")
    assert here.keys() == there.keys()
    for name in here:
        for file in ("metrics.csv", "probes.csv", "correct.npy", "config.json"):
            assert (here[name] / file).read_bytes() == (there[name] / file).read_bytes(), file

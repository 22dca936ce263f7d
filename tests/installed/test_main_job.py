"""The main job and the commands that read its study, from an installed package."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

import ablations as checkout

ARMS = ("xnorm", "l2", "single_l2")


@pytest.fixture(scope="module")
def folder(ablations, tmp_path_factory) -> Path:
    """Run the main job in a small form in an empty folder."""
    folder = tmp_path_factory.mktemp("empty")
    out = ablations("run", "--norm", ",".join(ARMS), "--seeds", 2, "--epochs", 2, folder=folder)
    assert "6 cells: 6 missing; 6 to run" in out
    for arm in ARMS:
        assert f"] {arm} seed 1: ok" in out
    assert "without a readable result" not in out
    return folder


def test_the_main_job_leaves_a_whole_study(folder):
    study = folder / "runs" / "norm-digits"
    results = pd.read_csv(study / "results.csv")
    assert results.groupby("arm")["outcome"].apply(list).to_dict() == {arm: ["ok", "ok"] for arm in ARMS}
    assert results["score_pct"].between(20, 100).all()
    for file in ("study.yaml", "report.html", "curves.csv", "probes.csv", "checklist.md", "tables/main.md"):
        assert (study / file).stat().st_size > 0
    assert len(list((study / "figures").glob("*.pdf"))) > 3
    for path in study.glob("cells/*/outcome.json"):
        outcome = json.loads(path.read_text())
        assert outcome["git"] is None
        assert None not in outcome["versions"].values()
        assert {"ufo-ablations", "torch", "torchvision"} <= outcome["versions"].keys()


def test_the_same_command_again_runs_nothing(ablations, folder):
    out = ablations("run", "--norm", ",".join(ARMS), "--seeds", 2, "--epochs", 2, folder=folder)
    assert "6 cells: 6 done; 0 to run" in out


def test_report(ablations, folder):
    page = folder / "runs" / "norm-digits" / "report.html"
    page.unlink()
    out = ablations("report", "runs/norm-digits", folder=folder)
    assert "report.html: the report, with " in out
    assert all(f"\n {arm} " in out for arm in ARMS)
    assert page.read_text().count("<figure") > 3


def test_status(ablations, folder):
    board = json.loads(ablations("status", "runs/norm-digits", "--json", folder=folder))
    assert board["counts"]["ok"] == len(board["cells"]) == 6
    assert "single_l2" in ablations("status", "runs/norm-digits", folder=folder)


def test_show_and_diff(ablations, folder):
    out = ablations("show", "l2-s1", folder=folder)
    assert "test_accuracy_pct" in out
    assert "end of log.txt" in out
    rows = json.loads(ablations("diff", "l2-s1", "xnorm-s1", "--json", folder=folder))
    assert {"field": "norm", "one": "l2", "other": "xnorm"} in rows
    assert not [row for row in rows if row["field"].startswith("outcome.versions")]


def test_power(ablations, folder):
    assert "single_l2 - xnorm" in ablations("power", "runs/norm-digits", "--delta", 2, folder=folder)


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("norms", "xnorm_fixed"),
        ("models", "ufo_vit_s"),
        ("data", "tiny-imagenet"),
        ("recipes", "small_data"),
        ("fields", "label_smoothing"),
        ("experiments", "norm_digits"),
        ("studies", "norm-digits"),
    ],
)
def test_list(ablations, folder, what, named):
    assert named in ablations("list", what, folder=folder)


def test_an_experiment_is_found_by_its_name(ablations, folder):
    out = ablations("run", "--experiment", "norm_digits", "--dry-run", folder=folder)
    assert "Which attention normaliser trains on 8 x 8 digits" in out
    assert "100 cells: 100 missing" in out


def test_a_study_is_read_from_python(run, folder):
    code = "import ablations; print(*ablations.load('runs/norm-digits').summary()['arm'])"
    assert run("-W", "error::UserWarning", "-c", code, folder=folder).split() == list(ARMS)


def test_versions(ablations, python, run, folder):
    code = "from importlib.metadata import version; import platform; print(version('torch'), platform.python_version())"
    torch, version = run("-c", code, folder=folder).split()
    out = ablations("--version", folder=folder)
    assert out.startswith(f"ufo-ablations {checkout.__version__}, ")
    assert out.strip().partition(", ")[2] == f"torch {torch}, Python {version}"
    script = subprocess.run([python.parent / "ablations", "--version"], cwd=folder, capture_output=True, text=True)
    assert script.stdout == out

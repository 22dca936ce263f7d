"""Tuning, detection and a benchmark from an installed package."""

from __future__ import annotations

import pandas as pd


def test_tune(ablations, tmp_path):
    search = ("--norm", "xnorm,l2", "--search", "lr=1e-3..1e-2:log")
    out = ablations("tune", *search, "--smoke", "--confirm", 2, folder=tmp_path)
    assert "tuning: 2 trials of every arm at the same points" in out
    study = tmp_path / "runs" / "norm-digits-tuned-smoke"
    assert len(list(study.glob("cells/*/outcome.json"))) == 4
    assert len(list(study.glob("tuning/cells/*/outcome.json"))) == 4
    assert (study / "tuning" / "optuna_journal.log").stat().st_size > 0


SMALL = "depth=4 train_limit=12 train_sides=64 eval_side=64 longest_side=64 most_found=5 proposals=20 rois=16"


def test_detection(ablations, tmp_path):
    run = ("run", "--task", "detect", "--norm", "xnorm,softmax", "--seeds", 1, "--smoke")
    out = ablations(*run, *(part for field in SMALL.split() for part in ("--set", field)), folder=tmp_path)
    assert "] softmax seed 0: ok  test mask AP" in out
    study = tmp_path / "runs" / "norm-shapes-smoke"
    assert len(list(study.glob("cells/*/detections.json.bz2"))) == 2
    assert (study / "figures" / "test_ap.png").stat().st_size > 0


def test_bench_attention(ablations, tmp_path):
    sizes = ("--norm", "xnorm,softmax", "--tokens", "64,128", "--rounds", 1)
    out = ablations("bench", "attention", *sizes, "--csv", "a.csv", "--figure", "a.png", folder=tmp_path)
    assert "softmax: " in out
    assert len(pd.read_csv(tmp_path / "a.csv")) == 2 * 2 * 3
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.png", "a.pdf"}

"""What a plan says and refuses of a limited evaluation."""

from __future__ import annotations

import json

import pytest
from objects import coco_folder, write


@pytest.mark.parametrize(
    ("limit", "counts"),
    [(100, "100 of 144 validation and 100 of 360 test images"), (200, "144 of 144 validation and 200 of 360 test im")],
)
def test_a_plan_says_how_many_images_are_evaluated(cli, tmp_path, limit, counts):
    run = ("run", "--norm", "xnorm,l2", "--seeds", 2, "--out", tmp_path, "--dry-run")
    code, out, error = cli(*run, "--set", f"eval_limit={limit}")
    assert code == 0, error
    line = f"digits: eval_limit={limit}: every cell is evaluated on the same {counts}"
    assert " ".join(out.split()).count(line) == 1
    assert "eval_limit" not in cli(*run)[1]


def test_a_plan_of_trials_names_validation_only(cli, tmp_path):
    tune = ("tune", "--norm", "xnorm", "--search", "lr=1e-4..1e-2:log", "--trials", 2, "--out", tmp_path, "--dry-run")
    code, out, error = cli(*tune, "--set", "eval_limit=100")
    assert code == 0, error
    assert "evaluated on the same 100 of 144 validation images" in " ".join(out.split())


def test_it_cannot_be_searched(cli, tmp_path):
    code, _, error = cli("tune", "--search", "eval_limit=10..100", "--out", tmp_path, "--dry-run")
    assert code == 2
    assert "eval_limit" in error
    assert len(error.strip().splitlines()) == 1


def test_drawn_photographs_without_objects_are_refused_before_anything_is_written(cli, tmp_path, cache):
    root = coco_folder(tmp_path / "little", train=12, test=4)
    file = root / "annotations" / "instances_val2017.json"
    held = json.loads(file.read_text())
    kept = [obj for obj in held["annotations"] if obj["image_id"] == held["images"][0]["id"]]
    write(file, held | {"annotations": kept})
    run = ("run", "--task", "detect", "--data", f"coco:{root}", "--smoke", "--out", tmp_path / "runs", "--dry-run")
    codes = {limit: cli(*run, "--set", f"eval_limit={limit}") for limit in (1, 4)}
    assert codes[4][0] == 0, codes[4][2]
    assert codes[1][0] == 2
    assert "eval_limit=1: the test images drawn of coco:little have no objects except crowds; give more" in codes[1][2]
    assert not (tmp_path / "runs").exists()

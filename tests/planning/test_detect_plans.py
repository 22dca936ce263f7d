"""What is asked of detection on the command line: what goes together, and what is refused in one line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from objects import coco_folder, without_outlines, write
from PIL import Image
from safetensors.torch import load_file

from ablations.config import CellConfig, UsageError, recipes
from ablations.config.make import make_config
from ablations.config.options import CellOptions
from ablations.data import find_objects, find_source, prepare, prepare_objects
from ablations.engine.cell import run_cell
from ablations.planning.initial import find_weights
from ablations.report.again import command
from ablations.store import Store
from ablations.tasks.net import make_net


@pytest.fixture
def coco(tmp_path: Path, cache: Path) -> Path:
    """Twelve images to train on and two to test on, as COCO's files."""
    return coco_folder(tmp_path / "little", train=12, test=2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "detekt"], "task=detekt: must be 'classify' or 'detect'"),
        (["--task", "classify,detect"], "task=classify,detect: give one task"),
        (["--task", "detect", "--data", "digits"], "--data digits is for --task classify; for --task detect choose"),
        (["--data", "shapes"], "--data shapes is for --task detect; for --task classify choose from digits, cifar10"),
        (["--task", "detect", "--data", "shapes:DIR"], "data set 'shapes' takes no folder"),
        (["--task", "detect", "--data", "coco"], "coco needs a folder: --data coco:DIR"),
        (["--task", "detect", "--data", "coco:gone"], "--data coco:gone: no instances_train*.json in gone/annotations"),
        (["--task", "detect", "--set", "mixup=0.8"], "mixup=0.8 does not apply to --task detect: leave it out"),
        (["--set", "rois=64"], "rois=64 does not apply to --task classify: leave it out"),
        (["--task", "detect", "--set", "compile=on"], "compile=on does not apply to --task detect: leave it out"),
        (["--task", "detect", "--recipe", "deit"], "recipe deit does not apply to --task detect; give quick, 1x, 3x"),
        (["--recipe", "3x"], "recipe 3x does not apply to --task classify; give quick, deit, small_data"),
        (["--task", "detect", "--in-memory", "on"], "--in-memory on: images of shapes are decoded or drawn"),
        (
            ["--task", "detect", "--set", "image_size=16"],
            "image_size=16: must be at least 32 px for shapes",
        ),
        (["--task", "detect", "--set", "train_sides=0"], "train_sides=0: must"),
        (["--task", "detect", "--set", "schedule=8+12"], "schedule=8+12 decays after the last of 4 epochs"),
        (["--task", "detect", "--model", "torchvision:resnet51"], "unknown ResNet of torchvision 'resnet51'"),
        (["--model", "torchvision:resnet50"], "model=torchvision:resnet50: a backbone for --task detect only"),
        (["--task", "detect", "--set", "init=abc"], "unknown field 'init'"),
        (["--init", "."], "--init is for --task detect: a classifier starts from its seed"),
        (["--task", "detect", "--init", "gone"], "--init gone: no weights.safetensors there"),
        (["--task", "detect", "--set", "patch=3"], "ufo_vit_nano with xnorm on shapes"),
        (["--task", "detect", "--set", "label_smoothing=0.1"], "label_smoothing=0.1 does not apply to --task detect"),
        (
            ["--task", "detect", "--set", "augment=shift"],
            "augment=shift does not apply to --task detect: give flip or none",
        ),
        (["--set", "augment=flip"], "augment=flip does not apply to --task classify: give crop_flip or shift"),
        (
            ["--task", "detect", "--compare", "change", "--set", "change=none,class_attention=0"],
            "change=class_attention=0 does not apply to --task detect",
        ),
        (["--task", "detect", "--recipe", "1x", "--set", "min_lr_share=0.1"], "min_lr_share=0.1 has no effect without"),
        (["--task", "detect", "--recipe", "1x"], "the warm-up takes 500 steps, but the learning rate decays after 496"),
        (["--task", "detect", "--set", "warmup_steps=100000"], "but training ends after 1000: shorten the warm-up"),
        (["--task", "detect", "--set", "train_sides=4 8"], "train_sides=4 8: must"),
        (["--task", "detect", "--init", ""], "--init '': give one or several, each once, with commas between them"),
        (
            ["--task", "detect", "--set", "masks=on,off"],
            "masks=on,off: give one value, since mask AP and box AP cannot",
        ),
        (
            ["--task", "detect", "--compare", "masks", "--set", "masks=off"],
            "--compare masks: its values have different metrics; choose another field",
        ),
        (["--task", "detect", "--compare", "task"], "--compare task: its values have different metrics"),
        (["--set", "masks=off"], "masks=off does not apply to --task classify: leave it out"),
        (
            ["--task", "detect", "--set", "masks=off", "--set", "mask_dim=32"],
            "mask_dim=32 has no effect without masks=on",
        ),
        (["--task", "detect", "--init", ".", "--scale", "matched"], "--init and --scale matched: trained weights have"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(cli, tmp_path, flags, message):
    code, _, error = cli("run", *flags, "--out", tmp_path, "--dry-run")
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1, error
    assert not list(tmp_path.iterdir())


def test_image_size_is_no_field_of_coco(cli, coco, tmp_path):
    code, _, error = cli("run", "--task", "detect", "--data", f"coco:{coco}", "--set", "image_size=64", "--dry-run")
    assert code == 2
    assert "image_size does not apply to coco, whose images differ in size; set train_sides, eval_side" in error


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "annotations" / "instances_train2017.json").write_text("{"), "is not JSON: "),
        (lambda root: (root / "train2017" / "000000000003.png").unlink(), "image 3 not found: no file"),
        (lambda root: (root / "val2017").rename(root / "elsewhere"), "no folder"),
        (lambda root: write(root / "annotations" / "instances_train_more.json", {}), "2 files instances_train*.json"),
    ],
)
def test_files_that_are_broken_are_named_and_nothing_is_left_behind(cli, coco, tmp_path, break_it, message):
    break_it(coco)
    run = ("run", "--task", "detect", "--data", f"coco:{coco}", "--out", tmp_path / "runs")
    code, _, error = cli(*run)
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.process
def test_an_image_that_cannot_be_decoded_ends_its_cells_and_is_named(cli, coco, tmp_path):
    for image in (coco / "train2017").glob("*.png"):
        content = image.read_bytes()
        image.write_bytes(content[: len(content) // 2])  # whose header is whole
    code, out, error = cli(
        *("run", "--task", "detect", "--data", f"coco:{coco}", "--smoke", "--norm", "xnorm", "--seed", 0),
        *("--set", "train_limit=10", "--out", tmp_path / "runs", "--retry", "none"),
    )
    assert code == 3
    assert ".png cannot be read" in out + error


@pytest.mark.slow
def test_a_whole_study_from_its_files_to_its_page(cli, coco, tmp_path):
    run = ("run", "--task", "detect", "--data", f"coco:{coco}", "--smoke", "--norm", "xnorm,softmax", "--seeds", 2)
    code, out, error = cli(*run, "--out", tmp_path / "runs", "--set", "train_limit=8")
    assert code == 0, error
    assert "test mask AP" in out
    folder = tmp_path / "runs" / "norm-little-smoke"
    for table in ("main", "precisions"):
        assert "mask AP" in (folder / "tables" / f"{table}.md").read_text()
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"test_ap", "validation_ap", "precision_recall-box", "ap_by_size-mask", "found_objects-1"} <= drawn
    code, out, error = cli(*run, "--out", tmp_path / "runs", "--set", "train_limit=8")
    assert "all 4 cells are done" in out + error


def classifier(folder: Path, images: Path, *, norm: str, channels: int = 3, **fields: object) -> Path:
    """Train a classifier of noise for an epoch, with its weights."""
    mode, draw = ("RGB" if channels == 3 else "L"), np.random.default_rng(0)
    for number in range(0 if images.exists() else 48):
        path = images / ("test" if number % 4 == 0 else "train") / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)).convert(mode).save(path)
    info = prepare(find_source(f"imagefolder:{images}", data_root=images, download=False, image_size=None))
    own = {"data": info.name, "data_fingerprint": info.fingerprint, "norm": norm, "seed": 0, "model": "ufo_vit_pico"}
    short = {"epochs": 1, "batch_size": 8, "patch": 4, "smoke": True}
    config = make_config(recipes.defaults(image_side=16, flips=True) | own | short | fields)
    folder.mkdir()
    run_cell(config, info, folder=folder, device=torch.device("cpu"), options=CellOptions(save_weights=True))
    return folder


DETECT_FROM_WEIGHTS = (
    *("run", "--task", "detect", "--model", "ufo_vit_pico"),
    *("--smoke", "--seed", 0, "--set", "train_limit=8", "--set", "patch=4"),
)


@pytest.mark.slow
def test_detectors_start_from_the_weights_of_their_own_normaliser(cli, coco, tmp_path):
    cells = [classifier(tmp_path / norm, tmp_path / "images", norm=norm) for norm in ("xnorm", "l2")]
    names = ",".join(map(str, cells))
    run = (*DETECT_FROM_WEIGHTS, "--data", f"coco:{coco}", "--norm", "xnorm,l2", "--out", tmp_path / "runs")
    code, out, error = cli(*run, "--init", names)
    assert code == 0, error
    for cell in cells:
        assert f"{cell.name} starts from {cell / 'weights.safetensors'}: " in out
    assert "left out (class_blocks, cls_token, head, norm)" in out
    study = tmp_path / "runs" / "norm-little-smoke"
    for folder in (study / "cells").glob("[!.]*"):
        config = CellConfig.model_validate_json((folder / "config.json").read_text())
        assert config.detection.init != "none"
        assert config.detection.batch_norm == "frozen", "statistics that have been trained are kept"
        assert "starts from" in (folder / "log.txt").read_text()
        weights = tmp_path / config.net.norm / "weights.safetensors"
        info = prepare_objects(find_objects(f"coco:{coco}", image_size=None))
        body = make_net(config, info, weights=str(weights)).backbone.body.net.state_dict()
        held = load_file(weights)
        assert all(torch.equal(tensor, held[name]) for name, tensor in body.items())
        changed = config.model_copy(update={"patch": 8, "change": "patch=4"})
        make_net(changed, info, weights=str(weights))
        with pytest.raises(ValueError, match=r"init is .*, and no weights to start from"):
            make_net(config, info)
    page = (study / "report.html").read_text()
    assert "starts from the same classifier" in page
    assert "--init CELL,..." in page
    code, _, error = cli(*run, "--init", names.split(",")[0])
    assert code == 2
    code, _, error = cli("retry", study, "--data", f"coco:{coco}")
    assert code == 2
    assert "starts from weights: give the same --init" in error


@pytest.mark.slow
def test_weights_of_another_net_are_refused_and_named(cli, coco, tmp_path):
    own, other, grey = (
        classifier(tmp_path / "own", tmp_path / "images", norm="xnorm"),
        classifier(tmp_path / "other", tmp_path / "images", norm="xnorm", num_heads=1),
        classifier(tmp_path / "grey", tmp_path / "grey-images", norm="xnorm", channels=1),
    )
    with pytest.raises(UsageError, match=r"--init has weights of xnorm but not of l2: give a cell of each arm"):
        find_weights([own], norms=["xnorm", "l2"])
    with pytest.raises(UsageError, match=r"are both cells of xnorm; give one"):
        find_weights([own, own], norms=["xnorm"])
    with pytest.raises(UsageError, match=r"xnorm is not an arm of the study; leave it out"):
        find_weights([own], norms=[])
    run = (*DETECT_FROM_WEIGHTS, "--data", f"coco:{coco}", "--norm", "xnorm", "--out", tmp_path / "runs", "--dry-run")
    for cell, message in (
        (other, "was trained with num_heads=1, not none"),
        (grey, "patch_embed.0.weight is (28, 1, 3, 3) in the weights and (28, 3, 3, 3) here"),
    ):
        code, _, error = cli(*run, "--init", cell)
        assert code == 2
        assert message in error


@pytest.mark.slow
def test_a_study_that_detects_is_retried_and_measured_and_its_command_is_complete(cli, coco, tmp_path):
    run = ("run", "--task", "detect", "--data", f"coco:{coco}", "--smoke", "--norm", "xnorm", "--seed", 0)
    small = ("fpn_dim=16", "box_dim=32", "mask_dim=16", "train_limit=8")
    code, _, error = cli(*run, *(part for field in small for part in ("--set", field)), "--out", tmp_path / "runs")
    assert code == 0, error
    study = tmp_path / "runs" / "norm-little-smoke"
    code, out, error = cli("retry", study, "--data", f"coco:{coco}")
    assert code == 0, error
    code, out, error = cli("bench", "cost", study, "--data", f"coco:{coco}", "--rounds", 2)
    assert code == 0, error
    costs = pd.read_csv(study / "cost.csv")
    assert {"multiply_adds", "training_step_s", "inference_s", "time_s"} == set(costs["quantity"])
    words = shlex.split(command(Store(study).read_study(), study).replace("\\\n", " "))[3:]
    code, out, error = cli(*(word.replace("coco:DIR", f"coco:{coco}") for word in words), "--dry-run")
    assert code == 0, error
    assert "1 cell: 1 done" in out


def test_every_file_of_a_data_set_counts_for_its_fingerprint(coco):
    def fingerprint() -> str:
        return find_objects(f"coco:{coco}", image_size=None).fingerprint

    before = fingerprint()
    assert fingerprint() == before
    file = coco / "annotations" / "instances_val2017.json"
    data = json.loads(file.read_text())
    data["annotations"].pop()
    write(file, data)
    assert fingerprint() != before


@pytest.mark.slow
def test_boxes_without_outlines_are_trained_on_with_masks_off(cli, coco, tmp_path):
    without_outlines(coco)
    run = ("run", "--task", "detect", "--data", f"coco:{coco}", "--smoke", "--norm", "xnorm,softmax", "--seeds", 2)
    run = (*run, "--out", tmp_path / "runs", "--set", "train_limit=8")
    code, _, error = cli(*run)
    assert code == 2
    assert "give --set masks=off to train a detector of boxes alone" in error
    code, out, error = cli(*run, "--set", "masks=off")
    assert code == 0, error
    assert "test box AP" in out
    folder = tmp_path / "runs" / "norm-little-smoke"
    assert "mask AP" not in (folder / "report.html").read_text()
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"test_ap", "validation_ap", "precision_recall-box", "ap_by_size-box", "found_objects-1"} <= drawn
    assert not [name for name in drawn if name.endswith("-mask")]
    code, _, error = cli(*run)
    assert code == 2, "it is another question"
    code, out, error = cli("retry", folder, "--data", f"coco:{coco}")
    assert code == 0, error
    assert "all 4 cells are done" in out + error
    words = shlex.split(command(Store(folder).read_study(), folder).replace("\\\n", " "))[3:]
    assert "masks=off" in words
    code, out, error = cli(*(word.replace("coco:DIR", f"coco:{coco}") for word in words), "--dry-run")
    assert code == 0, error
    assert "4 cells: 4 done" in out


def test_what_is_taken_from_odd_files_is_said_by_the_plan(cli, coco, tmp_path):
    path = coco / "annotations" / "instances_val2017.json"
    data = json.loads(path.read_text())
    for image in data["images"]:
        image["file_name"] = f"val2017\\{image['file_name']}"
    write(path, data)
    run = ("run", "--task", "detect", "--data", f"coco:{coco}", "--out", tmp_path / "runs", "--dry-run")
    code, out, error = cli(*run, "--smoke", "--set", "masks=off", "--set", "train_limit=8")
    assert code == 0, error
    assert "coco:little: instances_val2017.json: file_name of 2 images is no file of val2017 as it is written" in out
    assert "coco:little: masks=off: the outlines of " in out

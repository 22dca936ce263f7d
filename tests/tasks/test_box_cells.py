"""Cells that find boxes alone (masks=off): their net, their files and their scores."""

from __future__ import annotations

import bz2
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from objects import coco_folder, of_pycocotools, without_outlines
from torchvision.models.detection import FasterRCNN, MaskRCNN

from ablations.config import CellConfig, recipes
from ablations.config.make import make_config
from ablations.config.options import CellOptions
from ablations.config.task import AP_METRICS, score_column
from ablations.data import DataInfo, find_objects, prepare_objects
from ablations.engine.cell import run_cell
from ablations.tasks.net import make_net
from ablations.tasks.trained import load_module

TINY = {"fpn_dim": 16, "box_dim": 32, "mask_dim": 16, "rois": 16, "proposals": 40, "most_found": 10, "patch": 8}
SIDE = 64


@pytest.fixture(scope="module")
def boxes(tmp_path_factory, cache: Path) -> DataInfo:
    """Twenty images of shapes to train on and four to test on, as COCO's files; every other object has an outline."""
    root = coco_folder(tmp_path_factory.mktemp("data") / "boxes", train=20, test=4, side=SIDE)
    return prepare_objects(find_objects(f"coco:{without_outlines(root, every=2)}", image_size=None), masks=False)


def make_cell(info: DataInfo, **fields: object) -> CellConfig:
    base = recipes.defaults(image_side=SIDE, flips=True, task="detect")
    own = {"task": "detect", "data": info.name, "data_fingerprint": info.fingerprint, "streamed": True}
    short = {"epochs": 1, "batch_size": 4, "norm": "xnorm", "seed": 0, "smoke": True, "masks": False}
    return make_config(base | own | short | TINY | fields)


def test_a_cell_trains_on_boxes_alone_and_its_scores_are_those_of_the_file(boxes, tmp_path):
    config = make_cell(boxes)
    options = CellOptions(save_weights=True)
    result = run_cell(config, boxes, folder=tmp_path, device=torch.device("cpu"), options=options)
    assert (result.outcome, result.kind) == ("ok", ""), result.detail
    columns = pd.read_csv(tmp_path / "metrics.csv").columns
    assert [name for name in columns if name.startswith("val_")] == ["val_box_ap_pct", "val_box_ap50_pct"]
    assert not [name for name in columns if "mask" in name]
    detections = json.loads(bz2.decompress((tmp_path / "detections.json.bz2").read_bytes()))
    assert detections
    assert "segmentation" not in detections[0]
    file = Path(boxes.root) / "annotations" / "instances_val2017.json"
    for figure, wanted in zip(AP_METRICS, of_pycocotools(file, detections, "bbox"), strict=True):
        ours = result.fields.get(f"test_box_{figure}")
        assert ours == (wanted if wanted is None else pytest.approx(wanted, abs=1e-6))
    assert not [name for name in result.fields if "mask" in name]
    assert result.fields[score_column(config)] == result.fields["test_box_ap_pct"]
    assert set(pd.read_csv(tmp_path / "precision.csv")["kind"]) == {"box"}
    truth = json.loads((tmp_path / "examples" / "truth.json").read_text())
    assert not any(each["segmentation"] for each in truth["annotations"])
    assert isinstance(load_module(tmp_path).net, FasterRCNN)


def test_it_starts_from_the_weights_of_the_detector_with_masks(boxes):
    with_masks = make_net(make_cell(boxes, masks=True), boxes)
    without = make_net(make_cell(boxes), boxes)
    assert isinstance(with_masks, MaskRCNN)
    assert not isinstance(without, MaskRCNN)
    held, own = with_masks.state_dict(), without.state_dict()
    assert all(torch.equal(tensor, held[name]) for name, tensor in own.items())
    assert {name.split(".")[1] for name in held.keys() - own.keys()} == {"mask_head", "mask_predictor"}


def test_masks_on_is_as_before_and_off_is_another_cell(boxes):
    plain, on, off = make_cell(boxes, masks=True), make_cell(boxes, masks=True), make_cell(boxes)
    fields = {name: value for name, value in plain.model_dump().items() if name != "masks"}
    assert CellConfig(**fields).id == on.id != off.id

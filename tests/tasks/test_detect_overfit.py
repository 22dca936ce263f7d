"""A detector learns a few images by heart: boxes, masks, categories and scales are right from end to end."""

from __future__ import annotations

import bz2
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from objects import of_pycocotools, shapes_as_coco, write

from ablations.config import recipes
from ablations.config.make import make_config
from ablations.config.options import CellOptions
from ablations.config.task import AP_METRICS
from ablations.data import DataInfo, find_objects, prepare_objects
from ablations.data.objects.splits import split_objects
from ablations.engine.cell import run_cell

NEEDED_AP50_PCT = 50.0

DRAWN = {
    "images": 6,
    "side": 64,
    "fields": {"patch": 4, "epochs": 45, "batch_size": 5, "lr": 1e-3, "rois": 32, "proposals": 60},
}
"""Shapes, when the proof is short."""

PHOTOGRAPHS = {
    "images": 9,
    "side": 256,
    "fields": {
        "patch": 8,
        "epochs": 120,
        "batch_size": 2,
        "box_dim": 256,
        "rois": 128,
        "proposals": 300,
        "most_found": 100,
    },
}
"""Photographs, at full length."""


@pytest.fixture
def original(request: pytest.FixtureRequest, full: bool, tmp_path: Path) -> tuple[Path, Path]:
    """An annotation file as it came, and the folder of its images."""
    if not full:
        file, _ = shapes_as_coco(tmp_path / "drawn", images=DRAWN["images"], side=DRAWN["side"])
        return file, tmp_path / "drawn" / "images"
    folder = request.config.getoption("--coco")
    if folder is None:
        pytest.skip("at full length it needs --coco DIR, with annotations/instances_train2017.json and train2017/")
    return Path(folder) / "annotations" / "instances_train2017.json", Path(folder).resolve() / "train2017"


def write_part(root: Path, name: str, images: Path, held: dict[str, Any], ids: set[int]) -> None:
    """Write some of a file's images as a part of a data set of their own, in the place of an earlier one."""
    shutil.rmtree(root / name, ignore_errors=True)
    (root / name).mkdir(parents=True)
    chosen = [image for image in held["images"] if image["id"] in ids]
    for image in chosen:
        (root / name / image["file_name"]).symlink_to(images / image["file_name"])
    objects = [obj for obj in held["annotations"] if obj["image_id"] in ids]
    (root / "annotations").mkdir(exist_ok=True)
    write(root / "annotations" / f"instances_{name}.json", {**held, "images": chosen, "annotations": objects})


def make_by_heart(root: Path, file: Path, images: Path, *, count: int) -> tuple[DataInfo, list[int]]:
    """Make a data set of a file's first images, tested on those that it is trained on; return these ones' ids."""
    held = json.loads(file.read_text())
    first = {image["id"] for image in held["images"][:count]}
    for name in ("train2017", "val2017"):
        write_part(root, name, images, held, first)
    info = prepare_objects(find_objects(f"coco:{root}", image_size=None))
    annotations, _, rows = split_objects(info, train_limit=None, with_test=False)["train"]
    trained = annotations.image_ids[rows].tolist()
    write_part(root, "val2017", images, held, set(trained))
    return prepare_objects(find_objects(f"coco:{root}", image_size=None)), trained


@pytest.mark.slow
def test_a_few_images_are_learnt_by_heart_and_the_original_file_says_so_too(original, full, cache, tmp_path):
    size = PHOTOGRAPHS if full else DRAWN
    info, trained = make_by_heart(tmp_path / "by-heart", *original, count=size["images"])
    base = recipes.defaults(image_side=size["side"], flips=True, task="detect")
    own = {"task": "detect", "data": info.name, "data_fingerprint": info.fingerprint, "streamed": True}
    arm = {"norm": "xnorm", "seed": 0, "batch_norm": "sync", "smoke": True}  # smoke: other images are not asked after
    config = make_config(base | own | arm | size["fields"])
    result = run_cell(config, info, folder=tmp_path, device=torch.device("cpu"), options=CellOptions())
    assert result.outcome == "ok", result.detail
    detections = json.loads(bz2.decompress((tmp_path / "detections.json.bz2").read_bytes()))
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        wanted = of_pycocotools(original[0], detections, kind, images=trained)
        for figure, value in zip(AP_METRICS, wanted, strict=True):
            ours = result.fields.get(f"test_{name}_{figure}")
            print(f"test_{name}_{figure}: {ours}, pycocotools {value}")
            assert ours == (value if value is None else pytest.approx(value, abs=1e-6))
    assert result.fields["test_box_ap50_pct"] > NEEDED_AP50_PCT

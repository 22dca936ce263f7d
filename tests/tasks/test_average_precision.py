"""Detections in COCO's format, and that their scores are COCO's own."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from objects import COCO_IDS, of_pycocotools, shapes_as_coco, write

from ablations.config.task import AP_METRICS
from ablations.data.objects.coco import read_coco
from ablations.data.objects.sample import Files, View, load_view
from ablations.tasks.detect.scores import detections_of, score

IMAGES = 8


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """COCO's files of eight images, with a crowd, an image without objects and a box without width."""
    folder = tmp_path_factory.mktemp("coco")
    path, data = shapes_as_coco(folder, images=IMAGES, side=96)
    objects = [obj for obj in data["annotations"] if obj["image_id"] != 3]
    objects[0]["iscrowd"] = 1
    objects.append({**objects[2], "id": 10**6, "bbox": [3.0, 3.0, 0.0, 5.0], "area": 0.0})
    write(path, {**data, "annotations": objects})
    return path, read_coco(path, folder=folder / "images"), folder / "images"


def found_in(annotations, folder, image, *, generator, blur=0.0):
    """What a detector finds that sees each object, ``blur`` px beside its place, with scores of its own."""
    view = View(image, 96, mirrored=False)
    _, target = load_view(view, Files(folder, annotations), annotations, longest=96)
    count = len(target["labels"])
    shift = int(blur)
    return {
        "boxes": target["boxes"] + blur * torch.randn(count, 4, generator=generator),
        "labels": target["labels"],
        "scores": torch.rand(count, generator=generator),
        "masks": target["masks"].roll(shift, dims=2)[:, None].float(),
    }


def detect(truth, *, blur):
    _, annotations, folder = truth
    generator = torch.Generator().manual_seed(0)
    found = []
    for image in range(IMAGES):
        seen = found_in(annotations, folder, image, generator=generator, blur=blur)
        image_id = int(annotations.image_ids[image])
        found += detections_of(seen, image_id=image_id, category_ids=annotations.category_ids.tolist())
    return found


@pytest.mark.parametrize("blur", [0.0, 1.0, 2.5])
def test_scores_are_those_of_pycocotools_against_the_file(truth, blur):
    path, annotations, _ = truth
    detections = detect(truth, blur=blur)
    figures = score(detections, annotations, range(IMAGES)).metrics
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        for figure, wanted in zip(AP_METRICS, of_pycocotools(path, detections, kind), strict=True):
            ours = figures[f"{name}_{figure}"]
            assert ours == (wanted if wanted is None else pytest.approx(wanted, abs=1e-6))
    assert 0 < figures["box_ap_pct"] <= 100


@pytest.mark.parametrize(("of_objects", "of_images"), [(0, 1), (-(10**6), 1), (1, 0), (1, -(2**40)), (0, -3)])
def test_scores_do_not_depend_on_ids(truth, tmp_path, of_objects, of_images):
    path, annotations, folder = truth
    data, detections = json.loads(path.read_text()), detect(truth, blur=1.0)
    wanted = score(detections, annotations, range(IMAGES))
    for obj, number in zip(data["annotations"], itertools.count(of_objects)):
        obj["id"], obj["image_id"] = number, obj["image_id"] - 1 + of_images
    for image in data["images"]:
        image["id"] += of_images - 1
    moved = [{**found, "image_id": found["image_id"] - 1 + of_images} for found in detections]
    notes: list[str] = []
    scores = score(moved, read_coco(write(tmp_path / "a.json", data), folder=folder, notes=notes), range(IMAGES))
    assert scores.metrics == wanted.metrics
    assert all((scores.precision[kind] == wanted.precision[kind]).all() for kind in ("box", "mask"))
    of_ids = [note for note in notes if "annotation ids below 1" in note]
    assert [note.endswith("have too low AP: --rerun all repeats them") for note in of_ids] == [True] * (of_objects < 1)


def test_everything_found_in_its_place_is_a_hundred(truth):
    _, annotations, _ = truth
    figures = score(detect(truth, blur=0.0), annotations, range(IMAGES)).metrics
    assert figures["box_ap50_pct"] < 100, "the box without width is an object that nobody can find"
    whole = annotations.as_coco(range(2, 5))
    assert not any(obj["area"] == 0 for obj in whole["annotations"])
    figures = score(
        [d for d in detect(truth, blur=0.0) if d["image_id"] in (3, 4, 5)], annotations, range(2, 5)
    ).metrics
    assert figures["box_ap_pct"] == figures["mask_ap_pct"] == pytest.approx(100)


def test_nothing_found_is_nothing_and_no_error(truth):
    scores = score([], truth[1], range(IMAGES))
    assert scores.metrics["mask_ap_pct"] == scores.metrics["box_ap50_pct"] == 0
    assert scores.metrics["box_ap_large_pct"] is None, "there is no large object in 96 pixels"
    assert scores.precision["mask"].max() == 0


def test_precision_at_every_recall_averages_to_average_precision(truth):
    scores = score(detect(truth, blur=2.5), truth[1], range(IMAGES))
    assert scores.precision["box"].shape == (2, 101)
    means = scores.precision["box"].mean(axis=1)
    assert 100 * means == pytest.approx([scores.metrics["box_ap50_pct"], scores.metrics["box_ap75_pct"]])


def test_a_detection_is_written_as_coco_writes_it():
    masks = torch.zeros(1, 1, 4, 6)
    masks[0, 0, 1:3, 2:5] = 0.5
    masks[0, 0, 0, 0] = 0.49
    found = {
        "boxes": torch.tensor([[2.0, 1.0, 5.0, 3.0]]),
        "labels": torch.tensor([2]),
        "scores": torch.tensor([0.75]),
        "masks": masks,
    }
    (written,) = detections_of(found, image_id=42, category_ids=list(COCO_IDS.values()))
    assert written["bbox"] == [2, 1, 3, 2]
    assert (written["category_id"], written["image_id"], written["score"]) == (9, 42, 0.75)
    from pycocotools import mask

    assert json.loads(json.dumps(written))["segmentation"]["size"] == [4, 6]
    assert np.array_equal(mask.decode(written["segmentation"]), (masks[0, 0] >= 0.5).numpy())


def test_an_image_with_nothing_in_it_gives_no_detections():
    found = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0),
        "scores": torch.zeros(0),
        "masks": torch.zeros(0, 1, 4, 6),
    }
    assert detections_of(found, image_id=1, category_ids=[1]) == []

"""`eval_limit`: fewer images of validation and test, the same ones everywhere, and every other draw unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import write_images
from objects import coco_folder, write

from ablations.config import CellConfig, UsageError, recipes
from ablations.config.make import make_config
from ablations.data import DataInfo, Rank, find_objects, find_source, prepare, prepare_objects
from ablations.data.load import load_in_memory, load_streamed
from ablations.data.objects.load import load_objects
from ablations.data.objects.splits import split_objects
from ablations.data.splits import find_rows, split_hash

PLACE = {"device": torch.device("cpu"), "rank": Rank()}


@pytest.fixture
def digits(cache: Path) -> DataInfo:
    return prepare(find_source("digits", data_root=cache, download=False, image_size=None))


@pytest.fixture
def coco(tmp_path: Path, cache: Path) -> DataInfo:
    """Twenty images to train and validate on and eight to test on, as COCO's files."""
    root = coco_folder(tmp_path / "little", train=20, test=8, side=64)
    return prepare_objects(find_objects(f"coco:{root}", image_size=None))


def rows_of(info: DataInfo, **options: object) -> dict[str, list[int]]:
    return {name: own.rows.tolist() for name, own in find_rows(info, **{"train_limit": None} | options).items()}


def make_cell(info: DataInfo, **fields: object) -> CellConfig:
    own = {"data": info.name, "data_fingerprint": info.fingerprint, "streamed": info.streamed, "task": info.task}
    base = recipes.defaults(image_side=16, flips=True, task=info.task)
    return make_config(base | own | {"batch_size": 4, "norm": "xnorm", "seed": 3} | fields)


def test_validation_and_test_are_drawn_and_train_stays_as_it_is(digits):
    full, limited = rows_of(digits), rows_of(digits, eval_limit=50)
    assert limited["train"] == full["train"]
    for name in ("val", "test"):
        assert len(limited[name]) == 50
        assert limited[name] == sorted(limited[name])
        assert set(limited[name]) < set(full[name])
        assert limited[name] != full[name][:50]
    assert rows_of(digits, eval_limit=50) == limited


def test_a_smaller_draw_lies_in_a_larger_one_whatever_else_is_asked_for(digits):
    small, large = rows_of(digits, eval_limit=20), rows_of(digits, eval_limit=100, train_limit=64)
    for name in ("val", "test"):
        assert set(small[name]) < set(large[name])
    assert large["train"] == rows_of(digits, train_limit=64)["train"]
    assert rows_of(digits, eval_limit=20, with_test=False) == {name: small[name] for name in ("train", "val")}


def test_the_draw_is_golden(digits):
    """Another draw would compare new cells with old ones on other images."""
    rows = {name: torch.tensor(own) for name, own in rows_of(digits, eval_limit=50).items()}
    assert split_hash(rows) == "5350a43daa3eb58f"


def test_a_split_with_fewer_images_is_evaluated_whole(digits):
    limited = rows_of(digits, eval_limit=200)
    assert (len(limited["val"]), len(limited["test"])) == (144, 200)
    assert limited["val"] == rows_of(digits)["val"]
    assert rows_of(digits, eval_limit=360) == rows_of(digits)


@pytest.mark.parametrize("with_test", [True, False])
def test_a_limit_without_effect_is_refused(digits, with_test):
    with pytest.raises(
        UsageError, match=r"^eval_limit=361: must be at most 360, the largest of validation \(144\) and test \(360\) of"
    ):
        rows_of(digits, eval_limit=361, with_test=with_test)


@pytest.mark.parametrize("parts", [{"train": 20, "test": 10}, {"train": 20, "val": 8, "test": 10}])
def test_streamed_images_and_images_in_memory_are_drawn_alike(parts, tmp_path, cache):
    source = find_source(
        f"imagefolder:{write_images(tmp_path / 'images', parts)}", data_root=cache, download=False, image_size=None
    )
    labels = []
    for in_memory, load in (("on", load_in_memory), ("off", lambda *a, **k: load_streamed(*a, workers=0, **k))):
        info = prepare(source, in_memory=in_memory)
        data = load(make_cell(info, eval_limit=3), info, **PLACE)
        labels.append([torch.cat([own for _, own in split]) for split in (data.val, data.test)])
        assert [len(own) for own in labels[-1]] == [3, 3]
        assert data.split_hash == split_hash({k: torch.tensor(v) for k, v in rows_of(info, eval_limit=3).items()})
        data.close()
    assert all(torch.equal(one, other) for one, other in zip(*labels, strict=True))


def test_photographs_are_drawn_too(coco):
    full = split_objects(coco, train_limit=None, with_test=True)
    found = split_objects(coco, train_limit=None, eval_limit=2, with_test=True)
    assert found["train"][2].tolist() == full["train"][2].tolist()
    for name, count in (("val", 2), ("test", 2)):
        assert len(found[name][2]) == count
        assert set(found[name][2].tolist()) <= set(full[name][2].tolist())
    data = load_objects(make_cell(coco, eval_limit=2), coco, workers=0, **PLACE)
    assert [row for row, _ in data.test] == found["test"][2].tolist()
    assert [row for row, _ in data.val] == found["val"][2].tolist()


def test_drawn_photographs_without_objects_are_refused(coco, tmp_path):
    _, _, (drawn,) = split_objects(coco, train_limit=None, eval_limit=1, with_test=True)["test"]
    root = coco_folder(tmp_path / "bare", train=20, test=8, side=64)
    file = root / "annotations" / "instances_val2017.json"
    held = json.loads(file.read_text())
    write(file, held | {"annotations": [obj for obj in held["annotations"] if obj["image_id"] != drawn + 1]})
    info = prepare_objects(find_objects(f"coco:{root}", image_size=None))
    with pytest.raises(
        UsageError, match=r"^eval_limit=1: the test images drawn of coco:bare have no objects except crowds; give more$"
    ):
        split_objects(info, train_limit=None, eval_limit=1, with_test=True)
    assert len(split_objects(info, train_limit=None, eval_limit=1, with_test=False)["val"][2]) == 1
    assert len(split_objects(info, train_limit=None, eval_limit=8, with_test=True)["test"][2]) == 8

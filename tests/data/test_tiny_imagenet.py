"""Tiny-ImageNet in its own layout, and subsets of classes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import write_images
from PIL import Image

from ablations.config import UsageError
from ablations.data import find_source, load_splits, prepare

WNIDS = ("n01", "n02", "n03", "n04")
CPU = torch.device("cpu")


def source(spec: str, **options: object):
    return find_source(spec, **{"data_root": Path("nowhere"), "download": False, "image_size": None} | options)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Four classes, 12 training images each and 2 to test with; the pixels' brightness is 50 times the class."""
    root = tmp_path / "tiny"
    lines = []
    for label, wnid in enumerate(WNIDS):
        colour = (50 * label,) * 3
        for part, count in ((root / "train" / wnid / "images", 12), (root / "val" / "images", 2)):
            part.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                name = f"{wnid}_{i}.JPEG" if count > 2 else f"val_{2 * label + i}.JPEG"
                Image.new("RGB", (8, 8), colour).save(part / name)
                if count == 2:
                    lines.append(f"{name}\t{wnid}\t0\t0\t7\t7\n")
    (root / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in reversed(WNIDS)))
    (root / "words.txt").write_text("".join(f"{wnid}\tbeast {wnid}, animal\n" for wnid in (*WNIDS, "n99")))
    return root


@pytest.mark.parametrize("in_memory", ["on", "off"])
def test_its_own_layout_is_read(tiny, in_memory):
    info = prepare(source(f"tiny-imagenet:{tiny}"), in_memory=in_memory)
    assert info.classes[0] == "n01 beast n01, animal"
    assert (info.num_train + info.num_val, info.num_test, info.image_shape) == (48, 8, (8, 8, 3))
    assert "val/ is the test split, and validation is cut from train/" in info.notes


def test_images_and_labels_stay_together(tiny):
    splits = load_splits(prepare(source(f"tiny-imagenet:{tiny}")), train_limit=None, device=CPU)
    for split in splits.values():
        brightness = split.images[split.rows].float().mean(dim=(1, 2, 3))
        assert torch.equal((brightness / 50).round().long(), split.labels)


def test_what_has_no_labels_is_said(tiny):
    (tiny / "test" / "images").mkdir(parents=True)
    (tiny / "train" / "n01" / "n01_boxes.txt").write_text("")  # as distributed, beside images/
    (tiny / "train" / "n01" / "images" / "notes.md").write_text("")
    notes = prepare(source(f"tiny-imagenet:{tiny}")).notes
    assert "test/ has no labels and is ignored" in notes
    assert any("train/: ignored files without an image extension" in note and "notes.md" in note for note in notes)


def drop_words(root: Path) -> None:
    (root / "words.txt").write_text("n01\tone\n")


def drop_annotation(root: Path) -> None:
    table = root / "val" / "val_annotations.txt"
    table.write_text("".join(line for line in table.read_text().splitlines(keepends=True) if "val_3." not in line))


def unknown_class(root: Path) -> None:
    table = root / "val" / "val_annotations.txt"
    table.write_text(table.read_text().replace("n02", "n98"))


def twice(root: Path) -> None:
    table = root / "val" / "val_annotations.txt"
    table.write_text(table.read_text() + table.read_text().splitlines()[0] + "\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "wnids.txt").unlink(), r"no file .*wnids\.txt: Tiny-ImageNet's own layout has"),
        (lambda root: (root / "words.txt").unlink(), r"no file .*words\.txt: Tiny-ImageNet's own layout has"),
        (lambda root: (root / "wnids.txt").write_text("n01\n"), r"wnids\.txt needs at least two classes"),
        (lambda root: (root / "wnids.txt").write_bytes(b"\xff\xfe"), r"wnids\.txt cannot be read"),
        (drop_words, r"words\.txt has no words for n02, which is in wnids\.txt"),
        (lambda root: shutil.rmtree(root / "train" / "n03"), r"no folder .*n03/images for a class of"),
        (lambda root: shutil.rmtree(root / "val" / "images"), r"no folder .*val/images"),
        (lambda root: (root / "val" / "images" / "val_5.JPEG").unlink(), r"names val_5\.JPEG, which is not in"),
        (drop_annotation, r"val_3\.JPEG has no line in .*val_annotations\.txt"),
        (unknown_class, r"val_annotations\.txt, line \d: 'val_3\.JPEG.*has no class of wnids\.txt; repair"),
        (twice, r"line 9: val_7\.JPEG is listed twice; repair the line"),
        (lambda root: shutil.rmtree(root), r"no folder .*tiny"),
    ],
)
def test_a_damaged_layout_is_one_line(tiny: Path, damage: Callable[[Path], object], message: str):
    damage(tiny)
    with pytest.raises(UsageError, match=message):
        source(f"tiny-imagenet:{tiny}")


def test_a_subset_of_classes_is_drawn_with_the_splits_own_seed(tiny):
    two, three = (source(f"tiny-imagenet:{tiny}", classes=number).classes for number in ("2", "3"))
    assert two == source(f"tiny-imagenet:{tiny}", classes="2").classes
    assert set(two) < set(three)
    assert source(f"tiny-imagenet:{tiny}", classes="2").fingerprint != source(f"tiny-imagenet:{tiny}").fingerprint


def test_classes_can_be_named(tiny):
    info = prepare(source(f"tiny-imagenet:{tiny}", classes="n04+n02"))
    assert info.classes == ["n02 beast n02, animal", "n04 beast n04, animal"]
    assert (info.num_train + info.num_val, info.num_test) == (24, 4)
    splits = load_splits(info, train_limit=None, device=CPU)
    assert set(splits["test"].labels.tolist()) == {0, 1}
    assert any("2 of 4 classes" in note for note in info.notes)


@pytest.mark.parametrize(
    ("classes", "message"),
    [("9", "classes=9: must be from 2 to 4, the number of classes"), ("n02+n0", "unknown class 'n0', did you mean")],
)
def test_classes_that_are_not_there_are_refused(tiny, classes, message):
    with pytest.raises(UsageError, match=message):
        source(f"tiny-imagenet:{tiny}", classes=classes)


@pytest.mark.slow
def test_a_run_takes_classes(cli, tmp_path):
    folder = write_images(tmp_path / "zoo", {"train": 20, "test": 5}, classes=("cat", "cow", "dog", "owl"))
    quick = ("--norm", "xnorm,l2", "--seeds", 1, "--smoke", "--batch-size", 8, "--set", "depth=1", "--out", tmp_path)
    code, printed, error = cli("run", "--data", f"imagefolder:{folder}", "--classes", "owl,cat", *quick)
    assert code == 0, error
    assert "2 of 4 classes" in printed
    code, _, error = cli("run", "--data", f"imagefolder:{folder}", "--classes", "owl,cats", *quick)
    assert code == 2
    assert "unknown class 'cats', did you mean 'cat'?" in error
    code, _, error = cli("run", "--data", "digits", "--classes", "2", *quick)
    assert code == 2
    assert "classes" in error
    assert "digits" in error

"""Folders of images as people have them: other names of the parts, empty class folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import write_images

from ablations.config import UsageError
from ablations.data import find_source, prepare


def folder(root: Path, kind: str = "imagefolder"):
    return find_source(f"{kind}:{root}", data_root=Path(), download=False, image_size=None)


def pets(tmp_path: Path, **parts: int) -> Path:
    return write_images(tmp_path / "pets", parts, px=4)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("training", "val", "test"), ("train", "valid", "test"), ("training", "validation", "testing")],
)
def test_other_names_of_the_parts_are_taken_and_said(train, val, test, tmp_path):
    info = prepare(folder(pets(tmp_path, **{train: 6, val: 3, test: 2})))
    assert (info.num_train, info.num_val, info.num_test) == (12, 6, 4)
    names = {"train": train, "val": val, "test": test}
    assert info.notes == [f"{name}/ is taken as {part}/" for part, name in names.items() if name != part]


def test_a_folder_of_validation_is_the_test_split_under_its_own_name(tmp_path):
    info = prepare(folder(pets(tmp_path, training=20, valid=3)))
    assert (info.num_train, info.num_val, info.num_test) == (36, 4, 6)
    assert info.notes == [
        "training/ is taken as train/",
        "valid/ is taken as val/",
        "no test/: valid/ is the test split, and validation is cut from training/",
    ]


def test_an_unlabelled_folder_of_another_name_is_ignored_in_imagenet(tmp_path):
    root = pets(tmp_path, train=20, validation=3)
    (root / "testing").mkdir()
    (root / "testing" / "1.png").write_bytes(b"")
    notes = folder(root, "imagenet").notes
    assert "testing/ has no class folders, hence no labels, and is ignored" in notes


@pytest.mark.parametrize(
    "pair", [("train", "training"), ("val", "valid"), ("valid", "validation"), ("test", "testing")]
)
def test_two_folders_of_one_part_are_refused_with_both_names(pair, tmp_path):
    root = pets(tmp_path, **dict.fromkeys({"train", "test", *pair}, 2))
    with pytest.raises(UsageError, match=f"{root} has {pair[0]}/ and {pair[1]}/, .* same part; rename or remove"):
        folder(root)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"Train": 2, "TEST": 2}, r"it has TEST/, Train/; rename Train/ to train/ and TEST/ to test/$"),
        ({"train": 2, "evaluation": 2}, r"it has evaluation/, train/; rename evaluation/ to val/$"),
        ({"trian": 2, "test": 2}, r"it has test/, trian/; rename trian/ to train/$"),
        ({"train": 2, "Validation": 2}, r"it has Validation/, train/; rename Validation/ to val/$"),
        ({"train": 2, "dev": 2}, r"it has dev/, train/$"),
        ({f"n{i:02}": 1 for i in range(9)}, r"it has n00/, n01/, n02/, n03/, n04/ and 4 more$"),
    ],
)
def test_a_near_name_of_a_part_that_is_not_there_is_named(parts, message, tmp_path):
    with pytest.raises(UsageError, match=r"needs the folders train/ and val/ or test/; " + message):
        folder(pets(tmp_path, **parts))


def test_an_empty_folder_has_none(tmp_path):
    with pytest.raises(UsageError, match=r"needs the folders train/ and val/ or test/; it has none$"):
        folder(tmp_path)


def test_folders_beside_the_parts_are_said_to_be_ignored(tmp_path):
    root = pets(tmp_path, train=20, test=3, Val=2, extra=1)
    (root / ".git").mkdir()
    (note,) = folder(root).notes
    assert note == "ignored folders: Val/, extra/; if it is one of the parts, rename Val/ to val/"


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("elsewhere", [True, False])
@pytest.mark.parametrize("with_readme", [True, False])
def test_a_class_folder_without_images_is_called_empty(part, elsewhere, with_readme, images):
    other = images / ("test" if part == "train" else "train") / "dog"
    for path in (images / part / "dog").iterdir():
        path.unlink()
    if not elsewhere:
        shutil.rmtree(other)
    if with_readme:
        (images / part / "dog" / "readme.txt").write_text("x")
    what = rf", only other files, 1, first {images}/{part}/dog/readme\.txt" if with_readme else ""
    ending = "; add images, or remove the class from every part$"
    empty = rf"^class folder {part}/dog is empty: no images in .*/{part}/dog{what}"
    with pytest.raises(UsageError, match=empty + ending):
        folder(images)


def test_a_class_that_only_one_part_has_is_still_named_so(images):
    shutil.rmtree(images / "test" / "dog")
    with pytest.raises(UsageError, match=r"class 'dog' is in .*train but not in .*test"):
        folder(images)

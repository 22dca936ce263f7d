"""Folders of images as people have them: other names of the parts, empty class folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import write_images

from ablations.config import UsageError
from ablations.config.field_values import read_values
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
    for name in ("__MACOSX", "@eaDir", ".git"):
        (root / name).mkdir()
    (root / ".DS_Store").write_text("x")
    assert folder(root).notes == [
        "ignored folders: Val/, extra/; if it is one of the parts, rename Val/ to val/",
        f"pets/: ignored hidden and system files: 4, first {root}/.DS_Store",
    ]


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


@pytest.mark.parametrize(
    "path",
    [
        "train/cat/.ipynb_checkpoints/000-checkpoint.png",
        "train/cat/@eaDir/000.png/SYNOPHOTO_THUMB_M.png",
        "train/cat/._000.png",
        "test/dog/more/__MACOSX/000.png",
        "train/__MACOSX/cat/000.png",
        "test/@eaDir/000.png",
    ],
)
def test_what_systems_leave_among_images_is_ignored_and_said(path, images):
    clean = folder(images)
    (images / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(images / "train" / "cat" / "000.png", images / path)
    found = folder(images)
    assert (found.fingerprint, found.classes, found.num_images) == (clean.fingerprint, ["cat", "dog"], 100)
    (note,) = found.notes
    part, *inner = path.split("/")
    depth = next(i for i, name in enumerate(inner) if name.startswith((".", "@", "__")))
    what = "files" if depth else "folders"
    assert (
        note == f"{part}/: ignored hidden and system {what}: 1, first {images}/{'/'.join([part, *inner[: depth + 1]])}"
    )


def test_a_class_of_system_files_alone_is_empty(images):
    for path in (images / "train" / "cat").iterdir():
        path.rename(path.with_name(f"._{path.name}"))
    with pytest.raises(UsageError, match=r"^class folder train/cat is empty: .* only other files, 40, first .*\._000"):
        folder(images)


@pytest.mark.parametrize("target", ["train", "train/cat", "train/dog"])
def test_links_that_lead_in_a_circle_are_named(target, images):
    (images / "train" / "cat" / "loop").symlink_to(images / target)
    (images / "train" / "dog" / "back").symlink_to(images / "train" / "cat")
    with pytest.raises(UsageError, match=r"is within itself: links lead in a circle; remove the link$") as error:
        folder(images)
    assert len(str(error.value)) < len(str(images)) + 120


def test_two_links_to_one_folder_are_no_circle(images, tmp_path):
    write_images(tmp_path / "more", {"a": 2}, classes=("b",))
    for name in ("one", "two"):
        (images / "train" / "cat" / name).symlink_to(tmp_path / "more")
    assert folder(images).num_images == 104


def test_a_class_whose_name_is_no_text_is_refused(images):
    for part in ("train", "test"):
        (images / part / "cat").rename(os.fsdecode(os.fsencode(images / part) + b"/caf\xe9"))
    with pytest.raises(UsageError, match=r"^the folder name .*train/caf\\udce9 cannot be decoded as text; rename it$"):
        folder(images)


def choose(root: Path, classes: str) -> list[str]:
    (chosen,) = read_values("classes", classes)
    return find_source(f"imagefolder:{root}", data_root=Path(), download=False, image_size=None, classes=chosen).classes


def test_classes_of_a_file_may_have_commas(tmp_path):
    root = write_images(tmp_path / "zoo", {"train": 2, "test": 2}, classes=("a,b", "cat", "dog"), px=4)
    (tmp_path / "names").write_text("dog\na,b\n")
    assert choose(root, f"@{tmp_path / 'names'}") == ["a,b", "dog"]
    assert read_values("classes", read_values("classes", f"@{tmp_path / 'names'}")) == ["a,b+dog"]
    with pytest.raises(UsageError, match=r"unknown class 'a'.*; for 'a,b', give --classes @FILE with one name on each"):
        choose(root, "a,b,dog")


def test_a_class_with_a_plus_sign_has_to_be_renamed(tmp_path):
    root = write_images(tmp_path / "zoo", {"train": 2, "test": 2}, classes=("a+b", "cat", "dog"), px=4)
    (tmp_path / "names").write_text("dog\na+b\n")
    with pytest.raises(UsageError, match=r"names: 'a\+b' has a \+, which joins names; rename the class"):
        choose(root, f"@{tmp_path / 'names'}")
    with pytest.raises(UsageError, match=r"unknown class 'a'.*; 'a\+b' cannot be selected, .*: rename the class"):
        choose(root, "a+b,dog")


@pytest.mark.parametrize(
    ("cats", "has"), [(9, "10 images of 2 classes, 1 of 'dog'"), (1, "2 images of 2 classes, 1 of 'cat'")]
)
def test_a_train_part_that_is_too_small_is_described(cats, has, tmp_path):
    root = pets(tmp_path, train=cats, test=2)
    for path in sorted((root / "train" / "dog").iterdir())[1:]:
        path.unlink()
    with pytest.raises(UsageError, match=rf"^train is too small to cut off 10% for validation: it has {has}; it needs"):
        prepare(folder(root))

"""Images that two splits share are counted and said, in every kind of data set, by pixels or by files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import write_images
from objects import coco_folder
from PIL import Image

from ablations.config import UsageError
from ablations.data import find_objects, find_source, leaks, prepare, prepare_objects
from ablations.data.leaks import assign, equal_files, equal_pixels
from ablations.data.tree import ImageTree

WHAT = {"on": "equal pixels", "off": "equal files"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATIONS_CACHE", str(tmp_path / "cache"))


def leaks_of(root: Path, in_memory: str) -> list[str]:
    source = find_source(f"imagefolder:{root}", data_root=Path(), download=False, image_size=None)
    return [note for note in prepare(source, in_memory=in_memory).notes if note.startswith("leak")]


@pytest.mark.parametrize("in_memory", ["on", "off"])
def test_images_that_splits_share_are_counted_with_the_paths_of_two(in_memory, tmp_path, monkeypatch):
    root = write_images(tmp_path / "pets", {"train": 5, "val": 4, "test": 3}, px=8)
    assert leaks_of(root, in_memory) == []
    shutil.copy(root / "train/dog/002.png", root / "test/cat/copy.png")
    shutil.copy(root / "train/dog/002.png", root / "test/dog/000.png")
    shutil.copy(root / "val/cat/001.png", root / "test/dog/001.png")
    shutil.copy(root / "train/cat/004.png", root / "val/dog/003.png")
    what = WHAT[in_memory]
    expected = [
        f"leak from train to val: 1 of 8 images with {what}, first val/dog/003.png and train/cat/004.png",
        f"leak from train to test: 2 of 7 images with {what}, first test/cat/copy.png and train/dog/002.png",
        f"leak from val to test: 1 of 7 images with {what}, first test/dog/001.png and val/cat/001.png",
    ]
    assert leaks_of(root, in_memory) == expected
    monkeypatch.setattr(ImageTree, "decode", lambda _: pytest.fail("decoded again"))
    monkeypatch.setattr(leaks, "_read", lambda *_: pytest.fail("read again"))
    assert leaks_of(root, in_memory) == expected


@pytest.mark.parametrize("in_memory", ["on", "off"])
def test_the_cut_of_validation_leaks_too(in_memory, tmp_path):
    root = write_images(tmp_path / "pets", {"train": 20, "test": 3}, px=8)
    for path in sorted((root / "train/dog").iterdir()):
        shutil.copy(root / "train/cat" / path.name, path)  # every image of train, twice
    (note,) = leaks_of(root, in_memory)
    assert note.startswith(f"leak from train to val: 4 of 4 images with {WHAT[in_memory]}, first train/")


def test_pixels_are_compared_however_a_file_holds_them(tmp_path):
    root = write_images(tmp_path / "pets", {"train": 5, "val": 4, "test": 3}, px=8)
    Image.open(root / "train/dog/002.png").save(root / "test/cat/copy.bmp")
    (note,) = leaks_of(root, "on")
    assert "first test/cat/copy.bmp and train/dog/002.png" in note
    assert leaks_of(root, "off") == []


def test_greyscale_images_are_compared(tmp_path):
    root = write_images(tmp_path / "pets", {"train": 5, "val": 4, "test": 3}, px=8)
    for path in root.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    shutil.copy(root / "train/dog/002.png", root / "test/cat/copy.png")
    (note,) = leaks_of(root, "on")
    assert "first test/cat/copy.png and train/dog/002.png" in note


def test_an_entry_without_checksums_gets_the_notes_on_leaks(tmp_path):
    root = write_images(tmp_path / "pets", {"train": 5, "val": 4, "test": 3}, px=8)
    shutil.copy(root / "train/dog/002.png", root / "test/cat/copy.png")
    before = leaks_of(root, "on")
    (place,) = (tmp_path / "cache").glob("imagefolder*")
    (place / "checksums.json").unlink()
    text = (place / "info.json").read_text()
    (place / "info.json").write_text(text.replace(f'"{before[0]}"', ""))
    assert leaks_of(root, "on") == before
    assert leaks_of(root, "on") == before


def test_photographs_of_coco_are_compared(tmp_path):
    root = coco_folder(tmp_path / "coco", train=12, test=3)
    source = find_objects(f"coco:{root}", image_size=None)
    assert prepare_objects(source).notes == []
    shutil.copy(root / "train2017/000000000004.png", root / "val2017/000000000002.png")
    (note,) = prepare_objects(find_objects(f"coco:{root}", image_size=None)).notes
    assert note.endswith("first val2017/000000000002.png and train2017/000000000004.png")


def test_a_data_set_without_files_names_rows():
    images = {"train": np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1), "test": np.full((1, 1, 1, 1), 2, np.uint8)}
    splits = assign({"train": 3, "test": 1}, np.array([2]))
    assert equal_pixels(images, splits, name=lambda part, row: f"{part}[{row}]") == [
        "leak from val to test: 1 of 1 images with equal pixels, first test[0] and train[2]"
    ]


@pytest.mark.parametrize("name", ["digits"])
def test_built_in_data_have_no_leak(name):
    assert prepare(find_source(name, data_root=Path(), download=False, image_size=None)).notes == []


class Listed:
    """Files of a part, by their names."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self.names = names
        self.sizes = np.array([(root / name).stat().st_size for name in names])

    def path(self, row: int) -> str:
        return self.names[row]


def test_of_files_only_those_of_equal_size_are_read_and_in_whole_only_those_alike(tmp_path, monkeypatch):
    middle = b"m" * leaks.SAMPLE_BYTES
    files = {
        "a": b"1" * 9,  # of a size of its own
        "b": b"x" + middle + b"x",
        "c": b"y" + middle + b"y",  # like b in the middle
        "d": b"x" + middle + b"x",
        "e": b"z" * (leaks.SAMPLE_BYTES + 2),  # as large as b
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    read, asked = leaks._read, []

    def note_and_read(path: str, is_whole: bool) -> bytes:
        asked.append(Path(path).name * (1 + is_whole))
        return read(path, is_whole)

    monkeypatch.setattr(leaks, "_read", note_and_read)
    names = {"train": ["a", "b"], "val": ["c", "e"], "test": ["d"]}
    parts = {part: Listed(tmp_path, own) for part, own in names.items()}
    splits = assign({"train": 2, "val": 2, "test": 1}, None)
    assert equal_files(tmp_path, parts, splits) == [
        "leak from train to test: 1 of 1 images with equal files, first d and b"
    ]
    assert sorted(asked) == ["b", "bb", "c", "cc", "d", "dd", "e"]
    (tmp_path / "d").unlink()
    with pytest.raises(UsageError, match=r"/d cannot be read: No such file or directory; repair or remove it"):
        equal_files(tmp_path, parts, splits)

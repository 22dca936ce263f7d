"""Files of the cache that are damaged and yet seem right, and sources that fail while the cache is filled."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import write_images
from objects import coco_folder

from ablations.config import UsageError
from ablations.data import cache, entry, find_objects, find_source, leaks, prepare, prepare_objects
from ablations.data.cached_files import DamagedFile, load_array
from ablations.data.leaks import assign, equal_files
from ablations.data.location import cache_root, filled
from ablations.data.objects.source import ObjectSource


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATIONS_CACHE", str(tmp_path / "cache"))


@pytest.mark.filterwarnings("ignore")  # numpy's, of headers that Python 2 might have written
def test_every_flip_of_a_bit_in_a_header_is_one_line_or_reads(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3), np.uint8))
    whole = path.read_bytes()
    said = []
    for bit in range(8 * (len(whole) - 6)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with contextlib.suppress(DamagedFile), noting(said):
            load_array(path)
    assert len(said) > 200
    assert not [line for line in said if "\n" in line]


@contextlib.contextmanager
def noting(said: list[str]) -> Iterator[None]:
    try:
        yield
    except DamagedFile as error:
        said.append(str(error))
        raise


def test_a_read_that_returns_less_than_it_could_is_continued(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(200)))
    read = os.preadv
    monkeypatch.setattr(entry, "PIECE_BYTES", 100)
    monkeypatch.setattr(entry.os, "preadv", lambda file, buffers, place: read(file, [buffers[0][:7]], place))
    sums = [f"{zlib.crc32(bytes(range(start, start + 100))):08x}" for start in (0, 100)]
    assert entry._checksums(tmp_path) == {"a": {"bytes": 200, "crc32": sums}}


def test_what_a_system_leaves_in_an_entry_is_not_summed(tmp_path):
    for name in ("a", ".DS_Store", "._a", ".nfs0001"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder").mkdir()
    assert set(entry._checksums(tmp_path)) == {"a"}


class Copies:
    """A file under many names."""

    def __init__(self, path: Path, count: int) -> None:
        self.name = path.name
        self.sizes = np.full(count, path.stat().st_size)

    def path(self, row: int) -> str:
        return self.name


def test_contents_of_files_do_not_pile_up(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(bytes(2**21))
    monkeypatch.setattr(leaks, "BATCH", 8)
    parts = {part: Copies(path, 40) for part in ("train", "val", "test")}
    tracemalloc.start()
    try:
        lines = equal_files(tmp_path, parts, assign(dict.fromkeys(parts, 40), None))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(lines) == 3
    assert most < 2**24  # 16 threads with a block each; the files are 240 MiB


@pytest.fixture
def coco(tmp_path) -> Path:
    return coco_folder(tmp_path / "coco", train=12, test=3)


def find_coco(root: Path) -> ObjectSource:
    return find_objects(f"coco:{root}", image_size=None)


def test_a_file_name_that_is_too_long_is_not_the_fault_of_the_cache(coco):
    path = coco / "annotations" / "instances_val2017.json"
    data = json.loads(path.read_text())
    data["images"][0]["file_name"] = "x" * 300
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=r"val2017/x{300} cannot be read: File name too long; repair or rename it$"):
        prepare_objects(find_coco(coco))


def test_an_image_that_is_gone_meanwhile_is_named(coco, monkeypatch):
    source = find_coco(coco)
    read, gone = source.read, coco / "train2017" / "000000000004.png"

    def read_and_remove(notes: list[str]):
        parts = read(notes)
        gone.unlink()
        return parts

    monkeypatch.setattr(source, "read", read_and_remove)
    with pytest.raises(UsageError, match=rf"^{gone} cannot be read: No such file or directory; repair or remove it$"):
        prepare_objects(source)


def test_errors_of_files_elsewhere_are_not_those_of_the_cache(tmp_path):
    folder = tmp_path / "cache" / "a"
    with (
        pytest.raises(UsageError, match=rf"^{tmp_path}/gone cannot be read: No such file or directory$"),
        filled(folder),
    ):
        (tmp_path / "gone").read_bytes()
    with pytest.raises(UsageError, match=r"a cannot be written: .* set ABLATIONS_CACHE$"), filled(folder) as scratch:
        (scratch / "gone" / "x").write_text("x")
    with pytest.raises(UsageError, match=r"a cannot be written: .* set ABLATIONS_CACHE$"), filled(folder):
        raise OSError(28, "No space left on device")


def make_digits():
    return prepare(find_source("digits", data_root=Path(), download=False, image_size=None))


def make_pets(root: Path, in_memory: str):
    return prepare(
        find_source(f"imagefolder:{root}", data_root=Path(), download=False, image_size=None), in_memory=in_memory
    )


CHANGES: list[dict[str, object]] = [
    {"classes": 5},
    {"classes": None},
    {"classes": []},
    {"classes": ["one"]},
    {"notes": None},
    {"notes": [1]},
    {"streamed": "no"},
    {"fingerprint": "other"},
    {"task": "other"},
    {"mean": [9.9]},
    {"mean": None},
    {"std": [9.9, 9.9, 9.9]},
    {"image_shape": [7, 7, 3]},
    {"image_shape": [8]},
    {"flips": None},
    {"num_train": 1},
    {"num_test": "1"},
    {"other": 1},
]


def test_a_description_with_half_a_character_is_made_again(tmp_path):
    pets = write_images(tmp_path / "pets", {"train": 12, "test": 3}, px=4)
    first = make_pets(pets, "on")
    (path,) = cache_root().glob("*-v*/info.json")
    (path.parent / entry.CHECKSUMS).unlink()
    path.write_text(path.read_text().replace('"cat"', r'"\udce9"'))
    note, *others = make_pets(pets, "on").notes
    assert note.startswith("the data in the cache were damaged (info.json: ")
    assert "surrogate" in note
    assert others == first.notes


@pytest.mark.parametrize("kind", ["digits", "in memory", "streamed", "coco"])
def test_a_description_without_checksums_that_says_something_else_is_made_again(kind, coco, tmp_path):
    pets = write_images(tmp_path / "pets", {"train": 12, "test": 3}, px=4)
    make = {
        "digits": make_digits,
        "in memory": functools.partial(make_pets, pets, "on"),
        "streamed": functools.partial(make_pets, pets, "off"),
        "coco": lambda: prepare_objects(find_coco(coco)),
    }[kind]
    first = make()
    (path,) = cache_root().glob("*-v*/info.json")
    whole = json.loads(path.read_text())
    others = [
        {"task": "classify" if first.task == "detect" else "detect"},
        {"streamed": not first.streamed},
        {"flips": not first.flips},
        {"classes": [*whole["classes"], "more"]},
    ]
    for change in [*CHANGES, *others]:
        (path.parent / entry.CHECKSUMS).unlink()
        path.write_text(json.dumps({**whole, **change}))
        note, *rest = make().notes
        assert note.startswith("the data in the cache were damaged ("), (change, note)
        assert rest == first.notes
        assert json.loads(path.read_text()) == whole
    assert make() == first


@pytest.mark.parametrize(
    "text", ["[1]", "[]", "5", '{"info.json": 1}', '{"info.json": {"bytes": "1"}}', '{"../a": {}}']
)
@pytest.mark.parametrize("with_test", [True, False])
def test_checksums_of_another_shape_are_made_again(text, with_test, tmp_path):
    pets = write_images(tmp_path / "pets", {"train": 12, "test": 3}, px=4)
    source = find_source(f"imagefolder:{pets}", data_root=Path(), download=False, image_size=None)
    prepare(source)
    (path,) = cache_root().glob("*-v*/checksums.json")
    whole = path.read_text()
    path.write_text(text)
    (note,) = prepare(source, with_test=with_test).notes
    assert note.startswith("the data in the cache were damaged (checksums.json: it ")
    assert path.read_text() == whole


def test_an_entry_that_cannot_get_checksums_is_examined_once_in_a_process(tmp_path, monkeypatch):
    pets = write_images(tmp_path / "pets", {"train": 12, "test": 3}, px=4)
    make_pets(pets, "on")
    (path,) = cache_root().glob("*-v*/checksums.json")
    path.unlink()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(entry.tempfile, "TemporaryDirectory", refuse)
    first = make_pets(pets, "on")
    assert first.notes[0].startswith("the data in the cache have no checksums")
    examine = cache._examine
    monkeypatch.setattr(cache, "_examine", lambda *_, **__: pytest.fail("examined again"))
    assert make_pets(pets, "on") == first
    monkeypatch.setattr(cache, "_examine", examine)
    os.truncate(path.parent / "train_images.npy", 200)
    assert make_pets(pets, "on").notes[0].startswith("the data in the cache were damaged (train_images.npy")


@pytest.mark.parametrize("is_old", [False, True])
def test_a_tuning_finds_objects_without_outlines_in_the_test_split(is_old, coco):
    path = coco / "annotations" / "instances_val2017.json"
    data = json.loads(path.read_text())
    data["annotations"][1]["segmentation"] = []
    path.write_text(json.dumps(data))
    source = find_coco(coco)
    (note,) = prepare_objects(source, masks=False).notes
    (folder,) = cache_root().glob("*-v*")
    if is_old:  # as an earlier version wrote it
        (folder / "outlines.json").unlink()
        (folder / entry.CHECKSUMS).write_text(json.dumps(entry._checksums(folder)))
    else:
        (folder / "test.npz").unlink()  # it is not opened
    with pytest.raises(UsageError, match=r"instances_val2017.json: annotation 2 has no .* is empty; give polygons"):
        prepare_objects(source, with_test=False)
    assert prepare_objects(source, masks=False, with_test=False).notes == [note]

"""Files of the cache that are damaged and yet seem right, and sources that fail while the cache is filled."""

from __future__ import annotations

import json
import os
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from objects import coco_folder

from ablations.config import UsageError
from ablations.data import entry, find_objects, leaks, prepare_objects
from ablations.data.cached_files import DamagedFile, load_array
from ablations.data.leaks import assign, equal_files
from ablations.data.location import filled
from ablations.data.objects.source import ObjectSource


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATIONS_CACHE", str(tmp_path / "cache"))


@pytest.mark.filterwarnings("ignore")  # numpy's, of headers that Python 2 might have written
def test_every_flip_of_a_bit_in_a_header_is_one_line_or_reads(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3), np.uint8))
    whole = path.read_bytes()
    num_damaged = 0
    for bit in range(8 * (len(whole) - 6)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            load_array(path)
        except DamagedFile as error:
            num_damaged += 1
            assert "\n" not in str(error)
    assert num_damaged > 200


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

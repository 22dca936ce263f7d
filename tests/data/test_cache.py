"""Entries of the cache: a damaged one is named, and made again before a run uses it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_images
from objects import coco_folder

from ablations.config import UsageError
from ablations.data import entry, find_objects, find_source, load_splits, prepare, prepare_objects
from ablations.data.cached_files import DamagedFile, load_array
from ablations.data.files import FileList
from ablations.data.location import LOCK, cache_root, filled
from ablations.data.objects.annotations import Annotations

CPU = torch.device("cpu")
DAMAGED, UNCHECKED = "the data in the cache were damaged", "the data in the cache had no checksums"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATIONS_CACHE", str(tmp_path / "cache"))


def prepare_folder(root: Path, in_memory: str):
    source = find_source(f"imagefolder:{root}", data_root=Path(), download=False, image_size=None)
    return prepare(source, in_memory=in_memory)


@pytest.fixture(params=["decoded", "streamed", "coco"])
def prepared(request, tmp_path):
    """What prepares a data set of each kind, and its files in the cache."""
    if request.param == "coco":
        root = coco_folder(tmp_path / "coco", train=12, test=3)
        make = lambda: prepare_objects(find_objects(f"coco:{root}", image_size=None))  # noqa: E731
    else:
        root = write_images(tmp_path / "pets", {"train": 12, "test": 3}, px=4)
        make = functools.partial(prepare_folder, root, "on" if request.param == "decoded" else "off")
    make()
    return make, the_entry()


def the_entry() -> Path:
    (folder,) = (path for path in cache_root().iterdir() if path.name != "digests")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1 if path.suffix == ".npy" else len(data) // 2] ^= 1
    path.write_bytes(data)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"0")


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").write_text("x")


def make_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = [cut_short, empty, flip_a_bit, lengthen, make_a_folder, make_a_pipe, Path.unlink]


@pytest.mark.parametrize("start", [0, 2, 5])
def test_any_damage_to_any_file_is_named_and_mended(prepared, start):
    make, folder = prepared
    first, whole = make(), contents(folder)
    for name, damage in zip(sorted(whole), itertools.islice(itertools.cycle(DAMAGES), start, None), strict=False):
        if (name, damage) == (entry.CHECKSUMS, Path.unlink):
            continue  # as an earlier version wrote it
        damage(folder / name)
        note, *others = make().notes
        if (name, damage) != (entry.CHECKSUMS, flip_a_bit):  # which tells of another file, or of none
            assert note.startswith(f"{DAMAGED} ({name}: ")
        assert note.endswith(") and have been made again")
        assert others == first.notes
        assert contents(folder) == whole
        assert make() == first
    assert [path for path in cache_root().iterdir() if path.name != "digests"] == [folder]


def test_a_header_that_claims_too_much_is_one_line(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((12, 2), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"(12, 2)", b"(99999999999999, 2)".ljust(7)))
    for mapped in (False, True):
        with pytest.raises(DamagedFile, match=rf"{path} in the cache cannot be used: [^\n]*; give the command again"):
            load_array(path, mapped=mapped)


def test_a_file_that_may_not_be_read_is_named_and_replaced(prepared, monkeypatch):
    """Whoever runs the tests may read everything, so the permission is refused here."""
    make, folder = prepared
    first, name = make(), "val_rows.npy"
    opened, refused = Path.open, (folder / name).stat().st_ino

    def refuse(path: Path, *arguments: object, **named: object):
        if path.exists() and path.stat().st_ino == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **named)

    os.utime(folder / name, (0, 0))
    monkeypatch.setattr(Path, "open", refuse)
    note, *others = make().notes
    assert note == f"{DAMAGED} ({name}: Permission denied) and have been made again"
    assert others == first.notes


def test_a_file_in_place_of_an_entry_is_replaced(images):
    first = prepare_folder(images, "on")
    folder = the_entry()
    shutil.rmtree(folder)
    folder.write_text("")
    assert prepare_folder(images, "on").notes[0].startswith(DAMAGED)
    assert prepare_folder(images, "on") == first


def test_another_run_keeps_what_it_has_mapped_and_finds_the_rest_at_every_moment(images, monkeypatch):
    info = prepare_folder(images, "on")
    other = load_splits(info, train_limit=None, device=CPU)
    before = other["train"].images.clone()
    cut = the_entry() / "test_images.npy"
    replaced = Path.replace

    def replace_and_look(path: Path, target: Path):
        moved = replaced(path, target)
        load_splits(info, train_limit=None, device=CPU, with_test=False)
        return moved

    cut_short(cut)
    monkeypatch.setattr(Path, "replace", replace_and_look)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(path.open("rb")).fileno() for path in the_entry().iterdir()]
        sizes = [os.fstat(file).st_size for file in held]
        assert prepare_folder(images, "on").notes[0].startswith(DAMAGED)
        assert {os.fstat(file).st_nlink for file in held} == {0}  # none was written to
        assert [os.fstat(file).st_size for file in held] == sizes
    assert torch.equal(other["train"].images, before)
    assert len(load_splits(info, train_limit=None, device=CPU)["test"].images) == 20


def test_two_runs_may_replace_a_damaged_entry_at_once(images):
    first = prepare_folder(images, "on")
    whole = contents(the_entry())
    cut_short(the_entry() / "train_images.npy")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: prepare_folder(images, "on"), range(3)))
    assert any(info.notes[0].startswith(DAMAGED) for info in found if info.notes)
    assert contents(the_entry()) == whole
    assert prepare_folder(images, "on") == first


def test_files_are_read_once_in_a_process(prepared, monkeypatch):
    make, _ = prepared
    first = make()
    monkeypatch.setattr(entry, "_crc", lambda *_: pytest.fail("read again"))
    assert make() == first


def test_the_test_split_is_not_opened_for_trials(images):
    source = find_source(f"imagefolder:{images}", data_root=Path(), download=False, image_size=None)
    first = prepare(source)
    for path in the_entry().glob("test_*"):
        path.unlink()
    assert prepare(source, with_test=False) == first
    assert not list(the_entry().glob("test_*"))
    assert prepare(source).notes[0].startswith(DAMAGED)


@pytest.mark.parametrize("gone", ["an image", "the folder"])
def test_damaged_data_whose_images_are_gone_are_one_line(gone, images):
    source = find_source(f"imagefolder:{images}", data_root=Path(), download=False, image_size=None)
    prepare(source)
    cut_short(the_entry() / "train_images.npy")
    before = contents(the_entry())
    if gone == "the folder":
        shutil.rmtree(images)
    else:
        (images / "train" / "cat" / "003.png").unlink()
    lost = r"[^\n]*train/cat/00[03]\.png cannot be read[^\n]*"
    with pytest.raises(UsageError, match=rf"damaged \(train_images\.npy: [^\n]*\) and cannot be made again: {lost}$"):
        prepare(source)
    assert contents(the_entry()) == before


def test_pieces_are_summed_apart_and_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(entry, "PIECE_BYTES", 8)
    monkeypatch.setattr(entry, "CHUNK_BYTES", 4)
    (tmp_path / "a").write_bytes(b"123456789")
    pieces = [f"{zlib.crc32(piece):08x}" for piece in (b"12345678", b"9")]
    assert entry._checksums(tmp_path) == {"a": {"bytes": 9, "crc32": pieces}}


def test_an_entry_without_checksums_is_looked_at_and_gets_them(prepared):
    make, folder = prepared
    first, whole = make(), contents(folder)
    (folder / entry.CHECKSUMS).unlink()
    note, *others = make().notes
    assert note == f"{UNCHECKED}; their shapes are right, and checksums have been added"
    assert others == first.notes
    assert contents(folder) == whole
    assert make() == first


def test_a_damaged_entry_without_checksums_is_made_again(prepared):
    make, folder = prepared
    whole = contents(folder)
    for name in [name for name in whole if name != entry.CHECKSUMS]:
        (folder / entry.CHECKSUMS).unlink()
        cut_short(folder / name)
        assert make().notes[0].startswith(f"{DAMAGED} ("), name
        assert contents(folder) == whole


def rewrite(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, change(np.load(folder / name)))


def miscount(folder: Path) -> None:
    fields = json.loads((folder / "info.json").read_text())
    (folder / "info.json").write_text(json.dumps({**fields, "num_test": 5}))


@pytest.mark.parametrize(
    ("in_memory", "damage", "problem"),
    [
        ("on", rewrite("train_images.npy", lambda x: x[:-1]), "train_images.npy: it holds uint8 (79, 16, 16, 3)"),
        ("on", rewrite("test_images.npy", lambda x: x.astype(np.float32)), "test_images.npy: it holds float32"),
        ("on", rewrite("train_labels.npy", lambda x: x + 1), "train_labels.npy: it does not hold labels of 2 classes"),
        ("on", rewrite("train_labels.npy", lambda x: x[:40]), "its numbers of images are not|train is too small|rows"),
        ("on", rewrite("val_rows.npy", lambda x: x + 1), "val_rows.npy: it does not hold the rows that"),
        ("on", miscount, "info.json: its numbers of images are not those of the labels"),
        ("off", rewrite("train_names.npy", lambda x: x + 1), "train_names.npy: it is not that of the folder's files"),
        ("off", rewrite("test_sizes.npy", lambda x: x[:-1]), "test_sizes.npy: it is not that of the folder's files"),
    ],
)
def test_other_shapes_in_an_entry_without_checksums_are_found(in_memory, damage, problem, images):
    first = prepare_folder(images, in_memory)
    whole = contents(the_entry())
    (the_entry() / entry.CHECKSUMS).unlink()
    damage(the_entry())
    note, *others = prepare_folder(images, in_memory).notes
    assert any(each in note for each in problem.split("|")), note
    assert others == first.notes
    assert contents(the_entry()) == whole


def test_an_entry_without_checksums_in_a_cache_that_cannot_be_written_is_used(images, monkeypatch):
    first = prepare_folder(images, "on")
    (the_entry() / entry.CHECKSUMS).unlink()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(entry.tempfile, "TemporaryDirectory", refuse)
    note, *others = prepare_folder(images, "on").notes
    assert note.startswith("the data in the cache have no checksums, and none can be written")
    assert others == first.notes


def test_a_cell_names_the_file_that_was_damaged_meanwhile(prepared):
    make, folder = prepared
    info = make()
    name = "train.npz" if info.task == "detect" else "train_names.npy" if info.streamed else "train_images.npy"
    cut_short(folder / name)
    load = {
        "train.npz": lambda: Annotations.load(folder / name),
        "train_names.npy": lambda: FileList.load(folder, "train"),
        "train_images.npy": lambda: load_splits(info, train_limit=None, device=CPU),
    }
    with pytest.raises(DamagedFile, match=rf"^{folder / name} in the cache cannot be used: [^\n]+$"):
        load[name]()


@pytest.mark.parametrize("damage", [cut_short, empty, flip_a_bit, make_a_folder])
def test_damaged_digests_are_said_and_every_image_is_read(damage, images, monkeypatch, caplog):
    for path in images.rglob("*.png"):
        os.utime(path, (0, 0))
    monkeypatch.setattr("ablations.data.fingerprint.MIN_AGE_NS", 0)
    first = prepare_folder(images, "on")
    (digests,) = (cache_root() / "digests").iterdir()
    damage(digests)
    assert prepare_folder(images, "on") == first
    assert f"{digests} cannot be read, so every image is read again: " in caplog.text


def test_digests_of_other_shapes_are_not_used(images, monkeypatch, caplog):
    monkeypatch.setattr("ablations.data.fingerprint.MIN_AGE_NS", 0)
    first = prepare_folder(images, "on")
    (digests,) = (cache_root() / "digests").iterdir()
    with np.load(digests) as kept:
        np.savez(digests, stamps=kept["stamps"], digests=kept["digests"][:-1])
    assert prepare_folder(images, "on") == first
    assert "its arrays have other shapes" in caplog.text


def test_an_entry_has_the_permissions_of_new_folders_and_files(images, tmp_path, monkeypatch):
    monkeypatch.setattr("ablations.data.fingerprint.MIN_AGE_NS", 0)
    prepare_folder(images, "on")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    usual = {path.is_dir(): path.stat().st_mode for path in (tmp_path / "folder", tmp_path / "folder" / "file")}
    found = list(cache_root().rglob("*"))
    assert len(found) > 8
    assert [path for path in found if path.stat().st_mode != usual[path.is_dir()]] == []


def test_an_entry_that_the_user_may_neither_read_nor_replace_is_not_called_damaged(prepared, monkeypatch):
    """Whoever runs the tests may read everything, so the permission is refused here."""
    make, folder = prepared
    opened, asked = Path.open, os.access

    def refuse(path: Path, *arguments: object, **named: object):
        if folder in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **named)

    before = contents(folder)
    (folder / entry.CHECKSUMS).touch()
    entry._SEEN.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        patch.setattr(os, "access", lambda path, mode: path != folder and asked(path, mode))
        with pytest.raises(UsageError, match=r"s\.json in the cache cannot be read: Permission denied; ask its owner"):
            make()
    assert contents(folder) == before


def test_what_killed_processes_left_is_removed_after_a_day(images):
    for name, age_s in (("old", 25 * 3600), ("unlocked", 25 * 3600), ("new", 23 * 3600)):
        folder = cache_root() / f".partial-{name}" / "entry"
        folder.mkdir(parents=True)
        (folder / "train_images.npy").write_bytes(b"")
        if name == "unlocked":
            (folder.parent / LOCK).touch()
            os.utime(folder.parent / LOCK, (0, 0))
        for path in (folder / "train_images.npy", folder, folder.parent):
            os.utime(path, (time.time() - age_s,) * 2)
    prepare_folder(images, "on")
    assert [path.name for path in cache_root().glob(".partial-*")] == [".partial-new"]


def test_what_a_process_fills_is_kept_however_long_it_takes(images):
    with filled(cache_root() / "long") as scratch:
        for path in (*scratch.parent.iterdir(), scratch.parent):
            os.utime(path, (time.time() - 25 * 3600,) * 2)
        prepare_folder(images, "on")
        assert scratch.exists()


def test_what_another_user_fills_is_kept(images, monkeypatch):
    scratch = cache_root() / ".partial-other"
    scratch.mkdir(parents=True)
    os.utime(scratch, (0, 0))
    opened = Path.open

    def refuse(path, *arguments, **named):
        if path.parent == scratch:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    prepare_folder(images, "on")
    assert scratch.exists()

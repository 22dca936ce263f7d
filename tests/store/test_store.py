"""The study folder: whole or not at all, readable, and rebuilt from its cells."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from published import ALL_OK, HEADER, OUTCOME, fake, publish

from ablations.analysis import CHANCE_KINDS
from ablations.cli.listing import studies
from ablations.config import CellConfig, UsageError
from ablations.store import CHECKPOINT, RESUMED, LeaseLost, Store, cell_name, compare_cells, find_cell, write_text
from ablations.store.digests import with_own_digest
from ablations.store.frames import SCORED_AS_CHANCE, read_frames
from ablations.store.leases import LEASE, REPLACED


def test_a_study_comes_back_as_it_was_written(tmp_path):
    store, _ = fake(tmp_path, {}, lr=[1e-3, 3e-3], lpi=[True, False])
    assert store.read_study() == Store(store.folder).read_study()
    assert store.read_study().axes["lr"] == [0.001, 0.003]
    assert store.read_study().axes["lpi"] == [True, False]


def test_a_cells_folder_tells_arm_seed_and_id(tmp_path):
    store, cells = fake(tmp_path, ALL_OK)
    assert {path.name for path in store.cells.iterdir() if path.name != ".partial"} == {
        f"{cell.net.norm}-s{cell.seed}-{cell.id}" for cell in cells
    }
    assert not list((store.cells / ".partial").iterdir())


def test_a_study_is_held_by_one_and_released(tmp_path):
    one, other = Store(tmp_path / "fake"), Store(tmp_path / "fake")
    with one.opened() as is_first:
        assert is_first
        assert other.leases.is_opening
        assert list(other.leases.running()) == []  # it is no cell
        assert other.leases.abandoned() == []
        with other.opened() as is_second:
            assert not is_second
        assert other.leases.is_opening
    assert not other.leases.is_opening
    assert list(one.leases.partials.iterdir()) == []


def test_a_partial_cell_is_no_record(tmp_path):
    store, cells = fake(tmp_path, {("xnorm", 0): {}})
    assert store.leases.claim(cells[1].id) is not None
    assert set(store.records()) == {cells[0].id}


def test_a_second_attempt_takes_the_place_of_the_first(tmp_path):
    store, cells = fake(tmp_path, {("xnorm", 0): {"outcome": "failed", "kind": "oom", "test_accuracy_pct": None}})
    publish(store, cells[0], store.read_study(), OUTCOME)
    assert store.records()[cells[0].id].has_result
    assert len(list(store.cells.glob("*-s0-*"))) == 1


def publish_again(store: Store, cell: CellConfig) -> None:
    publish(store, cell, store.read_study(), OUTCOME | {"test_accuracy_pct": 55.0})


def test_a_record_that_was_being_replaced_when_the_runner_died_comes_back(tmp_path):
    store, cells = fake(tmp_path, {("xnorm", 0): {}})
    (folder,) = store.cells.glob("xnorm-s0-*")
    lease = store.leases.claim(cells[0].id)
    old = folder.rename(store.leases.partials / f"replaced-{folder.name}")
    store.repair()
    assert not folder.exists()  # its new record may come yet
    lease.release(keep_checkpoint=False)
    store.repair()
    assert store.records()[cells[0].id].outcome["test_accuracy_pct"] == 90.0
    shutil.copytree(folder, old)
    publish_again(store, cells[0])
    store.repair()
    assert store.records()[cells[0].id].outcome["test_accuracy_pct"] == 55.0
    assert list(store.leases.partials.iterdir()) == []


def test_what_a_dead_runner_left_in_a_finished_cell_goes(tmp_path):
    store, _ = fake(tmp_path, {("xnorm", 0): {}, ("l2", 0): {"outcome": "failed", "kind": "killed"}})
    for folder in store.cells.glob("[!.]*"):
        for name in (LEASE, CHECKPOINT, RESUMED, f".{RESUMED}.0", "checkpoint.partial"):
            (folder / name).write_text("")
    store.repair()
    left = {
        folder.name.partition("-")[0]: {path.name for path in folder.iterdir()} for folder in store.cells.glob("[!.]*")
    }
    assert not {LEASE, CHECKPOINT} & left["xnorm"]
    assert CHECKPOINT in left["l2"]
    assert not {LEASE, RESUMED, f".{RESUMED}.0", "checkpoint.partial"} & (left["l2"] | left["xnorm"])


def test_a_result_whose_lease_was_lost_is_not_recorded(tmp_path):
    store, cells = fake(tmp_path, {})
    lease = store.leases.claim(cells[0].id)
    lease.folder.rename(lease.folder.with_suffix(".2"))
    with pytest.raises(LeaseLost, match="another runner has taken it over"):
        store.publish(lease, cells[0], OUTCOME, name="x", replaces=None)
    assert store.records() == {}


def test_the_folder_of_a_cell_of_a_long_arm_has_a_name_that_can_be_written(tmp_path):
    _, cells = fake(tmp_path, {})
    name = cell_name("é" * 300, cells[0])
    assert name == f"{'é' * 100}-s{cells[0].seed}-{cells[0].id}"
    (tmp_path / f"{REPLACED}{name}").mkdir()


def test_a_cell_that_was_recorded_meanwhile_is_not_recorded_again(tmp_path):
    store, cells = fake(tmp_path, {})
    name = cell_name("xnorm", cells[0])
    lease = store.leases.claim(cells[0].id)
    first = store.cells / name
    first.mkdir()
    (first / "outcome.json").write_text("theirs")
    with pytest.raises(LeaseLost, match="recorded it"):
        store.publish(lease, cells[0], OUTCOME, name=name, replaces=None)
    assert (first / "outcome.json").read_text() == "theirs"


def test_a_record_that_is_being_replaced_is_read_when_it_is_there(tmp_path):
    store, cells = fake(tmp_path, {("xnorm", 0): {}})
    (folder,) = store.cells.glob("xnorm-s0-*")
    away = folder.rename(tmp_path / "away")
    folder.mkdir()
    timer = threading.Timer(0.15, lambda: (folder.rmdir(), away.rename(folder)))
    timer.start()
    assert set(store.records()) == {cells[0].id}
    timer.join()


def test_frames_are_tidy_and_know_label_order_condition_and_score(tmp_path):
    nan = {"outcome": "diverged", "kind": "nan", "test_accuracy_pct": None, "test_loss": None}
    stuck = {"outcome": "diverged", "kind": "no_learning", "test_accuracy_pct": 11.0}
    failed = {"outcome": "failed", "kind": "oom", "test_accuracy_pct": None, "numerics": "0"}
    outcomes = {("xnorm", 0): {}, ("xnorm", 1): nan, ("l2", 0): stuck, ("l2", 1): failed}
    store, _ = fake(tmp_path, outcomes)
    frames = read_frames(store, numerics={"xnorm": "1", "l2": "1"})
    cells, curves = frames.cells, frames.curves
    rows = {(row.arm, row.seed): row for row in cells.itertuples()}
    scores = {key: row.score_pct for key, row in rows.items()}
    assert scores["xnorm", 0] == 90.0
    assert scores["xnorm", 1] == 10.0
    assert scores["l2", 0] == 11.0
    assert pd.isna(scores["l2", 1])
    assert [row.stale for row in rows.values()].count(True) == rows["l2", 1].stale == 1
    assert rows["l2", 0].arm_label == "L2"
    assert (rows["xnorm", 0].arm_order, rows["l2", 0].arm_order) == (0, 1)
    assert len(curves) == 4 * 2 * 3
    assert set(zip(curves["split"], curves["metric"], strict=True)) == {
        ("train", "loss"),
        ("val", "loss"),
        ("val", "accuracy_pct"),
    }


def test_a_cell_that_ended_in_its_first_epoch_has_that_epoch_without_values(tmp_path):
    nan = {"outcome": "diverged", "kind": "nan", "test_accuracy_pct": None, "epochs_run": 0, "epoch_hashes": ["x"]}
    store, _ = fake(tmp_path, ALL_OK | {("l2", 1): nan})
    (folder,) = store.cells.glob("l2-s1-*")
    (folder / "metrics.csv").unlink()
    frames = read_frames(store, numerics=None)
    cells, curves = frames.cells, frames.curves
    rows = curves[(curves["arm"] == "l2") & (curves["seed"] == 1)]
    assert len(rows) == 3
    assert (rows["epoch"] == 1).all()
    assert rows["value"].isna().all()
    assert cells.set_index(["arm", "seed"]).loc[("l2", 1), "batches"] == "x"


def test_the_store_scores_as_chance_what_the_statistics_take_for_chance():
    assert SCORED_AS_CHANCE == CHANCE_KINDS  # two names, since the statistics know DataFrames alone


def test_conditions_stay_apart(tmp_path):
    store, _ = fake(tmp_path, ALL_OK, lr=[1e-3, 3e-3])
    cells = read_frames(store, numerics=None).cells
    assert cells.groupby("condition").size().to_dict() == {"lr=0.001": 4, "lr=0.003": 4}
    assert not cells["stale"].any()


def test_an_empty_study_gives_empty_frames(tmp_path):
    store, _ = fake(tmp_path, {})
    frames = read_frames(store, numerics=None)
    assert len(frames.cells) == len(frames.curves) == len(frames.probes) == len(frames.correct) == 0
    assert {"arm", "condition", "score_pct"} <= set(frames.cells.columns)
    assert len(frames.missing) == 4
    assert frames.problems == ()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("outcome.json", "{", "is not a readable cell"),
        ("outcome.json", "[]", "has format None, not 1"),
        ("outcome.json", '{"format": 99}', "has format 99, not 1"),
        ("outcome.json", '{"format": 1}', "outcome.json: .* is required"),
        ("outcome.json", "[" * 100_000, "is not a readable cell"),
        ("config.json", "{}", "config.json: data is required"),
        ("config.json", '{"norm": "xnorm"}', "is not a readable cell"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path, file, content, message):
    store, _ = fake(tmp_path, ALL_OK)
    (folder,) = store.cells.glob("l2-s1-*")
    (folder / file).write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        store.records()
    assert folder.name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no study in"):
        Store(tmp_path).read_study()


def test_a_study_of_packed_cells_is_refused_with_the_command_that_unpacks_them(tmp_path):
    store, cells = fake(tmp_path / "a folder", ALL_OK)
    pack = ["tar", "-cJf", str(store.folder / "cells.tar.xz"), "-C", str(store.folder), "cells"]
    subprocess.run(pack, check=True)
    assert store.read_study()  # both are here: the folder counts
    shutil.rmtree(store.cells)
    with pytest.raises(UsageError, match="are packed; unpack them first: tar") as error:
        store.read_study()
    subprocess.run(str(error.value).partition("first: ")[2], shell=True, check=True)
    assert len(store.records()) == len(cells)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [", "cannot be read: while parsing"),
        (b"name: caf\xe9", "cannot be read: 'utf-8' codec"),
        (b"name: s", "is not a valid study: axes is required"),
        (b"format: 9\nname: s\naxes: {norm: [l2], seed: [0]}\nfixed: {}", "is not a valid study: format=9: "),
        (b"name: s\naxes: {norm: [l2]}\nfixed: {}", "is not a valid study: .*axes has no values of seed"),
    ],
)
def test_a_broken_study_is_named(tmp_path, content, message):
    store, _ = fake(tmp_path, {})
    (store.folder / "study.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        store.read_study()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("metrics.csv", b"", "metrics.csv has no column epoch"),
        ("metrics.csv", b"epoch,what\n1,2\n", "metrics.csv has no column train_loss"),
        (
            "metrics.csv",
            f"{HEADER}1,0.1,2.0,1.9,30.0,x\n2,0.1,1.0,0.9,8".encode(),
            "metrics.csv: complete epochs: 1 of 2",
        ),
        ("metrics.csv", f"{HEADER}1,0.1,2.0,1.9,30.0,x\n2,0.1,1.0,0.9,80.0,".encode(), "complete epochs: 1 of 2"),
        ("metrics.csv", f"{HEADER}2,0.1,1.0,0.9,80.0,y\n".encode(), "metrics.csv: complete epochs: 0 of 2"),
        ("metrics.csv", b"\xff\xfe", "metrics.csv cannot be read: 'utf-8' codec"),
        ("metrics.csv", None, "metrics.csv cannot be read: No such file"),
        (
            "probes.csv",
            b"epoch,layer,probe,value\n1,a,p,1.5\n2,a,",
            "probes.csv: complete epochs: 1 of 2",
        ),
        ("probes.csv", None, "probes.csv cannot be read: No such file"),
        ("correct.npy", None, "correct.npy cannot be read: No such file"),
        ("correct.npy", b"\x93NUMPY", "correct.npy cannot be read: "),
        ("correct.npy", b"", "correct.npy cannot be read: "),
        ("correct.npy", "another cell's", "correct.npy does not match the accuracy in outcome.json"),
    ],
)
def test_a_damaged_file_is_named_and_costs_itself_alone(tmp_path, file, content, problem):
    store, _ = fake(tmp_path, ALL_OK)
    whole = read_frames(store, numerics=None)
    assert whole.problems == ()
    (folder,) = store.cells.glob("l2-s1-*")
    if content is None:
        (folder / file).unlink()
    elif isinstance(content, str):
        np.save(folder / file, np.zeros(10, bool))
    else:
        (folder / file).write_bytes(content)
    frames = read_frames(store, numerics=None)
    assert [problem in said and folder.name in said for said in frames.problems] == [True]
    pd.testing.assert_frame_equal(frames.cells, whole.cells)
    lost = {"metrics.csv": "curves", "probes.csv": "probes", "correct.npy": "correct"}[file]
    for name in ("curves", "probes", "correct"):
        ours, before = (getattr(frame, name) for frame in (frames, whole))
        ours, before = (frame[frame["cell"] != folder.name[-10:]].reset_index(drop=True) for frame in (ours, before))
        pd.testing.assert_frame_equal(ours, before)
        assert name == lost or len(getattr(frames, name)) == len(getattr(whole, name))
    assert len(getattr(frames, lost)) < len(getattr(whole, lost))


def test_a_cell_that_cannot_be_read_is_said_and_missing(tmp_path):
    store, _ = fake(tmp_path, ALL_OK)
    (folder,) = store.cells.glob("l2-s1-*")
    (folder / "outcome.json").write_text('{"format": 99}')
    frames = read_frames(store, numerics=None)
    assert len(frames.cells) == 3
    assert [folder.name in problem and "has format 99" in problem for problem in frames.problems] == [True]
    assert frames.missing.to_dict("records") == [{"condition": "", "arm": "l2", "seed": 1}]


def test_a_cell_that_is_no_point_of_the_study_is_said(tmp_path):
    store, _ = fake(tmp_path, ALL_OK)
    study = store.read_study()
    store.write_study(study.model_copy(update={"axes": {**study.axes, "seed": [0]}}))
    frames = read_frames(store, numerics=None)
    assert len(frames.cells) == 2
    assert sum("not a cell of this study, left out" in problem for problem in frames.problems) == 2


def test_a_cell_is_found_by_id_and_by_name(tmp_path):
    _, cells = fake(tmp_path, ALL_OK)
    cell = cells[3]
    for name in (cell.id, cell.id[:6], f"l2-s1-{cell.id}", str(tmp_path / "fake" / "cells" / f"l2-s1-{cell.id}")):
        assert find_cell(tmp_path, name).config == cell
    with pytest.raises(UsageError, match="no cell 'zzz'"):
        find_cell(tmp_path, "zzz")
    with pytest.raises(UsageError, match=r"matches 2 cells: .*l2-s0-"):
        find_cell(tmp_path, "l2")
    elsewhere = str(tmp_path / "fake" / "cells" / f"l2-s1-{cell.id}")
    assert find_cell(tmp_path / "nowhere", elsewhere).config == cell
    with pytest.raises(UsageError, match="no cell '/nowhere/l2-s1'"):
        find_cell(tmp_path, "/nowhere/l2-s1")


def test_a_copy_of_a_cell_is_refused(tmp_path):
    store, _ = fake(tmp_path, ALL_OK)
    (folder,) = store.cells.glob("l2-s1-*")
    copy = folder.with_name(f"{folder.name}.bak")
    shutil.copytree(folder, copy)
    with pytest.raises(UsageError, match=rf"{copy.name} is not a readable cell: its config\.json has the id"):
        store.records()
    copy.rename(store.cells / f"mine-{folder.name}")
    with pytest.raises(UsageError, match=f"it duplicates {folder.name}"):
        store.records()


def test_a_configuration_that_was_changed_is_refused(tmp_path):
    store, _ = fake(tmp_path, ALL_OK)
    (folder,) = store.cells.glob("l2-s1-*")
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"lr": 0.004', '"lr": 0.1'))
    with pytest.raises(UsageError, match=r"its config\.json has the id"):
        store.records()


def test_a_cell_is_found_beside_a_broken_one(tmp_path):
    store, cells = fake(tmp_path, ALL_OK)
    (broken,) = store.cells.glob("l2-s1-*")
    (broken / "outcome.json").write_text("{")
    assert find_cell(tmp_path, "xnorm-s0").config == cells[0]
    with pytest.raises(UsageError, match="is not a readable cell"):
        find_cell(tmp_path, "l2-s1")


def test_a_broken_study_hides_no_other_from_the_list(tmp_path):
    fake(tmp_path, ALL_OK)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.yaml").write_text("name: [")
    _, rows = studies(tmp_path)
    assert [row[0] for row in rows] == ["broken", "fake"]
    assert "study.yaml cannot be read" in rows[0][1]
    assert rows[1][3] == "4"


def test_a_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_text(path, "new")
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("test_accuracy_pct", None),
        ("test_accuracy_pct", math.nan),
        ("test_accuracy_pct", "76.1"),
        ("test_accuracy_pct", 999.0),
        ("test_accuracy_pct", -5),
        ("test_accuracy_pct", True),
        ("attempts", "x"),
        ("attempts", [{"outcome": "failed"}]),
        ("git", "x"),
        ("epoch_hashes", None),
        ("versions", ["torch"]),
        ("versions", {"torch": 2.11}),
        ("machine", None),
        ("seconds", "two"),
        ("epochs_run", "2"),
        ("kind", None),
        ("outcome", "fine"),
    ],
)
def test_a_record_of_another_type_is_no_record_and_named(tmp_path, field, value):
    store, _ = fake(tmp_path, ALL_OK)
    (folder,) = store.cells.glob("l2-s1-*")
    outcome = json.loads((folder / "outcome.json").read_text())
    (folder / "outcome.json").write_text(json.dumps(outcome | {field: value}))
    records, (problem,) = store.read_records()
    assert len(records) == 3
    assert folder.name in problem
    assert field in problem
    assert "\n" not in problem


def test_a_study_that_was_run_partly_without_an_optional_package_is_read_whole(tmp_path):
    store, cells = fake(tmp_path, ALL_OK)
    versions = [
        {"torch": "2.11", "timm": "1.0.31"},
        {"torch": "2.11", "timm": None},  # as versions up to 0.1 recorded an absent package
        {"torch": "2.11"},
    ]
    records, _ = store.read_records()
    folders = [record.folder for record in records.values()]
    for folder, own in zip(folders, versions, strict=False):
        outcome = json.loads((folder / "outcome.json").read_text())
        record = with_own_digest(outcome | {"versions": own})
        (folder / "outcome.json").write_text(json.dumps(record))
    frames = read_frames(store, numerics=None)
    assert not frames.problems
    assert len(frames.cells) == len(cells)
    assert set(frames.cells["software"]) == {"torch 2.11, timm 1.0.31", "torch 2.11"}
    assert set(frames.cells["torch"]) == {"2.11"}
    with_timm, with_null, without = (find_cell(tmp_path, folder.name) for folder in folders[:3])
    assert ("outcome.versions.timm", "1.0.31", None) in compare_cells(with_timm, without)
    assert "outcome.versions.timm" not in {field for field, _, _ in compare_cells(with_null, without)}

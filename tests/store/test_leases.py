"""Who has a cell: one runner at a time, and a dead one not for long."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from ablations.store import leases
from ablations.store.leases import CHECKPOINT, LEASE, Holder, LeaseLost, Leases

GONE = 2**22 + 1
"""No process has this number."""


@pytest.fixture
def partials(tmp_path: Path) -> Path:
    (tmp_path / ".partial").mkdir()
    return tmp_path / ".partial"


def sign(folder: Path, **holder: object) -> None:
    """Sign a folder as another runner."""
    signed = vars(Holder.here()) | {"runner": "other"} | holder
    (folder / LEASE).write_text(json.dumps(signed))


def test_a_cell_that_is_held_is_nobody_elses(partials):
    lease = Leases(partials).claim("a")
    assert lease is not None
    assert Leases(partials).claim("a") is None
    assert Leases(partials).claim("b") is not None
    lease.beat()
    lease.release(keep_checkpoint=False)
    assert Leases(partials).claim("a") is not None


def test_a_dead_holder_on_this_machine_holds_nothing(partials):
    old = Leases(partials).claim("a")
    (old.folder / CHECKPOINT).write_text("weights")
    (old.folder / "log.txt").write_text("log")
    (old.folder / "metrics.csv").write_text("rows")
    sign(old.folder, pid=GONE)
    lease = Leases(partials).claim("a")
    assert lease.folder.name == "a.2"
    assert {path.name for path in lease.folder.iterdir()} == {LEASE, CHECKPOINT, "log.txt"}
    with pytest.raises(LeaseLost):
        old.check()
    with pytest.raises(LeaseLost):
        old.beat()
    old.release(keep_checkpoint=False)
    lease.check()


def test_a_number_that_was_given_out_again_is_another_process(partials):
    sign(Leases(partials).claim("a").folder, process_started="1")
    assert Leases(partials).claim("a") is not None


@pytest.mark.parametrize(
    "holder",
    [
        {"pid": "a\x00b"},
        {"pid": True},
        {"pid": 0},
        {"pid": -1},
        {"pid": 2**40},
        {"pid": 1.5},
        {"host": "h" * 1000},
        {"process_started": ["1"]},
    ],
)
def test_a_holder_that_no_runner_is_holds_nothing(partials, holder):
    folder = Leases(partials).claim("a").folder
    sign(folder, **holder)
    assert list(Leases(partials).running()) == []
    assert Leases(partials).abandoned() == [folder]
    assert Leases(partials).claim("a") is not None


def test_a_field_of_a_later_version_leaves_the_holder_alive(partials):
    sign(Leases(partials).claim("a").folder, later=1)
    assert Leases(partials).claim("a") is None


def test_a_holder_on_another_machine_is_dead_when_it_gives_no_sign(partials, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_S", 0.3)
    folder = Leases(partials).claim("a").folder
    sign(folder, host="elsewhere", pid=GONE)
    os.utime(folder / LEASE, (0, 0))  # its clock is far behind, which must not matter
    observer = Leases(partials)
    assert observer.claim("a") is None
    time.sleep(0.2)
    os.utime(folder / LEASE, (5, 5))  # a sign of life
    assert observer.claim("a") is None
    time.sleep(0.2)
    assert observer.claim("a") is None
    time.sleep(0.2)
    assert observer.claim("a") is not None


def test_a_released_cell_keeps_its_checkpoint_for_whoever_goes_on(partials):
    lease = Leases(partials).claim("a")
    (lease.folder / CHECKPOINT).write_text("weights")
    lease.release(keep_checkpoint=True)
    assert list(Leases(partials).running()) == []
    again = Leases(partials).claim("a")
    assert (again.folder / CHECKPOINT).read_text() == "weights"


def test_what_runs_and_what_was_left_behind(partials):
    held = Leases(partials).claim("a").folder
    dead = Leases(partials).claim("b").folder
    sign(dead, pid=GONE)
    far, silent = Leases(partials).claim("c").folder, Leases(partials).claim("d").folder
    for folder in (far, silent):
        sign(folder, host="elsewhere")
    os.utime(silent / LEASE, (0, 0))
    (partials / "new-1").mkdir()
    looking = Leases(partials)
    assert list(looking.running()) == [held, far]
    (partials / "replaced-l2-s0-b").mkdir()  # a record, for a moment
    assert looking.abandoned() == [dead, silent, partials / "new-1"]
    looking.sweep()
    assert not (partials / "new-1").exists()


@pytest.mark.process
@pytest.mark.parametrize("begun", [False, True], ids=["new", "dead holder"])
def test_of_many_that_reach_for_a_cell_one_gets_it(partials, begun):
    if begun:
        sign(Leases(partials).claim("a").folder, pid=GONE)
    context = multiprocessing.get_context("fork")
    ready, got = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_reach, args=(partials, ready, got)) for _ in range(8)]
    for process in processes:
        process.start()
    taken = [got.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sum(taken) == 50


def _reach(partials: Path, ready: multiprocessing.Barrier, got: multiprocessing.Queue) -> None:
    """Claim fifty cells, the first of which may have a dead holder, at the same moment as others do."""
    mine, claims = Leases(partials), []
    for i in range(50):
        ready.wait(60)
        claims.append(mine.claim("a" if i == 0 else f"cell{i}"))
        ready.wait(60)
    got.put(sum(lease is not None and _is_held(lease) for lease in claims))
    ready.wait(60)  # a holder must be alive while the others look


def _is_held(lease: leases.Lease) -> bool:
    try:
        lease.check()
    except LeaseLost:
        return False
    return True


def test_a_scratch_folder_that_was_swept_away_is_no_error(partials, monkeypatch):
    mine, sign_before = Leases(partials), Leases._sign

    def swept(self: Leases, folder: Path) -> None:
        Leases(partials).sweep()
        sign_before(self, folder)

    monkeypatch.setattr(Leases, "_sign", swept)
    assert mine.claim("a") is None
    monkeypatch.undo()
    assert mine.claim("a") is not None


def test_a_change_of_the_clock_kills_nobody(partials, monkeypatch):
    folder = Leases(partials).claim("a").folder
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert Leases(partials).claim("a") is None
    assert folder not in Leases(partials).abandoned()


def test_a_full_disk_is_no_rival(partials, monkeypatch):
    monkeypatch.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        Leases(partials).claim("a")
    assert list(partials.iterdir()) == []

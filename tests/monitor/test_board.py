"""The board: the same picture from a running runner and from the folder, wide, narrow, in ASCII and as JSON."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from published import ALL_OK, OUTCOME, fake, publish
from rich.console import Console

from ablations.config import CellConfig
from ablations.monitor import progress
from ablations.monitor.board import Board, fill_board
from ablations.monitor.progress import bar, watching
from ablations.store import Store
from ablations.store.leases import LEASE

NAN = {"outcome": "diverged", "kind": "nan", "test_accuracy_pct": None}
OOM = {"outcome": "failed", "kind": "oom", "test_accuracy_pct": None, "detail": "no memory"}


def begin(store: Store, cell: CellConfig, *, rows: int) -> Path:
    """Claim a cell as a runner does, some epochs of which have ended."""
    folder = store.leases.claim(cell.id).folder
    (folder / "config.json").write_text(cell.model_dump_json())
    if rows:
        lines = [f"{i + 1},0.1,{2 - i},1.9,{50 + i},x" for i in range(rows)]
        header = "epoch,lr_after,train_loss,val_loss,val_accuracy_pct,batches"
        (folder / "metrics.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


def draw(board: Board, *, width: int = 100, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=file, width=width, force_terminal=False).print(board)
    file.flush()
    return file.buffer.getvalue().decode(encoding)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One cell ok, one diverged, one failed, one that runs, two that wait."""
    outcomes = {("xnorm", 0): {}, ("l2", 0): NAN | {"seconds": 3.0}, ("none", 0): OOM}
    store, cells = fake(tmp_path, outcomes, norm=["xnorm", "l2", "none"])
    begin(store, cells[3], rows=2)
    return store


def board_of(store: Store) -> Board:
    return fill_board(Board(store.read_study()), store)


def test_the_board_has_a_sign_for_every_cell(store):
    lines = draw(board_of(store)).splitlines()
    assert lines[0].startswith("fake: 3 of 6 cells done, about ")
    assert lines[1] == "1 ok, 1 diverged (1 nan), 1 failed (1 oom), 1 running, 2 waiting"
    assert [line.split() for line in lines[2:6]] == [
        ["seed", "0", "1"],
        ["xnorm", "✓", "▸"],
        ["l2", "≠", "·"],
        ["none", "✗", "·"],
    ]
    running = next(line for line in lines if "seed 1" in line)
    assert running.split()[:6] == ["xnorm", "seed", "1", "2/8", "1.000", "51.0"]


def test_a_console_without_utf8_gets_ascii(store):
    assert draw(board_of(store), encoding="ascii").splitlines()[3].split() == ["xnorm", "+", ">"]


def test_a_narrow_console_gets_counts(store, tmp_path):
    many, _ = fake(tmp_path / "many", {}, seed=list(range(100)))
    lines = draw(board_of(many), width=60).splitlines()
    assert ["xnorm", "100", "waiting"] in [line.split() for line in lines]
    assert all(len(line) <= 60 for line in lines[1:])


def test_conditions_have_lines_of_their_own(tmp_path):
    store, _ = fake(tmp_path, ALL_OK, lr=[1e-3, 3e-3])
    text = draw(board_of(store))
    assert "xnorm (lr=0.001)" in text
    assert "l2 (lr=0.003)" in text


def test_of_many_conditions_those_that_run_or_have_begun_have_lines_first(tmp_path, monkeypatch):
    store, cells = fake(tmp_path, {}, lr=[0.1, 0.2, 0.3])
    publish(store, cells[4], store.read_study(), OUTCOME)
    begin(store, cells[-1], rows=0)
    assert "rows that are not shown" not in draw(board_of(store))
    for most, rows in ((1, [5]), (2, [3, 5]), (3, [0, 3, 5])):
        monkeypatch.setattr("ablations.monitor.board.MOST_ROWS", most)
        lines = draw(board_of(store)).splitlines()
        named = [f"{arm} (lr={lr:g})" for lr in (0.1, 0.2, 0.3) for arm in ("xnorm", "l2")]
        assert [line.partition(")")[0] + ")" for line in lines if "(lr=" in line][:most] == [named[row] for row in rows]
        assert f"rows that are not shown: {6 - most}" in lines


def test_time_left_comes_from_the_arms_own_cells(store):
    board = board_of(store)
    # xnorm takes 1 s, l2 3 s, none (failed after 1 s) 1 s: 3 + 1 wait, and of the one that runs some of 1 s is left
    assert 4.0 <= board.seconds_left <= 5.0
    assert Board(store.read_study()).seconds_left is None


def test_a_cell_that_runs_no_more_waits_again_or_has_its_outcome(store):
    board = board_of(store)
    (folder,) = store.leases.running()
    (folder / LEASE).unlink()
    board.update_running(store)
    assert board.counts["running"] == 0
    assert board.counts["waiting"] == 3


def test_a_failed_cell_that_is_tried_again_runs(tmp_path):
    store, cells = fake(tmp_path, {("xnorm", 0): OOM})
    folder = begin(store, cells[0], rows=0)
    board = board_of(store)
    assert board.counts["running"] == 1
    assert board.kinds_seen == {"failed: oom": 1}
    (folder / LEASE).unlink()
    board.update_running(store)
    assert board.counts["failed"] == 1


def test_a_holder_that_is_dead_runs_nothing(store):
    (folder,) = store.leases.running()
    holder = json.loads((folder / LEASE).read_text()) | {"host": "elsewhere"}
    (folder / LEASE).write_text(json.dumps(holder))
    assert board_of(store).counts["running"] == 1
    os.utime(folder / LEASE, (0, 0))
    assert board_of(store).counts["running"] == 0


def test_status_prints_the_board_and_json(cli, store):
    code, out, _ = cli("status", store.folder)
    assert code == 0
    assert "fake: 3 of 6 cells done" in out
    shown = json.loads(cli("status", store.folder, "--json")[1])
    assert shown["counts"] == {"ok": 1, "diverged": 1, "failed": 1, "running": 1, "waiting": 2}
    assert shown["running"][0]["epoch"] == 2
    assert {"arm": "none", "condition": "", "seed": 0, "state": "failed", "kind": "failed: oom"} in shown["cells"]
    code, _, err = cli("status", store.folder / "nowhere")
    assert (code, err.count("\n")) == (2, 1)


def test_a_terminal_gets_the_picture_and_lines_for_what_went_wrong(store):
    study, (cell, other) = store.read_study(), [record.config for record in store.records().values()][:2]
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    with watching(console, study, store, total=6) as watcher:
        watcher.done(cell, OUTCOME, ours=True, remark="")
        watcher.done(other, OUTCOME | OOM, ours=True, remark="it will be retried with no other cell running")
        watcher.tick()
        assert len(watcher.failed) == 1
    text = file.getvalue()
    assert "no memory" in text
    assert "it will be retried" in text
    assert "test accuracy" not in text
    assert "▸ running" in text


def test_where_there_is_no_terminal_each_cell_has_one_line(store):
    file = io.StringIO()
    cell = next(iter(store.records().values())).config
    with watching(Console(file=file, width=100), store.read_study(), store, total=6) as watcher:
        watcher.done(cell, OUTCOME, ours=True, remark="")
        watcher.done(cell, OUTCOME | OOM, ours=True, remark="")
        watcher.tick()
    ok, oom = file.getvalue().splitlines()
    assert ok.startswith("[1/6] ")
    assert f"no memory (python -m ablations show {cell.id} --out {store.folder.parent})" in oom


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "JPY_PARENT_PID"])
def test_forced_colours_and_notebooks_make_no_terminal(store, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    with watching(console, store.read_study(), store, total=6) as watcher:
        watcher.tick()
        watcher.note("a line")
    assert file.getvalue() == "a line\n"


def test_a_bar_has_the_cells_that_are_done_their_outcomes_and_the_time_left(store):
    html = bar(board_of(store))
    assert html.startswith("<progress value=3 max=6></progress> fake: 3 of 6 cells done, about ")
    assert html.endswith("<br><small>1 ok, 1 diverged (1 nan), 1 failed (1 oom), 1 running, 2 waiting</small>")


def test_a_notebook_gets_one_bar_and_lines_for_bad_ends(store, monkeypatch):
    drawn = []
    monkeypatch.setattr(progress, "_is_notebook", lambda: True)
    monkeypatch.setattr(progress, "_notebook_draw", lambda: lambda board: drawn.append(bar(board)))
    file = io.StringIO()
    ok, other = [record.config for record in store.records().values()][:2]
    with watching(Console(file=file, width=100), store.read_study(), store, total=6) as watcher:
        watcher.done(ok, OUTCOME, ours=True, remark="")
        watcher.done(other, OUTCOME | OOM, ours=True, remark="")
        watcher.tick()
    assert len(drawn) == 3
    assert "no memory" in file.getvalue()
    assert len(file.getvalue().splitlines()) == 1


def test_a_retried_cell_that_works_is_no_failure(store):
    cell = next(iter(store.records().values())).config
    with watching(Console(file=io.StringIO()), store.read_study(), store, total=6) as watcher:
        watcher.done(cell, OUTCOME | OOM, ours=True, remark="")
        watcher.done(cell, OUTCOME, ours=True, remark="")
    assert not watcher.failed


def test_a_cell_that_failed_elsewhere_is_no_failure_of_ours(store):
    cell = next(iter(store.records().values())).config
    with watching(Console(file=io.StringIO()), store.read_study(), store, total=6) as watcher:
        watcher.done(cell, OUTCOME | OOM, ours=False, remark="by another runner")
    assert not watcher.failed


def test_a_cell_published_twice_is_counted_once(store):
    study = store.read_study()
    cell = next(record.config for record in store.records().values() if record.config.net.norm == "none")
    publish(store, cell, study, OUTCOME)
    assert board_of(store).counts["failed"] == 0
    assert board_of(store).kinds_seen == {"diverged: nan": 1}

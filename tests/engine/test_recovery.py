"""Whatever dies, and whenever: the same command goes on with what is missing, and the numbers are the same.

``pytest --full`` runs the proofs at full length: 24 cells, ten kills, 1,000 cells.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import TWO_LONG_CELLS, cells, numbers, run_here, start, wait_for, workers_of

from ablations.engine import prepare
from ablations.store import files
from ablations.store.leases import LEASE, OPENING, RESUMED, Holder

SHORT = ("--norm", "xnorm,l2", "--seeds", 2, "--epochs", 2, "--set", "train_limit=512", "--jobs", 2)
FULL = ("--norm", "xnorm,l2,single_l2", "--seeds", 8, "--jobs", 2)


def finish(process: subprocess.Popen[str], *, within_s: float = 600) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=within_s)
    return process.returncode, out, err


def partials(out: Path) -> list[Path]:
    folders = (out / "norm-digits" / "cells" / ".partial").glob("*")
    return [folder for folder in folders if folder.stem != OPENING]


def check_nothing_is_half(out: Path) -> None:
    assert list((out / "norm-digits" / "cells" / ".partial").glob("*")) == []
    for cell in cells(out).values():
        names = {path.name for path in cell.iterdir()}
        assert {"config.json", "outcome.json", "metrics.csv", "probes.csv", "correct.npy", "log.txt"} <= names
        assert not {LEASE, RESUMED, "checkpoint.ckpt"} & names
        assert not [name for name in names if "partial" in name or name.startswith(".")]


@pytest.fixture(scope="module")
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The numbers of the study that nobody disturbs."""
    out = tmp_path_factory.mktemp("undisturbed")
    code, _, err = run_here("run", *(FULL if request.config.getoption("--full") else SHORT), "--out", out)
    assert code == 0, err
    return numbers(out)


@pytest.mark.slow
def test_a_runner_that_is_killed_again_and_again(full, undisturbed, tmp_path):
    study, kills = (FULL, 10) if full else (SHORT, 2)
    moments = random.Random(0)
    for _ in range(kills):
        process = start(*study, out=tmp_path)
        if not full:
            wait_for(lambda: bool(partials(tmp_path)) or len(cells(tmp_path)) == len(undisturbed))
        time.sleep(moments.uniform(0, 30 if full else 3))
        print(f"killed with {len(partials(tmp_path))} on their way, {len(cells(tmp_path))} done")
        process.kill()
        process.wait()
    code, _, err = run_here("run", *study, "--out", tmp_path)
    assert code == 0, err
    assert numbers(tmp_path) == undisturbed
    check_nothing_is_half(tmp_path)


@pytest.mark.slow
def test_workers_that_are_killed_again_and_again(full, undisturbed, tmp_path):
    study, kills = (FULL, 10) if full else (SHORT, 2)
    moments = random.Random(1)
    process = start(*study, out=tmp_path)
    killed = 0
    while killed < kills and process.poll() is None:
        time.sleep(moments.uniform(0, 10 if full else 1))
        if workers := workers_of(process):
            os.kill(moments.choice(workers), signal.SIGKILL)
            killed += 1
    code, out, err = finish(process)
    print(out)
    assert err == ""
    assert "failed killed" in out
    code, _, err = run_here("run", *study, "--out", tmp_path)  # a cell may have been killed in its second try as well
    assert code == 0, err
    assert numbers(tmp_path) == undisturbed
    check_nothing_is_half(tmp_path)


@pytest.mark.slow
def test_two_runners_record_each_cell_once(undisturbed, full, tmp_path):
    study = FULL if full else SHORT
    runners = [start(*study, out=tmp_path) for _ in range(2)]
    said = []
    for runner in runners:
        code, out, err = finish(runner)
        assert (code, err) == (0, "")
        said.append([line for line in out.splitlines() if line.startswith("[")])
    ours = [{line.split(" ", 1)[1].split(":")[0] for line in lines if "by another" not in line} for lines in said]
    assert not ours[0] & ours[1]
    assert len(ours[0] | ours[1]) == len(undisturbed)
    assert numbers(tmp_path) == undisturbed
    check_nothing_is_half(tmp_path)


@pytest.mark.slow
def test_another_runner_takes_over_what_a_dead_one_held(undisturbed, full, tmp_path):
    study = FULL if full else SHORT
    first = start(*study, out=tmp_path)
    wait_for(lambda: len(partials(tmp_path)) == 2)
    second = start(*study, out=tmp_path)
    assert "study norm-digits" in second.stdout.readline()
    first.kill()
    first.wait()
    code, _, err = finish(second)
    assert (code, err) == (0, "")
    assert numbers(tmp_path) == undisturbed
    check_nothing_is_half(tmp_path)


@pytest.mark.slow
def test_a_runner_that_lost_a_cell_discards_it_and_says_so(tmp_path):
    process = start("--norm", "xnorm", "--seeds", 1, "--epochs", 30, "--set", "train_limit=256", out=tmp_path)
    wait_for(lambda: any((folder / "metrics.csv").exists() for folder in partials(tmp_path)))
    (folder,) = partials(tmp_path)
    taken = folder.rename(folder.with_name(folder.name.replace(".1", ".2")))
    dead = Holder("other", Holder.here().host, 2**22 + 1, "")  # a number that no process has
    (taken / LEASE).write_text(json.dumps(vars(dead)))
    code, out, err = finish(process)
    assert code == 0, err
    assert "xnorm seed 0: another runner has taken it over; this attempt is discarded" in out
    assert "xnorm seed 0: taken over from a runner that died or released it" in out
    check_nothing_is_half(tmp_path)


@pytest.mark.slow
def test_a_cell_that_was_cut_short_goes_on_to_the_same_numbers(tmp_path):
    study = ("--norm", "xnorm", "--seeds", 1, "--epochs", 6, "--set", "drop_path=0.1", "--save-weights", "last")
    code, _, err = run_here("run", *study, "--out", tmp_path / "whole")
    assert code == 0, err
    process = start(*study, "--checkpoint-every", 3, out=tmp_path / "cut")
    wait_for(lambda: any((folder / "checkpoint.ckpt").exists() for folder in partials(tmp_path / "cut")))
    process.kill()
    process.wait()
    (folder,) = partials(tmp_path / "cut")
    assert 3 <= len((folder / "metrics.csv").read_text().splitlines()) - 1 < 6
    code, _, err = run_here("run", *study, "--out", tmp_path / "cut")
    assert code == 0, err
    (whole,), (cut,) = cells(tmp_path / "whole").values(), cells(tmp_path / "cut").values()
    for name in ("metrics.csv", "probes.csv", "correct.npy", "weights.safetensors"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name
    outcomes = [json.loads((folder / "outcome.json").read_text()) for folder in (whole, cut)]
    assert [outcome["resumed_after_epochs"] for outcome in outcomes] == [[], [3]]
    for key in ("test_accuracy_pct", "test_loss", "epoch_hashes", "epochs_run", "init_hash"):
        assert outcomes[0][key] == outcomes[1][key], key
    assert "resuming after epoch 3" in (cut / "log.txt").read_text()
    check_nothing_is_half(tmp_path / "cut")


DIES = ("--norm", "dies", "--seeds", 1, "--epochs", 3, "--set", "train_limit=128", "--checkpoint-every", 1)


@pytest.mark.slow
def test_the_second_try_of_a_cell_that_has_a_result_goes_on_from_the_first(tmp_path):
    def outcome(*more: object) -> dict[str, Any]:
        code, _, err = finish(start(*DIES, "--plugin", "arms", *more, out=tmp_path / "runs", cwd=tmp_path))
        assert code == 0, err
        (cell,) = cells(tmp_path / "runs").values()
        check_nothing_is_half(tmp_path / "runs")
        return json.loads((cell / "outcome.json").read_text())

    assert outcome()["resumed_after_epochs"] == []
    (tmp_path / "die").touch()
    again = outcome("--rerun", "all")
    assert (again["epochs_run"], again["resumed_after_epochs"]) == (3, [1])
    assert {attempt["outcome"] for attempt in again["attempts"]} == {"failed", again["outcome"]}


@pytest.mark.slow
@pytest.mark.usefixtures("arms")
@pytest.mark.parametrize("error", [None, errno.EIO])
def test_a_failed_cells_checkpoint_is_gone_on_from_and_half_a_copy_of_it_is_not(cli, tmp_path, monkeypatch, error):
    arguments = (*DIES, "--plugin", "arms")

    def outcome() -> dict[str, Any]:
        (cell,) = cells(tmp_path / "runs").values()
        return json.loads((cell / "outcome.json").read_text())

    (tmp_path / "die").touch()
    finish(start(*arguments, "--retry", "none", out=tmp_path / "runs", cwd=tmp_path))
    assert outcome()["kind"] == "killed"

    def run(number: int | None) -> tuple[int, str, str]:
        def copy_half(source: Path, target: Path) -> None:
            target.write_bytes(source.read_bytes()[:1000])
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            if number:
                patch.setattr(prepare.shutil, "copy", copy_half)
            return cli("run", *arguments, "--out", tmp_path / "runs")

    code, out, _ = run(errno.ENOSPC)
    assert code == 3
    assert "is full" in out
    code, out, err = run(error)
    assert code == 0, err
    assert outcome()["resumed_after_epochs"] == ([] if error else [1])
    assert ("restarted, since its checkpoint cannot be read" in out) == bool(error)


@pytest.mark.slow
def test_the_first_ctrl_c_finishes_what_runs_and_the_second_stops_at_once(tmp_path):
    long = ("--norm", "xnorm,l2", "--seeds", 2, "--epochs", 200, "--jobs", 2, "--checkpoint-every", 1)
    process = start(*long, out=tmp_path, new_group=True)
    wait_for(lambda: sum((folder / "checkpoint.ckpt").exists() for folder in partials(tmp_path)) == 2)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(2)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = finish(process, within_s=20)
    assert (code, err) == (130, "")
    assert "finishing the running cells (2); press Ctrl-C again to stop at once" in out
    assert cells(tmp_path) == {}
    assert all((folder / "checkpoint.ckpt").exists() for folder in partials(tmp_path))
    assert not any((folder / LEASE).exists() for folder in partials(tmp_path))


@pytest.mark.slow
def test_a_signal_to_the_whole_group_fails_no_cell(tmp_path):
    process = start(*FULL, "--checkpoint-every", 1, out=tmp_path, new_group=True)
    wait_for(lambda: any((folder / "checkpoint.ckpt").exists() for folder in partials(tmp_path)))
    os.killpg(process.pid, signal.SIGTERM)
    code, out, _ = finish(process, within_s=30)
    assert code == 130
    assert "interrupted: finished cells are kept" in out
    assert "killed" not in out
    assert cells(tmp_path) == {}


@pytest.mark.slow
def test_sigterm_saves_the_running_cells_first(finished_study, tmp_path):
    undisturbed = numbers(finished_study(*TWO_LONG_CELLS))  # shorter than the minute between two checkpoints
    out = tmp_path / "stopped"
    process = start(*TWO_LONG_CELLS, out=out)
    wait_for(lambda: sum((folder / "metrics.csv").exists() for folder in partials(out)) == 2)
    for one in (*psutil.Process(process.pid).children(recursive=True), process):  # as a cluster does
        one.send_signal(signal.SIGTERM)
    code, printed, err = finish(process, within_s=30)
    assert (code, err) == (130, "")
    assert "interrupted: finished cells are kept" in printed
    assert [(folder / "checkpoint.ckpt").exists() for folder in partials(out)] == [True, True]
    assert run_here("run", *TWO_LONG_CELLS, "--out", out)[0] == 0
    records = [json.loads((folder / "outcome.json").read_text()) for folder in cells(out).values()]
    assert [len(record["resumed_after_epochs"]) for record in records] == [1, 1]
    assert numbers(out) == undisturbed


@pytest.mark.slow
def test_a_signal_to_all_processes_does_not_end_the_decoding_ones_before_the_cell_is_saved(images, tmp_path):
    streamed = ("--data", f"imagefolder:{images}", "--in-memory", "off", "--workers", 1)
    process = start(*streamed, "--norm", "xnorm", "--seeds", 1, "--epochs", 300, out=tmp_path)
    partial = "*/cells/.partial/*"
    wait_for(lambda: bool(list(tmp_path.glob(f"{partial}/metrics.csv"))))
    for one in (*psutil.Process(process.pid).children(recursive=True), process):
        one.send_signal(signal.SIGTERM)
    code, printed, err = finish(process, within_s=30)
    assert (code, err) == (130, ""), printed
    assert list(tmp_path.glob(f"{partial}/checkpoint.ckpt"))


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_was_killed(tmp_path):
    process = start("--norm", "xnorm", "--seeds", 1, "--epochs", 30, "--set", "train_limit=512", out=tmp_path)
    wait_for(lambda: any((folder / "metrics.csv").exists() for folder in partials(tmp_path)))
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGTERM)
    code, out, err = finish(process)
    assert code == 0, err
    assert "failed killed" in out
    (cell,) = cells(tmp_path).values()
    record = json.loads((cell / "outcome.json").read_text())
    (attempt,) = record["attempts"]
    assert (attempt["kind"], attempt["detail"]) == ("killed", "the worker process was killed by SIGTERM")
    assert len(record["resumed_after_epochs"]) == 1


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_what_is_missing_runs_when_there_is_room(full, undisturbed, tmp_path):
    """At full length on a file system of 400 KiB, of which the study needs more than twice as much."""
    study = FULL if full else SHORT
    out = tmp_path / "small"
    out.mkdir()
    with contextlib.ExitStack() as stack:
        if full:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", out], check=True)
            stack.callback(subprocess.run, ["umount", out], check=True)
            code, printed, err = run_here("run", *study, "--out", out)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(files, "sync", no_room_from(cell=3))
                code, printed, err = run_here("run", *study, "--out", out)
        print(printed)
        assert (code, err) == (1, "")
        assert "stopped: the disk of" in printed
        assert "is full; free some space and run the same command again; finished cells are kept" in printed
        num_kept = len(cells(out))
        assert 0 < num_kept < len(undisturbed)
        assert partials(out) == []
        if full:
            subprocess.run(["mount", "-o", "remount,size=8m", out], check=True)
        code, printed, err = run_here("run", *study, "--out", out)
        assert (code, err) == (0, "")
        assert f"{num_kept} done, {len(undisturbed) - num_kept} missing" in printed
        assert numbers(out) == undisturbed
        check_nothing_is_half(out)


def no_room_from(*, cell: int) -> Callable[[Path], None]:
    """Return what waits for a file to be on the disk, and finds no room from the given cell's outcome on."""
    synced = set[str]()

    def sync(path: Path) -> None:
        if path.name.startswith(".outcome.json"):
            synced.add(path.parent.name)
        if len(synced) >= cell:
            raise OSError(errno.ENOSPC, "No space left on device")

    return sync


@pytest.mark.slow
def test_no_worker_outlives_its_runner(tmp_path):
    process = start("--norm", "sleeps", "--plugin", "arms", "--seeds", 2, out=tmp_path)
    wait_for(lambda: len(partials(tmp_path)) == 2 and len(workers_of(process)) == 2)
    workers = workers_of(process)
    process.kill()
    process.wait()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in workers), within_s=20)


@pytest.mark.slow
def test_the_runner_does_not_grow_with_its_cells(full, tmp_path):
    num_cells = 1000 if full else 24
    quick = ("--norm", "xnorm", "--epochs", 1, "--set", "train_limit=64", "--set", "depth=1")
    process = start(*quick, "--seeds", num_cells, out=tmp_path)
    runner, curve = psutil.Process(process.pid), []
    for line in process.stdout:
        if line.startswith("["):
            curve.append(runner.memory_info().rss / 2**20)
        if line.startswith(f"[{num_cells}/"):
            break
    finish(process)
    steps = range(0, num_cells, num_cells // 12)
    print("cells and MiB of the runner:", ", ".join(f"{step + 1}: {curve[step]:.1f}" for step in steps))
    assert len(curve) == num_cells
    assert curve[-1] - curve[num_cells // 4] < 8

"""Failures are data: each ends with its kind, costs the others nothing, and is tried again when that may help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import cells

from ablations.config import CellConfig
from ablations.config.recipes import defaults
from ablations.engine.failures import Failures
from ablations.engine.result import describe_exit, failed_result

QUICK = ("--epochs", 1, "--set", "train_limit=128")


def outcomes(out: Path) -> dict[str, dict]:
    return {name: json.loads((folder / "outcome.json").read_text()) for name, folder in cells(out).items()}


@pytest.mark.slow
@pytest.mark.usefixtures("arms")
def test_six_ways_to_fail_cost_the_others_nothing(cli, tmp_path):
    arms = "xnorm,raises,turns_nan,hoards,sleeps,leaves,segfaults,l2"
    more = ("--seeds", 1, "--epochs", 4, "--set", "train_limit=512", "--timeout", "15s", "--memory-per-cell", "1GiB")
    code, out, err = cli("run", "--norm", arms, "--plugin", "arms", *more, "--out", tmp_path)
    assert (code, err) == (1, "")
    seen = outcomes(tmp_path)
    assert {name.removesuffix("-s0"): f"{o['outcome']} {o['kind']}".strip() for name, o in seen.items()} == {
        "xnorm": "ok",
        "l2": "ok",
        "raises": "failed error",
        "turns_nan": "diverged nan",
        "hoards": "failed oom",
        "sleeps": "failed timeout",
        "leaves": "failed error",
        "segfaults": "failed error",
    }
    details = {name.removesuffix("-s0"): outcome["detail"] for name, outcome in seen.items()}
    assert details["leaves"] == "the worker process exited with code 1"
    assert details["segfaults"] == "the worker process was killed by SIGSEGV"
    assert details["hoards"].endswith("(memory limit of this cell: 1024 MiB)")
    for name in ("raises", "hoards", "sleeps", "segfaults"):
        trace = "\n".join(seen[f"{name}-s0"]["traceback"])
        assert "arms.py" in trace, name
        assert "in forward" in trace, name
    again = {name for name, outcome in seen.items() if outcome["attempts"]}
    assert again == {"hoards-s0", "sleeps-s0"}
    assert out.count("it will be retried with no other cell running") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("arms")
def test_fail_fast_starts_no_more(cli, tmp_path):
    run = ("run", "--norm", "raises,xnorm,l2", "--plugin", "arms", "--seeds", 3, *QUICK, "--out", tmp_path)
    code, out, _ = cli(*run, "--fail-fast", "--jobs", 1)
    assert code == 3
    assert "stopped: 1 cell failed, and the limit is 1; finished cells are kept" in out
    assert set(outcomes(tmp_path)) == {"raises-s0"}
    code, out, _ = cli(*run, "--max-failures", 2, "--jobs", 1)
    assert code == 1
    assert "stopped: 2 cells failed" in out
    assert {name for name, outcome in outcomes(tmp_path).items() if outcome["outcome"] == "failed"} == {
        "raises-s0",
        "raises-s1",
    }


@pytest.mark.process
@pytest.mark.usefixtures("arms")
def test_when_the_first_cell_of_every_arm_fails_alike_the_run_stops_and_says_why(cli, tmp_path, monkeypatch):
    run = ("run", "--compare", "lpi", "--set", "lpi=on,off", "--norm", "raises", "--plugin", "arms", "--seeds", 4)
    code, out, _ = cli(*run, *QUICK, "--jobs", 1, "--out", tmp_path)
    assert code == 3
    assert "the first cell of every arm fails in the same way: error: RuntimeError: this arm is broken" in out
    assert len(cells(tmp_path, "lpi-digits")) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("arms")
def test_which_cells_of_earlier_runs_are_run_again(cli, tmp_path):
    arms = ("--norm", "xnorm,raises,out_of_memory,turns_nan", "--plugin", "arms", "--seeds", 1, "--out", tmp_path)
    more = (*arms, "--epochs", 4, "--set", "train_limit=512")
    cli("run", *more)
    plan = ("run", *more, "--dry-run")
    for retry, count in (("failed", 2), ("oom", 1), ("all", 3), ("none", 0)):
        assert f"4 cells: 2 done, 2 failed; {count} to run" in cli(*plan, "--retry", retry)[1], retry
    study = tmp_path / "norm-digits"
    assert "4 cells: 2 done, 2 failed; 2 to run" in cli("retry", study, "--dry-run")[1]
    code, out, _ = cli("retry", study, "--kind", "oom")
    assert code == 1
    assert "out_of_memory seed 0: failed oom" in out
    assert "raises seed 0" not in out
    kinds = [attempt["kind"] for attempt in outcomes(tmp_path)["out_of_memory-s0"]["attempts"]]
    assert kinds == ["oom"] * 3  # its second try in each run, and the run before


@pytest.mark.process
def test_retry_runs_failed_cells_and_no_missing_ones(cli, images, tmp_path):
    data = ("--data", f"imagefolder:{images}")
    run = ("run", "--norm", "xnorm", *data, "--seeds", "0-1", "--epochs", 1, "--batch-size", 16, "--out", tmp_path)
    cli(*run)
    study = tmp_path / "norm-images"
    ours = cells(tmp_path, "norm-images")
    path = ours["xnorm-s0"] / "outcome.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"outcome": "failed", "kind": "killed"}))
    (ours["xnorm-s1"]).rename(tmp_path / "away")
    code, _, err = cli("retry", study)
    assert (code, err.count("\n")) == (2, 1)
    assert "a study does not store the path of imagefolder:images: give it as --data imagefolder:DIR" in err
    code, out, _ = cli("retry", study, *data)
    assert "2 cells: 1 failed, 1 missing; 1 to run" in out
    assert "[1/1] xnorm seed 0: ok" in out
    assert code == 0
    assert set(cells(tmp_path, "norm-images")) == {"xnorm-s0"}


def make_failures(arms: str, *, retry: bool = True, limit: int | None = None) -> tuple[Failures, list[CellConfig]]:
    """Build cells whose arms are given in the order in which they are started."""
    fixed = {**defaults(image_side=8, flips=False), "data": "d", "data_fingerprint": ""}
    made = [CellConfig(**fixed, seed=i, norm=arm) for i, arm in enumerate(arms)]
    failures = Failures(made, arms={c.id: c.net.norm for c in made}, retry=retry, limit=limit)
    return failures, made


def failed(kind: str, detail: str = "") -> dict[str, str]:
    return {"outcome": "failed", "kind": kind, "detail": detail}


OK = {"outcome": "ok", "kind": "", "detail": ""}


@pytest.mark.parametrize("kind", ["oom", "killed", "timeout"])
def test_what_may_pass_is_tried_again_once(kind):
    failures, (cell, *_) = make_failures("abab")
    failures.take(cell, failed(kind))
    assert failures.to_retry == [cell]
    assert failures.next_retry() is cell
    failures.take(cell, failed(kind))
    assert failures.to_retry == []


@pytest.mark.parametrize(("outcome", "retry"), [(failed("error"), True), (OK, True), (failed("oom"), False)])
def test_what_would_only_come_again_is_not(outcome, retry):
    failures, (cell, *_) = make_failures("ab", retry=retry)
    failures.take(cell, outcome)
    assert failures.to_retry == []


def test_one_arm_that_works_is_reason_enough_to_go_on():
    failures, made = make_failures("abcabc")
    failures.take(made[0], failed("error", "x"))
    failures.take(made[1], failed("error", "x"))
    assert failures.reason_to_stop is None
    failures.take(made[2], OK)
    failures.take(made[3], failed("error", "x"))
    assert failures.reason_to_stop is None


def test_arms_that_fail_in_different_ways_go_on():
    failures, made = make_failures("abab")
    failures.take(made[0], failed("error", "x"))
    failures.take(made[1], failed("error", "y"))
    assert failures.reason_to_stop is None


def test_a_doubt_is_settled_by_a_second_try():
    failures, made = make_failures("abab")
    failures.take(made[0], failed("oom", "1 byte"))
    assert not failures.awaits_retry
    failures.take(made[1], failed("oom", "2 bytes"))
    assert failures.awaits_retry
    assert failures.reason_to_stop is None
    cell = failures.next_retry()
    failures.take(cell, failed("oom", "3 bytes"))
    assert failures.reason_to_stop == "the first cell of every arm fails in the same way: oom"


def test_a_second_try_that_works_settles_it_as_well():
    failures, made = make_failures("abab")
    for cell in made[:2]:
        failures.take(cell, failed("timeout"))
    failures.take(failures.next_retry(), OK)
    assert not failures.awaits_retry
    assert failures.reason_to_stop is None


def test_a_study_whose_cells_have_all_been_tried_is_not_stopped():
    failures, made = make_failures("ab")
    for cell in made:
        failures.take(cell, failed("error", "x"))
    assert failures.reason_to_stop is None


def test_a_limit_of_failures_waits_for_no_second_try():
    failures, made = make_failures("abab", limit=1)
    failures.take(made[0], failed("oom"))
    assert failures.reason_to_stop == "1 cell failed, and the limit is 1"


def test_a_cell_that_failed_elsewhere_is_tried_again_elsewhere():
    failures, made = make_failures("abab")
    failures.take(made[0], failed("oom"), ours=False)
    assert failures.to_retry == []
    failures.take(made[1], failed("oom"), ours=False)
    assert failures.reason_to_stop == "the first cell of every arm fails in the same way: oom"


def test_exit_codes_tell_a_hand_from_a_crash():
    assert describe_exit(-9)[0] == describe_exit(-15)[0] == "killed"
    assert describe_exit(-11) == ("error", "the worker process was killed by SIGSEGV")
    assert describe_exit(-6)[0] == describe_exit(1)[0] == describe_exit(0)[0] == "error"


def test_what_a_lost_cell_left_is_in_its_record(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,batches\n1,x\n2,y\n")
    log = [*(f"line {i}" for i in range(50)), "Fatal Python error: Segmentation fault", "", "Current thread 0x1:"]
    (tmp_path / "log.txt").write_text("\n".join([*log, '  File "arms.py"', "Extension modules: many"]))
    result = failed_result(tmp_path, "error", "d", {"seconds": 1.0})
    assert result.traceback == ["Fatal Python error: Segmentation fault", "Current thread 0x1:", '  File "arms.py"']
    assert result.fields == {"seconds": 1.0, "epochs_run": 2, "epoch_hashes": ["x", "y"]}
    (tmp_path / "log.txt").write_text("\n".join(log[:50]))
    assert failed_result(tmp_path, "killed", "d", {}).traceback[0] == "line 30"


def test_what_a_lost_cell_went_on_from_counts(tmp_path):
    (tmp_path / "resumed.json").write_text('{"resumed_after_epochs": [2, 5], "seconds": 100.0}')
    fields = failed_result(tmp_path, "killed", "d", {"seconds": 1.0}).fields
    assert (fields["resumed_after_epochs"], fields["seconds"]) == ([2, 5], 101.0)


def test_a_process_that_died_for_want_of_memory_is_out_of_memory(tmp_path):
    log = tmp_path / "log.txt"
    stack = "Fatal Python error: Aborted\n\nCurrent thread 0x1:\n" + "  File\n" * 30
    log.write_text(f"terminate called after throwing an instance of 'std::bad_alloc'\n{stack}")
    assert failed_result(tmp_path, "error", "the worker process was killed by SIGABRT", {}).kind == "oom"
    assert failed_result(tmp_path, "killed", "the worker process was killed by SIGKILL", {}).kind == "killed"
    log.write_text(f"terminate called without an active exception\n{stack}")
    assert failed_result(tmp_path, "error", "the worker process was killed by SIGABRT", {}).kind == "error"

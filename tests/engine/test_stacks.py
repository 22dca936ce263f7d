"""Seeds that run as one stack: each has a record of its own, whatever ends the stack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import cells

STACKED = ("--stack", 2, "--seeds", 3, "--epochs", 1, "--set", "train_limit=128")


def outcomes(out: Path, study: str = "norm-digits") -> dict[str, dict]:
    return {name: json.loads((folder / "outcome.json").read_text()) for name, folder in cells(out, study).items()}


@pytest.mark.slow
@pytest.mark.usefixtures("arms")
def test_a_stack_is_recorded_cell_by_cell_and_its_failure_of_all(cli, tmp_path):
    code, _, err = cli("run", "--norm", "xnorm,raises,leaves", "--plugin", "arms", *STACKED, "--out", tmp_path)
    assert (code, err) == (1, "")
    seen = outcomes(tmp_path)
    ok = {name: seen[name] for name in ("xnorm-s0", "xnorm-s1", "xnorm-s2")}
    assert [each["outcome"] for each in ok.values()] == ["ok"] * 3
    assert [each["stacked_seeds"] for each in ok.values()] == [[0, 1], [0, 1], [2]]
    assert len({each["init_hash"] for each in ok.values()}) == 3
    failed = {name: (each["outcome"], each["kind"]) for name, each in seen.items() if name not in ok}
    assert failed == {f"{arm}-s{seed}": ("failed", "error") for arm in ("raises", "leaves") for seed in range(3)}
    for folder in cells(tmp_path).values():
        assert {"config.json", "outcome.json", "log.txt"} <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.usefixtures("arms")
def test_the_cells_of_a_stack_without_enough_memory_are_retried_one_by_one(cli, tmp_path):
    more = ("--memory-per-cell", "600MiB", "--jobs", 1)
    code, *_ = cli("run", "--norm", "xnorm,out_of_memory", "--plugin", "arms", *STACKED, *more, "--out", tmp_path)
    assert code == 1
    seen = outcomes(tmp_path)
    retried = [seen[f"out_of_memory-s{seed}"] for seed in range(3)]
    assert [len(each["attempts"]) for each in retried] == [1, 1, 1]
    assert [each["stacked_seeds"] for each in retried] == [[0], [1], [2]]
    assert retried[0]["detail"].endswith("(memory limit of this cell: 600 MiB)")
    assert retried[0]["attempts"][0]["kind"] == "oom"

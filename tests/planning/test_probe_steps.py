"""The option for single steps: by flag and experiment file, and what the plan says of finished cells."""

from __future__ import annotations

import pytest
from conftest import cells

from ablations.config import UsageError
from ablations.config.commands import EngineFlags, RunOptions
from ablations.config.declare import read_options
from ablations.config.experiment import load_experiment
from ablations.config.request import make_request


def engine_steps(**options: object) -> tuple[int, ...]:
    return make_request(read_options(RunOptions, options)).engine.probe_steps


@pytest.mark.parametrize(
    ("written", "expected"), [("[1, 2, 5]", (1, 2, 5)), ("1,2", (1, 2)), ("7", (7,))], ids=["list", "text", "one"]
)
def test_an_experiment_file_has_them_and_a_flag_overrides_it(written, expected, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(f"norm: [xnorm, l2]\nprobe_steps: {written}\n")
    assert "probe_steps" not in load_experiment(file).asked
    assert engine_steps(experiment=file) == expected
    assert engine_steps(experiment=file, probe_steps="3,4") == (3, 4)
    file.write_text("norm: [xnorm, l2]\n")
    assert engine_steps(experiment=file) == ()


@pytest.mark.parametrize("value", ["0", "1,1", "1,,2", "first", []])
def test_a_wrong_step_is_one_line(value):
    with pytest.raises(UsageError, match=r"--probe-steps .*: give numbers from 1 up, each once, as 1,2"):
        read_options(EngineFlags, {"probe_steps": value}, from_flags=True)


@pytest.mark.slow
@pytest.mark.process
def test_a_finished_cell_is_not_run_again_which_the_plan_says(tmp_path, cli):
    study = ("--norm", "xnorm", "--epochs", 1, "--set", "train_limit=64", "--out", tmp_path)
    assert cli("run", *study, "--seeds", 1)[0] == 0
    (before,) = cells(tmp_path).values()
    code, text = cli("run", *study, "--seeds", 2, "--probe-steps", "1,2", "--dry-run")[:2]
    assert code == 0
    assert "finished without --probe-steps: 1 cell; --rerun all runs them again" in text
    assert cli("run", *study, "--seeds", 2, "--probe-steps", "1,2")[0] == 0
    assert sorted((folder / "steps.csv").exists() for folder in cells(tmp_path).values()) == [False, True]
    assert not (before / "steps.csv").exists()
    assert "without --probe-steps" not in cli("run", *study, "--seeds", 2, "--dry-run")[1]

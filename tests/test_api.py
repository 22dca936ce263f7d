"""The same from Python as from the command line: run, load, and what they warn of."""

import os
import subprocess
import sys
import warnings

import pytest
from conftest import ROOT
from studies import make_study

import ablations
from ablations import api
from ablations.analysis.results import Results
from ablations.config import Interrupted, UsageError
from ablations.tuning import steps
from ufo.registry import UnknownNameError

QUICK = {"train_limit": 128, "warmup_epochs": 0}
FLAGS = ("--epochs", 1, "--set", "train_limit=128", "--set", "warmup_epochs=0")


@pytest.mark.slow
def test_run_means_the_same_as_the_command(cli, tmp_path, recwarn):
    results = ablations.run(norm=["xnorm", "l2"], seeds=2, epochs=1, fields=QUICK, out=tmp_path)
    assert isinstance(results, Results)
    assert not [one for one in recwarn if one.category is api.IncompleteStudyWarning]
    assert results.cells[["arm", "seed"]].to_numpy().tolist() == [["xnorm", 0], ["xnorm", 1], ["l2", 0], ["l2", 1]]
    assert set(results.curves["metric"]) >= {"loss", "accuracy_pct"}
    assert set(results.probes["probe"]) >= {"output_rms", "grad_norm"}
    assert results.summary()["n"].tolist() == [2, 2]
    assert (tmp_path / "norm-digits" / "report.html").is_file()
    _, out, _ = cli("run", "--norm", "xnorm,l2", "--seeds", 2, *FLAGS, "--out", tmp_path, "--dry-run")
    assert "4 cells: 4 done; 0 to run" in out


@pytest.mark.slow
def test_a_script_needs_no_guard(tmp_path):
    """Worker processes do not load the script that starts them."""
    arguments = f"norm='xnorm', seeds=2, epochs=1, fields={QUICK}, out={str(tmp_path)!r}"
    script = f"print('the script begins')\nimport ablations\nprint(len(ablations.run({arguments}).cells), 'cells')\n"
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, str(tmp_path / "script.py")]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("the script begins") == 1
    assert "2 cells" in ended.stdout


def test_what_there_is_can_be_seen():
    assert {"run", "load", "IncompleteStudyWarning"} <= set(dir(ablations))


@pytest.mark.parametrize(
    ("seeds", "expected"), [(2, [0, 1]), ([3], [3]), ([0, 5], [0, 5]), (range(2), [0, 1]), ("1-2,7", [1, 2, 7])]
)
def test_seeds_are_a_number_a_list_or_a_text(monkeypatch, tmp_path, seeds, expected):
    def stop(plan, *, watcher, wrap):
        raise UsageError(str(plan.study.axes["seed"]))

    monkeypatch.setattr(steps, "execute", stop)
    with pytest.raises(UsageError, match=str(expected).replace("[", r"\[")):
        ablations.run(norm="xnorm", seeds=seeds, epochs=1, fields=QUICK, out=tmp_path)


def test_what_the_command_refuses_run_refuses_in_one_line(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'xnorm'") as error:
        ablations.run(norm="xnrom", out=tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="lr"):
        ablations.run(norm="xnorm", lr=[-1], out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_is_a_keyboard_interrupt(monkeypatch, tmp_path):
    def interrupt(plan, *, watcher, wrap):
        raise Interrupted

    monkeypatch.setattr(steps, "execute", interrupt)
    with pytest.raises(KeyboardInterrupt, match="the same call resumes"):
        ablations.run(norm="xnorm", seeds=1, epochs=1, fields=QUICK, out=tmp_path)


def test_a_complete_study_loads_in_silence_and_an_incomplete_one_with_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # which may be of another test
        results = ablations.load(make_study(tmp_path, name="whole"), ref="l2")
    assert results.reference == "l2"
    with pytest.warns(ablations.IncompleteStudyWarning, match="cells without a readable result: 1 of 12") as caught:
        ablations.load(make_study(tmp_path, name="part", missing=[("l2", 0)]))
    assert caught[0].filename == __file__  # where it was called from


def test_loading_writes_nothing(tmp_path):
    folder = make_study(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    results = ablations.load(folder)
    results.plot.test_accuracy()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert len(results.paired()) == 8


def test_there_is_nothing_to_load(tmp_path):
    with pytest.raises(UsageError, match="no study in"):
        ablations.load(tmp_path)
    with pytest.raises(UsageError, match="at least one"):
        ablations.load()
    with pytest.raises(AttributeError, match="has no attribute 'walk'"):
        ablations.walk  # noqa: B018

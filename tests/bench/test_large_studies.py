"""The study that `bench scale` makes is one that a run has nothing to do for; its commands are measured."""

from __future__ import annotations

import json
import sys

import pytest
from studies import make_study

from ablations.api import read_results
from ablations.bench.processes import CommandFailed
from ablations.bench.scale import COMMANDS, Scale, _measure


@pytest.mark.slow
@pytest.mark.process
def test_a_made_study_is_whole_and_done(tmp_path, cli):
    scale = Scale(cells=24, conditions=2)
    study = scale.make(tmp_path)
    results = read_results([study])
    assert results.problems == ()
    assert len(results.cells) == len(scale.norms) * scale.num_seeds * 2 == 24
    assert results.cells["score_pct"].nunique() > 10
    code, out, _ = cli("run", *scale.arguments(tmp_path), "--dry-run")
    assert code == 0
    assert "24 cells: 24 done; 0 to run" in out


@pytest.mark.process
def test_every_command_is_measured(cli, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Scale, "make", lambda scale, out: make_study(out, name="scale", seeds=1))
    monkeypatch.setattr("ablations.bench.scale._measure", lambda command, log: asked.append(command) or (1.0, 2.0))
    code, out, _ = cli("bench", "scale", "--cells", 30, "--rounds", 1, "--json", "--csv", tmp_path / "scale.csv")
    assert code == 0
    rows = json.loads(out)
    assert [(row["cells"], row["command"]) for row in rows] == [(n, name) for n in (24, 30) for name in COMMANDS]
    assert ["--dry-run" in command for command in asked[:5]] == [False, True, False, False, False]
    assert (tmp_path / "scale.csv").read_text().count("\n") == len(rows) + 1


@pytest.mark.process
def test_a_commands_seconds_and_memory_are_those_of_all_its_processes(tmp_path):
    child = "import time; held = bytearray(b'x') * 2**26; time.sleep(1)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    seconds, mib = _measure([sys.executable, "-c", parent], log=tmp_path / "log.txt")
    assert seconds > 1
    assert mib > 64
    with pytest.raises(CommandFailed, match="exit code 3"):
        _measure([sys.executable, "-c", "raise SystemExit(3)"], log=tmp_path / "log.txt")

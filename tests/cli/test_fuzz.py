"""A study's folder is data: whatever is in it, reading it ends in lines, and neither leaves it nor runs it."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import run_here
from mutations import mutate
from studies import make_study, make_tuned

import ablations
from ablations.report import drawing
from ablations.store import write_json
from ablations.store.digests import with_digests
from ablations.store.leases import Holder

SHORT, FULL = 6, 500
"""Number of damaged studies; the full number takes half an hour to an hour on two cores."""

LIMIT_S = 60.0
"""Seconds after which a command counts as hanging; on an idle machine each takes less than 10, which is measured."""

COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("power",),
    ("report",),
)
"""Commands that read a study."""


CLAIMS = [{"kind": "greater_than", "arm": "xnorm", "than": "l2"}]
COSTS = "condition,arm,quantity,tokens,round,value\n" + "".join(
    f",{arm},step_s,{tokens},{number},{value}\n"
    for arm, value in (("xnorm", 0.5), ("l2", 0.4))
    for tokens in (64, 256)
    for number in (1, 2)
)


def make_whole(out: Path) -> list[Path]:
    """Make the studies that are damaged: classifiers with costs and a running cell, detectors, and a tuning."""
    made = {"norms": ["xnorm", "l2"], "stories": {("xnorm", 1): "nan"}, "claims": CLAIMS, "name": "made_up"}
    classifiers = make_study(out / "classify", seeds=2, **made)
    (classifiers / "cost.csv").write_text(COSTS)
    (cell,) = classifiers.glob("cells/l2-s1-*")
    running = classifiers / "cells" / ".partial" / f"{cell.name.rpartition('-')[2]}.1"
    shutil.copytree(cell, running)
    (running / "lease.json").write_text(json.dumps(asdict(replace(Holder.here(), host="another"))))
    os.utime(running / "lease.json", (time.time() + 10_000,) * 2)  # it beats
    detectors = make_study(out / "detect", seeds=2, task=["detect"], model=["ufo_vit_nano"], **made)
    studies = [classifiers, detectors, make_tuned(out / "tuned", trials=3, seeds=2, **made)]
    for path in (path for study in studies for path in study.rglob("outcome.json")):
        write_json(path, with_digests(json.loads(path.read_text()), path.parent))
    return studies


def commands(study: Path) -> list[tuple[str, ...]]:
    out = str(study.parent)
    cell = next(iter(sorted(path.name for path in (study / "cells").glob("l2-s1-*"))), "l2-s1")
    own = [(name, str(study), *options) for name, *options in COMMANDS]
    named = [("show", cell, "--out", out), ("diff", cell, "xnorm-s0", "--out", out), ("list", "studies", "--out", out)]
    return [*own, *named]


def seal(folder: Path) -> str:
    """Hash the names and contents of all files of a folder, and what its links point to."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        if path.is_symlink():
            digest.update(str(path.readlink()).encode())
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read_all(study: Path, pipe) -> None:
    """Run every command on a study; send what went wrong, and how long the slowest took."""
    os.chdir(study)
    drawing.DPI = 40  # reading is tested, and not the pixels
    before, wrong, slowest = set(sys.modules), [], (0.0, "")
    for command in commands(study):
        started = time.monotonic()
        try:
            code, out, err = run_here(*command)
        except BaseException:
            wrong.append(f"{command[0]}: {traceback.format_exc()}")
            continue
        slowest = max(slowest, (time.monotonic() - started, command[0]))
        if code not in (0, 1, 2, 3) or "Traceback" in out + err or (code == 2 and err.count("\n") != 1):
            wrong.append(f"{command[0]} exits with {code}: {err[-2_000:]}")
        if code == 1 and command[0] != "report":
            wrong.append(f"{command[0]} exits with 1")
        if "\x1b" in out + err:
            wrong.append(f"{command[0]} prints an escape sequence")
    try:
        ablations.load(study)
    except ablations.config.UsageError:
        pass
    except BaseException:
        wrong.append(f"load: {traceback.format_exc()}")
    files = [getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - before]
    wrong += [f"imports {file}" for file in files if file.startswith(str(study.parent))]
    pipe.send((wrong, slowest))


def read_damaged(seed: int, whole: Path, folder: Path) -> tuple[str, list[str], tuple[float, str]]:
    """Damage a copy of a study, and read it in a process of its own; return what was done and what went wrong."""
    rng = random.Random(seed)
    study, outside = folder / "runs" / "made_up", folder / "outside"
    shutil.copytree(whole, study)
    outside.mkdir()
    (outside / "file.json").write_text('{"secret": 1}')
    for name in ("yaml", "my_norms", "torch", "matplotlib"):
        (study / f"{name}.py").write_text(f"open({str(outside / 'run')!r}, 'w').close()")
    done = "; ".join(mutate(study, rng, outside) for _ in range(rng.choice([1, 1, 1, 3])))
    before = seal(outside)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=read_all, args=(study, theirs))
    process.start()
    try:
        limit = LIMIT_S * (len(COMMANDS) + 4)
        if not ours.poll(limit):
            return done, [f"no end after {limit:.0f} s"], (limit, "")
        try:
            wrong, slowest = ours.recv()
        except EOFError:
            process.join()
            return done, [f"the process ended with {process.exitcode}"], (0.0, "")
    finally:
        process.kill()
        process.join()
    if seal(outside) != before:
        wrong.append("wrote outside the study")
    return done, wrong, slowest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of threads at a fork
def test_a_damaged_study_is_read_in_lines(tmp_path, full, capsys):
    number = FULL if full else SHORT
    whole = make_whole(tmp_path / "whole")
    failures, slowest = [], (0.0, "")
    for seed in range(number):
        folder = tmp_path / str(seed)
        done, wrong, took = read_damaged(seed, whole[seed % len(whole)], folder)
        slowest = max(slowest, took)
        failures += [f"seed {seed}: {done}: {each}" for each in wrong]
        shutil.rmtree(folder)
    with capsys.disabled():
        if full:
            print(f"\n{number} damaged studies, {len(failures)} failures; slowest: {slowest[1]}, {slowest[0]:.1f} s")
    assert not failures, "\n\n".join(failures[:10])
    assert slowest[0] < LIMIT_S

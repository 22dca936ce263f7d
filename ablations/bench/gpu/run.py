"""Run the parts one after another within a time limit; what is measured so far is always in the output folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ablations.bench.gpu import archive
from ablations.bench.gpu.page import PAGE, write_page
from ablations.bench.gpu.parts import GpuBench, Part
from ablations.bench.processes import Ended, run_limited
from ablations.config import UsageError
from ablations.store.files import replacing, write_json
from ablations.store.provenance import describe

PARTS = "parts.json"
ARCHIVE = "study.tar.xz"

RERUN = ("failed", "stopped", "interrupted")
"""States of parts that another call runs again after all others: they may end in the same way."""


def run_bench(bench: GpuBench, *, on_line: Callable[[str], None]) -> bool:
    """Run the parts that are not finished; return whether all have passed.

    Args:
        bench: settings of the command.
        on_line: callback, called with a line when a part begins or ends.

    Raises:
        UsageError: the output folder cannot be written, or what an earlier call left there cannot be read.
    """
    deadline = time.monotonic() + bench.seconds
    try:
        for folder in (bench.out, bench.work):
            folder.mkdir(parents=True, exist_ok=True)
        archive.unpack(bench.out / ARCHIVE, bench.study)
    except OSError as error:
        raise UsageError(f"--out {bench.out}: {error}") from error
    results = {part.result for part in bench.parts()} - {""} | {PARTS, ARCHIVE, PAGE}
    for scratch in [file for name in results for file in bench.out.glob(f".{name}.*")]:  # of a call that was killed
        scratch.unlink()
    names = [part.name for part in bench.parts()]
    states = _read_states(bench.out)
    machine = describe_machine()
    for name in sorted(names, key=lambda name: states.get(name, {}).get("state") in RERUN):
        part = next(part for part in bench.parts() if part.name == name)  # the study's depends on the grid's results
        if bench.only and part.name not in bench.only:
            continue
        if _is_finished(part, states.get(part.name, {})):
            on_line(f"{part.name}: kept")
            continue
        left_s = deadline - time.monotonic() - bench.reserve_s - part.grace_s
        states[part.name] = _begin(part, left_s)
        _write(bench, machine, states)
        if states[part.name]["state"] == "running":
            on_line(f"{part.name}: at most {states[part.name]['limit_s']:.0f} s")
            try:
                states[part.name] |= _run(bench, part, states[part.name]["limit_s"])
            except BaseException:
                states[part.name]["state"] = "interrupted"
                raise
            finally:
                states[part.name] |= _collect(bench, part)
                _write(bench, machine, states)
        state = states[part.name]
        on_line(f"{part.name}: {state['state']}{': ' * bool(state['detail'])}{state['detail']}")
    return all(states.get(name, {}).get("state") == "ok" for name in names)


def describe_machine() -> dict[str, Any]:
    """Return what the measurements depend on: the GPU and its driver, versions, the revision."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        gpus = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        gpus = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"gpus": gpus, "usable_cores": cores, "cuda": torch.version.cuda, **describe()}


def _read_states(out: Path) -> dict[str, dict[str, Any]]:
    file = out / PARTS
    try:
        return json.loads(file.read_text())["parts"] if file.is_file() else {}
    except (ValueError, KeyError) as error:
        raise UsageError(f"{file} cannot be read: {error}; remove it, or give another --out") from error


def _is_finished(part: Part, state: dict[str, Any]) -> bool:
    """Whether a part needs no other call; one without results must have left what later parts read."""
    return state.get("state") == "ok" and (bool(part.result) or part.made.exists())


def _begin(part: Part, left_s: float) -> dict[str, Any]:
    """Return the state of a part that begins, or is skipped."""
    blank = {"seconds": 0.0, "limit_s": 0.0, "detail": "", "tail": []}
    if part.missing:
        return {**blank, "state": "skipped", "detail": part.missing}
    if left_s < part.least_s:
        detail = f"{max(0.0, left_s):.0f} s are left, it needs {part.least_s:.0f}"
        return {**blank, "state": "skipped", "detail": detail}
    return {**blank, "state": "running", "limit_s": round(min(part.limit_s, left_s), 1)}


def _run(bench: GpuBench, part: Part, limit_s: float) -> dict[str, Any]:
    """Run a part; return its state."""
    if not part.resumes and part.made.is_file():
        part.made.unlink()
    cache = {} if "ABLATIONS_CACHE" in os.environ else {"ABLATIONS_CACHE": str(bench.work / "cache")}
    log = bench.work / f"{part.name}.log"
    ended = run_limited(part.command, limit_s=limit_s, log=log, grace_s=part.grace_s, environment=cache)
    state, detail = _state_of(part, ended, limit_s)
    return {
        "state": state,
        "seconds": round(ended.seconds, 1),
        "detail": detail,
        "tail": [] if state == "ok" else ended.tail,
    }


def _state_of(part: Part, ended: Ended, limit_s: float) -> tuple[str, str]:
    if ended.code is None:
        detail = f"stopped after {limit_s:.0f} s"
        return ("unfinished", f"{detail}; another call resumes it") if part.resumes else ("stopped", detail)
    if ended.code:
        return "failed", f"exit code {ended.code}: {ended.tail[-1] if ended.tail else ''}"
    return "ok", "" if part.result else (ended.tail[-1] if ended.tail else "")


def _collect(bench: GpuBench, part: Part) -> dict[str, str]:
    """Put the results of a part into the output folder, beside those of the parts that share its file."""
    try:
        if part.result and part.made.is_file():
            _copy(part, bench.out / part.result)
        problem = archive.pack(bench.study, bench.out / ARCHIVE) if part.resumes else ""
    except (OSError, ValueError) as error:  # a full disk, or a file that its part was still writing
        return {"state": "failed", "detail": f"its results are not copied: {error}"}
    return {"detail": problem} if problem else {}


def _copy(part: Part, target: Path) -> None:
    """Copy the results of a part; rows of an earlier call are kept if it measured more."""
    if part.resumes or not part.result.endswith(".csv"):
        with replacing(target) as scratch:
            shutil.copy(part.made, scratch)
        return
    rows = pd.read_csv(part.made).assign(part=part.name)
    if target.is_file():
        before = pd.read_csv(target)
        is_own = before["part"] == part.name
        if is_own.sum() > len(rows):
            return
        rows = pd.concat([before[~is_own], rows])
    with replacing(target) as scratch:
        rows.to_csv(scratch, index=False)


def _write(bench: GpuBench, machine: dict[str, Any], states: dict[str, dict[str, Any]]) -> None:
    order = [part.name for part in bench.parts()]
    known = {name: states[name] for name in order if name in states}
    write_json(bench.out / PARTS, {"device": str(bench.device), "machine": machine, "parts": known})
    write_page(bench.out)

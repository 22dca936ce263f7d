"""What the tests share: a cache of their own, folders of small images, and the command line in this process."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import io
import json
import multiprocessing.forkserver
import multiprocessing.process
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from recorder import Recorder

from ablations.report import drawing

collect_ignore = [
    "arms.py",
    "studies.py",
    "mutations.py",
    "report_speed.py",
    "probe_cost.py",
]  # the first registers normalisers that misbehave
# Compiled code is shared by all tests, which keep the rest of the cache each for themselves.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / "ablations-tests-compiled"))
Cli = Callable[..., tuple[int, str, str]]


ROOT = Path(__file__).resolve().parent.parent
FILES_OF_NUMBERS = ("metrics.csv", "probes.csv", "correct.npy")
GRID_OF_24 = ("--norm", "xnorm,l2,single_l2", "--seeds", 8, "--epochs", 1)
TWO_LONG_CELLS = ("--norm", "xnorm,l2", "--seeds", 1, "--epochs", 16)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the proofs at full length")
    parser.addoption(
        "--cases", type=int, metavar="N", help="run at most N cases of a test, if it has no mark every_case"
    )
    parser.addoption("--python", metavar="FILE", help="interpreter of the environment for tests/installed")
    parser.addoption(
        "--dist-dir", metavar="DIR", help="wheel and sdist, of which tests/installed looks at what is in them"
    )
    parser.addoption("--device", choices=["cpu", "cuda"], help="device of tests/gpu; cpu: what has a small form")
    parser.addoption("--results", metavar="FILE", help="JSON file for the outcome of every test")
    parser.addoption("--coco", metavar="DIR", help="COCO, or a part of it, for the proofs that need photographs")


def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")  # of pytest-xdist, whose reports go to the main process
    if (file := config.getoption("--results")) and not is_worker:
        config.pluginmanager.register(Recorder(Path(file)))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests of an installed package unless its environment is named."""
    return True if collection_path.name == "installed" and not config.getoption("--python") else None


COLLECTED = pytest.StashKey[list[pytest.Item]]()
"""Every test that was found, before any is deselected."""

NOT_FAST = ("slow", "process")
"""Marks of the tests that ``make test-fast`` leaves out."""


def is_fast(item: pytest.Item) -> bool:
    return not any(item.get_closest_marker(mark) for mark in NOT_FAST)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "installed":  # these run the commands of a wheel
            item.add_marker("process")
        if item.path.parent.name == "gpu":
            item.add_marker("gpu")
    config.stash[COLLECTED] = list(items)
    if number := config.getoption("--cases"):
        chosen = spread(items, number)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]


def spread(items: list[pytest.Item], number: int) -> set[pytest.Item]:
    """Return at most ``number`` cases of each test, the first and the last among them, and all of those marked so."""
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        test = item.nodeid.partition("[")[0]
        tests.setdefault(item.nodeid if item.get_closest_marker("every_case") else test, []).append(item)
    return {
        cases[place]
        for cases in tests.values()
        for place in np.linspace(0, len(cases) - 1, min(number, len(cases))).round().astype(int)
    }


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let no fast test start a Python process, and no test that looks at no figure render the figures of reports."""
    with pytest.MonkeyPatch.context() as patch:
        if not is_rendered(item):
            patch.setattr(drawing, "_render", lambda figure, extension: BLANK[extension])
        if is_fast(item):
            patch.setattr(subprocess.Popen, "__init__", _without_python(subprocess.Popen.__init__))
            patch.setattr(multiprocessing.process.BaseProcess, "start", lambda _: pytest.fail(MARK_IT))
            patch.setattr(multiprocessing.forkserver, "ensure_running", lambda: None)  # its children would be refused
        return (yield)


def is_rendered(item: pytest.Item) -> bool:
    return item.get_closest_marker("rendered") is not None


def blank(extension: str) -> bytes:
    content = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(content, format=extension)
    return content.getvalue()


BLANK = {extension: blank(extension) for extension in drawing.FORMATS}
"""What is written for a figure that is not rendered: rendering took a quarter of the time of cli/test_cli.py."""

MARK_IT = "it starts a process, so it needs the mark process"


def _without_python(init: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor that allows other programs, such as git, and refuses Python."""

    def checked(self: object, args: Any, *others: Any, **named: Any) -> None:
        program = args if isinstance(args, (str, os.PathLike)) else args[0]
        if Path(str(program)).name.startswith(("python", "ablations")):
            pytest.fail(MARK_IT)
        init(self, args, *others, **named)

    return checked


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the proofs are to be run at full length."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of tests/gpu: a GPU if there is one; the CPU if it is asked for."""
    if request.config.getoption("--device") == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        if request.config.getoption("--device") == "cuda":
            pytest.fail("torch finds no CUDA device that works")
        pytest.skip("torch finds no CUDA device; --device cpu runs the tests that have a small form")
    return torch.device("cuda", 0)


@pytest.fixture(scope="session")
def cuda(device: torch.device) -> torch.device:
    """The GPU of tests that have no form on the CPU."""
    if device.type != "cuda":
        pytest.skip("needs CUDA")
    return device


def start(
    *arguments: object,
    out: Path,
    command: str = "run",
    cwd: Path = ROOT,
    new_group: bool = False,
    **environment: str,
) -> subprocess.Popen[str]:
    """Start ``run``, or another command, in a process of its own."""
    line = [sys.executable, "-m", "ablations", command, *map(str, arguments), "--out", str(out)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = os.environ | {"PYTHONPATH": path} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": new_group}
    return subprocess.Popen(line, cwd=cwd, env=env, text=True, **pipes)


def cells(out: Path, study: str = "norm-digits") -> dict[str, Path]:
    """Return the folders of a study's finished cells, by arm and seed."""
    folders = (out / study / "cells").glob("[!.]*")
    return {"-".join(path.name.split("-")[:-1]): path for path in folders}


def numbers(out: Path, study: str = "norm-digits") -> dict[str, bytes]:
    """Return everything that a study's cells have measured, by arm and seed."""
    return {
        name: b"".join((folder / file).read_bytes() for file in FILES_OF_NUMBERS)
        for name, folder in cells(out, study).items()
    }


def outcomes(out: Path, study: str = "norm-digits") -> dict[str, SimpleNamespace]:
    """Return the records of a study's finished cells, by arm and seed."""
    read = {name: json.loads((folder / "outcome.json").read_text()) for name, folder in cells(out, study).items()}
    return {name: SimpleNamespace(**outcome) for name, outcome in read.items()}


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that run cells: children of the fork server, which is the runner's child."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child.pid for child in children if child.parent().pid != process.pid]
    except psutil.Error:
        return []


def wait_for(condition: Callable[[], bool], *, within_s: float = 120) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep decoded data away from the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("ABLATIONS_CACHE", str(folder))
    return folder


def run_here(*arguments: object) -> tuple[int, str, str]:
    """Run ``python -m ablations`` in this process, whose fork server has loaded all: exit code, output, errors."""
    from ablations.cli import main

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["ablations", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as end:
            main()
    return int(end.value.code or 0), out.getvalue(), err.getvalue()


@pytest.fixture
def cli() -> Cli:
    """Run ``python -m ablations`` in this process: exit code, standard output, standard error."""
    return run_here


@pytest.fixture
def finished_study(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> Callable[..., Path]:
    """Return a function of the arguments of ``run`` that copies the finished study into ``tmp_path``.

    Equal arguments are run once for all tests, whichever process of pytest they are in.
    """
    assert not is_fast(request.node), MARK_IT
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def copy(*arguments: object) -> Path:
        line = " ".join(map(str, [*arguments, is_rendered(request.node)]))
        made = shared / f"study-{hashlib.sha256(line.encode()).hexdigest()[:16]}"
        with (shared / f"{made.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                begun = shared / f"{made.name}-{os.getpid()}.begun"
                code, _, err = run_here("run", *arguments, "--out", begun)
                assert code == 0, err
                begun.rename(made)
        return shutil.copytree(made, tmp_path, dirs_exist_ok=True)

    return copy


def write_images(
    folder: Path, parts: dict[str, int], *, classes: tuple[str, ...] = ("cat", "dog"), px: int = 16
) -> Path:
    """Write ``folder/<part>/<class>/<i>.png``, RGB noise whose brightness tells the class; return the folder."""
    rng = np.random.default_rng(0)
    for part, count in parts.items():
        for label, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 128, (px, px, 3)) + 120 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / name / f"{i:03d}.png")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of 16 px: 40 training and 10 test images each."""
    return write_images(tmp_path / "images", {"train": 40, "test": 10})


@pytest.fixture
def arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the normalisers of arms.py, that misbehave, for one test."""
    from ufo.norms import NORMS

    monkeypatch.setattr(NORMS, "_entries", dict(NORMS._entries))
    monkeypatch.delitem(sys.modules, "arms", raising=False)
    importlib.import_module("arms")
    monkeypatch.delitem(sys.modules, "arms")

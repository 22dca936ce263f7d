"""What the tests share: a cache of their own, folders of small images, and the command line in this process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

collect_ignore = ["arms.py"]  # its import registers normalisers that misbehave
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep decoded data away from the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("ABLATIONS_CACHE", str(folder))
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run ``python -m ablations`` in this process: exit code, standard output, standard error."""
    from ablations.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ablations", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


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

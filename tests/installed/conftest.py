"""The package as it was installed into an environment of its own, run from an empty folder that is no repository."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., str]


@pytest.fixture(scope="session")
def python(request: pytest.FixtureRequest) -> Path:
    """Return the interpreter of the environment."""
    given = request.config.getoption("--python")
    if given is None:
        raise pytest.UsageError(
            "tests/installed: give the interpreter of an environment as --python, or make test-installed"
        )
    return Path(given).absolute()


@pytest.fixture(scope="session")
def run(python: Path, cache: Path) -> Run:
    """Run the environment's interpreter and return what it writes, once its exit code is the expected one."""

    def run(*arguments: object, folder: Path, code: int = 0) -> str:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GIT_"))}
        done = subprocess.run(
            [python, *map(str, arguments)],
            cwd=folder,
            env=inherited | {"ABLATIONS_CACHE": str(cache), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, f"exit code {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def ablations(run: Run) -> Run:
    """Run ``python -m ablations`` of the environment."""

    def ablations(*arguments: object, folder: Path, code: int = 0) -> str:
        return run("-m", "ablations", *arguments, folder=folder, code=code)

    return ablations

"""The fast tests touch every room and every normaliser, and start no process."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections import Counter

import pytest
from conftest import COLLECTED, MARK_IT, ROOT, is_fast

from ufo.norms import NORMS

ROOMS = sorted(path.parent.name for path in (ROOT / "ablations").glob("*/__init__.py"))
FILES = {path for path in (ROOT / "tests").rglob("test_*.py") if path.parent.name != "installed"}
OURS = [spec.name for spec in NORMS.values() if spec.cls.__module__.startswith("ufo.")]


@pytest.fixture(scope="module")
def fast(request: pytest.FixtureRequest) -> list[pytest.Item]:
    """All fast tests; a run of some files does not know them."""
    collected = request.config.stash[COLLECTED]
    if not {item.path for item in collected} >= FILES:
        pytest.skip("only a run of all tests finds the fast tests of all rooms")
    return [item for item in collected if is_fast(item)]


def test_every_room_has_a_folder_of_tests():
    assert {path.parent.name for path in FILES} == {*ROOMS, "gpu", "library", "tests"}


def test_every_room_has_fast_tests(fast):
    count = Counter(item.path.parent.name for item in fast)
    assert [room for room in (*ROOMS, "library") if count[room] < 5] == []


@pytest.mark.parametrize("folder", ["library", "training"])
def test_every_normaliser_has_fast_tests_of_its_formula_and_of_its_training(fast, folder):
    own = (item for item in fast if item.path.parent.name == folder and hasattr(item, "callspec"))
    given = {value for item in own for value in item.callspec.params.values() if isinstance(value, str)}
    assert [norm for norm in OURS if not {norm, f"norm {norm}"} & given] == []


def test_a_fast_test_that_starts_a_process_fails():
    with pytest.raises(pytest.fail.Exception, match=MARK_IT):
        subprocess.run([sys.executable, "-c", ""], check=True)
    with pytest.raises(pytest.fail.Exception, match=MARK_IT):
        multiprocessing.Process(target=print).start()
    subprocess.run(["git", "--version"], check=True, capture_output=True)


@pytest.mark.process
def test_a_test_that_is_marked_may_start_processes():
    subprocess.run([sys.executable, "-c", ""], check=True)

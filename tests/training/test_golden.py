"""The numerics have a version: golden values change with it, and it with them."""

from __future__ import annotations

import copy
import json
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from golden import CASES, FILE, OUR_NORMS, changes, faults, infos, measure

from ablations.config import recipes
from ablations.config.numerics import NUMERICS
from ablations.data import DataInfo

GOLDEN = json.loads(FILE.read_text())
ALL = [(task, case) for task, cases in CASES.items() for case in cases]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, DataInfo]:
    return infos(tmp_path_factory.mktemp("golden"))


@pytest.mark.every_case
@pytest.mark.parametrize(("task", "case"), ALL, ids=[" ".join(pair) for pair in ALL])
def test_the_first_three_steps_are_golden(known, task, case):
    data, *rest = CASES[task][case]
    assert not changes(GOLDEN[task]["values"][case], measure(known[data], task, *rest))


def test_every_normaliser_and_every_recipe_has_a_golden_value():
    for task, names in recipes.FOR_TASK.items():
        assert {f"recipe {name}" for name in names} <= set(GOLDEN[task]["values"])
    assert {f"norm {norm}" for norm in OUR_NORMS} <= set(GOLDEN["classify"]["values"])
    for task, cases in CASES.items():
        assert set(GOLDEN[task]["values"]) == set(cases)


def test_the_versions_are_those_of_the_golden_values():
    assert {task: GOLDEN[task]["version"] for task in NUMERICS} == NUMERICS


def test_a_value_that_changed_in_the_project_s_history_came_with_a_higher_version():
    def git(*arguments: str) -> str:
        command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments]  # whoever owns the checkout
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    if not (ROOT / ".git").exists():  # an archive of the sources has no history that could tell
        return
    anywhere = f"*/{FILE.name}"  # the folder of the file has changed
    contents = []  # first parents only, since branches that add cases side by side do not have each other's
    for revision in git("log", "--first-parent", "--reverse", "--format=%H", "--", anywhere).split():
        (path,) = (name for name in git("ls-tree", "-r", "--name-only", revision).split("\n") if FILE.name in name)
        contents.append(json.loads(git("show", f"{revision}:{path}")))
    for older, newer in pairwise([*contents, GOLDEN]):
        assert not list(faults(older, newer))


def changed(**more: Any) -> dict[str, Any]:
    """The file with another first loss, draw, or version of the classifiers."""
    content = copy.deepcopy(GOLDEN)
    values = content["classify"]["values"]
    if "loss" in more:
        values["mixing"]["losses"]["steps"][0] *= more["loss"]
    if "drawn" in more:
        values["mixing"]["drawn"]["epoch"] = more["drawn"]
    if "without" in more:
        del values[more["without"]]
    if "case" in more:
        values[more["case"]] = values["mixing"]
    content["classify"]["version"] += more.get("raised", 0)
    return content


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({}, ""),
        ({"loss": 1 + 1e-6}, ""),  # another processor
        ({"loss": 1 + 1e-4}, "classify: the values of mixing changed; raise its version by one"),
        ({"loss": 1 + 1e-4, "raised": 1}, ""),
        ({"loss": 1 + 1e-4, "raised": 2}, "classify: the values of mixing changed; raise its version by one"),
        ({"drawn": "another"}, "classify: the values of mixing changed; raise its version by one"),
        ({"drawn": "another", "raised": 1}, ""),
        ({"without": "mixing"}, "classify: the values of mixing changed; raise its version by one"),
        ({"case": "a new one"}, ""),
        ({"raised": 1}, "classify: its version was raised, and no value changed"),
        ({"case": "a new one", "raised": 1}, "classify: its version was raised, and no value changed"),
    ],
)
def test_a_value_and_its_version_change_together(more, fault):
    assert list(faults(GOLDEN, changed(**more))) == [fault] * bool(fault)

"""Paths in a circle and folders without permission: a command says so in one line, and reports the rest."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from studies import make_study

import ablations
from ablations.api import make_report, read_results
from ablations.cli.bench import checked_file
from ablations.config import UsageError
from ablations.planning.initial import find_weights
from ablations.store import Store, study_folders
from ablations.store.cleaning import find_leftovers
from ablations.store.digests import check_weights
from ablations.store.leases import LEASE, Leases

ROOT = Path(ablations.__file__).parent

LOOP = "Too many levels of symbolic links"
DENIED = "Permission denied"

CAPABILITIES = 0x20080522
"""Version 3 of the call's structures, which have 64 bits in two halves."""

OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root reads everything."""


@pytest.fixture
def denied() -> Iterator[list[Path]]:
    """Take from root what other users lack; yield a list of paths, which are given back at the end."""
    if sys.platform != "linux":
        pytest.skip("permissions are taken away by a call of Linux")
    libc = ctypes.CDLL(None, use_errno=True)
    head, data = (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, data) == 0
    before, paths = data[0], []
    data[0] = before & ~OVERRIDES
    assert libc.capset(head, data) == 0
    yield paths
    data[0] = before
    assert libc.capset(head, data) == 0
    for path in paths:
        path.chmod(0o700)


def deny(path: Path, denied: list[Path]) -> None:
    denied.append(path)
    path.chmod(0)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path / "runs", norms=["xnorm", "l2"], seeds=2)


def test_links_are_followed_by_a_call_that_raises_on_no_circle():
    lines = [line.strip() for path in sorted(ROOT.rglob("*.py")) for line in path.read_text().splitlines()]
    assert [line for line in lines if ".resolve()" in line and "__file__" not in line] == []


@pytest.mark.parametrize(
    "command",
    [
        ("report", "{loop}"),
        ("report", "{study}", "{loop}", "--to", "{out}/to"),
        ("report", "{study}", "--to", "{loop}"),
        ("show", "{loop}", "--out", "{out}"),
        ("diff", "{loop}", "l2-s1", "--out", "{out}"),
        ("status", "{loop}"),
        ("clean", "{loop}"),
        ("list", "studies", "--out", "{loop}"),
    ],
    ids=lambda command: " ".join(command),
)
def test_a_path_in_a_circle_is_one_line(study, cli, command):
    loop = study.parent / "loop"
    loop.symlink_to("loop")
    code, _, err = cli(*(part.format(loop=loop, study=study, out=study.parent) for part in command))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: ")
    assert str(loop) in err


def test_a_circle_in_one_study_or_cell_leaves_the_others(study, tmp_path, cli, caplog):
    other = make_study(tmp_path / "runs", name="other", norms=["sima"], seeds=1)
    (other / "cells" / "around").symlink_to("around")
    (said,) = read_results([other]).problems
    assert said.startswith("around is not a readable cell: ")
    (tmp_path / "runs" / "third").mkdir()
    (tmp_path / "runs" / "third" / "study.yaml").write_bytes((other / "study.yaml").read_bytes())
    (tmp_path / "runs" / "third" / "cells").symlink_to("cells")
    assert cli("show", "l2-s1", "--out", study.parent)[0] == 0
    assert find_leftovers(Store(study), cached=lambda _: [study]) == []
    run = ("run", "--experiment", "norm_digits", "--smoke", "--dry-run", "--out", study.parent)
    assert cli(*run)[::2] == (0, "")
    cells = tmp_path / "runs" / "third" / "cells"
    for doubt in (
        f"{cells} cannot be read: {LOOP}; its cells are not searched",
        f"{cells} cannot be read: {LOOP}; its cells may be running: decoded data are kept",
        f"{cells}: {LOOP}; whether it has results of these cells is not known",
    ):
        assert doubt in caplog.text


@pytest.mark.parametrize("command", ["status", "report", "power", "clean", "retry"])
def test_a_study_without_permission_is_one_line(study, cli, denied, command):
    deny(study, denied)
    code, _, err = cli(command, study)
    assert (code, err) == (2, f"error: {study}/study.yaml cannot be read: {DENIED}\n")


@pytest.mark.parametrize("command", ["status", "clean", "retry"])
def test_cells_that_can_be_listed_and_not_read_are_one_line(study, cli, denied, command):
    deny(study / "cells", denied)
    (study / "cells").chmod(0o600)
    code, _, err = cli(command, study)
    assert (code, err) == (2, f"error: {study}/cells/.partial cannot be read: {DENIED}\n")


def test_a_study_without_permission_is_listed_and_the_others_searched(study, tmp_path, cli, denied, caplog):
    other = make_study(tmp_path / "runs", name="other", norms=["sima"], seeds=1)
    deny(study, denied)
    assert study_folders(study.parent) == [study, other]
    code, out, _ = cli("list", "studies", "--out", study.parent, "--json")
    assert code == 0
    assert [row["arms"] for row in json.loads(out)] == [f"{study}/study.yaml cannot be read: {DENIED}", "norm: sima"]
    assert cli("show", "sima-s0", "--out", study.parent)[0] == 0
    find_leftovers(Store(other), cached=lambda _: [])
    for doubt in ("its cells are not searched", "its cells may be running: decoded data are kept"):
        assert f"{study}/cells cannot be read: {DENIED}; {doubt}" in caplog.text
    deny(study.parent, denied)
    for command in (("list", "studies"), ("show", "sima-s0")):
        code, _, err = cli(*command, "--out", study.parent)
        assert (code, err) == (2, f"error: {study.parent} cannot be read: {DENIED}\n")
    study.parent.chmod(0o700)


def test_a_folder_beside_that_cannot_be_listed_stops_nothing(study, cli, denied, caplog):
    deny(study.parent, denied)
    study.parent.chmod(0o311)
    assert find_leftovers(Store(study), cached=lambda _: [study]) == []
    assert f"{study.parent} cannot be read: {DENIED}; its studies may be running: decoded data are kept" in caplog.text
    run = ("run", "--experiment", "norm_digits", "--smoke", "--dry-run", "--out", study.parent)
    assert cli(*run)[::2] == (0, "")
    assert f"{study.parent} cannot be read: {DENIED}; whether its studies have results" in caplog.text


@pytest.mark.process
def test_a_cell_without_permission_costs_itself_alone(study, cli, denied):
    (cell,) = study.glob("cells/l2-s1-*")
    deny(cell, denied)
    reason = f"{cell.name} is not a readable cell: outcome.json: {DENIED}"
    (said,) = make_report([study], full=False).results.problems
    assert said.startswith(reason)
    for name, expected in ((cell, f"{cell}/outcome.json cannot be read: {DENIED}"), ("l2-s1", reason)):
        code, _, err = cli("show", name, "--out", study.parent)
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith(f"error: {expected}")
    with pytest.raises(UsageError, match=DENIED):
        Store(study).find(cell.name)


def test_a_running_cell_without_permission_is_left(study, denied, caplog):
    lease = Leases(study / "cells" / ".partial").claim("0123456789")
    os.utime(lease.folder / LEASE, (0, 0))
    deny(lease.folder, denied)
    assert find_leftovers(Store(study), cached=lambda _: [study]) == []
    assert f"{lease.folder} cannot be read: {DENIED}; its holder may be running" in caplog.text


def test_files_that_options_name_without_permission_are_one_line(tmp_path, denied):
    folder = tmp_path / "secret"
    folder.mkdir()
    deny(folder, denied)
    with pytest.raises(UsageError, match=rf"weights\.safetensors cannot be read: {DENIED}"):
        find_weights([folder], norms=["xnorm"])
    with pytest.raises(UsageError, match=rf"rows\.csv cannot be read: {DENIED}"):
        checked_file("--csv", folder / "rows.csv")


def test_weights_without_permission_are_one_line(study, denied):
    (cell,) = study.glob("cells/l2-s1-*")
    (cell / "weights.safetensors").write_bytes(b"12345678")
    outcome = json.loads((cell / "outcome.json").read_text())
    digests = {"weights.safetensors": "0" * 64}
    (cell / "outcome.json").write_text(json.dumps(outcome | {"digests": digests}))
    deny(cell / "weights.safetensors", denied)
    with pytest.raises(UsageError, match=rf"weights\.safetensors cannot be read: {DENIED}"):
        check_weights(cell, "weights.safetensors")


def test_a_report_to_a_folder_without_permission_is_one_line(study, tmp_path, cli, denied):
    (tmp_path / "to").mkdir()
    deny(tmp_path / "to", denied)
    code, _, err = cli("report", study, "--to", tmp_path / "to")
    assert (code, err.count("\n")) == (2, 1)
    assert DENIED in err

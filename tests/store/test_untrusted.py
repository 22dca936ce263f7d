"""A folder from elsewhere: what is no regular file, too large, linked to elsewhere or changed is said by name."""

from __future__ import annotations

import bz2
import contextlib
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mutations import BOMB
from published import ALL_OK, OUTCOME, fake, publish
from studies import make_study, make_tuned

import ablations
from ablations.api import make_report, read_results
from ablations.config import UsageError
from ablations.config.norm_record import NormRecord
from ablations.config.task import MASK_AP, average_precisions
from ablations.config.yaml_file import dump_yaml
from ablations.data.location import cached
from ablations.planning.initial import find_weights
from ablations.planning.stored import read_stored
from ablations.report.again import command as shell_command
from ablations.store import Store
from ablations.store.digests import check_weights
from ablations.store.examples import _runs_of
from ablations.store.frames import arm_columns, read_frames
from ablations.store.outcome import Outcome
from ablations.store.reading import NotRead, parse_json, read_bytes, read_flags, read_lines
from ablations.store.tidy_csv import guard
from ablations.tuning.mirror import JOURNAL, OptunaStudies

ROOT = Path(ablations.__file__).parent.parent
READING = (("status", "{study}"), ("report", "{study}"), ("power", "{study}"), ("show", "l2-s1", "--out", "{out}"))
READING += (("diff", "l2-s1", "xnorm-s0", "--out", "{out}"), ("list", "studies", "--out", "{out}"))


def replace_by(path: Path, kind: str, outside: Path) -> None:
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "hole":
        with path.open("wb") as file:
            file.truncate(2**40)
    else:
        path.symlink_to(outside)


REASONS = {
    "pipe": "it is a named pipe, not a file",
    "device": "it is a symbolic link",
    "folder": "it is a folder, not a file",
    "hole": "it is larger than 256 MiB",
    "link": "it is a symbolic link",
}


@pytest.mark.parametrize("kind", REASONS)
def test_only_regular_files_of_bounded_size_are_read(tmp_path, kind):
    path, outside = tmp_path / "metrics.csv", tmp_path / "outside"
    for each in (path, outside):
        each.write_text("epoch\n1\n")
    assert read_bytes(path) == b"epoch\n1\n"
    replace_by(path, kind, outside)
    with pytest.raises(NotRead, match=REASONS[kind]):
        read_bytes(path)
    (line,) = read_lines(path) if kind != "hole" else ["metrics.csv cannot be read"]
    assert "metrics.csv cannot be read" in line


@pytest.mark.parametrize("kind", REASONS)
@pytest.mark.parametrize("name", ["metrics.csv", "probes.csv", "correct.npy", "log.txt", "config.json", "outcome.json"])
def test_what_is_no_file_is_said_and_the_rest_read(tmp_path, kind, name):
    store, _ = fake(tmp_path, ALL_OK)
    (folder,) = store.cells.glob("l2-s1-*")
    (tmp_path / "outside").write_bytes((folder / name).read_bytes())
    replace_by(folder / name, kind, tmp_path / "outside")
    frames = read_frames(store, numerics=None)
    (said,) = frames.problems
    assert said.startswith(folder.name)
    limit = REASONS[kind].replace("256", "4") if name.endswith(".json") else REASONS[kind]
    assert f"{name}" in said
    assert limit in said or "is missing" in said
    assert len(frames.cells) == (3 if name.endswith(".json") else 4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"1" + b"0" * 400, "it has an integer of 401 digits"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"\xff", "'utf-8' codec can't decode"),
        (b"{", "Expecting property name"),
    ],
)
def test_json_is_bounded(content, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(content)


@pytest.mark.parametrize(
    "read",
    [
        lambda: parse_json(b'"' + b'\\"' * 100_000 + b"[" * 201),
        lambda: parse_json(b'"' + b"\\\n" * 100_000 + b"[" * 201),
        lambda: float(guard("-" + "1" * 40_000 + "x") == ""),
    ],
)
def test_patterns_take_no_longer_than_the_text_is_long(read):
    begun = time.process_time()
    with contextlib.suppress(ValueError):
        read()
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": "x" * 201}, "device='xxxxxxxxxxxx...xxxxxxxxxxxxx': must have at most 200 characters"),
        ({"versions": {f"p{k}": "1" for k in range(101)}}, "versions="),
        ({"versions": {"torch": "1" * 201}}, "versions.torch="),
        ({"machine": {"processor": "x" * 201}}, "machine.processor="),
        ({"git": {"revision": "x" * 201, "dirty": False}}, "git.revision="),
        ({"digests": {f"f{k}": "0" for k in range(10_001)}}, "digests="),
        ({"stacked_seeds": [0] * 1_001}, "stacked_seeds="),
    ],
)
def test_texts_and_counts_of_a_record_are_bounded(tmp_path, change, reason):
    store, _ = fake(tmp_path, ALL_OK)
    path = next(store.cells.glob("l2-s1-*")) / "outcome.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (said,) = read_frames(store, numerics=None).problems
    assert reason in said
    assert len(said) < 400


def test_a_long_detail_is_shown_in_part(tmp_path, cli, monkeypatch):
    monkeypatch.setattr("ablations.report.drawing.MOST_PROCESSES", 1)
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=1, stories={("l2", 0): "error"})
    path = next(study.glob("cells/l2-s0-*/outcome.json"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"detail": "begin" + "d" * 10**6 + "end", "traceback": ["t" * 10**6]}))
    names = [folder.parent.name for folder in sorted(study.glob("cells/*/outcome.json"))]
    for command in (("show", names[0], "--out", tmp_path), ("diff", *names, "--out", tmp_path), ("report", study)):
        out = cli(*command)[1]
        assert len(out) < 50_000
        if command[0] != "report":
            assert "[998,036 characters]" in " ".join(out.split())
    (detail,) = read_results([study]).cells.query("arm == 'l2'")["detail"]
    assert (detail[:6], detail[-4:]) == ("begind", "dend")
    assert "[998,036 characters]" in (study / "report.html").read_text()


def test_long_digits_in_a_text_or_a_fraction_are_no_integer():
    assert parse_json(b'["' + b"1" * 64 + b'", 0.' + b"3" * 40 + b", -18446744073709551615]") == [
        "1" * 64,
        float("0." + "3" * 40),
        -18446744073709551615,
    ]


@pytest.mark.parametrize(
    ("shape", "values", "reason"),
    [
        ("(999999999999999,)", b"\x01" * 10, "its header says 999999999999999 values, and it has 10"),
        ("(3,)", b"\x01\x02\x00", "neither true nor false: 1"),
        ("(2, 2)", b"\x01" * 4, "not truth values in one dimension"),
        ("(", b"", "its header cannot be parsed"),
    ],
)
def test_an_array_is_no_larger_than_its_file(tmp_path, shape, values, reason):
    header = f"{{'descr': '|b1', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    (tmp_path / "correct.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + values)
    with pytest.raises(ValueError, match=reason):
        read_flags(tmp_path / "correct.npy")


def test_an_array_is_read_as_numpy_reads_it(tmp_path):
    for values in (np.zeros(0, bool), np.arange(7) % 2 > 0):
        np.save(tmp_path / "correct.npy", values)
        np.testing.assert_array_equal(read_flags(tmp_path / "correct.npy"), values)


def test_nested_aliases_and_long_axes_are_refused_at_once(tmp_path):
    store, _ = fake(tmp_path, {})
    path = store.folder / "study.yaml"
    whole = path.read_text()
    path.write_text(whole.replace("fixed:", f"bomb:\n{BOMB}fixed:", 1))
    with pytest.raises(UsageError, match=r"study\.yaml cannot be read: it has more than 250,000 values"):
        store.read_study()


@pytest.mark.process
def test_a_kind_of_a_later_version_costs_its_cell_alone(tmp_path):
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=2)
    (path,) = study.glob("cells/l2-s1-*/outcome.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"outcome": "diverged", "kind": "melted"}))
    report = make_report([study], full=True)
    (said,) = report.results.problems
    assert "outcome.json: kind=melted: must be" in said
    assert len(report.results.cells) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"machine": {"processor": ["a"]}},
        {"machine": {"processor": {}}},
        {"machine": {"processor": 1}},
        {"num_parameters": 10**20 - 1},
        {"num_parameters": 2**63},
        {"epochs_run": 2**63},
        {"stacked_seeds": [2**63]},
        {"resumed_after_epochs": [-1]},
        {"seconds": math.inf},
        {"seconds": math.nan},
        {"attempts": [{"seconds": math.inf}]},
        {"peak_memory_mib": math.inf},
        {"git": {"revision": ["a"], "dirty": False}},
        {"test_box_ap50_pct": "50"},
        {"test_box_ap_small_pct": [50.0]},
        {"val_mask_ap75_pct": 101.0},
    ],
)
def test_a_field_that_no_run_writes_so_costs_its_cell_alone(tmp_path, change):
    store, _ = fake(tmp_path, ALL_OK)
    (path,) = store.cells.glob("l2-s1-*/outcome.json")
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    frames = read_frames(store, numerics=None)
    (said,) = frames.problems
    assert said.startswith(f"{path.parent.name} is not a readable cell: outcome.json: {next(iter(change))}")
    assert len(frames.cells) == 3


def test_what_runs_write_of_a_divergence_is_read(tmp_path):
    store, _ = fake(tmp_path, ALL_OK)
    (path,) = store.cells.glob("l2-s1-*/outcome.json")
    diverged = {"outcome": "diverged", "kind": "nan", "val_loss": math.nan, "test_loss": math.inf}
    path.write_text(json.dumps(json.loads(path.read_bytes()) | diverged | {"digests": {}}))
    assert len(read_frames(store, numerics=None).cells) == 4


def test_every_figure_of_a_detector_is_in_the_schema():
    figures = {f"{split}_{figure}" for split in ("test", "val") for figure in average_precisions(MASK_AP)}
    assert figures <= set(Outcome.model_fields)


def outside_of(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    return outside


@pytest.mark.parametrize("name", ["figures", "tables", "report.html", "results.csv", "checklist.md", "tables/main.tex"])
def test_a_report_writes_nothing_outside_the_folder(tmp_path, cli, name):
    study, outside = make_study(tmp_path / "runs", norms=["xnorm", "l2"], seeds=2), outside_of(tmp_path)
    is_folder = name in ("figures", "tables")
    (study / name).parent.mkdir(exist_ok=True)
    (study / name).symlink_to(outside if is_folder else outside / "precious")
    code, _, err = cli("report", study)
    assert code == 2
    assert f"{study / name} leads outside {study}" in err
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "mine"


@pytest.mark.parametrize("name", ["tables", "figures"])
def test_a_report_writes_into_no_other_folder_of_the_study(tmp_path, cli, name):
    study = make_study(tmp_path / "runs", norms=["xnorm", "l2"], seeds=2)
    (cell,) = study.glob("cells/l2-s1-*")
    (study / name).symlink_to(cell)
    before = sorted(cell.iterdir())
    code, _, err = cli("report", study)
    assert code == 2
    assert f"{study / name} is a symbolic link" in err
    assert sorted(cell.iterdir()) == before


@pytest.mark.parametrize("name", ["cells", "cells/.partial", "cells/l2-s1", "tuning"])
def test_nothing_is_read_through_a_link_out_of_the_folder(tmp_path, cli, name):
    study, outside = make_study(tmp_path / "runs", norms=["xnorm", "l2"], seeds=2), outside_of(tmp_path)
    path = next(study.glob(f"{name}-*"), study / name)
    if path.exists():
        shutil.move(path, outside / "moved")
    else:
        shutil.copytree(study, outside / "moved")
    path.symlink_to(outside / "moved")
    if name == "cells/l2-s1":
        (said,) = read_results([study]).problems
        assert "leads outside" in said
    else:
        store = Store(path if name == "tuning" else study)
        with pytest.raises(UsageError, match="leads outside"):
            store.read_study() if name == "tuning" else store.check_layout()


WRITTEN = ["tuning", "cells/.partial/study.1", "cells/.partial/CELL.1", "cells/.partial/CELL.1/a"]


@pytest.mark.parametrize("command", ["run", "retry", "clean"])
@pytest.mark.parametrize("name", WRITTEN)
def test_nothing_is_written_or_removed_through_a_link_out_of_the_folder(tmp_path, cli, name, command):
    store, cells = fake(tmp_path, ALL_OK)
    outside = outside_of(tmp_path)
    path = store.folder / name.replace("CELL", cells[0].id)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.symlink_to(outside)
    if command == "run":
        with pytest.raises(UsageError, match="leads outside"):
            store.write_study(store.read_study())
    else:
        code, _, err = cli(command, store.folder, *["--yes"] * (command == "clean"))
        assert (code, err.count("\n")) == (2, 1), err
        assert "leads outside" in err
    assert (outside / "precious").read_text() == "mine"
    assert len(list(outside.iterdir())) == 1


@pytest.mark.parametrize("name", ["logs", "logs/l2-s1", "logs/l2-s1/wandb"])
def test_no_logger_writes_through_a_link_out_of_the_folder(tmp_path, cli, name):
    store, _ = fake(tmp_path, ALL_OK)
    path = store.folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.symlink_to(outside_of(tmp_path))
    run = ("run", "--study", store.folder.name, "--out", tmp_path, "--norm", "xnorm,l2", "--smoke", "--dry-run")
    assert cli(*run)[0] == 0
    shutil.copytree(store.folder, tmp_path / "fake-smoke", symlinks=True)
    code, _, err = cli(*run, "--log", "tensorboard")
    assert (code, err.count("\n")) == (2, 1)
    assert "leads outside" in err


def test_a_finished_cell_elsewhere_is_not_tidied(tmp_path):
    store, _ = fake(tmp_path, ALL_OK)
    (folder,) = store.cells.glob("l2-s1-*")
    (folder / "lease.json").write_text("{}")
    (folder / "checkpoint.ckpt").write_text("mine")
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(UsageError, match="leads outside"):
        store.repair()
    assert (tmp_path / "moved" / "checkpoint.ckpt").read_text() == "mine"


def test_an_attempt_keeps_files_of_its_own_alone(tmp_path):
    store, cells = fake(tmp_path, {})
    (precious := store.cells / "precious").write_text("mine")
    attempt = store.leases.partials / f"{cells[0].id}.1"
    (attempt / "folder" / "inner").mkdir(parents=True)
    (attempt / "checkpoint.ckpt").write_text("weights")
    (attempt / "log.txt").symlink_to(precious)
    lease = store.leases.claim(cells[0].id)
    assert lease is not None
    assert sorted(path.name for path in lease.folder.iterdir()) == ["checkpoint.ckpt", "lease.json"]
    assert precious.read_text() == "mine"


def test_a_journal_elsewhere_is_not_written(tmp_path):
    study = make_tuned(tmp_path / "runs", trials=2, seeds=2, norms=["xnorm", "l2"])
    store, outside = Store(study / "tuning"), outside_of(tmp_path)
    (store.folder / JOURNAL).symlink_to(outside / "precious")
    studies = OptunaStudies(store.read_study(), [], store=store, url=None)
    with pytest.raises(UsageError, match="leads outside"):
        studies.sync()
    assert (outside / "precious").read_text() == "mine"


@pytest.mark.parametrize("fingerprint", ["*", "*/../../precious", "f*", "[f]"])
def test_a_fingerprint_is_no_pattern(tmp_path, monkeypatch, fingerprint):
    cache = tmp_path / "cache"
    own, other = cache / "imagefolder-f-v2", cache / "x-v2"
    for folder in (own, other, tmp_path / "precious-v1"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("ABLATIONS_CACHE", str(cache))
    assert cached("f") == [own]
    assert cached(fingerprint) == []


def test_no_text_of_a_study_is_a_command(tmp_path):
    study = make_study(tmp_path / "runs", norms=["xnorm", "l2"], seeds=2)
    evil = "quick; touch owned #\n"
    file = study / "study.yaml"
    stored = Store(study).read_study().model_copy(update={"recipe": evil, "plugins": (evil,)})
    file.write_text(dump_yaml(stored.model_dump(mode="json")))
    (line,) = [
        part for part in shlex.split(shell_command(Store(study).read_study(), study)) if part.startswith("quick")
    ][:1]
    assert line == evil.replace("\n", "\\n")
    assert "touch" not in shlex.split(shell_command(Store(study).read_study(), study))


def test_bits_that_changed_are_told_by_the_file(tmp_path):
    store, _ = fake(tmp_path, ALL_OK)
    assert read_frames(store, numerics=None).problems == ()
    record = next(iter(store.records().values()))
    assert set(record.outcome["digests"]) == {path.name for path in record.folder.iterdir()}
    for name, old, new in (
        ("outcome.json", '"seconds": 1.0', '"seconds": 2.0'),
        ("metrics.csv", "1.9,30.0", "1.9,31.0"),
        ("config.json", "{", "{ "),
        ("timing.csv", "", "x"),
    ):
        path = record.folder / name
        whole = path.read_text()
        path.write_text(whole.replace(old, new, 1))
        (said,) = read_frames(store, numerics=None).problems
        assert said == (
            f"{record.folder.name}: {name} is not what the run wrote: its SHA-256 is another than in the record"
        )
        path.write_text(whole)
    assert read_frames(store, numerics=None).problems == ()


def test_weights_are_compared_when_they_are_loaded(tmp_path):
    store, cells = fake(tmp_path, {})
    lease = store.leases.claim(cells[0].id)
    (lease.folder / "weights.safetensors").write_bytes(b"12345678")
    outcome = OUTCOME | {"test_accuracy_pct": 90.0}
    folder = store.publish(lease, cells[0], outcome, name=f"xnorm-s0-{cells[0].id}", replaces=None).folder
    check_weights(folder, "weights.safetensors")
    (folder / "weights.safetensors").write_bytes(b"12345679")
    assert not any("weights" in said for said in read_frames(store, numerics=None).problems)
    with pytest.raises(UsageError, match=r"weights\.safetensors is not what the run wrote"):
        check_weights(folder, "weights.safetensors")
    with pytest.raises(UsageError, match="is not what the run wrote"):
        find_weights([folder], norms=["xnorm"])
    (folder / "outcome.json").unlink()  # a copy of the weights alone
    check_weights(folder, "weights.safetensors")


def test_an_attempt_that_is_added_keeps_the_digests_right(tmp_path):
    store, _ = fake(tmp_path, ALL_OK)
    record = next(iter(store.records().values()))
    store.add_attempt(record, {"seconds": 1.0})
    assert read_frames(store, numerics=None).problems == ()


@pytest.mark.parametrize("name", ["../../../outside", "/etc/passwd", "examples/../../x", "a/b/c", ""])
def test_a_digest_of_a_file_elsewhere_is_refused(tmp_path, name):
    store, cells = fake(tmp_path, {})
    publish(store, cells[0], store.read_study(), OUTCOME)
    (folder,) = store.cells.glob("xnorm-*")
    outcome = json.loads((folder / "outcome.json").read_text())
    (folder / "outcome.json").write_text(json.dumps(outcome | {"digests": {name: "0" * 64}}))
    _, (said,) = store.read_records()
    assert "outcome.json: digests" in said


def test_a_record_that_changes_is_read_again(tmp_path):
    store, _ = fake(tmp_path, ALL_OK)
    (folder,) = store.cells.glob("l2-s1-*")
    for seconds in (3.0, 4.0):
        outcome = json.loads((folder / "outcome.json").read_text()) | {"seconds": seconds}
        (folder / "outcome.json").write_text(json.dumps(outcome))
        os.utime(folder / "outcome.json", ns=(0, int(seconds)))
        read = {record.folder: record for record in Store(store.folder).records().values()}
        assert read[folder].outcome["seconds"] == seconds


PLUGIN = """
from pathlib import Path
from ufo.norms import register
Path(__file__).with_name("was_run").touch()
"""


def with_plugin(tmp_path: Path) -> Path:
    """Return a downloaded study that names a plug-in, whose file lies in its folder; so do files named as packages."""
    study = make_study(tmp_path / "runs", norms=["xnorm", "l2"], seeds=2)
    content = Store(study).read_study().model_dump(mode="json") | {"plugins": ["my_norms"]}
    (study / "study.yaml").write_text(dump_yaml(content))
    (study / "my_norms.py").write_text(PLUGIN)
    return study


@pytest.mark.process
def test_reading_imports_no_plugin(tmp_path, cli, monkeypatch):
    study = with_plugin(tmp_path)
    monkeypatch.chdir(study)
    for command in READING:
        code, _, err = cli(*(part.format(study=study, out=study.parent) for part in command))
        assert (code, err) == (0, ""), command
    ablations.load(study)
    assert "my_norms" not in sys.modules
    assert not (study / "was_run").exists()


def test_a_retry_says_first_which_module_it_imports_from_where(tmp_path, cli, monkeypatch):
    study = with_plugin(tmp_path)
    monkeypatch.chdir(study)
    monkeypatch.setattr(sys, "path", [*sys.path])
    code, out, err = cli("retry", study)
    assert out.startswith(f"importing the plug-in my_norms, which the study names, from {study / 'my_norms.py'}\n")
    assert (code, err) == (2, "error: --plugin my_norms: it registers no normaliser\n")
    assert (study / "was_run").exists()
    sys.modules.pop("my_norms")


def test_a_run_says_which_stored_module_it_imports_before_it_does(tmp_path, cli, monkeypatch, caplog):
    study = with_plugin(tmp_path)
    monkeypatch.chdir(study)
    monkeypatch.setattr(sys, "path", [*sys.path])
    code, _, err = cli("run", "--norm", "xnorm,l2", "--study", study.name, "--out", study.parent, "--dry-run")
    said = f"importing the plug-in my_norms, which the study names, from {study / 'my_norms.py'}"
    assert caplog.messages == [said]
    assert (code, err) == (2, "error: --plugin my_norms: it registers no normaliser\n")  # the line came first
    caplog.clear()
    with pytest.raises(UsageError, match="it registers no normaliser"):
        read_stored(Store(study))
    assert caplog.messages == []  # it is said once
    sys.modules.pop("my_norms")


def test_a_normaliser_of_a_plugin_is_shown_as_the_study_has_it(tmp_path):
    study = Store(make_study(tmp_path, norms=["xnorm", "l2", "sima"], seeds=1)).read_study()
    told = {"mine": NormRecord(label="Mine", group="plug-in", order=16, cross=True)}
    told |= {"other": NormRecord(label="Other", group="plug-in", order=15, cross=True)}
    axes = study.axes | {"norm": ["mine", "xnorm", "other", "unknown"]}
    columns = arm_columns(study.model_copy(update={"axes": axes, "norms": told}))
    assert [columns[arm]["arm_label"] for arm in axes["norm"]] == ["Mine", "XNorm", "Other", "unknown"]
    orders = [columns[arm]["arm_order"] for arm in ("xnorm", "other", "mine", "unknown")]
    assert orders[0] == 0
    assert len(set(orders)) == 4
    assert min(orders[1:]) >= 15


@pytest.mark.process
def test_files_of_the_current_folder_are_no_modules_of_ours(tmp_path):
    study = with_plugin(tmp_path)
    for name in ("yaml", "torch", "pandas", "rich", "my_norms"):
        (study / f"{name}.py").write_text(PLUGIN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ablations", "status", "."]
    ended = subprocess.run(command, cwd=study, capture_output=True, text=True, env=environment, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not (study / "was_run").exists()


def test_run_lengths_are_read_as_cocos_library_writes_them():
    from faster_coco_eval.core import mask

    rng = np.random.default_rng(0)
    for share in (0.0, 0.01, 0.5, 1.0):
        bits = np.asfortranarray(rng.random((40, 57)) < share).astype(np.uint8)
        runs = _runs_of(mask.encode(bits)["counts"].decode())
        assert sum(runs) == bits.size
        assert sum(runs[1::2]) == bits.sum()
        assert min(runs) >= 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda found: found[0].update(segmentation={"size": [30, 40], "counts": "0"}), "do not fill the mask"),
        (lambda found: found[0].update(segmentation={"size": [2, 2], "counts": [4]}), "in an image of 30 x 40"),
        (lambda found: found[0].update(segmentation=[[1e9, 0, 0, 0, 0, 1e9]]), "lies far from its image"),
        (lambda found: found[0].update(image_id="../../secret"), "image_id"),
        (lambda found: found[0].update(bbox=[0, 0, float("nan"), 1]), "bbox"),
        (lambda found: found.extend([{}]), "is required"),
    ],
)
def test_hostile_detections_cost_themselves_alone(tmp_path, change, reason):
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=2, task=["detect"], model=["ufo_vit_nano"])
    (path,) = study.glob("cells/xnorm-s0-*/detections.json.bz2")
    found = json.loads(bz2.decompress(path.read_bytes()))
    change(found)
    path.write_bytes(bz2.compress(json.dumps(found).encode()))
    (said,) = read_results([study]).problems
    assert "its examples cannot be read" in said
    assert reason in said


def test_a_bomb_of_detections_is_not_unpacked(tmp_path, monkeypatch):
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=2, task=["detect"], model=["ufo_vit_nano"])
    (path,) = study.glob("cells/xnorm-s0-*/detections.json.bz2")
    monkeypatch.setattr("ablations.store.objects.MOST_UNPACKED", 10_000)
    path.write_bytes(bz2.compress(b"[" + b" " * 10**6 + b"]"))
    (said,) = read_results([study]).problems
    assert "it unpacks to more than" in said

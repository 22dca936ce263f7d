"""A report that is current is kept by a run; another replaces it, and says what goes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from studies import make_study

from ablations.api import make_report, read_results
from ablations.cli.finish import finish
from ablations.cli.printing import make_console
from ablations.config.packages import package_version
from ablations.report import current
from ablations.report.current import hash_results, note_written, read_written

pytestmark = pytest.mark.process  # figures are drawn by several


@pytest.fixture(scope="module")
def reported_once(tmp_path_factory):
    study = make_study(tmp_path_factory.mktemp("reported"), norms=["xnorm", "l2"], seeds=2)
    return study, make_report([study], full=True)


@pytest.fixture
def reported(reported_once, tmp_path):
    """A study with its full report, which is current in its own folder only; afterwards it is as before."""
    study, full = reported_once
    before = shutil.copytree(study, tmp_path / "before")
    assert make_report([study], full=False).is_kept
    yield study, full
    shutil.rmtree(study, ignore_errors=True)
    shutil.copytree(before, study)


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_full_report_that_is_current_is_kept_by_a_run_with_nothing_to_do(reported, capsys):
    study, full = reported
    before = stamps(study)
    kept = make_report([study], full=False)
    assert kept.is_kept
    assert kept.files == full.files
    assert stamps(study) == before
    finish([study], make_console(False), as_json=False, code=0, full=False)
    assert "figures, kept as it is current" in capsys.readouterr().out
    assert not make_report([study], full=True).is_kept  # asked for, it is written again


@pytest.mark.parametrize("change", ["score", "figure", "damage"])
def test_a_report_that_is_not_current_is_replaced_and_its_figures_counted(reported, capsys, change):
    study, _ = reported
    if change == "score":
        (path,) = study.glob("cells/l2-s1-*/outcome.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"detail": "another"}))
    elif change == "figure":
        next((study / "figures").glob("*.pdf")).unlink()
    else:
        (study / "report.json").write_text("{")
    finish([study], make_console(False), as_json=False, code=0, full=False)
    said = capsys.readouterr().out
    assert "kept as it is current" not in said
    assert "figures of an earlier report; python -m ablations report" in said.replace("\n", " ")


CHANGES = {
    "a detail": lambda cell: edit(cell / "outcome.json", {"detail": "another"}),
    "a loss": lambda cell: replace(cell / "metrics.csv", ",2.", ",3."),
    "a probe": lambda cell: replace(cell / "probes.csv", "output_rms,", "output_rms,9"),
    "an image": lambda cell: flip(cell),
    "no log": lambda cell: (cell / "log.txt").unlink(),
    "a log that is shown": lambda cell: replace(cell / "log.txt", "epoch", "Epoch"),
    "no cell": lambda cell: shutil.rmtree(cell),
    "costs": lambda cell: (cell.parent.parent / "cost.csv").write_text(COST),
    "the question": lambda cell: replace(cell.parent.parent / "study.yaml", "Which one", "Who"),
}
COST = "condition,arm,quantity,tokens,round,value\n,l2,step_s,,1,0.5\n"


def edit(path, fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def flip(cell):
    correct = np.load(cell / "correct.npy")
    first, second = np.flatnonzero(correct)[0], np.flatnonzero(~correct)[0]
    correct[[first, second]] = correct[[second, first]]  # the same accuracy
    np.save(cell / "correct.npy", correct)


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_report_shows_is_in_its_hash(tmp_path, change):
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=2, stories={("l2", 1): "stuck"})
    before = hash_results(read_results([study]))
    assert hash_results(read_results([study])) == before
    CHANGES[change](next(study.glob("cells/l2-s1-*")))
    assert hash_results(read_results([study])) != before


@pytest.mark.parametrize("change", ["template", "jinja2"])
def test_what_writes_the_page_is_in_the_hash(tmp_path, monkeypatch, change):
    results = read_results([make_study(tmp_path, norms=["xnorm", "l2"], seeds=2)])
    before = hash_results(results)
    template = tmp_path / "page.html.j2"
    template.write_text("another")
    if change == "template":
        monkeypatch.setattr(current, "TEMPLATE", template)
    else:
        monkeypatch.setattr(current, "package_version", lambda name: "9" if name == "jinja2" else package_version(name))
    assert hash_results(results) != before


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_a_report_in_a_folder_that_was_moved_or_copied_loses_no_figure(reported, tmp_path, move):
    study, full = reported
    other = tmp_path / "elsewhere" / "renamed"
    move(study, other)
    again = make_report([other], full=False)
    assert [path.relative_to(other) for path in again.files] == [path.relative_to(study) for path in full.files]
    assert (again.num_removed, again.is_kept) == (0, False)
    assert "--study renamed" in (other / "report.html").read_text()
    assert make_report([other], full=False).is_kept


def test_a_report_is_kept_however_its_folder_is_written(tmp_path, monkeypatch):
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=1)
    make_report([study], full=False)
    monkeypatch.chdir(tmp_path)
    assert make_report([study.relative_to(tmp_path)], full=False).is_kept


def test_a_run_keeps_a_report_that_is_current_with_another_reference(tmp_path, capsys):
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=2)
    full = make_report([study], full=True, ref="l2")
    kept = make_report([study], full=False)
    assert (kept.is_kept, kept.files) == (True, full.files)
    assert (kept.ref, kept.results.reference) == ("l2", "xnorm")
    study = shutil.move(study, tmp_path / "moved")
    moved = make_report([study], full=False)
    assert (moved.is_kept, moved.ref, moved.results.reference) == (False, "l2", "xnorm")
    assert len(moved.files) == len(full.files)
    finish([study], make_console(False), as_json=False, code=0, full=False)
    assert "kept as it is current, with l2 as the reference" in capsys.readouterr().out.replace("\n", " ")
    replace(study / "study.yaml", "Which one", "Who")
    assert make_report([study], full=False).results.reference == "xnorm"
    make_report([study], full=True, ref="l2")
    other = make_report([study], full=False, ref="xnorm")
    assert (other.is_kept, other.results.reference) == (False, "xnorm")


def test_what_a_report_was_made_from_names_only_files_of_its_folder(tmp_path):
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=2)
    results = make_report([study], full=False).results
    whole = json.loads((study / "report.json").read_text())
    assert whole["made_from"] == hash_results(results)
    assert read_written(study) is not None
    for name in ("../x", "/etc/passwd", "figures/../../x", "missing.csv", ".hidden", "tables/"):
        (study / "report.json").write_text(json.dumps(whole | {"files": whole["files"] | {name: "0"}}))
        assert read_written(study) is None, name
    for files in ({}, {name: digest for name, digest in whole["files"].items() if name != "report.html"}):
        (study / "report.json").write_text(json.dumps(whole | {"files": files}))
        assert read_written(study) is None
    (study / "report.json").write_text(json.dumps(whole))
    (study / "report.html").write_text("another")
    assert read_written(study) is None


def test_files_of_conditions_of_any_letters_are_a_reports(tmp_path):
    names = ["results.csv", "report.html", "figures/test_accuracy-data=folder_m\u00b2_\u00bd.png"]
    (tmp_path / "figures").mkdir()
    for name in names:
        (tmp_path / name).touch()
    results = read_results([make_study(tmp_path, seeds=1)])
    note_written(
        tmp_path, results, made_from="x", is_full=True, num_left_out=0, files=[tmp_path / name for name in names]
    )
    written = read_written(tmp_path)
    assert written is not None
    assert [path.relative_to(tmp_path).as_posix() for path in written.files] == names


def test_a_short_report_leaves_no_agreement_of_an_earlier_one(tmp_path):
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=3)
    make_report([study], full=True)
    assert (study / "tables" / "agreement.csv").exists()
    shutil.rmtree(next(study.glob("cells/l2-s2-*")))
    make_report([study], full=False)
    assert not (study / "tables" / "agreement.csv").exists()

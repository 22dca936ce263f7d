"""Where a cell's numbers come from: the version of the numerics, a plug-in's files, and what else its record says."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest
from conftest import ROOT

import ablations
from ablations.config import CellConfig, UsageError
from ablations.config.numerics import NUMERICS, UNVERSIONED, recorded_numerics
from ablations.store import Store
from ablations.store.frames import read_frames
from ablations.store.provenance import PACKAGES, describe, import_plugin, numerics_now, plugin_hash
from ufo.norms import NORMS

NORM = """
from ufo.norms import AttentionNorm, register

@register(name="{name}", label="{name}", formula="v", source="a test", invariances=set())
class Mine(AttentionNorm):
    def forward(self, q, k, v):
        return v
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Run in an empty folder from which plug-ins are imported, and forget them afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(NORMS, "_entries", dict(NORMS._entries))
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("json", "it registers no normaliser"),
        ("sys", "it has no file, so it registers no|it registers no"),
        ("mine.py", r"without \.py"),
        ("", "full name"),
    ],
)
def test_what_is_no_plug_in_is_refused(here, name, message):
    with pytest.raises(UsageError, match=message):
        import_plugin(name)


def test_our_own_normalisers_have_the_version_of_the_task_alone():
    for task, version in NUMERICS.items():
        assert numerics_now(["xnorm", "softmax"], task=task) == {"xnorm": str(version), "softmax": str(version)}
    assert plugin_hash("xnorm") == ""


def test_a_record_from_before_there_were_versions_has_that_of_its_sources_where_they_were_compared():
    assert all(
        recorded_numerics({"source_hash": source_hash}) == version for source_hash, version in UNVERSIONED.items()
    )
    assert recorded_numerics({"source_hash": "another"}) == "unversioned"
    assert recorded_numerics({"source_hash": "another", "numerics": "2"}) == "2"


@pytest.mark.parametrize("study", ["norm_digits", "norm_tiny_imagenet", "shapes", "tuned_cifar10"])
def test_the_studies_that_are_kept_are_current_and_read_by_their_ids(study):
    store = Store(ROOT / "results" / study)
    frames = read_frames(store, numerics=numerics_now(store.read_study().axes["norm"], task=store.read_study().task))
    assert len(frames.cells) > 10
    assert not frames.cells["stale"].any()
    assert not len(frames.missing)
    assert not frames.problems
    for path in store.cells.iterdir():  # a cell's id is a hash of its fields, and stands in its folder's name
        config = CellConfig(**json.loads((path / "config.json").read_text()))
        assert path.name.endswith(config.id)


def test_a_plug_in_counts_for_its_own_normaliser_alone(here):
    (here / "single_file.py").write_text(NORM.format(name="mine"))
    import_plugin("single_file")
    before = numerics_now(["xnorm", "mine"], task="classify")
    (here / "single_file.py").write_text(NORM.format(name="mine") + "# changed\n")
    after = numerics_now(["xnorm", "mine"], task="classify")
    assert after["xnorm"] == before["xnorm"]
    assert after["mine"] != before["mine"] != before["xnorm"]


@pytest.mark.parametrize(
    ("name", "message"), [("xnorm", "'xnorm' is already registered by ufo.norms.paper"), ("Mine", "lower snake case")]
)
def test_a_mistake_of_a_registration_is_one_line(here, name, message):
    (here / "mistaken.py").write_text(NORM.format(name=name))
    with pytest.raises(UsageError, match=f"--plugin mistaken: .*{message}") as error:
        import_plugin("mistaken")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("init", [True, False], ids=["package", "folder without __init__"])
def test_every_file_of_a_package_counts(here, init):
    package = here / "pack" / "deep"
    package.mkdir(parents=True)
    if init:
        (here / "pack" / "__init__.py").write_text("")
        (here / "pack" / "arithmetic.py").write_text("ONE = 1\n")
    (package / "__init__.py").write_text("")
    (package / "norm.py").write_text(NORM.format(name="mine"))
    import_plugin("pack.deep.norm")
    before = numerics_now(["mine"], task="classify")
    changed = here / "pack" / "arithmetic.py" if init else package / "norm.py"
    changed.write_text(changed.read_text() + "# changed\n")
    assert numerics_now(["mine"], task="classify") != before


def test_line_ends_do_not_count(here):
    (here / "ends.py").write_text(NORM.format(name="mine"))
    import_plugin("ends")
    before = numerics_now(["mine"], task="classify")
    (here / "ends.py").write_bytes(NORM.format(name="mine").replace("\n", "\r\n").encode())
    assert numerics_now(["mine"], task="classify") == before


def test_a_change_of_the_code_is_recorded_and_one_of_its_results_is_not(tmp_path, monkeypatch):
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    for name in ("ufo", "ablations", "results"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("as it was")
    monkeypatch.setattr("ablations.store.provenance.ROOT", tmp_path)
    assert describe()["git"] is None
    git("init")
    git("add", ".")
    git("commit", "-m", "as it was")
    (tmp_path / "results" / "file").write_text("a result")
    assert describe()["git"]["dirty"] is False
    (tmp_path / "ablations" / "file").write_text("a change")
    assert describe()["git"]["dirty"] is True
    assert len(describe()["git"]["revision"]) == 40


def test_an_environment_inside_another_projects_checkout_has_no_revision(tmp_path, monkeypatch):
    subprocess.run(["git", "-C", str(tmp_path), "init"], check=True, capture_output=True)
    (tmp_path / "site-packages" / "ablations").mkdir(parents=True)
    (tmp_path / "site-packages" / "ablations" / "file").write_text("installed, and under no version control")
    monkeypatch.setattr("ablations.store.provenance.ROOT", tmp_path / "site-packages")
    (tmp_path / "file").write_text("theirs")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", "-C", str(tmp_path), "add", "file"], check=True)
    subprocess.run(["git", "-C", str(tmp_path), *who, "commit", "-m", "theirs"], check=True, capture_output=True)
    assert describe()["git"] is None


def test_a_record_has_the_versions_of_what_is_installed_and_of_nothing_else(monkeypatch):
    def version(name):
        if name == "timm":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr("importlib.metadata.version", version)
    versions = describe()["versions"]
    assert "timm" not in versions
    assert set(versions) == {"python", "ufo-ablations", *PACKAGES} - {"timm"}
    assert versions["ufo-ablations"] == ablations.__version__  # of the code that runs, whatever else is installed
    assert all(isinstance(version, str) for version in versions.values())

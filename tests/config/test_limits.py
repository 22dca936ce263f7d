"""A study above the limit is refused before anything of its size is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from studies import make_study

import ablations
from ablations.config import Study, UsageError
from ablations.config.growth import extend
from ablations.config.search import Point, Tuned, tuned_values
from ablations.config.seeds import parse_seeds
from ablations.config.values import parse_values
from ablations.store import Store

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "results" / "norm_digits" / "study.yaml"

BILLION = "is above the limit of 100,000 cells; give fewer values"
LRS = [k / 10_000 for k in range(1, 1001)]


def large(tmp_path, axes):
    """Write a study with these axes beside its own."""
    content = yaml.safe_load(STORED.read_text())
    content["axes"] |= axes
    content["fixed"] = {field: value for field, value in content["fixed"].items() if field not in axes}
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return tmp_path / "large"


@pytest.mark.parametrize(
    "command", [("retry",), ("report",), ("status",), ("power",), ("clean", "--yes"), ("bench", "cost")]
)
def test_commands_refuse_a_stored_study_above_the_limit(cli, tmp_path, command):
    folder = large(tmp_path, {"lr": LRS, "weight_decay": LRS, "seed": list(range(1000))})
    code, _, err = cli(*command, folder)
    assert code == 2
    assert "a study of 10,000,000,000 cells (norm 10 x seed 1,000 x lr 1,000 x weight_decay 1,000)" in err
    assert BILLION in err
    assert err.count("\n") == 1


def test_a_list_of_studies_and_python_refuse_it_too(cli, tmp_path):
    folder = large(tmp_path, {"lr": LRS, "weight_decay": LRS})
    assert BILLION in " ".join(json.loads(cli("list", "studies", "--out", tmp_path, "--json")[1])[0].values())
    with pytest.raises(UsageError, match=BILLION):
        ablations.load(folder)


def test_a_request_above_the_limit_is_refused(cli, tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text(f"lr: {LRS}\nweight_decay: {LRS}\nimage_size: {list(range(8, 1008))}\n")
    code, _, err = cli("run", "--experiment", path, "--out", tmp_path, "--dry-run")
    assert code == 2
    assert "a study of 24,000,000,000 cells (norm 3 x seed 8 x lr 1,000 x" in err
    assert BILLION in err
    with pytest.raises(UsageError, match="a study of 600,000 cells"):
        ablations.run(norm=["xnorm", "l2"], seeds="0-299", lr=LRS, out=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--trials", 10**17), "--trials 100000000000000000: must be less than or equal to 10000"),
        (("--trials", 10_000, "--sampler", "tpe"), "30,000 trials are above the limit of 10,000; give fewer"),
        (("--trials", 1_000, "--norm", "l2", "--set", "depth=1-200"), "200,000 cells (seed 1,000 x depth 200)"),
        (("--confirm", 10**9), "the range has more than 10,000 values"),
        (("--confirm", "0-1000000000"), "the range has more than 10,000 values"),
    ],
)
def test_a_tuning_above_the_limit_is_refused(cli, tmp_path, options, message):
    code, _, err = cli("tune", "--search", "lr=1e-6..1:log", *options, "--out", tmp_path, "--dry-run")
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ("--set", "lr=\udcff"),
        ("--set", "\udcff=1"),
        ("--data", "\udcff"),
        ("--seeds", "\udcff"),
        ("--precision", "\udcff"),
    ],
)
def test_bytes_that_are_no_characters_are_refused_in_one_line(cli, tmp_path, options):
    code, _, err = cli("run", *options, "--out", tmp_path, "--dry-run")
    assert code == 2
    assert r"\udcff" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: parse_seeds(10**9), "the range has more than 10,000 values"),
        (lambda: parse_seeds("9" * 5000), "a"),
        (lambda: parse_seeds(f"0-{'9' * 5000}"), "its numbers have more than 100 digits"),
        (lambda: parse_seeds(range(10**12)), "seed: 1,000,000,000,000 values are above the limit of 100,000"),
        (lambda: parse_seeds(["0-9999"] * 20), "seed: 110,000 values are above the limit of 100,000"),
        (lambda: parse_values("epochs", "1-1000000000"), "the range has more than 10,000 values"),
        (lambda: ablations.run(lr=range(10**12)), "lr: 1,000,000,000,000 values are above"),
        (lambda: ablations.run(fields={"depth": range(10**12)}), "depth: 1,000,000,000,000 values are above"),
    ],
)
def test_lists_and_ranges_are_counted_before_they_are_made(read, message):
    with pytest.raises(ValueError) as error:
        read()
    assert message in str(error.value)
    assert len(str(error.value)) < 400


def test_an_extension_above_the_limit_is_refused():
    content = yaml.safe_load(STORED.read_text())
    wide, long = (
        Study.model_validate({**content, "axes": {**content["axes"], "lr": values, "seed": list(range(num_seeds))}})
        for values, num_seeds in ((LRS, 10), (LRS[:1], 1000))
    )
    with pytest.raises(UsageError, match=r"a study of 10,000,000 cells \(norm 10 x seed 1,000 x lr 1,000\)"):
        extend(wide, long, named=["norm", "lr", "seed"], ref=None, num_results=0)


CLAIM = {"kind": "fails_to_train", "arm": "l2"}
PAIR = {"kind": "worse_by", "arm": "l2", "than": "xnorm"}
NORM = {"label": "Mine", "group": "plug-in", "order": 20, "cross": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_looks": -1}, "num_looks=-1: must be greater than or equal to 0"),
        ({"num_looks": 10**9}, "num_looks=1000000000: must be less than"),
        ({"norms": {"mine": NORM | {"order": -1}}}, "norms.mine.order=-1"),
        ({"norms": {"mine": NORM | {"label": "y" * 201}}}, "must have at most 200 characters"),
        ({"norms": {"mine": NORM | {"caveat": "y" * 20_000}}}, "must have at most 10000 characters"),
        ({"question": "y" * 20_000}, "must have at most 10000 characters"),
        ({"name": "y" * 300}, "must have at most 255 characters"),
        ({"recipe": "y" * 300}, "must have at most 200 characters"),
        ({"claims": [CLAIM | {"arm": "y" * 6_000}]}, "must have at most 5000 characters"),
        ({"claims": [CLAIM] * 101}, "101 claims are above the limit of 100"),
        ({"claims": [CLAIM] * 20, "lr": LRS}, "20 claims in 1,000 conditions exceed the limit of 10,000 verdicts"),
        ({"history": ["extended"] * 10_001}, "10,001 extensions is above the limit of 10,000"),
        ({"norm": ["y" * 6_000]}, "norm='yyyyyyyyyyyy...yyyyyyyyyyyyy': it has more than 5,000 characters"),
    ],
)
def test_counts_and_texts_of_a_study_are_bounded(cli, tmp_path, change, message):
    folder = large(tmp_path, {field: values for field, values in change.items() if field in ("lr", "norm")})
    content = yaml.safe_load((folder / "study.yaml").read_text()) | change
    for field in ("lr", "norm"):
        content.pop(field, None)
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    code, _, err = cli("status", folder)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert len(err) < 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"claims": [PAIR | {"margin_pct": k} for k in range(1, 101)]}, "101 claims"),
        ({"question": "Another?"}, "10,001 extensions"),
    ],
)
def test_an_extension_beyond_a_bound_is_refused(tmp_path, change, message):
    content = Store(make_study(tmp_path, seeds=1)).read_study().model_dump()
    stored = Study.model_validate(content | {"history": ["extended"] * 10_000, "claims": [CLAIM]})
    asked = Study.model_validate(content | change)
    with pytest.raises(UsageError, match=message):
        extend(stored, asked, named=[], ref=None, num_results=0)


def test_the_limit_itself_is_allowed(tmp_path):
    folder = large(tmp_path, {"lr": LRS, "seed": list(range(10))})
    study = Store(folder).read_study()
    assert len(study.condition_names) == 1000


KEYS = st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from([None, 0, 1]))


@given(st.lists(KEYS))
def test_an_index_of_points_finds_what_a_search_finds(keys):
    points = [Point(values={"lr": 0.1 + k}, arm=arm, seed=seed) for k, (arm, seed) in enumerate(keys)]
    tuned = Tuned(points)
    for arm in ("a", "b"):
        assert [tuned.values(arm, seed) for seed in (0, 1)] == [tuned_values(points, arm, seed) for seed in (0, 1)]

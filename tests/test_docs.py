"""The numbers, tables and code of the documents are those of the code and of the committed results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import yaml
from objects import coco_folder

from ablations.analysis import coverage
from ablations.bench.attention import AttentionRow, per_token, spread_pct
from ablations.bench.foresight import correlations
from ablations.bench.summary import ratios, summarise
from ablations.cli.listing import norms
from ablations.config.claim import Kind, parse_claims
from ablations.config.commands import RunOptions
from ablations.config.experiment import load_experiment
from ablations.config.request import make_request
from ablations.report import markdown_table
from ufo.norms import NORMS

ROOT = Path(__file__).resolve().parent.parent
DOCS = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PYTHON = [(page, code) for page, text in DOCS.items() for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
EXPERIMENTS = sorted((ROOT / "ablations" / "experiments").glob("*.yaml"))
STUDIES = sorted((ROOT / "results").glob("*/study.yaml"))


def test_the_table_of_normalisers_is_fresh():
    head, rows = norms()
    ours = [row for row in rows if row[1] != "plug-in"]
    table = markdown_table(head, ours)
    assert f"<!-- python -m ablations list norms --markdown -->\n{table}<!-- end -->" in DOCS["normalisers"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_a_results_table_is_the_studys(path):
    """The document has the main table; of a map with many conditions, the frontiers in its deepest nets."""
    frontier = path.parent / "tables" / "frontier.md"
    if frontier.exists():
        head, line, *rows = frontier.read_text().split("\n\n")[0].splitlines()
        depth = max(int(row.split("depth=")[1].split(",")[0]) for row in rows)
        table = "\n".join([head, line, *(row for row in rows if f"depth={depth}," in row)])
    else:
        table = (path.parent / "tables" / "main.md").read_text().split("\n\n")[0]
    assert table in DOCS["results"]


def test_the_correlations_of_what_was_foreseen_are_the_studys():
    found = correlations(pd.read_csv(ROOT / "results" / "failure_map" / "foreseen.csv"))
    for at, when in (("start", "at the start"), ("after", "after 20 steps")):
        both = [found[f"lr_{at}"], found[f"lr_{at}, within settings"]]
        cells = [f"{each.rho:.2f} [{each.low:.2f}, {each.high:.2f}]" for each in both]
        assert f"| {when} | {' | '.join(cells)} |" in DOCS["foresee"]


def test_the_table_of_speeds_is_the_benchmarks():
    rows = pd.read_csv(ROOT / "results" / "bench_harness.csv")
    grid = summarise(rows).query("quantity == 'grid'").set_index("contender")["median"]
    for rate in grid:
        assert f" | {rate:.0f} | " in DOCS["speed"]
    for line in ratios(rows).query("quantity != 'cell'").itertuples():
        assert f"{line.value:.2f} times [{line.low:.2f}, {line.high:.2f}]" in DOCS["speed"]


def test_the_table_of_nets_is_the_benchmarks():
    rows = pd.read_csv(ROOT / "results" / "bench_models.csv")
    first, *others = rows["model"].unique()
    for (px, images), own in rows.groupby(["px", "images"]):
        for step in ("inference", "training"):
            seconds = own[own["quantity"] == f"{step}_s"].pivot(index="round", columns="model", values="value")
            times = [seconds[other] / seconds[first] for other in others]
            cells = [f"{ratio.median():.2f} [{ratio.min():.2f}, {ratio.max():.2f}]" for ratio in times]
            row = re.search(rf"^\| {images} of {px} px \| {step} \|.*$", DOCS["speed"], re.MULTILINE)
            assert row is not None
            assert f" | {' | '.join(cells)} | " in row[0]


def test_the_table_of_backbones_is_the_benchmarks():
    rows = pd.read_csv(ROOT / "results" / "bench_backbones.csv")
    first, *others = rows["model"].unique()
    for step in ("inference", "training"):
        seconds = rows[rows["quantity"] == f"{step}_s"].pivot(index="round", columns="model", values="value")
        peaks = rows[rows["quantity"] == f"{step}_peak_bytes"].set_index("model")["value"] / 2**20
        cells = [f"{seconds[name].median():.1f}" for name in (first, *others)]
        ratios = [seconds[other] / seconds[first] for other in others]
        cells += [f"{ratio.median():.2f} [{ratio.min():.2f}, {ratio.max():.2f}]" for ratio in ratios]
        memory = ", ".join(f"{peaks[name]:,.0f}" for name in (first, *others))
        assert f"| {step} | {' | '.join(cells)} | {memory} |" in DOCS["speed"]


def test_what_is_said_of_linear_attention_is_the_benchmarks():
    rows = pd.read_csv(ROOT / "results" / "bench_attention.csv")
    costs = per_token([AttentionRow(**row) for row in rows.to_dict("records")])
    linear = [name for name in dict.fromkeys(costs["norm"]) if NORMS[name].linear]
    times = [spread_pct(costs, name, "time_s") for name in linear]
    memory = [spread_pct(costs, name, "peak_bytes") for name in costs["norm"].unique()]
    prose = " ".join(DOCS["speed"].split())
    assert f"it varies by {min(times):.1f} to {max(times):.1f} % for" in prose
    assert f"by a factor of {1 + spread_pct(costs, 'softmax', 'time_s') / 100:.1f} for softmax" in prose
    assert f"memory of a token varies by {min(memory):.1f} to {max(memory):.1f} %" in prose


def test_the_table_of_coverage_is_the_simulations():
    for distribution, own in coverage([6, 8, 10]).groupby("distribution"):
        shares = " | ".join(f"{share:.1f} %" for share in own["coverage_pct"])
        assert f"| {distribution} | {shares} |" in DOCS["statistics"]


def test_the_documented_claims_are_claims():
    block = re.search(r"```yaml\n(claims:.*?)```", DOCS["experiments"], re.DOTALL)
    assert block is not None
    kinds = {claim.kind for claim in parse_claims(yaml.safe_load(block.group(1))["claims"])}
    assert {*kinds, "greater_than"} == set(get_args(Kind))
    assert "or greater_than, with than" in block.group(1)


def python_block(page: str) -> str:
    (code,) = (code for name, code in PYTHON if name == page)
    return code


def test_every_python_block_is_run_by_one_of_the_tests_below():
    assert [page for page, _ in PYTHON] == ["lightning", "models", "normalisers", "python"]


@pytest.mark.slow
def test_the_documented_normaliser_runs(cli, tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text(python_block("normalisers"))
    monkeypatch.chdir(tmp_path)
    from ufo.norms import NORMS

    monkeypatch.setattr(NORMS, "_entries", dict(NORMS._entries))
    arguments = ("run", "--norm", "xnorm,mine", "--plugin", "my_module", "--smoke")
    assert cli(*arguments)[0] == 0


@pytest.mark.slow
def test_the_documented_trainer_runs(cli, tmp_path, monkeypatch):
    code = python_block("lightning")
    assert len(code.splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    assert cli("run", "--norm", "xnorm", "--seed", 0, "--epochs", 1, "--save-weights", "last")[0] == 0
    names: dict[str, object] = {}
    exec(code, names)
    assert names["logits"][0].shape[1] == 10
    assert names["trained"].config.net.norm == "xnorm"
    assert list((tmp_path / "runs" / "own").rglob("probes.csv"))


@pytest.mark.slow
def test_the_documented_nets_are_built():
    names: dict[str, object] = {}
    exec(python_block("models"), names)
    assert {*names["net"].state_dict()} == {*names["same"].state_dict()}
    assert len(names["features"].feature_info.channels()) == 4


@pytest.mark.slow
def test_the_documented_python_runs(tmp_path, monkeypatch):
    code = python_block("python")
    for full, short in (
        ("seeds=8", "seeds=2, smoke=True"),
        ("trials=16, confirm=8", "trials=2, confirm=2, smoke=True"),
    ):
        assert code.count(full) == 1
        code = code.replace(full, short)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    exec(code, {})
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"norm-digits-smoke", "norm-digits-tuned-smoke"}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_says_what_it_is_and_loads(path):
    head = path.read_text().split("study:")[0]
    experiment = load_experiment(path)
    line = f"python -m ablations {verb(experiment)} --experiment {path.stem}"
    for part in (line, "Source", "Expectation:"):
        assert part in head, f"{path.name} does not give {part}"
    assert experiment.study == path.stem
    norms = [set(each.get("norm", [])) for each in (experiment.asked, *(grid.asked for grid in experiment.grids))]
    assert set() < set().union(*norms) <= set(NORMS)
    assert experiment.cost
    assert experiment.question == yaml.safe_load(path.read_text())["question"]


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return coco_folder(tmp_path_factory.mktemp("data") / "little", train=14, test=2)


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_runs(path, cli, images, objects, tmp_path):
    """A smoke run; data that would have to be downloaded are replaced by small folders, and their nets are shallow."""
    experiment = load_experiment(path)
    is_here = experiment.asked["data"] == ["digits"]
    other = () if is_here else ("--data", f"imagefolder:{images}", "--set", "train_limit=64", "--set", "depth=2")
    if experiment.asked.get("task") == ["detect"]:
        small = "depth=4 train_limit=12 train_sides=64 eval_side=64 longest_side=64 most_found=5 proposals=20 rois=16"
        other = ("--data", f"coco:{objects}", *(part for field in small.split() for part in ("--set", field)))
    if "eval_limit" in experiment.asked:
        other += ("--set", "eval_limit=8")
    if len(experiment.asked["norm"]) > 10:
        other += ("--norm", "xnorm,inline")  # the others train elsewhere
    if experiment.grids:
        other += ("--norm", "xnorm,l2")
    if len(experiment.asked.get("lr", [])) > 2:
        other += ("--lr", "1e-3,3e-3")
    seeds = ("--seeds", 1) if experiment.search is None else ("--trials", 1, "--confirm", 1)
    code, out, err = cli(verb(experiment), "--experiment", path, "--smoke", *seeds, *other, "--out", tmp_path)
    assert code == 0, out + err


def verb(experiment):
    return "run" if experiment.search is None else "tune"


def test_flags_win_over_a_smoke_run_which_wins_over_the_file():
    request = make_request(RunOptions(experiment="norm_cifar10", seeds=[5], smoke=True))
    assert (request.asked["epochs"], request.asked["seed"]) == ([1], [5])
    assert request.name == "norm_cifar10-smoke"

"""A small folder cannot make a large report: what is drawn and shown is bounded, and what is left out is said."""

from __future__ import annotations

import bz2
import json
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from studies import make_study

from ablations.api import make_report, read_results
from ablations.config.escape import LONGEST_LABEL, figure_label
from ablations.config.yaml_file import dump_yaml
from ablations.figures.detection import MOST_OBJECTS
from ablations.report import drawing, kinds
from ablations.report.gallery import MOST_LAYERS, MOST_PROBES, all_figures, probes_without_figure
from ablations.report.kinds import FigureSpec
from ablations.store import Store


def edit(study: Path, **changes: object) -> None:
    content = Store(study).read_study().model_dump(mode="json") | changes
    (study / "study.yaml").write_text(dump_yaml(content))


def probed(tmp_path: Path, layers: list[str], probes: list[str]) -> Path:
    """Return a study of one epoch whose cells have these layers and probes."""
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=1, epochs=1)
    lines = [f"1,{layer},{probe},1.5\n" for layer in layers for probe in probes]
    for path in study.glob("cells/*/probes.csv"):
        path.write_text("epoch,layer,probe,value\n" + "".join(lines))
    return study


def test_many_layers_are_drawn_in_part(tmp_path):
    study = probed(tmp_path, [f"blocks.{i}.attn" for i in range(2 * MOST_LAYERS)], ["output_rms"])
    (one,) = (spec for spec in all_figures(read_results([study])) if spec.name == "probes_over_depth")
    drawn = list(one.frame["layer"].unique())
    assert len(drawn) == MOST_LAYERS
    assert (drawn[0], drawn[-1]) == ("blocks.0.attn", f"blocks.{2 * MOST_LAYERS - 1}.attn")
    assert one.title.endswith(f"{MOST_LAYERS} of {2 * MOST_LAYERS} layers")


def test_many_gains_are_drawn_in_part_and_the_others_named(tmp_path):
    gains = [f"gain_{i}" for i in range(2 * MOST_PROBES)]
    results = read_results([probed(tmp_path, ["blocks.0.attn"], ["output_rms", *gains])])
    drawn = [spec.part for spec in all_figures(results) if spec.name == "probes_over_depth"]
    assert drawn == ["output_rms", *gains[: MOST_PROBES - 1]]
    assert probes_without_figure(results) == gains[MOST_PROBES - 1 :]


@pytest.mark.slow
def test_many_objects_are_drawn_in_part(tmp_path):
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=1, task=["detect"], model=["ufo_vit_nano"])
    (path,) = study.glob("cells/xnorm-s0-*/detections.json.bz2")
    one, *_ = json.loads(bz2.decompress(path.read_bytes()))
    found = [one | {"score": 0.5 + i / 10**4} for i in range(1_000)]
    path.write_bytes(bz2.compress(json.dumps(found).encode()))
    specs = all_figures(read_results([study]))
    first = next(spec for spec in specs if (spec.name, spec.panel) == ("found_objects", "XNorm"))
    axes = first.draw(Figure().subplots())
    assert len(axes.patches) == MOST_OBJECTS
    shown = [text.get_text() for text in axes.texts]
    assert {text for text in shown if " of " in text} == {f"{MOST_OBJECTS} of 1,000 objects"}
    assert "kite 0.60" in shown
    assert "kite 0.50" not in shown


def test_a_report_has_a_largest_number_of_figures(tmp_path, cli, monkeypatch):
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=1)
    count = len({(spec.name, spec.part) for spec in all_figures(read_results([study]))})
    monkeypatch.setattr(drawing, "MOST_FIGURES", 2)
    out = cli("report", study)[1]
    assert len(list((study / "figures").glob("*.png"))) == 2
    said = f"igures that are not drawn, since there are so many: {count - 2}"
    assert said in out
    assert said in (study / "report.html").read_text()


@pytest.fixture
def files(monkeypatch) -> list[str]:
    """Names of the files of figures, which are not drawn."""
    found: list[str] = []

    @contextmanager
    def writing(jobs):
        found.extend(path.name for path, _, _ in jobs)
        yield list

    monkeypatch.setattr(drawing, "_writing", writing)
    return found


def test_names_of_files_have_a_largest_length(tmp_path, files):
    parts = ["é" * 300, "é" * 299 + "e", "short", "sh/rt", "sh:rt"]
    specs = [FigureSpec("training_loss", part, "", "title", pd.DataFrame()) for part in parts]
    with drawing.drawing(tmp_path / "figures", specs, ()) as finish:
        assert finish().num_left_out == 0
    assert len(set(files)) == 5
    assert max(len(f"{stem}.png.partial".encode()) for stem in files) < 200
    assert files[2:] == ["training_loss-short", "training_loss-sh_rt", "training_loss-sh_rt_"]


def test_of_too_many_figures_those_of_all_conditions_and_the_scores_are_drawn(tmp_path, files, monkeypatch):
    monkeypatch.setattr(drawing, "MOST_FIGURES", 5)
    specs = all_figures(read_results([make_study(tmp_path, norms=["xnorm", "l2"], seeds=1, lr=[0.1, 0.2, 0.3])]))
    with drawing.drawing(tmp_path / "figures", specs, ()) as finish:
        assert finish().num_left_out > 10
    assert files == [*(f"test_accuracy-lr={lr}" for lr in (0.1, 0.2, 0.3)), "failure_map", "lr_sensitivity"]


def test_arms_of_long_names_have_rows_of_their_own(tmp_path):
    names = ["+".join(f"n{number:08}" for number in range(at, at + 30)) for at in (0, 30)]
    study = make_study(tmp_path, compare="classes", classes=names, norms=["xnorm"], seeds=2)
    (spec,) = (spec for spec in all_figures(read_results([study])) if spec.name == "test_accuracy")
    assert len(spec.draw(Figure().subplots()).get_yticklabels()) == 2


def test_a_probe_of_a_long_name_costs_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "MOST_PROCESSES", 1)
    study = probed(tmp_path, ["blocks.0.attn"], ["output_rms", "gain" + "x" * 190, "gain" + "x" * 300])
    made = make_report([study], full=True)
    assert [problem.partition("probes.csv")[2] for problem in made.results.problems] == [
        ": rows with names of more than 200 characters left out: 1"
    ] * 2
    assert sum("probes_over_depth-gainxxx" in path.name for path in made.files) == 2


def test_long_names_are_cut_in_figures():
    name = "a" * LONGEST_LABEL + "b"
    cut = figure_label(name)
    assert cut.startswith(f"{'a' * 86} [29 characters] {'a' * 85}b #")
    assert figure_label("b" + name) != figure_label("c" + name) != cut
    assert figure_label(name[1:]) == name[1:]


def test_a_figure_of_many_rows_is_no_higher_than_can_be_drawn():
    assert FigureSpec("failures", "", "", "", pd.DataFrame(), 10**6).size[1] == kinds.MOST_HEIGHT


def test_a_page_shows_the_last_of_a_long_history_and_the_first_missing_arms(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "FORMATS", {})
    monkeypatch.setattr("ablations.report.write.core_figures", lambda results: [])
    study = make_study(tmp_path, norms=["xnorm", "l2"], seeds=1, lr=[0.001, 0.002], missing=[("l2", 0)])
    lrs = [0.001, *(0.002 + k / 10**5 for k in range(200))]
    axes = Store(study).read_study().axes | {"lr": lrs}
    edit(study, axes=axes, history=[f"extended: {k}" for k in range(5_000)] + ["x" * 10**6])
    make_report([study], full=False)
    page = (study / "report.html").read_text()
    assert "earlier extensions, which study.yaml has: 4901" in page
    assert "extended: 4999" in page
    assert "[998,028 characters]" in page
    assert "extended: 4900<" not in page
    assert page.count("(seeds 0)") == 100
    assert "and of 300 more" in page

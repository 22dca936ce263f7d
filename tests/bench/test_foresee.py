"""Foreseen learning rates: the first steps are the cell's own, the rows, the tables, the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure

import ablations
from ablations.analysis.frontier import frontier_table
from ablations.bench import foresee
from ablations.bench.curvature import adam_preconditioner
from ablations.bench.first_steps import FirstSteps, take_first_steps
from ablations.bench.foresee import Foreseen, ProbeRow, measure, subjects_of
from ablations.bench.foresight import (
    correlations,
    describe_correlations,
    describe_foreseen,
    draw_first_steps,
    draw_foreseen,
    foreseen_table,
)
from ablations.config.commands import RunOptions
from ablations.config.request import make_request
from ablations.data.modules import make_data
from ablations.data.streams import forked_library
from ablations.engine.cell import run_cell
from ablations.engine.threads import cpu_threads
from ablations.figures.foresee import first_steps_over_depth, foreseen_against_measured
from ablations.planning.plan import make_plan
from ablations.tasks.make import make_module
from ablations.training.loop import LeanTrainer
from ufo.scale import attention_layers

CPU = torch.device("cpu")
STEPS, BATCH = 3, 16
FIELDS = ["depth=1,2", f"train_limit={STEPS * BATCH}", "eval_limit=20", "warmup_epochs=0"]
GRID = {"norm": "xnorm,softmax", "lr": "1e-3,1e-2", "batch_size": BATCH, "epochs": 2, "fields": FIELDS, "seeds": 1}
GRID_FLAGS = [
    *("--norm", "xnorm,softmax", "--lr", "1e-3,1e-2", "--batch-size", str(BATCH), "--epochs", "2"),
    *(part for field in FIELDS for part in ("--set", field)),
]
ASKED = ["foresee", *GRID_FLAGS, "--steps", "2"]


def plan_of(tmp_path, **others):
    return make_plan(make_request(RunOptions(**GRID | others, out=tmp_path)))


class Watch(pl.Callback):
    """Records, by means of its own, what the first steps of a cell show."""

    def __init__(self) -> None:
        self.rms: list[dict[str, float]] = []
        self.optimizer = None

    def on_fit_start(self, trainer, pl_module):
        for name, layer in attention_layers(pl_module.net).items():
            layer.norm.register_forward_hook(self.hook(name, pl_module))

    def hook(self, name, module):
        def record(norm, inputs, output):
            if self.rms and module.net.training:  # a matched scale runs the net before
                gain = attention_layers(module.net)[name].matched_gain
                self.rms[-1][name] = (output * (1.0 if gain is None else gain)).square().mean().sqrt().item()

        return record

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rms.append({})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == STEPS:
            parameters = dict(pl_module.net.named_parameters())
            self.preconditioner = adam_preconditioner(trainer.optimizers[0], parameters)


def watched(subject, folder: Path, *, seed: int) -> Watch:
    """Train a cell with the lean loop alone, and return what was seen of it."""
    watch = Watch()
    with cpu_threads(subject.cell.run.threads_per_cell), forked_library(seed):
        data, module = make_data(subject.cell, subject.info), make_module(subject.cell, subject.info)
        trainer = LeanTrainer(subject.cell, device=CPU, callbacks=[watch], log_dir=folder)
        data.trainer = trainer
        trainer.fit(module, data)
    return watch


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [[], ["drop_path=0.3", "mixup=0.5", "erasing=0.5", "layer_scale=1"]], ids=["", "draws"]
)
@pytest.mark.parametrize("scale", ["own", "matched"])
def test_the_steps_are_those_of_the_cell(tmp_path, more, scale):
    plan = plan_of(tmp_path, fields=[*FIELDS, *more], scale=scale)
    subject = subjects_of(plan, seeds=[4], steps=STEPS)[-1]
    assert (subject.arm, subject.cell.optimisation.lr, subject.cell.seed) == ("softmax", 1e-3, 4)
    row, probes = measure(subject, steps=STEPS, device=CPU)
    found = {(probe.step, probe.probe, probe.layer): probe.value for probe in probes}

    result = run_cell(subject.cell, subject.info, folder=tmp_path, device=CPU)
    assert result.outcome != "failed", result.detail
    kept = pd.read_csv(tmp_path / "probes.csv")
    ends = kept[(kept["epoch"] == 1) & (kept["probe"] == "grad_norm")].set_index("layer")["value"]
    assert len(ends) >= 2
    assert {layer: found[STEPS - 1, "grad_norm", layer] for layer in ends.index} == ends.to_dict()

    watch = watched(subject, tmp_path, seed=4)
    for step in range(STEPS + 1):
        for layer, value in watch.rms[step].items():
            assert found[step, "output_rms", layer] == pytest.approx(value, rel=1e-6)
    assert row.rms_first_start == found[0, "output_rms", "blocks.0.attn"]
    assert row.rms_last_after == found[STEPS, "output_rms", "blocks.1.attn"]
    assert row.grad_last_after == found[STEPS, "grad_norm", "blocks.1.attn"]


def test_the_preconditioner_after_the_steps_is_of_the_cells_own_optimiser(tmp_path, monkeypatch):
    subject = subjects_of(plan_of(tmp_path, fields=[*FIELDS, "grad_clip=0"]), seeds=[0], steps=STEPS)[0]
    seen = []
    real = foresee.take_first_steps.__globals__["curvature"]
    monkeypatch.setitem(
        foresee.take_first_steps.__globals__, "curvature", lambda m, i, p: (seen.append(p), real(m, i, p))[1]
    )
    take_first_steps(subject.cell, subject.info, steps=STEPS, device=CPU)
    watch = watched(subject, tmp_path, seed=0)
    torch.testing.assert_close(seen[1], watch.preconditioner, rtol=0, atol=0)
    assert any(not torch.allclose(seen[0][name], own, rtol=1e-2) for name, own in seen[1].items())


def test_frozen_and_unused_parameters_are_constants(tmp_path, monkeypatch):
    subject = subjects_of(plan_of(tmp_path), seeds=[0], steps=1)[0]

    def made(config, info):
        module = make_module(config, info)
        module.net.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
        for name, parameter in module.net.named_parameters():
            parameter.requires_grad_(not name.startswith("head"))
        return module

    whole, _ = measure(subject, steps=1, device=CPU)
    monkeypatch.setattr("ablations.bench.first_steps.make_module", made)
    row, _ = measure(subject, steps=1, device=CPU)
    assert row.converged
    assert 0 < row.lambda_start < 1.05 * whole.lambda_start


def test_clipping_of_the_gradients_does_not_change_the_foreseen_rate(tmp_path):
    """AdamW divides by the size of the gradients, so that a common factor of theirs cancels, up to its eps."""

    def rate(clip):
        plan = plan_of(tmp_path, fields=[*FIELDS, f"grad_clip={clip}"])
        row, _ = measure(subjects_of(plan, seeds=[0], steps=STEPS)[0], steps=STEPS, device=CPU)
        assert row.converged
        return row.lr_start

    assert rate(0.1) == pytest.approx(rate(0), rel=0.1)


def rows(*values: tuple[str, str, int, float]) -> list[Foreseen]:
    """Return rows of setting, arm, seed and foreseen rate."""
    orders = {"xnorm": 0, "l2": 1}
    return [
        Foreseen(s, arm, arm.upper(), orders[arm], seed, 2, 38 / lr, 38 / lr, -1.0, -1.0, True, lr, lr, *[1.0] * 8)
        for s, arm, seed, lr in values
    ]


def measured(*values: tuple[str, str, float, int]) -> pd.DataFrame:
    """Return a frontier of setting, arm, learning rate and seeds above."""
    columns = ["setting", "arm", "frontier_lr", "num_above"]
    return pd.DataFrame(values, columns=columns).assign(low=math.nan, high=math.nan, n=2, num_below=0)


def test_the_table_has_geometric_means_over_the_seeds_beside_the_frontier():
    own = rows(("d=1", "xnorm", 0, 0.01), ("d=1", "xnorm", 1, 0.04), ("d=1", "l2", 0, math.inf))
    table = foreseen_table(own, measured(("d=1", "xnorm", 0.03, 1), ("d=2", "xnorm", 0.01, 0)))
    assert table["lr_after"].tolist() == pytest.approx([0.02, math.inf])
    assert table["lambda_after"][0] == pytest.approx(38 / 0.02)
    assert table["num_seeds"].tolist() == [2, 1]
    assert table["frontier_lr"][0] == 0.03
    assert math.isnan(table["frontier_lr"][1])
    head, lines = describe_foreseen(table)
    assert lines[0][head.index("lr foreseen")] == "0.02, 0.02"
    assert lines[0][-1] == "0.03 (1 above)"
    assert lines[1][-1] == ""
    assert describe_correlations(correlations(table)) == []


def test_the_scatter_marks_arms_settings_and_censored_points_and_names_the_correlation():
    pairs = [("d=1", "xnorm", 0.01, 0.01, 0), ("d=1", "l2", 0.02, 0.03, 1), ("d=2", "xnorm", 0.001, 0.003, 0)]
    own = rows(*((s, arm, 0, lr) for s, arm, lr, _, _ in pairs), ("d=2", "l2", 0, math.inf))
    table = foreseen_table(own, measured(*((s, arm, known, above) for s, arm, _, known, above in pairs)))
    axes = Figure(layout="constrained").subplots()
    assert foreseen_against_measured(table, axes) is axes
    drawn = [line for line in axes.lines if len(line.get_xdata()) == 1]
    points = {(round(line.get_xdata()[0], 9), round(line.get_ydata()[0], 9)): line for line in drawn}
    assert points.keys() == {(lr, known) for _, _, lr, known, _ in pairs}
    assert points[0.01, 0.01].get_markersize() < points[0.001, 0.003].get_markersize()
    assert points[0.02, 0.03].get_markerfacecolor() == "none"
    assert points[0.01, 0.01].get_markerfacecolor() == points[0.01, 0.01].get_color() != points[0.02, 0.03].get_color()
    assert "Spearman: 1.00" in axes.get_title(loc="left")
    assert "n = 3" in axes.get_title(loc="left")
    assert "Not drawn, without two finite rates: 1" in axes.get_title(loc="left")
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["XNORM", "L2", "d=1", "d=2"]


def probe_frame() -> pd.DataFrame:
    values = {(0, 0): 1.0, (0, 1): 2.0, (4, 0): 10.0, (4, 1): math.nan}
    return pd.DataFrame(
        [
            ProbeRow(setting, "xnorm", "XNorm", 0, seed, step, f"blocks.{layer}.attn", layer, probe, factor * value)
            for setting in ("d=1", "d=2")
            for probe in ("output_rms", "grad_norm")
            for seed, factor in ((0, 1.0), (1, 4.0))
            for (step, layer), value in values.items()
        ]
    )


def test_the_probes_over_depth_are_those_of_the_first_and_the_last_step():
    frame = probe_frame()
    own = frame[(frame["setting"] == "d=1") & (frame["probe"] == "grad_norm")]
    axes = Figure().subplots()
    assert first_steps_over_depth(own, axes) is axes
    dashed, solid = axes.lines
    np.testing.assert_allclose(dashed.get_ydata(), [2.0, 4.0])
    np.testing.assert_allclose(solid.get_ydata(), [20.0, math.nan])
    assert (dashed.get_linestyle(), solid.get_linestyle()) == ("--", "-")
    assert all(tick == round(tick) for tick in axes.get_xticks())
    with pytest.raises(ValueError, match="one probe, got 2"):
        first_steps_over_depth(frame[frame["setting"] == "d=1"], axes)


def test_the_figure_of_the_probes_is_written_twice(tmp_path):
    files = draw_first_steps(probe_frame(), tmp_path / "steps.x")
    assert [file.name for file in files] == ["steps.png", "steps.pdf"]
    assert all(file.stat().st_size > 1000 for file in files)


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_arm_and_setting_and_writes_its_files(cli, tmp_path):
    files = {name: tmp_path / name for name in ("rows.csv", "probes.csv", "depth.png")}
    code, out, err = cli(
        *ASKED,
        *("--out", tmp_path, "--csv", files["rows.csv"], "--probes", files["probes.csv"]),
        *("--probe-figure", files["depth.png"], "--json"),
    )
    assert code == 0, err
    printed = json.loads(out)["rows"]
    assert [(row["setting"], row["arm"]) for row in printed] == [
        ("depth=1", "xnorm"),
        ("depth=1", "softmax"),
        ("depth=2", "xnorm"),
        ("depth=2", "softmax"),
    ]
    for row in printed:
        assert row["lr_after"] == pytest.approx(38 / row["lambda_after"], rel=1e-5)
        assert row["frontier_lr"] is None
    assert pd.read_csv(files["rows.csv"])["lambda_start"].tolist() == pytest.approx(
        [r["lambda_start"] for r in printed]
    )
    probes = pd.read_csv(files["probes.csv"], keep_default_na=False)
    assert sorted(set(probes["step"])) == [0, 1, 2]
    assert files["depth.png"].exists()
    assert "4/4  softmax at depth=2, seed 0: lr " in err
    assert not (tmp_path / "norm-digits").exists()


@pytest.mark.slow
@pytest.mark.process
def test_a_stored_study_is_measured_beside_its_frontier(cli, finished_study, tmp_path):
    finished_study(*GRID_FLAGS, "--seeds", "1")
    asked = ("foresee", "norm-digits", "--out", tmp_path, "--steps", "1")
    code, out, err = cli(*asked, "--csv", tmp_path / "rows.csv", "--figure", tmp_path / "both.pdf", "--json")
    assert code == 0, err
    printed = {(row["setting"], row["arm"]): row for row in json.loads(out)["rows"]}
    assert len(printed) == 4
    expected = frontier_table(ablations.load(tmp_path / "norm-digits").cells, "xnorm")
    for row in expected.to_dict("records"):
        assert printed[row["setting"], row["arm"]]["frontier_lr"] == pytest.approx(row["frontier_lr"])
    assert (pd.read_csv(tmp_path / "rows.csv")["n"] == 1).all()
    assert (tmp_path / "both.png").exists()
    damaged = next((tmp_path / "norm-digits" / "cells").glob("xnorm-*"))
    (damaged / "metrics.csv").unlink()
    code, out, err = cli(*asked, "--json")
    assert code == 0, err
    assert damaged.name in err


def test_ctrl_c_keeps_the_rows_so_far(cli, tmp_path, monkeypatch):
    count = iter(range(9))

    def interrupted(subject, *, steps, device):
        if next(count) == 1:
            raise KeyboardInterrupt
        return rows(("depth=1", "xnorm", 0, 0.01))[0], []

    monkeypatch.setattr(foresee, "measure", interrupted)
    code, _, err = cli(*ASKED, "--out", tmp_path, "--csv", tmp_path / "rows.csv")
    assert (code, err.splitlines()[-1]) == (130, "interrupted")
    assert pd.read_csv(tmp_path / "rows.csv")["lr_after"].tolist() == [0.01]


def test_an_arm_that_raises_leaves_the_others_and_the_numbers_are_whole(cli, tmp_path, monkeypatch):
    small, count = rows(("depth=1", "l2", 0, 1e-15))[0], iter(range(9))

    def raising(config, info, *, steps, device):
        if next(count) == 0:
            raise RuntimeError("no derivative\nof this")
        return FirstSteps(steps, None)

    monkeypatch.setattr(foresee, "take_first_steps", raising)
    monkeypatch.setattr(foresee, "_row", lambda subject, watch: small)
    files = [*("--probes", tmp_path / "probes.csv"), *("--probe-figure", tmp_path / "probes.png")]
    code, out, err = cli(*ASKED, "--out", tmp_path, *files, "--json")
    assert code == 1
    assert "1/4  xnorm at depth=1, seed 0: not measured, since it raises: RuntimeError: no derivative\n" in err
    assert "Traceback" not in err
    assert [row["lr_after"] for row in json.loads(out)["rows"]] == [pytest.approx(1e-15)]
    assert "probes.png is not drawn" in err
    assert list(pd.read_csv(tmp_path / "probes.csv")) == list(ProbeRow._fields)


def test_a_study_of_arms_that_all_raise_has_no_rows(cli, tmp_path, monkeypatch):
    def raising(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(foresee, "take_first_steps", raising)
    code, out, _ = cli(*ASKED, "--out", tmp_path, "--json")
    assert (code, json.loads(out)["rows"]) == (1, [])


def test_names_with_dollars_are_drawn_as_they_are(tmp_path):
    frame = probe_frame().assign(arm_label="a $x^{$", setting="data=$_{$")
    assert draw_first_steps(frame, tmp_path / "steps.png")[0].exists()
    own = foreseen_table(rows(("$_{$", "xnorm", 0, 0.01)), measured(("$_{$", "xnorm", 0.03, 1)))
    assert draw_foreseen(own.assign(arm_label="$x^{$"), tmp_path / "both.png")[0].exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--norm", "xnrom"), "unknown normaliser 'xnrom', did you mean 'xnorm'?"),
        (("--steps", "0"), "--steps 0: "),
        (("--seeds", "0"), "--seeds 0: at least one seed is needed"),
        (("--csv", "nowhere/x.csv"), "--csv nowhere/x.csv: no folder nowhere"),
        (("--probe-figure", "nowhere/x.png"), "--probe-figure nowhere/x.png: no folder nowhere"),
        (("--compare", "lr", "--lr", "1e-3,1e-2"), "foresee: the arms are learning rates; compare another field"),
        (("--epochs", "1", "--set", "train_limit=64", "--batch-size", "32"), "--steps 20: the cells have 2 steps"),
        (("--figure", "x.png"), "has no finished cells at several learning rates to compare"),
        (("missing",), "missing"),
        (("missing", "--norm", "l2"), "--norm does not apply to a stored study, which has its own grid"),
        (("--ref", "l2"), "--ref"),
        (("--task", "detect"), "foresee measures classifiers, and this study has --task detect"),
    ],
)
def test_a_wrong_option_is_one_line(cli, tmp_path, given, message):
    code, out, err = cli("foresee", *given, "--out", tmp_path)
    assert (code, out) == (2, ""), err
    assert message in err
    assert err.count("\n") == 1

"""Benchmarks of nets and of attention alone: what they measure is what they say, and a wrong word is one line."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

from ablations.bench.attention import (
    AttentionRow,
    attention_figure,
    bench_attention,
    describe_attention,
    draw_attention,
    per_token,
    spread_pct,
)
from ablations.bench.measure import count_multiply_adds, peak_bytes, time_calls
from ablations.bench.models import ModelBench, ModelRow, bench_models, describe_models
from ablations.engine.threads import cpu_threads
from ablations.figures.scaling import cost_against_tokens
from ufo.norms import NORMS

CPU = torch.device("cpu")


def test_a_peak_is_what_is_held_at_once():
    def call() -> None:
        first = torch.empty(1000)
        second = torch.empty(500)
        del first, second
        torch.empty(200)

    assert peak_bytes(call, CPU) == pytest.approx(6000, abs=256)
    assert peak_bytes(lambda: None, CPU) == 0


def test_multiply_adds_are_those_of_the_formula():
    assert count_multiply_adds(torch.nn.Linear(7, 5), torch.zeros(3, 7)) == 3 * 7 * 5


def test_time_and_threads():
    calls: list[int] = []
    assert time_calls(lambda: calls.append(torch.get_num_threads()), 3, CPU) > 0
    before = torch.get_num_threads()
    with cpu_threads(1):
        calls.append(torch.get_num_threads())
    assert calls == [before] * 3 + [1]
    assert torch.get_num_threads() == before


@pytest.fixture(scope="module")
def rows() -> list[AttentionRow]:
    numbers: list[int] = []
    made = bench_attention(
        ["xnorm", "softmax"],
        tokens=(64, 1024, 2048),
        num_heads=2,
        head_dim=8,
        rounds=2,
        num_threads=1,
        device=CPU,
        on_rows=lambda number, rows: numbers.append((number, len(rows))),
    )
    assert numbers == [(1, 3 * call) for call in range(1, 7)] + [(2, 2 * 3 * 3 + call) for call in range(1, 7)]
    return made


def test_every_normaliser_is_measured_at_every_number_of_tokens(rows):
    frame = pd.DataFrame(rows)
    assert len(frame) == 2 * 3 * (2 + 1 + 1)
    assert (frame["value"] > 0).all()
    assert frame.groupby("tokens")["images"].first().to_dict() == {64: 32, 1024: 2, 2048: 1}
    costs = per_token(rows)
    of = costs[costs["quantity"] == "multiply_adds"].set_index(["norm", "tokens"])["median"]
    assert of["xnorm", 64] == of["xnorm", 2048] == 2 * 2 * 8 * 8  # k^T v and q times it, two heads
    assert of["softmax", 2048] == 32 * of["softmax", 64] == 2 * 2 * 8 * 2048


def test_what_is_flat_is_told_from_what_is_not():
    def row(norm: str, tokens: int, quantity: str, per: float) -> AttentionRow:
        return AttentionRow(norm, tokens, 4, quantity, 1, per * tokens * 4)

    made = [row("xnorm", n, "peak_bytes", 100.0) for n in (196, 1024, 4096)]
    made += [row("xnorm", n, "time_s", ns * 1e-9) for n, ns in ((196, 900), (1024, 100), (4096, 114))]
    assert spread_pct(per_token(made), "xnorm", "time_s") == pytest.approx(14)
    (line,) = describe_attention(per_token(made))
    assert line == "xnorm: 100 to 114 ns a token, spread 14.0 %; 100 to 100 bytes a token, spread 0.0 %: linear, flat"
    made[-1] = row("xnorm", 4096, "time_s", 116e-9)
    assert describe_attention(per_token(made))[0].endswith("linear, NOT FLAT")
    made[-1] = row("xnorm", 4096, "time_s", 100e-9)
    made[2] = row("xnorm", 4096, "peak_bytes", 111.0)
    assert describe_attention(per_token(made))[0].endswith("linear, NOT FLAT")
    softmax = [part._replace(norm="softmax") for part in made]
    assert describe_attention(per_token(softmax))[0].endswith("quadratic")
    (few,) = describe_attention(per_token([part for part in made if part.tokens < 4096]))
    assert few.startswith("xnorm: 100 to 900 ns a token; 100 to 100 bytes a token; to judge linearity give two")


def test_the_figure_shows_an_image_against_its_tokens(rows, tmp_path):
    from matplotlib.figure import Figure

    costs = per_token(rows)
    axes = cost_against_tokens(costs[costs["quantity"] == "time_s"], Figure().subplots())
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert {"XNorm", "softmax"} <= set(lines)
    own = costs[(costs["norm"] == "xnorm") & (costs["quantity"] == "time_s") & (costs["tokens"] == 2048)]["median"]
    assert lines["XNorm"].get_ydata()[-1] == pytest.approx(1e3 * 2048 * own.item())
    assert [path.stat().st_size > 1000 for path in draw_attention(costs, tmp_path / "scaling")] == [True, True]
    with pytest.raises(ValueError, match="one quantity of time_s, peak_bytes, got"):
        cost_against_tokens(costs, Figure().subplots())


def test_the_legend_of_every_normaliser_is_on_the_page():
    made = [
        AttentionRow(norm, tokens, 1, quantity, 1, float(tokens * (place + 1)))
        for place, norm in enumerate(NORMS)
        for tokens in (64, 1024)
        for quantity in ("time_s", "peak_bytes")
    ]
    figure = attention_figure(per_token(made))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    own, page = legend.get_window_extent(), figure.bbox
    assert len(legend.get_texts()) == len(NORMS)
    assert page.y0 <= own.y0 < own.y1 <= page.y1
    few = attention_figure(per_token([row for row in made if row.norm in ("xnorm", "softmax")]))
    assert tuple(few.get_size_inches()) == (10, 4.4)


def make_bench(**options: object) -> ModelBench:
    base = {
        "models": ["ufo_vit_pico", "timm:test_vit"],
        "norms": ["xnorm"],
        "sizes": [(32, 32)],
        "batch": 2,
        "rounds": 2,
    }
    base |= {"compiled": False, "precision": "32-true", "num_threads": 1, "device": CPU, "training": True}
    return ModelBench(**(base | options))


def test_nets_are_measured_by_turns():
    seen: list[ModelRow] = []
    rows = bench_models(make_bench(), on_row=seen.append)
    assert rows == seen
    frame = pd.DataFrame(rows)
    assert (frame["value"] > 0).all()
    timed = frame[frame["quantity"] == "inference_s"]
    assert timed["round"].tolist() == [1, 1, 2, 2]
    assert timed["model"].tolist() == ["ufo_vit_pico", "timm:test_vit", "timm:test_vit", "ufo_vit_pico"]
    peaks = frame[frame["quantity"].str.endswith("_peak_bytes")].set_index(["model", "quantity"])["value"].sort_index()
    assert peaks["ufo_vit_pico", "training_peak_bytes"] > peaks["ufo_vit_pico", "inference_peak_bytes"]
    text = describe_models(rows)
    assert len(text) == 4
    assert text[0].startswith("32 px, 2 images, inference: ufo_vit_pico ")


def test_a_net_is_measured_with_several_normalisers():
    rows = bench_models(make_bench(models=["ufo_vit_pico"], norms=["xnorm", "softmax"], training=False), on_row=print)
    assert {row.model for row in rows} == {"ufo_vit_pico xnorm", "ufo_vit_pico softmax"}
    assert not any(row.quantity.startswith("training") for row in rows)


def test_larger_images_come_in_smaller_batches():
    bench = make_bench(batch=None)
    assert [bench.images((px, px)) for px in (224, 384, 512, 1024)] == [8, 3, 2, 1]
    assert make_bench(batch=5).images(1024) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model", "--models", "ufo_vit_sx"), "unknown model 'ufo_vit_sx', did you mean 'ufo_vit_s'?"),
        (("model", "--models", "timm:test_vot"), "unknown model of timm 'test_vot', did you mean 'test_vit'?"),
        (("model", "--models", "ufo_vit_pico", "--sizes", "31"), "ufo_vit_pico at 31 px: images of 31 x 31 px are no"),
        (("model", "--models", "ufo_vit_pico", "--norm", "l3"), "unknown normaliser 'l3'"),
        (("model", "--sizes", "0"), "--sizes 0: give sides or HEIGHTxWIDTH from 1 up"),
        (("model", "--precision", "fp8"), "--precision fp8: must be '32-true'"),
        (("model", "--device", "tpu"), "device tpu: unknown; give auto, cpu, cuda, cuda:N or mps"),
        (("model", "--csv", "nowhere/rows.csv"), "--csv nowhere/rows.csv: no folder nowhere"),
        (("attention", "--norm", "xnrom"), "unknown normaliser 'xnrom', did you mean 'xnorm'?"),
        (("attention", "--tokens", "64,64"), "--tokens 64,64: give numbers from 1 up, each once"),
        (("attention", "--figure", "nowhere/a.png"), "--figure nowhere/a.png: no folder nowhere"),
    ],
)
def test_a_wrong_word_is_one_line(cli, arguments, message):
    code, _, error = cli("bench", *arguments)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_the_commands_write_what_they_measure(cli, tmp_path):
    small = ("--tokens", "64,1024,2048", "--heads", 2, "--rounds", 1)
    files = ("--csv", tmp_path / "a.csv", "--figure", tmp_path / "a.png")
    code, printed, error = cli("bench", "attention", "--norm", "xnorm,l2", *small, *files)
    assert code == 0, error
    assert "xnorm: " in printed
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.png", "a.pdf"}
    assert set(pd.read_csv(tmp_path / "a.csv")["norm"]) == {"xnorm", "l2"}
    nets = ("--models", "ufo_vit_pico", "--sizes", "16", "--rounds", 1, "--json", "--precision", "bf16-mixed")
    code, printed, error = cli("bench", "model", *nets, "--csv", tmp_path / "m.csv")
    assert code == 0, error
    assert len(json.loads(printed)) == len(pd.read_csv(tmp_path / "m.csv")) == 6

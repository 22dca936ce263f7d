"""The scale of attention outputs at initialisation: known values, determinism, the command."""

from __future__ import annotations

import csv
import json
import math
from itertools import combinations

import numpy as np
import pytest
import torch

from ablations.bench.start import MEAN_STD, StartRow, bench_start, draw_start, start_table
from ufo.norms import NORMS, AttentionNorm, build_norm, register
from ufo.registry import UnknownNameError

SEEDS = tuple(range(16))
TOKENS = (64, 196, 784)

KNOWN = {
    "none": (1.51, 1.19, 1.04),
    "xnorm": (0.252, 0.249, 0.266),
    "xnorm_value": (0.247, 0.256, 0.251),
    "softmax": (0.55, 0.465, 0.47),
    "elu": (0.55, 0.465, 0.47),
    "efficient": (0.55, 0.465, 0.47),
    "sima": (0.023, 0.0067, 0.0015),
    "layernorm": (4.05, 4.12, 4.41),
    "single_l2": (21, 54, 182),
    "single_l2_kv": (1.15, 1.07, 1.20),
    "xca": (0.298, 0.272, 0.259),
}
"""RMS at each of `TOKENS` in an earlier measurement of other draws."""

SAMPLING = 0.2
"""Largest relative difference to `KNOWN`: the RMS of `none` has a standard deviation of some 30 % over draws, hence one
of 8 % over 16 of them, and of 15 % over the few of `KNOWN`."""


@pytest.fixture
def registry(monkeypatch):
    """Forget afterwards what a test registers."""
    monkeypatch.setattr(NORMS, "_entries", dict(NORMS._entries))


@pytest.fixture
def values(registry):
    """Register a normaliser that returns v."""

    @register(name="values", label="v", formula="v", source="a test", invariances=set())
    class Values(AttentionNorm):
        def forward(self, q, k, v):
            return v

    return Values


def measure(norms, *, tokens=TOKENS, head_dim=16, seeds=SEEDS):
    return bench_start(norms, tokens=tokens, head_dim=head_dim, seeds=seeds, on_row=lambda row: None)


@pytest.mark.slow
@pytest.mark.parametrize("norm", KNOWN)
def test_the_known_values_are_found_again(norm):
    measured = [row.rms for row in measure([norm])]
    assert measured == pytest.approx(KNOWN[norm], rel=SAMPLING)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "known"), [("none", 1.05), ("xnorm", 0.246), ("single_l2", 792), ("sima", 0.0004), ("xca", 0.255)]
)
def test_the_known_values_at_many_tokens_are_found_again(norm, known):
    (row,) = measure([norm], tokens=(3136,))
    assert row.rms == pytest.approx(known, rel=SAMPLING)


def test_the_unnormalised_product_has_the_expected_size():
    """E[out^2] = d E[q^2] E[C^2], where C is the context / N: the product of the means, and noise that falls with N."""
    d, tokens, mean = 4, 32, MEAN_STD**2
    (row,) = measure(["none"], tokens=(tokens,), head_dim=d, seeds=range(500))
    context = mean**2 + ((1 + mean) ** 2 - mean**2) / tokens
    assert row.rms == pytest.approx(math.sqrt(d * (1 + mean) * context), rel=0.1)


def test_hydras_output_falls_with_the_number_of_heads_as_the_page_of_arms_says():
    def rms(heads: int) -> float:
        draws = [draw_start(seed, tokens=64, head_dim=8) for seed in range(40 * heads)]
        q, k, v = (torch.cat(part).view(40, heads, 64, 8) for part in zip(*draws, strict=True))
        norm = build_norm("hydra", num_heads=heads, key_dim=8, value_dim=8).double()
        return norm(q, k, v).square().mean().sqrt().item()

    assert rms(1) / rms(8) == pytest.approx(8, rel=0.25)


def test_rms_and_quantiles_are_those_of_all_entries(values):
    (row,) = measure(["values"], tokens=(50,), head_dim=3, seeds=(2, 7))
    v = np.concatenate([draw_start(seed, tokens=50, head_dim=3)[2].numpy().ravel() for seed in (2, 7)])
    assert v.size == 300
    assert row.rms == pytest.approx(math.sqrt(np.mean(v**2)))
    assert (row.low, row.high) == (np.sort(v)[2], np.sort(v)[296])


def test_draws_are_noise_around_a_mean_that_the_tokens_share():
    for part in zip(*(draw_start(seed, tokens=400, head_dim=8) for seed in range(60)), strict=True):
        x = torch.stack(part).squeeze(1, 2)
        assert x.shape == (60, 400, 8)
        assert x.dtype == torch.float64
        means = x.mean(1)
        assert x.std(1).mean() == pytest.approx(1, rel=0.02)
        assert means.std() == pytest.approx(MEAN_STD, rel=0.1)
        assert abs(means.mean()) < 0.1


def test_parts_seeds_and_numbers_of_tokens_have_their_own_noise_and_the_seed_its_mean():
    q, k, v = draw_start(0, tokens=300, head_dim=4)
    noise = [part - part.mean(-2, keepdim=True) for part in (q, k, v)]
    assert not any(torch.allclose(a, b) for a, b in combinations(noise, 2))
    assert not torch.equal(q, draw_start(1, tokens=300, head_dim=4)[0])
    longer = draw_start(0, tokens=20_000, head_dim=4)[0]
    assert not torch.equal(longer[..., :300, :], q)
    assert longer.mean(-2).flatten().tolist() == pytest.approx(q.mean(-2).flatten().tolist(), abs=0.25)


def test_the_same_seeds_give_the_same_numbers_whatever_else_is_measured():
    state = torch.get_rng_state()
    one = measure(["l2", "sima"], tokens=(16, 9), head_dim=4, seeds=(0, 3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    other = measure(["sima"], tokens=(9,), head_dim=4, seeds=(0, 3))
    assert [(row.norm, row.tokens) for row in one] == [("l2", 16), ("l2", 9), ("sima", 16), ("sima", 9)]
    assert one[-1:] == other
    assert measure(["sima"], tokens=(9,), head_dim=4, seeds=(0, 4)) != other


def test_an_unknown_normaliser_is_refused_before_anything_is_measured():
    rows: list[StartRow] = []
    with pytest.raises(UnknownNameError, match="did you mean 'xnorm'"):
        bench_start(["l2", "xnrom"], tokens=(4,), head_dim=4, seeds=(0,), on_row=rows.append)
    assert rows == []


def test_the_table_has_three_and_two_significant_digits_and_no_exponents():
    rows = [StartRow("a", 64, 0.25, -0.5623, 0.6), StartRow("a", 3136, 12_345.6, -31_234.0, 0.0)]
    rows += [StartRow("b", 64, 3.7449e-7, -1e-6, 1.23e-6), StartRow("b", 3136, math.inf, -math.inf, math.nan)]
    head, lines = start_table(rows)
    assert head == ["name", "N = 64", "N = 3,136"]
    assert lines == [
        ["a", "0.250 [-0.56, 0.60]", "12300 [-31000, 0]"],
        ["b", "0.000000374 [-0.0000010, 0.0000012]", "inf [-inf, nan]"],
    ]


ASKED = ("bench", "start", "--norm", "xnorm,softmax", "--tokens", "4,9", "--head-dim", "4", "--seeds", "2")


def test_the_command_prints_the_table_in_each_form(cli, tmp_path):
    expected = measure(["xnorm", "softmax"], tokens=(4, 9), head_dim=4, seeds=(0, 1))
    code, out, err = cli(*ASKED, "--json", "--csv", tmp_path / "rows.csv")
    assert code == 0, err
    assert json.loads(out) == [row._asdict() for row in expected]
    with (tmp_path / "rows.csv").open() as file:
        assert [float(row["rms"]) for row in csv.DictReader(file)] == [row.rms for row in expected]
    head, rows = start_table(expected)
    code, out, err = cli(*ASKED, "--markdown")
    assert code == 0, err
    assert out.splitlines()[2:] == [f"| {' | '.join(row)} |" for row in rows]
    code, out, err = cli(*ASKED)
    assert code == 0, err
    assert all(cell in out for row in (head, *rows) for cell in row)


def test_the_command_measures_every_normaliser_and_those_of_plug_ins(cli, registry, tmp_path, monkeypatch):
    (tmp_path / "start_plug_in.py").write_text(
        "from ufo.norms import AttentionNorm, register\n"
        "@register(name='twice', label='2 v', formula='2 v', source='a test', invariances=set())\n"
        "class Twice(AttentionNorm):\n"
        "    def forward(self, q, k, v):\n"
        "        return 2 * v\n"
    )
    monkeypatch.chdir(tmp_path)
    small = (
        "bench",
        "start",
        "--tokens",
        "4",
        "--head-dim",
        "4",
        "--seeds",
        "1",
        "--json",
        "--plugin",
        "start_plug_in",
    )
    code, out, err = cli(*small)
    assert code == 0, err
    rows = {row["norm"]: row for row in json.loads(out)}
    assert list(rows) == list(NORMS)
    v = draw_start(0, tokens=4, head_dim=4)[2]
    assert rows["twice"]["rms"] == pytest.approx(2 * v.square().mean().sqrt().item())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--norm", "xnrom"), "unknown normaliser 'xnrom', did you mean 'xnorm'?"),
        (("--tokens", "0"), "--tokens 0: give numbers from 1 up"),
        (("--head-dim", "0"), "--head-dim 0: "),
        (("--seeds", "0"), "--seeds 0: at least one seed is needed"),
        (("--json", "--markdown"), "give --json or --markdown, not both"),
    ],
)
def test_a_wrong_option_is_one_line(cli, given, message):
    code, out, err = cli("bench", "start", *given)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1

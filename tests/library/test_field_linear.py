"""What the linear cores of the field group promise beyond the conformance suite."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ablations.bench.measure import count_multiply_adds
from ablations.config import recipes
from ablations.config.make import make_config
from ablations.data import find_source, prepare
from ablations.engine.cell import run_cell
from ablations.training.optimizer import split_by_decay
from ufo import NORMS, build
from ufo.attention import ClassAttention
from ufo.flops import count_products
from ufo.norms import build_norm
from ufo.testing import HALF_TOLERANCE, NORM_CHECKS, build_small, draw_qkv

LINEAR_CORES = ["inline", "mala", "rala", "focused", "polarity", "relu", "hydra", "norm_attention"]
MEANS = ["inline", "mala", "rala", "focused", "polarity", "relu"]
"""Their weights of a query sum to 1."""

LEARNABLE = {"focused": "scale", "polarity": "power"}


def built(name: str, *, heads: int = 2, dim: int = 4):
    return build_norm(name, num_heads=heads, key_dim=dim, value_dim=dim).double()


@pytest.mark.parametrize(("name", "part"), [("rala", "gate"), ("polarity", "gate"), ("focused", "convolution")])
def test_a_core_says_which_part_of_its_method_is_left_out(name, part):
    assert part in NORMS[name].caveat
    assert NORMS[name].caveat.endswith("left out.")


def test_the_linear_cores_are_the_groups_and_say_where_they_are_from():
    for spec in (NORMS[name] for name in LINEAR_CORES):
        assert spec.group == "field"
        assert spec.linear
        assert "arXiv" in spec.source
        assert spec.latex
        assert "$" not in spec.latex


@pytest.mark.parametrize("name", MEANS)
def test_the_weights_of_a_query_sum_to_one(name):
    norm = build_small(NORMS[name]).double()
    q, k, v = (10 * x for x in draw_qkv(norm, queries=13))
    out = norm(q, k, torch.ones_like(v))
    assert (out < 1 + 1e-9).all()
    assert (out > 1 - 1e-3).double().mean() > 0.8  # a query whose map is about as small as eps has a smaller sum


@pytest.mark.parametrize("dtype", HALF_TOLERANCE, ids=str)
@pytest.mark.parametrize("factor", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("name", MEANS)
def test_short_and_long_queries_and_keys_are_right_in_half_types(name, factor, dtype):
    norm = build_norm(name, num_heads=2, key_dim=4, value_dim=4).to(dtype)
    q, k, v = draw_qkv(norm, queries=300, keys=300)  # 30 (x + 3) reaches 200, and its cube 8,000,000
    inputs = [x.to(dtype).requires_grad_() for x in (factor * (q + 3), factor * (k + 3), v)]
    out = norm(*inputs)
    expected = built(name)(*(x.detach().double() for x in inputs))
    assert (out.double() - expected).abs().max() < HALF_TOLERANCE[dtype] * expected.square().mean().sqrt()
    out.float().mean().backward()
    assert all(x.grad.isfinite().all() for x in inputs)


def test_inline_is_the_mean_of_the_values_for_a_zero_query():
    norm = built("inline")
    q, k, v = draw_qkv(norm)
    torch.testing.assert_close(norm(0 * q, k, v), v.mean(2, keepdim=True).expand_as(q))


def test_mala_by_hand():
    """d = 1, N = 2: phi(q) = 1 and phi(k) = (1, 3), so z = 2 and the weights are ((1, 3) (1 + 1/2) - 2) / 2."""
    norm = build_norm("mala", num_heads=1, key_dim=1, value_dim=1).double()
    q = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    k = torch.tensor([0.0, 2.0], dtype=torch.float64).view(1, 1, 2, 1)
    v = torch.tensor([10.0, 20.0], dtype=torch.float64).view(1, 1, 2, 1)
    expected = (1.5 - 2) / 2 * 10 + (4.5 - 2) / 2 * 20
    assert norm(q, k, v).item() == pytest.approx(expected, rel=1e-5)


def test_rala_weighs_a_key_by_all_queries_and_repeating_the_tokens_changes_nothing():
    norm = built("rala")
    q, k, v = draw_qkv(norm, queries=13)
    out = norm(q, k, v)
    torch.testing.assert_close(norm(q, k.repeat(1, 1, 3, 1), v.repeat(1, 1, 3, 1)), out)
    assert not torch.allclose(norm(q[:, :, :5], k, v), out[:, :, :5], atol=1e-3)
    assert ClassAttention.uses("rala") == "softmax"


def test_focused_keeps_lengths_and_turns_towards_the_largest_channel():
    norm = built("focused")
    x = draw_qkv(norm)[0]
    mapped = norm.feature_map(x)
    plain = (x.relu() + 1e-6) / math.log(2)
    torch.testing.assert_close(mapped.square().sum((1, 3)), plain.square().sum((1, 3)))
    tokens, cubes = (a.transpose(1, 2).flatten(2) for a in (plain, mapped))
    assert (cubes.amax(-1) >= tokens.amax(-1)).all()
    assert torch.equal(cubes.argmax(-1), tokens.argmax(-1))


def test_a_scale_that_has_grown_leaves_focused_finite():
    norm = build_norm("focused", num_heads=1, key_dim=4, value_dim=4)
    with torch.no_grad():
        norm.scale.fill_(1e3)
    negative = [-torch.ones(1, 1, 5, 4).requires_grad_() for _ in range(3)]
    out = norm(*negative)
    out.sum().backward()
    assert out.isfinite().all()
    assert norm.scale.grad.isfinite().all()


def test_polarity_takes_same_signs_for_the_first_values_and_opposite_ones_for_the_second():
    norm = build_norm("polarity", num_heads=1, key_dim=1, value_dim=2).double()
    q = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    k = torch.tensor([2.0, -2.0], dtype=torch.float64).view(1, 1, 2, 1)
    v = torch.tensor([[1.0, 1.0], [5.0, 5.0]], dtype=torch.float64).view(1, 1, 2, 2)
    torch.testing.assert_close(norm(q, k, v).flatten(), torch.tensor([1.0, 5.0]).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("value", "exponent"), [(-1e3, 1.0), (0.0, 3.0), (1e3, 5.0)])
def test_polaritys_exponent_lies_between_one_and_five(value, exponent):
    norm = built("polarity")
    with torch.no_grad():
        norm.power.fill_(value)
    x = draw_qkv(norm)[0].requires_grad_()
    plus, minus = norm.polar_parts(x)
    torch.testing.assert_close(plus - minus, x.sign() * x.abs() ** exponent)
    (plus.sum() + minus.sum()).backward()
    assert x.grad.isfinite().all()
    assert norm.power.grad.isfinite().all()


def test_relu_gives_zero_for_a_query_that_meets_no_key():
    norm = build_norm("relu", num_heads=1, key_dim=2, value_dim=2)
    q = torch.tensor([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]]).view(1, 1, 3, 2).requires_grad_()
    k = torch.tensor([[-1.0, 2.0], [-3.0, 4.0]]).view(1, 1, 2, 2).requires_grad_()
    v = torch.tensor([[3.0, 0.0], [6.0, 9.0]]).view(1, 1, 2, 2).requires_grad_()
    out = norm(q, k, v)
    torch.testing.assert_close(out[0, 0], torch.tensor([[0.0, 0.0], [0.0, 0.0], [5.0, 6.0]]))
    out.sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_gradient_of_relu_is_finite_at_16384_tokens_with_a_query_that_meets_no_key(dtype):
    norm = build_norm("relu", num_heads=1, key_dim=4, value_dim=4)
    drawn = draw_qkv(norm, queries=3, keys=16_384)
    drawn[0][:, :, 0] = -1
    inputs = [x.to(dtype).requires_grad_() for x in drawn]
    norm(*inputs).float().mean().backward()
    assert all(x.grad.isfinite().all() for x in inputs)


def test_hydra_is_one_query_times_one_sum_for_all_heads():
    norm = built("hydra")
    q, k, v = draw_qkv(norm)
    out = norm(q, k, v)
    ratios = out / q  # of a channel: the same for all queries, up to the length of the query
    lengths = q.square().sum((1, 3), keepdim=True).sqrt()
    torch.testing.assert_close(ratios * lengths, (ratios * lengths)[:, :, :1].expand_as(q), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="'hydra' needs key_dim = value_dim, not 4 and 5"):
        build_norm("hydra", num_heads=1, key_dim=4, value_dim=5)


def test_norm_attentions_output_has_rms_one_over_all_heads():
    norm = built("norm_attention")
    q, k, v = draw_qkv(norm)
    v[:, 0] *= 100  # one head outweighs the other, which a norm per head would hide
    out = norm(q, k, v)
    torch.testing.assert_close(out.square().mean((1, 3)), torch.ones(2, 11).double())
    assert out[:, 0].square().mean() > 10 * out[:, 1].square().mean()


def test_repeating_all_tokens_of_hydra_multiplies_its_output():
    norm = built("hydra")
    q, k, v = draw_qkv(norm)
    torch.testing.assert_close(norm(q, k.repeat(1, 1, 3, 1), v.repeat(1, 1, 3, 1)), 3 * norm(q, k, v))


@pytest.mark.parametrize(("name", "parameter"), LEARNABLE.items())
def test_a_learnable_part_starts_at_zero_per_head_and_channel_and_is_exempt_from_decay(name, parameter):
    norm = build_norm(name, num_heads=3, key_dim=5, value_dim=7)
    assert {key: value.shape for key, value in norm.named_parameters()} == {parameter: (3, 1, 5)}
    assert not norm.get_parameter(parameter).any()
    decayed, exempt = split_by_decay(build("ufo_vit_pico", norm=name))
    assert f"blocks.0.attn.norm.{parameter}" in exempt
    assert not [key for key in decayed if ".norm." in key]


@pytest.mark.parametrize(("name", "parameter"), LEARNABLE.items())
def test_a_learnable_part_is_trained_and_recorded(name, parameter, tmp_path, cache):
    digits = prepare(find_source("digits", data_root=tmp_path, download=False, image_size=None))
    base = recipes.defaults(image_side=8, flips=False) | {"data": "digits", "data_fingerprint": digits.fingerprint}
    config = make_config(base | {"epochs": 1, "train_limit": 128, "norm": name, "seed": 0})
    (tmp_path / "cell").mkdir()
    result = run_cell(config, digits, folder=tmp_path / "cell", device=torch.device("cpu"))
    assert result.outcome == "ok"
    rows = [line.split(",") for line in (tmp_path / "cell" / "probes.csv").read_text().splitlines()]
    means = {row[1]: float(row[-1]) for row in rows if f"mean_{parameter}" in row}
    assert set(means) == {"blocks.0.attn", "blocks.1.attn", "class_blocks.0.attn"}
    assert all(means.values())


def test_products_are_counted_apart_from_elementwise_multiplications():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert count_products(lambda: a @ b) == (60, 0)
    assert count_products(lambda: (a * 2 * a).sum() + (a @ b).sum()) == (60, 24)
    assert count_products(lambda: a + a) == (0, 0)
    with FlopCounterMode(display=False) as counter:
        a @ b
    assert counter.get_total_flops() == 120  # a multiply-add is two of torch's


def test_hydra_has_no_matrix_product_and_a_linear_cost():
    counts = []
    for tokens in (64, 128):
        norm = build_norm("hydra", num_heads=2, key_dim=8, value_dim=8)
        qkv = draw_qkv(norm, queries=tokens, keys=tokens)
        counts.append(count_products(lambda norm=norm, qkv=qkv: norm(*qkv)))
    assert [matrices for matrices, _ in counts] == [0, 0]
    assert count_multiply_adds(norm, *qkv) == counts[1][1]  # of the benchmark, whose axes are logarithmic
    assert counts[1][1] == pytest.approx(2 * counts[0][1], rel=0.02)


class Disguised(NORMS["hydra"].cls):
    """N x N scores by elementwise products alone."""

    def forward(self, q, k, v):
        scores = (q.unsqueeze(3) * k.unsqueeze(2)).sum(-1, keepdim=True)  # (B, h, M, N, 1)
        return (scores * v.unsqueeze(2)).sum(3)


class Constant(NORMS["hydra"].cls):
    """The same number of products whatever the number of tokens."""

    def forward(self, q, k, v):
        return (k.mean(2, keepdim=True) * v.mean(2, keepdim=True)).expand_as(q)


@pytest.mark.parametrize(("cls", "growth"), [(Disguised, r"4\.00"), (Constant, r"1\.00")])
def test_elementwise_products_that_do_not_grow_linearly_are_caught(cls, growth):
    spec = replace(NORMS["hydra"], cls=cls)
    with pytest.raises(AssertionError, match=rf"FLOPs grow {growth} times from N to 2N; linear=True"):
        NORM_CHECKS["flops"](spec, cls.forward)

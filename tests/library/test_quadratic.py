"""The field's quadratic cores, and DyT: initial values, what they compute in special cases, and many tokens."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from ufo.norms import NORMS, build_norm
from ufo.testing import HALF_TOLERANCE, build_small, draw_qkv

QUADRATIC = ["sigmoid", "relu_n", "qk_norm", "ssmax", "softmax1"]
LOGIT = 3.0


def build(name: str, *, num_heads: int = 2, key_dim: int = 4, value_dim: int = 4):
    return build_norm(name, num_heads=num_heads, key_dim=key_dim, value_dim=value_dim).double()


def equal_tokens(num_keys: int, *, logit: float = LOGIT):
    """Return q, k and v of one head whose logits q k / sqrt d all equal ``logit``, with values 1, ..., N."""
    q = torch.full((1, 1, 1, 4), math.sqrt(2 * logit / 4), dtype=torch.float64)
    v = torch.arange(1, num_keys + 1, dtype=torch.float64).view(1, 1, num_keys, 1)
    return q, q.expand(1, 1, num_keys, 4), v


@pytest.mark.parametrize("num_keys", [1, 2, 10, 196])
@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("sigmoid", lambda n: 1 / (1 + n * math.exp(-LOGIT))),
        ("relu_n", lambda n: LOGIT / n),
        ("qk_norm", lambda n: 1 / n),
        ("ssmax", lambda n: 1 / n),
        ("softmax1", lambda n: 1 / (n + math.exp(-LOGIT))),
    ],
)
def test_weights_of_equal_tokens(name, weight, num_keys):
    q, k, v = equal_tokens(num_keys)
    out = build(name, num_heads=1, value_dim=1)(q, k, v)
    torch.testing.assert_close(out.item(), weight(num_keys) * num_keys * (num_keys + 1) / 2)


def two_keys(num_keys: int):
    """Return a query, a key along it, N - 1 keys opposite to it, and the indicator of these as v."""
    q = torch.zeros(1, 1, 1, 4, dtype=torch.float64)
    q[..., 0] = 1.0
    k = -q.repeat(1, 1, num_keys, 1)
    k[:, :, 0] *= -1
    v = torch.ones(1, 1, num_keys, 1, dtype=torch.float64)
    v[:, :, 0] = 0.0
    return q, k, v


def factor_of(name: str, num_keys: int, *, offset: float = 0.0) -> float:
    """Return the g of softmax(g x) for the scores 1 and N - 1 times -1, from the share of the latter in the weights."""
    norm = build(name, num_heads=1, value_dim=1)
    with torch.no_grad():
        next(norm.parameters()).add_(offset)
    share = norm(*two_keys(num_keys)).item()  # (N - 1) e^-g / (e^g + (N - 1) e^-g)
    return (math.log(num_keys - 1) - math.log(share / (1 - share))) / 2


@pytest.mark.parametrize("num_keys", [2, 16, 196])
def test_g_of_qk_norm_starts_at_the_binary_logarithm_of_the_entries_off_the_diagonal(num_keys):
    start = math.log2(num_keys**2 - num_keys)
    assert factor_of("qk_norm", num_keys) == pytest.approx(start, rel=1e-5)
    assert factor_of("qk_norm", num_keys, offset=0.7) == pytest.approx(start + 0.7, rel=1e-5)


@pytest.mark.parametrize("num_keys", [2, 16, 1024])
def test_ssmax_is_softmax_of_the_logits_times_a_log_n(num_keys):
    logit = 1 / math.sqrt(4)
    assert factor_of("ssmax", num_keys) == pytest.approx(0.168 * math.log(num_keys) * logit, rel=1e-6)
    assert factor_of("ssmax", num_keys, offset=0.5) == pytest.approx(0.668 * math.log(num_keys) * logit, rel=1e-6)


def test_a_of_ssmax_starts_where_softmax_is_kept_on_average_over_1024_lengths():
    a = build("ssmax").gain
    assert torch.equal(a, torch.full((2, 1, 1), a[0].item(), dtype=torch.float64))
    assert a[0].item() == pytest.approx(0.168, rel=1e-6)
    assert a[0].item() * sum(math.log(n) for n in range(1, 1025)) / 1024 == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize("name", ["ssmax", "qk_norm"])
def test_one_key_gives_its_value(name):
    norm = build_small(NORMS[name]).double()
    q, k, v = draw_qkv(norm, queries=3, keys=1)
    torch.testing.assert_close(norm(q, k, v), v.expand(-1, -1, 3, -1))


def test_softmax1_tends_to_zero_where_all_logits_are_low_and_to_softmax_where_they_are_high():
    low, high = (build("softmax1", num_heads=1, value_dim=1)(*equal_tokens(5, logit=x)).item() for x in (0.0, 40.0))
    assert (low, high) == pytest.approx((15 / 6, 3.0))
    q, k, v = equal_tokens(5, logit=40.0)
    assert build("softmax1", num_heads=1, value_dim=1)(-q, k, v).item() == pytest.approx(0, abs=1e-15)


def test_softmax1_is_softmax_with_a_token_of_zeros():
    norm = build("softmax1")
    q, k, v = draw_qkv(norm, queries=7, keys=9)
    with_zero = [torch.cat((x, torch.zeros_like(x[:, :, :1])), dim=2) for x in (k, v)]
    torch.testing.assert_close(norm(q, k, v), F.scaled_dot_product_attention(q, *with_zero))


def test_sigmoid_keeps_its_size_with_the_number_of_tokens():
    """With b = -log N the weights sum to about 1 at small logits, whatever N."""
    norm = build_norm("sigmoid", num_heads=2, key_dim=4, value_dim=4)
    sizes = []
    for num_keys in (64, 256, 1024, 4096):
        q, k, _ = draw_qkv(norm, queries=5, keys=num_keys)
        ones = torch.ones(2, 2, num_keys, 4, dtype=torch.float64)
        sizes.append(norm(0.1 * q, 0.1 * k, ones).mean().item())
    assert all(0.9 < size < 1.1 for size in sizes)
    assert all(abs(b / a - 1) < 0.03 for a, b in pairwise(sizes))


def test_dyt_starts_as_the_authors_layer_and_shares_it_between_the_heads():
    norm = build("dyt", num_heads=3, key_dim=5, value_dim=7)
    starts = {name: (tuple(p.shape), set(p.flatten().tolist())) for name, p in norm.named_parameters()}
    layer = {"alpha": ((1,), {0.5}), "weight": ((5,), {1.0}), "bias": ((5,), {0.0})}
    assert starts == {f"norm_{part}.{name}": start for part in "qk" for name, start in layer.items()}
    q, k, v = draw_qkv(norm)
    expected = torch.tanh(0.5 * q) @ torch.tanh(0.5 * k).transpose(-2, -1) @ v / k.shape[2]
    torch.testing.assert_close(norm(q, k, v), expected)


def test_dyt_bounds_what_a_long_query_or_key_adds():
    norm = build("dyt", num_heads=1)
    v = torch.ones(1, 1, 3, 4, dtype=torch.float64)
    far = torch.full((1, 1, 3, 4), 1e6, dtype=torch.float64)
    torch.testing.assert_close(norm(far, far, v), 4 * v)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALF_TOLERANCE, ids=str)
@pytest.mark.parametrize(("num_queries", "num_keys"), [(1024, 1024), (16, 4096), (1, 16_384)])
@pytest.mark.parametrize("name", QUADRATIC)
def test_half_types_at_many_tokens(name, num_queries, num_keys, dtype):
    """Gradients are compared by their RMS, since most of a softmax's lies in few keys, and only where no kernel of
    torch computes them."""
    norm = build_small(NORMS[name], key_dim=16, value_dim=16, num_heads=1).to(dtype)
    drawn = [x.to(dtype).requires_grad_() for x in draw_qkv(norm, queries=num_queries, keys=num_keys, batch=1)]
    wide = [x.detach().double().requires_grad_() for x in drawn]
    out = norm(*drawn)
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
    got = torch.autograd.grad((out * weight.to(dtype)).sum(), drawn)
    expected = norm.double()(*wide)
    want = torch.autograd.grad((expected * weight).sum(), wide)
    assert (out.double() - expected).abs().max() <= HALF_TOLERANCE[dtype] * rms(expected)
    for a, b in zip(got, want, strict=True):
        assert a.isfinite().all()
        assert name not in ("sigmoid", "relu_n") or rms(a.double() - b) <= HALF_TOLERANCE[dtype] * rms(b)


def rms(x: torch.Tensor) -> torch.Tensor:
    return x.square().mean().sqrt()

"""Every normaliser against the conformance suite, and what the registry and the shared arithmetic promise."""

from __future__ import annotations

import math

import pytest
import torch
from library.loops import LOOPS, OWN

from ufo import CONTRASTS, NORMS, AttentionNorm, build, register
from ufo.attention import ClassAttention, UFOAttention
from ufo.norms import build_norm, l2_context, l2_normalise, scaled_context, token_scale
from ufo.registry import UnknownNameError
from ufo.testing import NORM_CHECKS, build_small, check_norm, draw_qkv

GAINED = ["xnorm", "xnorm_value"]


@pytest.fixture
def registry(monkeypatch):
    """Forget afterwards what a test registers."""
    monkeypatch.setattr(NORMS, "_entries", dict(NORMS._entries))


def register_plug_in(name="mine", *, class_name="Mine", **changes):
    """Register v, as it is, under a name."""
    cls = type(class_name, (AttentionNorm,), {"forward": lambda self, q, k, v: v, "__module__": "plug_in"})
    given = {"label": "mine", "formula": "v", "source": "a test", "invariances": set()} | changes
    return register(name=name, **given)(cls)


@pytest.mark.every_case
@pytest.mark.parametrize("check", NORM_CHECKS)
@pytest.mark.parametrize("name", OWN)
def test_every_normaliser_conforms(name, check):
    NORM_CHECKS[check](NORMS[name], LOOPS[name])


def test_every_normaliser_has_a_loop():
    assert set(LOOPS) == set(OWN)


def test_check_norm_runs_the_checks_on_a_name():
    with pytest.raises(AssertionError, match="output differs from the loop's"):
        check_norm("l2", reference=LOOPS["xnorm_fixed"])
    with pytest.raises(UnknownNameError, match="did you mean 'xnorm'"):
        check_norm("xnrom", reference=LOOPS["xnorm"])


def test_xca_is_timms_with_the_same_weights():
    xcit = pytest.importorskip("timm.models.xcit")
    torch.manual_seed(0)  # timm draws its weights from the global generator
    theirs = xcit.XCA(24, num_heads=3, qkv_bias=True).double()
    ours = UFOAttention(embed_dim=24, attn_dim=24, num_heads=3, norm="xca").double()
    with torch.no_grad():
        theirs.temperature.uniform_(0.5, 2.0)
        for name, parameter in ours.named_parameters():
            parameter.copy_(theirs.get_parameter(name.removeprefix("norm.")))
    x = (10 * torch.randn(2, 11, 24, dtype=torch.float64)).requires_grad_()
    weight = torch.randn(2, 11, 24, dtype=torch.float64)
    outs = [net(x) for net in (ours, theirs)]
    # timm adds no eps to the sums of squares, which are some hundreds here, and ours 1e-6.
    torch.testing.assert_close(*outs, rtol=0, atol=1e-7)
    grads = [
        torch.autograd.grad((out * weight).sum(), (x, *net.parameters()))
        for out, net in zip(outs, (ours, theirs), strict=True)
    ]
    of_ours = dict(
        zip(("x", *(name.removeprefix("norm.") for name, _ in ours.named_parameters())), grads[0], strict=True)
    )
    of_theirs = dict(zip(("x", *(name for name, _ in theirs.named_parameters())), grads[1], strict=True))
    assert of_ours.keys() == of_theirs.keys()
    for name, grad in of_ours.items():
        torch.testing.assert_close(grad, of_theirs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_xnorm_is_bounded_by_its_gains(seed):
    norm = build_small(NORMS["xnorm"]).double()
    with torch.no_grad():
        norm.gain_q.copy_(torch.tensor([-3.0, 0.5, 2.0]).view(3, 1, 1))
    bound = (norm.gain_q * norm.gain_kv).abs()  # (h, 1, 1)
    assert (norm(*draw_qkv(norm, seed=seed)).abs() <= bound).all()


def test_xnorm_reaches_its_bound_where_a_query_is_a_column_of_the_context():
    norm = build_small(NORMS["xnorm"]).double()
    _, k, v = draw_qkv(norm)
    columns = (k.transpose(-2, -1) @ v).transpose(-2, -1)  # (B, h, value_dim, key_dim): one query for each column
    reached = norm(columns, k, v).diagonal(dim1=-2, dim2=-1)
    bound = (norm.gain_q * norm.gain_kv).squeeze(-1).expand_as(reached)
    torch.testing.assert_close(reached, bound, rtol=1e-5, atol=0)


def test_xnorm_values_bound_is_sqrt_d_times_xnorms():
    k, v = torch.eye(4).view(1, 1, 4, 4), torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1, 1, 4, 4)
    q = torch.ones(1, 1, 1, 4)  # k^T v has ones in its first column and nothing elsewhere
    out = {name: build_norm(name, num_heads=1, key_dim=4, value_dim=4)(q, k, v).flatten() for name in GAINED}
    torch.testing.assert_close(out["xnorm"], torch.tensor([1.0, 0, 0, 0]))
    torch.testing.assert_close(out["xnorm_value"], torch.tensor([2.0, 0, 0, 0]))


@pytest.mark.parametrize("seed", range(10))
def test_xnorm_value_is_bounded_by_sqrt_d(seed):
    norm = build_small(NORMS["xnorm_value"]).double()
    bound = math.sqrt(norm.key_dim) * (norm.gain_q * norm.gain_kv).abs()
    assert (norm(*draw_qkv(norm, seed=seed)).abs() <= bound).all()


@pytest.mark.parametrize("gain", ["gain_q", "gain_kv"])
@pytest.mark.parametrize("name", GAINED)
def test_a_gain_starts_at_one_and_acts_once_on_its_own_head(name, gain):
    norm = build_norm(name, num_heads=3, key_dim=5, value_dim=5).double()
    inputs = draw_qkv(norm)
    before = norm(*inputs)
    parameter = norm.get_parameter(gain)
    assert torch.equal(parameter, torch.ones(3, 1, 1, dtype=torch.float64))
    with torch.no_grad():
        parameter[1] = -3.0
    factors = torch.tensor([1.0, -3.0, 1.0], dtype=torch.float64).view(3, 1, 1)
    torch.testing.assert_close(norm(*inputs), factors * before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zero_vectors_stay_exactly_zero(dtype):
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=dtype, requires_grad=True)
    out = l2_normalise(x, dim=-1)
    out.sum().backward()
    assert torch.equal(out[0], torch.zeros(2, dtype=dtype))
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_promoted_and_rounded_once(dtype):
    x = (300 * torch.randn(64, 16, generator=torch.Generator().manual_seed(0))).to(dtype)  # 300^2 overflows fp16
    out = l2_normalise(x, dim=-1, gain=torch.tensor(0.7))
    exact = 0.7 * x.double() / x.double().norm(dim=-1, keepdim=True)
    assert out.dtype == dtype
    one_rounding = torch.finfo(dtype).eps / 2
    assert ((out.double() - exact).abs() <= 1.01 * one_rounding * exact.abs() + torch.finfo(dtype).tiny).all()


def test_float64_stays_float64():
    out = l2_normalise(torch.tensor([3.0, 4.0], dtype=torch.float64), dim=0, eps=0.0)
    torch.testing.assert_close(out, torch.tensor([0.6, 0.8], dtype=torch.float64), rtol=1e-15, atol=0)


@pytest.mark.parametrize("num_keys", [1, 2, 3, 4, 5, 16, 17, 64, 196, 197, 3136, 16384, 16385, 10**6])
def test_token_scale_is_a_power_of_two_near_one_over_root_n(num_keys):
    scale = token_scale(num_keys)
    assert math.frexp(scale)[0] == 0.5
    assert 0.25 < num_keys * scale**2 <= 1


def test_the_context_is_scaled_exactly_and_its_eps_with_it():
    _, k, v = draw_qkv(build_small(NORMS["xnorm"]), keys=37)
    k = k * 1e-3  # so short that eps is felt
    plain = k.transpose(-2, -1) @ v
    context, scale = scaled_context(k, v)
    assert torch.equal(context, plain * scale)
    for dim in (-2, -1):
        expected = plain / (plain.square().sum(dim, keepdim=True) + 1e-6).sqrt()
        torch.testing.assert_close(l2_context(k, v, dim=dim), expected, rtol=1e-12, atol=0)


def test_single_l2_overflows_in_fp16_where_xnorm_does_not():
    """A finding about single_l2: not divided by N, its context leaves fp16's range (65,504) at 16,384 tokens."""
    tokens = torch.full((1, 1, 16_384, 4), 2.0, dtype=torch.float16)  # every entry of k^T v is 65,536
    out = {}
    for name in OWN:
        queries = tokens[:, :, :2] if NORMS[name].cross else tokens  # the context is that of all tokens
        out[name] = build_norm(name, num_heads=1, key_dim=4, value_dim=4).half()(queries, tokens, tokens)
    assert {name for name, x in out.items() if not x.isfinite().all()} == {"single_l2"}
    torch.testing.assert_close(out["xnorm"].double(), torch.ones(1, 1, 2, 4).double(), rtol=2e-3, atol=0)


def test_contrasts_name_two_registered_arms():
    for contrast in CONTRASTS:
        assert {contrast.arm, contrast.minus} <= set(OWN)
        assert contrast.arm != contrast.minus
    assert len({frozenset((c.arm, c.minus)) for c in CONTRASTS}) == len(CONTRASTS)


def test_specs_can_be_told_apart_in_a_figure():
    specs = [NORMS[name] for name in OWN]
    assert len({spec.label for spec in specs}) == len(specs)
    assert {spec.group for spec in specs} <= {"paper", "control", "related", "field"}
    assert all(spec.formula and spec.source for spec in specs)


@pytest.mark.parametrize("name", ["Mine", "my-norm", "my norm", "2l", ""])
def test_register_rejects_a_bad_name(registry, name):
    with pytest.raises(ValueError, match=f"lower snake case, not '{name}'"):
        register_plug_in(name)
    assert name not in NORMS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": "papers"}, "normaliser 'mine': unknown group 'papers'. Valid: paper, control"),
        ({"invariances": {"q_scale", "v_scale"}}, "normaliser 'mine': unknown invariance 'v_scale'. Valid: q_scale"),
    ],
)
def test_register_rejects_an_unknown_group_or_invariance(registry, changes, message):
    with pytest.raises(ValueError, match=message):
        register_plug_in("mine", **changes)
    assert "mine" not in NORMS


def test_register_rejects_another_class_under_a_known_name(registry):
    xnorm = NORMS["xnorm"]
    with pytest.raises(ValueError, match="normaliser 'xnorm' is already registered"):
        register_plug_in("xnorm")
    assert NORMS["xnorm"] is xnorm


def test_register_takes_a_reloaded_class_in_the_old_ones_place(registry):
    register_plug_in("mine")
    register_plug_in("later", class_name="Later")
    reloaded = register_plug_in("mine", linear=False)
    assert NORMS["mine"].cls is reloaded
    assert not NORMS["mine"].linear
    assert list(NORMS)[-2:] == ["mine", "later"]


@pytest.mark.parametrize("look_up", [NORMS.__getitem__, lambda n: build_norm(n, num_heads=1, key_dim=2, value_dim=2)])
def test_an_unknown_name_gives_the_nearest_and_the_valid_ones(look_up):
    with pytest.raises(UnknownNameError, match=r"unknown normaliser 'xnrom', did you mean 'xnorm'\? Valid: .*softmax"):
        look_up("xnrom")
    with pytest.raises(UnknownNameError, match=r"'zzz'\. Valid: xnorm, "):
        look_up("zzz")


@pytest.mark.parametrize(("cross", "takes"), [(False, "softmax"), (True, "mine")])
def test_class_attention_takes_softmax_for_what_cannot_serve_one_query(registry, cross, takes):
    register_plug_in("mine", cross=cross)
    attention = ClassAttention(embed_dim=8, attn_dim=8, num_heads=2, norm="mine")
    assert ClassAttention.uses("mine") == takes
    assert type(attention.norm) is NORMS[takes].cls


@pytest.mark.parametrize("name", OWN)
def test_a_net_has_the_normaliser_asked_for_in_every_attention(name):
    norms = [module for module in build("ufo_vit_pico", norm=name).modules() if isinstance(module, AttentionNorm)]
    assert [type(norm) for norm in norms] == [NORMS[name].cls] * 2 + [NORMS[ClassAttention.uses(name)].cls]


def test_a_normaliser_that_needs_equal_widths_says_so(registry):
    register_plug_in("mine", needs_dk_eq_dv=True)
    assert build_norm("mine", num_heads=1, key_dim=4, value_dim=4).key_dim == 4
    with pytest.raises(ValueError, match="'mine' needs key_dim = value_dim, not 4 and 5"):
        build_norm("mine", num_heads=1, key_dim=4, value_dim=5)

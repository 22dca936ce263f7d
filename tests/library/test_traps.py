"""Mistakes seen in public ports of UFO attention, and their like, planted: each is caught by its check."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from library.loops import LOOPS, OWN
from torch import nn

from ufo import NORMS, build
from ufo.norms import EPS, AttentionNorm, NormSpec, head_gain, l2_context, l2_normalise, scaled_context
from ufo.testing import NORM_CHECKS, check_every_module_runs, check_linear_std

XNorm = NORMS["xnorm"].cls


def run(check: str, cls: type[AttentionNorm], **changes) -> None:
    """Run a check on a class in xnorm's place, against xnorm's loop."""
    NORM_CHECKS[check](planted(cls, **changes), LOOPS["xnorm"])


def planted(cls: type[AttentionNorm], **changes) -> NormSpec:
    return replace(NORMS["xnorm"], cls=cls, **changes)


def failing(cls: type[AttentionNorm]) -> set[str]:
    """Name the checks that do not hold for a class in xnorm's place."""
    failed = set()
    for name in NORM_CHECKS:
        try:
            run(name, cls)
        except AssertionError:
            failed.add(name)
    return failed


def test_what_is_planted_nowhere_passes():
    assert not failing(type("Same", (XNorm,), {}))


class ValueAxis(XNorm):
    def forward(self, q, k, v):
        return l2_normalise(q, dim=-1, gain=self.gain_q) @ l2_context(k, v, dim=-1, gain=self.gain_kv)


def test_the_value_axis_is_caught_by_the_loop_and_by_the_invariances_alone():
    assert failing(ValueAxis) == {"reference", "invariances"}  # Its shape, scale and numbers' range are right.
    with pytest.raises(AssertionError, match="output differs from the loop's"):
        run("reference", ValueAxis)
    with pytest.raises(AssertionError, match="invariant to k_channels"):
        run("invariances", ValueAxis)
    with pytest.raises(AssertionError, match="not invariant to v_channels"):
        run("invariances", ValueAxis, invariances=NORMS["xnorm"].invariances | {"k_channels"})


class DrawnGain(XNorm):
    def __init__(self, **sizes):
        super().__init__(**sizes)
        nn.init.normal_(self.gain_q)


class DrawnElsewhere(XNorm):
    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.gain_q.data.copy_(torch.from_numpy(np.random.default_rng().normal(size=self.gain_q.shape)))


@pytest.mark.parametrize(
    ("cls", "message"), [(DrawnGain, "draws random numbers"), (DrawnElsewhere, "parameter gain_q differs")]
)
def test_a_gain_drawn_from_a_normal_distribution_is_caught(cls, message):
    with pytest.raises(AssertionError, match=message):
        run("constructor_draws_nothing", cls)


class GainUsedTwice(XNorm):
    def forward(self, q, k, v):
        return l2_normalise(q, dim=-1, gain=self.gain_q) @ l2_context(k, v, dim=-2, gain=self.gain_q)


class TiedGain(XNorm):
    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.gain_kv = self.gain_q


class OneGain(AttentionNorm):
    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.gain_q = head_gain(self.num_heads)

    @property
    def gain_kv(self):
        return self.gain_q

    forward = XNorm.forward


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (GainUsedTwice, "output differs from the loop's"),
        (TiedGain, r"a gain for each factor is a parameter of its own, not \['gain_q'\]"),
        (OneGain, r"a gain for each factor is a parameter of its own, not \['gain_q'\]"),
    ],
)
def test_one_gain_that_acts_squared_is_caught(cls, message):
    with pytest.raises(AssertionError, match=message):
        run("reference", cls)


class NoEps(XNorm):
    def forward(self, q, k, v):
        context = k.transpose(-2, -1) @ v
        context = context / context.norm(dim=-2, keepdim=True)
        return self.gain_q * (q / q.norm(dim=-1, keepdim=True)) @ (self.gain_kv * context)


def test_a_missing_eps_is_caught():
    with pytest.raises(AssertionError, match="q = 0 gives NaN or infinity"):
        run("zeros", NoEps)


class IdleGain(XNorm):
    def forward(self, q, k, v):
        return l2_normalise(q, dim=-1, gain=self.gain_q) @ l2_context(k, v, dim=-2)


class DetachedGain(XNorm):
    def forward(self, q, k, v):
        return l2_normalise(q, dim=-1, gain=self.gain_q) @ l2_context(k, v, dim=-2, gain=self.gain_kv.detach())


@pytest.mark.parametrize("cls", [IdleGain, DetachedGain])
def test_a_parameter_without_a_gradient_is_caught(cls):
    with pytest.raises(AssertionError, match="gain_kv has no gradient"):
        run("every_parameter_learns", cls)


class Quadratic(XNorm):
    """XNorm's own numbers, by the N x N scores."""

    def forward(self, q, k, v):
        context, scale = scaled_context(k, v)
        lengths = (context.square().sum(-2, keepdim=True) + EPS * scale**2).sqrt()
        scores = l2_normalise(q, dim=-1) @ (k * scale).transpose(-2, -1)
        return self.gain_q * self.gain_kv * (scores @ v) / lengths


def test_a_quadratic_normaliser_registered_as_linear_is_caught_and_the_reverse():
    run("reference", Quadratic)
    with pytest.raises(AssertionError, match=r"FLOPs grow \S+ times from N to 2N; linear=True"):
        run("flops", Quadratic)
    with pytest.raises(AssertionError, match=r"FLOPs grow 2.00 times from N to 2N; linear=False"):
        run("flops", XNorm, linear=False)


class MixesSamples(XNorm):
    def forward(self, q, k, v):
        return super().forward(q, k, v.mean(0, keepdim=True).expand_as(v))


def test_mixing_the_samples_of_a_batch_is_caught():
    with pytest.raises(AssertionError, match="the batch changes a sample"):
        run("samples_apart", MixesSamples)


class OrderMatters(XNorm):
    def forward(self, q, k, v):
        return super().forward(q, k, v * torch.linspace(0, 1, v.shape[-2], dtype=v.dtype).view(-1, 1))


def test_an_output_that_depends_on_the_keys_order_is_caught():
    with pytest.raises(AssertionError, match="the order of the keys"):
        run("samples_apart", OrderMatters)


class HalfThroughout(XNorm):
    """Neither promoted to float32 nor scaled by 1 / sqrt N."""

    def forward(self, q, k, v):
        context = k.transpose(-2, -1) @ v
        unit_q = q * torch.rsqrt(q.square().sum(-1, keepdim=True) + EPS)
        unit_kv = context * torch.rsqrt(context.square().sum(-2, keepdim=True) + EPS)
        return self.gain_q * unit_q @ (self.gain_kv * unit_kv)


class PromotedNotScaled(XNorm):
    """Norms in float32, but of a product that has left the half type's range already."""

    def forward(self, q, k, v):
        context = l2_normalise(k.transpose(-2, -1) @ v, dim=-2, gain=self.gain_kv)
        return l2_normalise(q, dim=-1, gain=self.gain_q) @ context


@pytest.mark.parametrize("cls", [HalfThroughout, PromotedNotScaled])
def test_norms_in_a_half_type_at_many_tokens_are_caught(cls):
    for invariances in (NORMS["xnorm"].invariances, frozenset()):  # whatever its registration says
        with pytest.raises(AssertionError, match=r"torch\.\w+(, | at )16384 tokens"):
            run("long_half", cls, invariances=invariances)


class NormsInHalf(XNorm):
    """Without eps, and so only in float32 and wider safe at zero."""

    def forward(self, q, k, v):
        context, _ = scaled_context(k, v)
        tiny = torch.finfo(torch.float32).tiny
        unit_q, unit_kv = (x * torch.rsqrt(x.square().sum(d, keepdim=True) + tiny) for x, d in ((q, -1), (context, -2)))
        return self.gain_q * unit_q @ (self.gain_kv * unit_kv)


def test_an_eps_that_vanishes_in_a_half_type_is_caught():
    with pytest.raises(AssertionError, match="a zero query and a zero value channel give NaN or infinity in torch"):
        run("half_zeros", NormsInHalf)


class CallsDiffer(XNorm):
    calls = 0

    def forward(self, q, k, v):
        self.calls += 1
        return super().forward(q, k, v) * (1 + 1e-6 * self.calls)


class LayoutMatters(XNorm):
    def forward(self, q, k, v):
        return super().forward(q, k, torch.as_strided(v, v.shape, torch.empty(v.shape).stride()))


class EvaluationDiffers(XNorm):
    def forward(self, q, k, v):
        return super().forward(q, k, v) * (1 if self.training else 2)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (CallsDiffer, "a second call differs"),
        (LayoutMatters, "the layout in memory changes the output"),
        (EvaluationDiffers, "evaluation differs from training"),
    ],
)
def test_an_output_that_is_no_function_of_its_input_is_caught(cls, message):
    with pytest.raises(AssertionError, match=message):
        run("calls_agree", cls)


class NoProduct(XNorm):
    def forward(self, q, k, v):
        return (q.mean(dim=(2, 3), keepdim=True) + v.mean(2, keepdim=True)).expand(*q.shape[:3], v.shape[-1])


def test_a_normaliser_without_a_product_is_caught():
    with pytest.raises(AssertionError, match="no product is counted at all"):
        run("flops", NoProduct)


class WrongBackward(XNorm):
    def forward(self, q, k, v):
        out = super().forward(q, k, v)
        return out + (q - q.detach()).sum()


def test_a_gradient_that_is_not_the_outputs_is_caught():
    with pytest.raises(AssertionError, match="gradcheck fails"):
        run("gradients_numerically", WrongBackward)


def test_an_input_that_only_the_loop_uses_is_caught():
    with pytest.raises(AssertionError, match="q has a gradient here or in the loop, not in both"):
        run("reference", type("Detached", (XNorm,), {"forward": lambda n, q, k, v: XNorm.forward(n, q.detach(), k, v)}))


class QueriesMix(XNorm):
    def forward(self, q, k, v):
        return super().forward(q - q.mean(2, keepdim=True), k, v)


def test_a_query_that_depends_on_the_others_is_caught():
    with pytest.raises(AssertionError, match="a query depends on the others"):
        run("samples_apart", QueriesMix)


class Float32Out(XNorm):
    def forward(self, q, k, v):
        return super().forward(q, k, v).float()


def test_an_output_of_another_type_is_caught():
    with pytest.raises(AssertionError, match=r"torch\.float64 gives torch\.float32"):
        run("shape_and_type", Float32Out)


@pytest.mark.parametrize("std", [0.001, 0.03])
def test_linear_weights_at_another_std_are_caught(std, monkeypatch):
    monkeypatch.setattr("ufo.init.LINEAR_STD", std)
    with pytest.raises(AssertionError, match=r"weights start at std \S+, not 0\.02"):
        check_linear_std(build("ufo_vit_pico", num_classes=10))


def test_one_linear_layer_at_another_std_or_with_a_bias_is_caught():
    model = build("ufo_vit_pico", num_classes=10)
    check_linear_std(model)
    nn.init.constant_(model.blocks[0].ff.fc1.bias, 0.01)
    with pytest.raises(AssertionError, match=r"blocks\.0\.ff\.fc1: its bias does not start at 0"):
        check_linear_std(model)
    nn.init.zeros_(model.blocks[0].ff.fc1.bias)
    nn.init.normal_(model.blocks[0].attn.qkv.weight, mean=0.01, std=0.02)
    with pytest.raises(AssertionError, match=r"blocks\.0\.attn\.qkv: weights start at mean \S+, not 0"):
        check_linear_std(model)
    nn.init.normal_(model.blocks[0].attn.qkv.weight, std=0.02)
    nn.init.normal_(model.blocks[0].attn.proj.weight, std=0.001)
    with pytest.raises(AssertionError, match=r"blocks\.0\.attn\.proj: weights start at std 0\.00"):
        check_linear_std(model)


def test_a_dropout_that_is_built_and_never_used_is_caught():
    model, images = build("ufo_vit_pico", num_classes=10), torch.zeros(2, 3, 8, 8)
    check_every_module_runs(model, images)
    model.blocks[1].attn.drop = nn.Dropout(0.1)
    with pytest.raises(AssertionError, match=r"built and never used: blocks\.1\.attn\.drop$"):
        check_every_module_runs(model, images)


@pytest.mark.parametrize("norm", OWN)
def test_every_module_of_every_arm_runs_and_the_net_stays_as_it_is(norm):
    model = build("ufo_vit_pico", norm=norm, num_classes=10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_every_module_runs(model, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


class SkippedInEvaluation(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.branches = inner.branches

    def forward(self, x, *rest):
        return self.inner(x, *rest) if self.training else x


def test_a_layer_that_evaluation_drops_is_caught():
    model = build("ufo_vit_pico", num_classes=10)
    model.blocks[1] = SkippedInEvaluation(model.blocks[1])
    with pytest.raises(AssertionError, match=r"built and never used in evaluation: blocks\.1\.inner"):
        check_every_module_runs(model, torch.zeros(2, 3, 8, 8))

"""Every normaliser on a device gives what its float64 loop gives on the CPU, in each type."""

from __future__ import annotations

import pytest
import torch
from library.loops import LOOPS, OWN
from torch import Tensor

from ufo.norms import NORMS, NormSpec
from ufo.testing import HALF_TOLERANCE, build_small, draw_qkv

TOLERANCE = {torch.float32: 2e-5, **HALF_TOLERANCE}
"""Largest error relative to the RMS: of float32 for chained sums without TF32, of half types as in `ufo.testing`."""

GRADIENT_TOLERANCE = 2e-4
"""Of float32's gradients: two further products of such sums."""


def inputs_of(spec: NormSpec, dtype: torch.dtype) -> list[Tensor]:
    """Return q, k and v that ``dtype`` holds exactly, in float64."""
    drawn = draw_qkv(build_small(spec), queries=17, keys=17)
    return [x.to(dtype).double() for x in drawn]


def error(got: Tensor, want: Tensor) -> float:
    assert got.isfinite().all()
    got, want = got.detach(), want.detach()
    return float((got.cpu().double() - want).abs().max() / want.square().mean().sqrt())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", OWN)
def test_a_normaliser_agrees_with_its_loop(device, name, dtype):
    spec = NORMS[name]
    qkv = inputs_of(spec, dtype)
    want = LOOPS[name](build_small(spec).to(dtype).double(), *qkv).detach()
    norm = build_small(spec).to(device, dtype)
    got = norm(*(x.to(device, dtype) for x in qkv))
    assert (got.device.type, got.dtype) == (device.type, dtype)
    assert error(got, want) <= TOLERANCE[dtype]


@pytest.mark.parametrize("name", OWN)
def test_gradients_agree_with_float64_on_the_cpu(device, name):
    spec = NORMS[name]
    qkv = inputs_of(spec, torch.float32)
    found = {}
    for where, dtype in ((torch.device("cpu"), torch.float64), (device, torch.float32)):
        norm = build_small(spec).to(where, dtype)
        inputs = [x.to(where, dtype).requires_grad_() for x in qkv]
        out = norm(*inputs)
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape)
        found[dtype] = torch.autograd.grad((out * weights.to(where, dtype)).sum(), [*inputs, *norm.parameters()])
    for got, want in zip(found[torch.float32], found[torch.float64], strict=True):
        assert error(got, want) <= GRADIENT_TOLERANCE


@pytest.mark.parametrize("name", OWN)
def test_training_in_autocast_is_finite(device, name):
    spec = NORMS[name]
    norm = build_small(spec).to(device)
    inputs = [x.float().to(device).requires_grad_() for x in inputs_of(spec, torch.float32)]
    with torch.autocast(device.type, dtype=torch.bfloat16):
        out = norm(*inputs)
    gradients = torch.autograd.grad(out.float().square().mean(), [*inputs, *norm.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)

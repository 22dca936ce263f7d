"""Curvature as AdamW sees it: eigenvalues against explicit matrices, the preconditioner, the rate on a quadratic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parameters_to_vector

import ufo
from ablations.bench import curvature
from ablations.bench.curvature import (
    TOLERANCE,
    adam_preconditioner,
    extreme_eigenvalues,
    largest_lr,
    preconditioned_product,
)
from ufo.norms import NORMS


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_layers() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=number))
    return net, drawn(16, 4, seed=7), torch.arange(16) % 3


def loss_of(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(net(x), y)


def explicit_hessian(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Return the Hessian over all parameters by torch's own function."""
    names, parameters = zip(*net.named_parameters(), strict=True)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([p.numel() for p in parameters])
        shaped = {name: part.view_as(p) for name, part, p in zip(names, parts, parameters, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(net, shaped, (x,)), y)

    return torch.autograd.functional.hessian(loss, parameters_to_vector(parameters).detach()).numpy()


def test_the_eigenvalues_are_those_of_the_explicit_preconditioned_hessian(monkeypatch):
    monkeypatch.setattr(curvature, "TOLERANCE", 1e-9)
    monkeypatch.setattr(curvature, "MOST_PRODUCTS", 60)
    net, x, y = two_layers()
    parameters = list(net.parameters())
    n = sum(p.numel() for p in parameters)
    preconditioner = drawn(n, seed=3).abs() + 0.1
    factor = preconditioner.numpy() ** -0.5
    expected = np.linalg.eigvalsh(factor[:, None] * explicit_hessian(net, x, y) * factor)
    found = extreme_eigenvalues(preconditioned_product(loss_of(net, x, y), parameters, preconditioner), drawn(n))
    assert found.converged
    assert found.highest == pytest.approx(expected[-1], rel=1e-8)
    assert found.lowest == pytest.approx(expected[0], rel=1e-3)


def test_a_large_negative_eigenvalue_is_the_lowest_and_does_not_hide_the_highest():
    values = torch.linspace(-50.0, 3.0, 200, dtype=torch.float64)
    found = extreme_eigenvalues(lambda v: values * v, drawn(200))
    assert found.highest == pytest.approx(3.0, rel=TOLERANCE)
    assert found.lowest == pytest.approx(-50.0, rel=0.05)


def test_the_search_reports_that_it_did_not_converge(monkeypatch):
    values = torch.linspace(1.0, 2.0, 400, dtype=torch.float64)
    monkeypatch.setattr(curvature, "MOST_PRODUCTS", 2)
    found = extreme_eigenvalues(lambda v: values * v, drawn(400))
    assert not found.converged
    assert found.num_products == 2
    assert found.highest < 2.0


def test_a_product_that_is_not_finite_ends_the_search():
    found = extreme_eigenvalues(lambda v: v * math.nan, drawn(9))
    assert math.isnan(found.highest)
    assert math.isnan(largest_lr(found.highest, beta1=0.9))
    assert not found.converged


def test_all_eigenvalues_of_a_small_matrix_are_exact():
    found = extreme_eigenvalues(lambda v: torch.tensor([4.0, -1.0, 0.5], dtype=torch.float64) * v, drawn(3))
    assert found.converged
    assert (found.highest, found.lowest) == pytest.approx((4.0, -1.0))


def test_the_preconditioner_is_that_of_the_optimisers_own_state():
    net, x, y = two_layers()
    optimizer = torch.optim.AdamW(
        [{"params": [net[2].weight, net[2].bias]}, {"params": [net[0].bias, net[0].weight], "eps": 1e-3}],
        lr=0.01,
        betas=(0.8, 0.97),
    )
    seconds = {p: torch.zeros_like(p) for p in net.parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(net, x, y).backward()
        for p in net.parameters():
            seconds[p] = 0.97 * seconds[p] + 0.03 * p.grad**2
        optimizer.step()
    expected = [
        (seconds[p] / (1 - 0.97**3)).sqrt() + (1e-3 if p is net[0].weight or p is net[0].bias else 1e-8)
        for p in net.parameters()
    ]
    found = adam_preconditioner(optimizer, dict(net.named_parameters()))
    assert list(found) == [name for name, _ in net.named_parameters()]
    torch.testing.assert_close(list(found.values()), [each.float() for each in expected])


def test_a_parameter_without_a_gradient_is_not_preconditioned():
    net, x, y = two_layers()
    net[0].weight.requires_grad_(False)
    net.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    optimizer = torch.optim.AdamW(net.parameters())
    loss_of(net, x, y).backward()
    optimizer.step()
    assert list(adam_preconditioner(optimizer, dict(net.named_parameters()))) == ["0.bias", "2.weight", "2.bias"]


@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize(("share", "is_stable"), [(0.98, True), (1.02, False)])
def test_adamw_on_a_quadratic_is_stable_just_below_the_rate_and_diverges_just_above(beta1, share, is_stable):
    """Its second moment is frozen: set by hand, with a decay of 1 up to rounding and a bias that has died out."""
    curvatures = torch.tensor([0.5, 2.0, 7.0], dtype=torch.float64)
    second = torch.tensor([4.0, 0.25, 1.0], dtype=torch.float64)
    x = nn.Parameter(torch.ones(3, dtype=torch.float64))
    largest = largest_lr((curvatures / (second.sqrt() + 1e-8)).max().item(), beta1=beta1)
    optimizer = torch.optim.AdamW([x], lr=share * largest, betas=(beta1, 1 - 1e-15), weight_decay=0.0)
    optimizer.state[x] = {"step": torch.tensor(1e18), "exp_avg": torch.zeros(3).double(), "exp_avg_sq": second.clone()}
    for _ in range(2000):
        x.grad = (curvatures * x).detach()
        optimizer.step()
        if x.abs().max() > 1e3:  # far larger gradients would move the second moment
            break
    assert x.abs().max().item() < 1e-3 if is_stable else x.abs().max().item() > 1e3


@pytest.mark.every_case
@pytest.mark.parametrize("norm", list(NORMS))
def test_every_normaliser_has_second_derivatives(norm):
    net = ufo.build("ufo_vit_pico", norm=norm, num_classes=3, img_size=(8, 8), in_chans=1, patch=4, seed=0).double()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.0  # the two losses below see the same state
    parameters = list(net.parameters())
    x, y = drawn(4, 1, 8, 8), torch.arange(4) % 3

    def loss() -> torch.Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return nn.functional.cross_entropy(net(x), y)

    def gradient() -> torch.Tensor:
        return parameters_to_vector(torch.autograd.grad(loss(), parameters, materialize_grads=True))

    n = sum(p.numel() for p in parameters)
    product = preconditioned_product(loss(), parameters, torch.ones(n, dtype=torch.float64))
    step = 1e-6 * drawn(n, seed=5)
    exact, at = product(step), parameters_to_vector(parameters).detach()
    ends = []
    for side in (at + step, at - step):
        nn.utils.vector_to_parameters(side, parameters)
        ends.append(gradient())
    assert torch.linalg.norm((ends[0] - ends[1]) / 2 - exact) < 1e-3 * torch.linalg.norm(exact)

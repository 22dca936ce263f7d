"""Curvature of a loss as AdamW sees it: extreme eigenvalues of the preconditioned Hessian, and the rate that follows.

With its second moment held fixed, AdamW is gradient descent with momentum, preconditioned by P = diag(sqrt(v) + eps),
where v is the bias-corrected second moment. On a quadratic it is stable while the largest eigenvalue of P^-1 H stays
below (2 + 2 beta1) / ((1 - beta1) lr), which is 38 / lr for beta1 = 0.9 (Cohen et al., "Adaptive Gradient Methods at
the Edge of Stability", arXiv 2207.14484). P^-1/2 H P^-1/2 has the same eigenvalues and is symmetric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

TOLERANCE = 0.05
"""Largest residual of the largest eigenvalue, as a share of it; its error is smaller if it lies apart from the next."""

MOST_PRODUCTS = 40
"""Number of Hessian-vector products after which the search ends unconverged."""

Product = Callable[[Tensor], Tensor]
"""Product of a symmetric matrix (n, n) with a vector (n,)."""


class Extremes(NamedTuple):
    """Extreme eigenvalues of a symmetric matrix.

    Args:
        highest: largest eigenvalue, whose residual is at most `TOLERANCE` of it if it converged; NaN if a product is
            not finite.
        lowest: estimate of the smallest eigenvalue, which is at most this value.
        converged: whether the largest eigenvalue converged.
        num_products: number of products with the matrix.
    """

    highest: float
    lowest: float
    converged: bool
    num_products: int


def largest_lr(eigenvalue: float, *, beta1: float) -> float:
    """Return the learning rate up to which AdamW is stable on a quadratic (arXiv 2207.14484); infinite without a bound.

    Args:
        eigenvalue: largest eigenvalue of the preconditioned Hessian; only a positive one bounds the rate.
        beta1: decay of AdamW's first moment, in [0, 1).

    >>> round(largest_lr(38.0, beta1=0.9), 9), largest_lr(100.0, beta1=0.0), largest_lr(-1.0, beta1=0.9)
    (1.0, 0.02, inf)
    """
    if math.isnan(eigenvalue):
        return math.nan
    return (2 + 2 * beta1) / ((1 - beta1) * eigenvalue) if eigenvalue > 0 else math.inf


def adam_preconditioner(optimizer: torch.optim.AdamW, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the diagonal of P, sqrt(v) + eps, in the shape of each parameter, from the state of an optimiser.

    A parameter without a gradient so far, such as a frozen one, is left out: the optimiser does not move it.

    Args:
        optimizer: optimiser of the parameters.
        parameters: parameters by name.
    """
    of: dict[Tensor, Tensor] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if state := optimizer.state.get(parameter):
                unbiased = state["exp_avg_sq"].float() / (1 - group["betas"][1] ** float(state["step"]))
                of[parameter] = unbiased.sqrt() + group["eps"]
    return {name: of[parameter] for name, parameter in parameters.items() if parameter in of}


def preconditioned_product(loss: Tensor, parameters: Sequence[nn.Parameter], preconditioner: Tensor) -> Product:
    """Return the product with P^-1/2 H P^-1/2, where H is the Hessian of a loss, by double backward.

    Args:
        loss: loss, a scalar, whose graph is kept while the product exists.
        parameters: parameters with n entries in all.
        preconditioner: (n,) diagonal of P, positive.
    """
    gradient = flat(torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True))
    factor = preconditioner.rsqrt()

    def product(x: Tensor) -> Tensor:
        parts = torch.autograd.grad(gradient, parameters, factor * x, retain_graph=True, materialize_grads=True)
        return factor * flat(parts)

    return product


def extreme_eigenvalues(product: Product, start: Tensor) -> Extremes:
    """Find the extreme eigenvalues by Lanczos' iteration with full reorthogonalisation.

    It finds both ends of the spectrum, with their signs, in fewer products than a power iteration finds the end that is
    larger by magnitude. It ends when the residual of the largest Ritz value, which bounds its distance to the nearest
    eigenvalue, is small enough.

    Args:
        product: product with the matrix (n, n).
        start: (n,) vector to start from, not zero.
    """
    basis = [start / start.norm()]
    diagonal, beside = list[float](), list[float]()
    values = np.array([math.nan])
    for count in range(1, min(MOST_PRODUCTS, len(start)) + 1):
        image = product(basis[-1])
        if not torch.isfinite(image).all():
            return Extremes(math.nan, math.nan, converged=False, num_products=count)
        diagonal.append(float(image @ basis[-1]))
        for _ in range(2):  # once leaves rounding errors along the basis
            for known in basis:
                image = image - (known @ image) * known
        length = float(image.norm())
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        if length * abs(vectors[-1, -1]) <= TOLERANCE * abs(values[-1]):
            return Extremes(float(values[-1]), float(values[0]), converged=True, num_products=count)
        beside.append(length)
        basis.append(image / length)
    is_whole = len(diagonal) == len(start)
    return Extremes(float(values[-1]), float(values[0]), converged=is_whole, num_products=len(diagonal))


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Join the entries of tensors, whatever their order in memory, in one vector, (n,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])

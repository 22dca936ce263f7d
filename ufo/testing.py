"""Conformance suite for normalisers, plug-ins included, and checks for nets.

Run the suite on a normaliser with one call in its tests::

    from ufo.testing import NORM_CHECKS, check_norm

    check_norm("mine", reference=my_float64_loop)

or as separate tests with ``pytest.mark.parametrize("check", NORM_CHECKS)``. The reference implements the formula in
plain loops: ``reference(norm, q, k, v)`` takes the built normaliser (for its parameters) and float64 tensors with the
shapes of `ufo.norms`, and returns (B, h, M, value_dim). Every failure is an AssertionError that names the violation.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError

from ufo.flops import count_products
from ufo.init import LINEAR_STD, keyed_generator
from ufo.norms import NORMS, AttentionNorm, Invariance, NormSpec

Reference = Callable[[AttentionNorm, Tensor, Tensor, Tensor], Tensor]

HALF_TYPES = (torch.bfloat16, torch.float16)
HALF_TOLERANCE = {torch.bfloat16: 0.06, torch.float16: 0.01}
"""Largest error relative to the output's RMS: about 15 and 20 unit roundoffs (2^-8, 2^-11), for chained roundings
including the sum over N = 33 tokens."""

FLOAT64_TOLERANCE = 1e-9
INVARIANCE_TOLERANCE = 1e-3
"""Largest error relative to the output's RMS: eps = 1e-6 changes a vector of norm 0.1 by 5e-5, and the effect grows 100
times at a scale of 0.1."""

LONG = 16_384
"""Number of tokens in the test of half types with a long input."""


def check_norm(name: str, *, reference: Reference) -> None:
    """Run every check of `NORM_CHECKS` on a registered normaliser.

    Raises:
        AssertionError: a check fails; the message describes the first failure.
        UnknownNameError: the normaliser is unknown.
    """
    for check in NORM_CHECKS.values():
        check(NORMS[name], reference)


def build_small(spec: NormSpec, *, key_dim: int = 5, value_dim: int = 7, num_heads: int = 3) -> AttentionNorm:
    """Build a normaliser at an odd size, with parameters perturbed from their initial values."""
    norm = spec.cls(num_heads=num_heads, key_dim=key_dim, value_dim=key_dim if spec.needs_dk_eq_dv else value_dim)
    with torch.no_grad():
        for i, parameter in enumerate(norm.parameters()):
            parameter.add_(0.3 * torch.rand(parameter.shape, generator=keyed_generator(i, "parameter")))
    return norm


def draw_qkv(norm: AttentionNorm, *, queries: int = 11, keys: int = 13, batch: int = 2, seed: int = 0) -> list[Tensor]:
    """Draw float64 q, k, v for a normaliser: unit normal plus a mean shared by all tokens."""
    generator = keyed_generator(seed, "qkv")
    sizes = ((queries, norm.key_dim), (keys, norm.key_dim), (keys, norm.value_dim))
    shape = (batch, norm.num_heads)
    normal = [torch.randn(*shape, n, d, generator=generator, dtype=torch.float64) for n, d in sizes]
    return [x + torch.randn(*shape, 1, x.shape[-1], generator=generator, dtype=torch.float64) for x in normal]


def _queries(spec: NormSpec) -> int:
    return 11 if spec.cross else 13


def check_shape_and_type(spec: NormSpec, reference: Reference) -> None:
    """Check that the output has shape (B, h, M, value_dim) and the input's type, and is finite."""
    norm = build_small(spec)
    for dtype in (torch.float32, torch.float64):
        q, k, v = (x.to(dtype) for x in draw_qkv(norm, queries=_queries(spec)))
        out = norm.to(dtype)(q, k, v)
        expected = (*q.shape[:3], norm.value_dim)
        assert out.shape == expected, f"{spec.name}: output {tuple(out.shape)}, not {expected}"
        assert out.dtype == dtype, f"{spec.name}: {dtype} gives {out.dtype}"
        assert out.isfinite().all(), f"{spec.name}: not finite on random input"


def check_constructor_draws_nothing(spec: NormSpec, reference: Reference) -> None:
    """Check that the constructor draws no random numbers and is deterministic."""
    state = torch.get_rng_state()
    first, second = (spec.cls(num_heads=3, key_dim=5, value_dim=5) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state()), f"{spec.name}: the constructor draws random numbers"
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), f"{spec.name}: parameter {name} differs between two constructions"


def check_reference(spec: NormSpec, reference: Reference) -> None:
    """Check that outputs and gradients of q, k, v and every parameter equal those of the float64 loop."""
    norm = build_small(spec).double()
    inputs = [x.requires_grad_() for x in draw_qkv(norm, queries=_queries(spec))]
    leaves = [*inputs, *norm.parameters()]
    names = ["q", "k", "v", *(name for name, _ in norm.named_parameters())]
    out, expected = norm(*inputs), reference(norm, *inputs)
    _assert_close(out, expected, FLOAT64_TOLERANCE, f"{spec.name}: output differs from the loop's")
    weight = torch.randn(out.shape, generator=keyed_generator(0, "weight"), dtype=torch.float64)
    got = torch.autograd.grad((out * weight).sum(), leaves, allow_unused=True)
    want = torch.autograd.grad((expected * weight).sum(), leaves, allow_unused=True)
    for name, a, b in zip(names, got, want, strict=True):
        assert (a is None) == (b is None), f"{spec.name}: {name} has a gradient here or in the loop, not in both"
        if a is not None and b is not None:
            _assert_close(a, b, FLOAT64_TOLERANCE, f"{spec.name}: gradient of {name} differs from the loop's")


def check_gradients_numerically(spec: NormSpec, reference: Reference) -> None:
    """Check that gradients equal finite differences (torch.autograd.gradcheck)."""
    norm = build_small(spec, key_dim=3, value_dim=3, num_heads=2).double()
    inputs = tuple(x.requires_grad_() for x in draw_qkv(norm, queries=4, keys=4, batch=1))
    try:
        torch.autograd.gradcheck(norm, inputs)
    except GradcheckError as error:
        raise AssertionError(f"{spec.name}: gradcheck fails: {error}") from error


def check_every_parameter_learns(spec: NormSpec, reference: Reference) -> None:
    """Check that every parameter receives a nonzero gradient."""
    norm = build_small(spec)
    if not list(norm.parameters()):
        return
    out = norm(*(x.float() for x in draw_qkv(norm, queries=_queries(spec))))
    (out * torch.randn(out.shape, generator=keyed_generator(0, "weight"))).sum().backward()
    for name, parameter in norm.named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.any())
        assert learns, f"{spec.name}: {name} has no gradient"


def check_zeros(spec: NormSpec, reference: Reference) -> None:
    """Check that zero inputs and single zero vectors give finite outputs and gradients, and v = 0 exactly 0."""
    norm = spec.cls(num_heads=3, key_dim=5, value_dim=5)
    drawn = [x.float() for x in draw_qkv(norm, queries=_queries(spec))]
    for name, zeroed in {"q": [0], "k": [1], "v": [2], "q, k, v": [0, 1, 2]}.items():
        inputs = [(x * 0 if i in zeroed else x.clone()).requires_grad_() for i, x in enumerate(drawn)]
        out = norm(*inputs)
        out.sum().backward()
        finite = out.isfinite().all() and all(x.grad is not None and x.grad.isfinite().all() for x in inputs)
        assert finite, f"{spec.name}: {name} = 0 gives NaN or infinity"
        assert 2 not in zeroed or not out.any(), f"{spec.name}: v = 0 does not give 0"
    drawn[0][:, :, 0] = 0
    drawn[2][..., 0] = 0
    assert norm(*drawn).isfinite().all(), f"{spec.name}: one zero query and one zero value channel give NaN"


def check_half_zeros(spec: NormSpec, reference: Reference) -> None:
    """Check half types with a zero query and a zero value channel: outputs and gradients of a mean loss are finite.

    A scaled loss may still overflow float16 there, because the slope of x / sqrt(x^2 + eps) at zero is 1,000.
    """
    for dtype in HALF_TYPES:
        norm = build_small(spec).to(dtype)
        drawn = draw_qkv(norm, queries=196, keys=196)
        drawn[0][:, :, 0] = 0
        drawn[2][..., 0] = 0
        inputs = [x.to(dtype).requires_grad_() for x in drawn]
        out = norm(*inputs)
        out.float().mean().backward()
        finite = out.isfinite().all() and all(x.grad is not None and x.grad.isfinite().all() for x in inputs)
        assert finite, f"{spec.name}: a zero query and a zero value channel give NaN or infinity in {dtype}"


def check_half_types(spec: NormSpec, reference: Reference) -> None:
    """Check that bfloat16 and float16 agree with float64, as the module's type and under autocast."""
    for dtype in HALF_TYPES:
        norm = build_small(spec)
        halves = [x.to(dtype) for x in draw_qkv(norm, queries=_queries(spec), keys=33 if spec.cross else 13)]
        with torch.autocast("cpu", dtype=dtype):
            cast = norm(*halves)
        expected = build_small(spec).double()(*(x.double() for x in halves))
        plain = norm.to(dtype)(*halves)
        assert plain.dtype == dtype, f"{spec.name}: {dtype} gives {plain.dtype}"
        for out, how in ((cast, "autocast"), (plain, "plain")):
            _assert_close(out.double(), expected, HALF_TOLERANCE[dtype], f"{spec.name}: {dtype}, {how}")


def check_long_half(spec: NormSpec, reference: Reference) -> None:
    """Check half types at 16,384 tokens: outputs agree with float64 and gradients are finite.

    The shared mean of all tokens makes k^T v grow as N, beyond float16's range. If even the exact output is beyond the
    type's range, as of a normaliser that grows with N by definition, an overflow is its property and no failure.
    """
    num_queries = 3 if spec.linear else 1
    for dtype in HALF_TYPES:
        norm = spec.cls(num_heads=1, key_dim=4, value_dim=4).to(dtype)
        drawn = draw_qkv(norm, queries=num_queries if spec.cross else LONG, keys=LONG, batch=1)
        inputs = [(2 * x + 3).to(dtype).requires_grad_() for x in drawn]
        expected = copy.deepcopy(norm).double()(*(x.detach().double() for x in inputs))
        if expected.abs().max() > torch.finfo(dtype).max:
            continue
        out = norm(*inputs)
        out.sum().backward()
        finite = out.isfinite().all() and all(x.grad is not None and x.grad.isfinite().all() for x in inputs)
        assert finite, f"{spec.name}: not finite in {dtype} at {LONG} tokens"
        _assert_close(out.double(), expected, HALF_TOLERANCE[dtype], f"{spec.name}: {dtype}, {LONG} tokens")


def check_samples_apart(spec: NormSpec, reference: Reference) -> None:
    """Check that a sample is independent of its batch, and with ``cross`` a query of other queries and key order."""
    norm = build_small(spec).double()
    q, k, v = draw_qkv(norm, queries=_queries(spec))
    out = norm(q, k, v)
    _assert_close(norm(q[:1], k[:1], v[:1]), out[:1], FLOAT64_TOLERANCE, f"{spec.name}: the batch changes a sample")
    if spec.cross:
        one = norm(q[:, :, :1], k, v)
        _assert_close(one, out[:, :, :1], FLOAT64_TOLERANCE, f"{spec.name}: a query depends on the others")
        order = torch.randperm(k.shape[2], generator=keyed_generator(0, "keys"))
        shuffled = norm(q, k[:, :, order], v[:, :, order])
        _assert_close(shuffled, out, FLOAT64_TOLERANCE, f"{spec.name}: the order of the keys changes the output")


def check_calls_agree(spec: NormSpec, reference: Reference) -> None:
    """Check that a second call, evaluation mode and inputs as views of a (B, N, h, d) array give the same output."""
    norm = build_small(spec).double()
    inputs = draw_qkv(norm, queries=_queries(spec))
    out = norm(*inputs)
    _assert_close(norm(*inputs), out, 0.0, f"{spec.name}: a second call differs")
    views = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs]
    _assert_close(norm(*views), out, FLOAT64_TOLERANCE, f"{spec.name}: the layout in memory changes the output")
    _assert_close(norm.eval()(*inputs), out, FLOAT64_TOLERANCE, f"{spec.name}: evaluation differs from training")


def check_invariances(spec: NormSpec, reference: Reference) -> None:
    """Check that exactly the registered invariances hold, for factors from 0.1 to 10."""
    norm = build_small(spec).double()
    q, k, v = draw_qkv(norm, queries=_queries(spec))
    out = norm(q, k, v)
    for name, changes in _changes(q, k, v).items():
        if name == "token_repeat" and not spec.cross:
            continue  # without cross, the numbers of queries and keys must be equal
        error = max(_relative_error(norm(*changed), out) for changed in changes)
        if name in spec.invariances:
            assert error < INVARIANCE_TOLERANCE, f"{spec.name}: not invariant to {name}, off by {error:.2g}"
        else:
            limit = 10 * INVARIANCE_TOLERANCE
            assert error > limit, f"{spec.name}: invariant to {name} ({error:.2g}), which its registration does not say"


def _changes(q: Tensor, k: Tensor, v: Tensor) -> dict[Invariance, list[list[Tensor]]]:
    def per_channel(x: Tensor) -> Tensor:
        return torch.logspace(-1, 1, x.shape[-1], dtype=x.dtype)

    return {
        "q_scale": [[q * factor, k, v] for factor in (0.1, 10.0)],
        "k_channels": [[q, k * per_channel(k), v]],
        "v_channels": [[q, k, v * per_channel(v)]],
        "token_repeat": [[q, k.repeat(1, 1, 3, 1), v.repeat(1, 1, 3, 1)]],
    }


def check_flops(spec: NormSpec, reference: Reference) -> None:
    """Check that FLOPs double from N to 2N if and only if the normaliser is registered as linear.

    Elementwise multiplications count too: some normalisers have no other products.
    """
    norm = spec.cls(num_heads=2, key_dim=8, value_dim=8)
    counts = []
    for num_tokens in (256, 512):
        qkv = [x.float() for x in draw_qkv(norm, queries=num_tokens, keys=num_tokens)]
        matrices, elementwise = count_products(partial(norm, *qkv))
        counts.append(2 * matrices + elementwise)
    assert counts[0], f"{spec.name}: no product is counted at all"
    ratio = counts[1] / counts[0]
    linear = abs(ratio - 2) < 0.05
    assert linear == spec.linear, f"{spec.name}: FLOPs grow {ratio:.2f} times from N to 2N; linear={spec.linear}"


NORM_CHECKS: dict[str, Callable[[NormSpec, Reference], None]] = {
    "shape_and_type": check_shape_and_type,
    "constructor_draws_nothing": check_constructor_draws_nothing,
    "reference": check_reference,
    "gradients_numerically": check_gradients_numerically,
    "every_parameter_learns": check_every_parameter_learns,
    "zeros": check_zeros,
    "half_zeros": check_half_zeros,
    "half_types": check_half_types,
    "long_half": check_long_half,
    "samples_apart": check_samples_apart,
    "calls_agree": check_calls_agree,
    "invariances": check_invariances,
    "flops": check_flops,
}


def check_every_module_runs(model: nn.Module, images: Tensor) -> None:
    """Check that every module of a net is called in the forward pass, in training and in evaluation.

    The net is not modified.

    Raises:
        AssertionError: a module was not called; the message lists the names.
    """
    containers = (nn.ModuleList, nn.ModuleDict)
    twin = copy.deepcopy(model)
    for training in (True, False):
        called: set[str] = set()
        with _hooks(twin.train(training), called), torch.no_grad():
            twin(images)
        idle = [n for n, m in twin.named_modules() if n not in called and not isinstance(m, containers)]
        assert not idle, f"built and never used{'' if training else ' in evaluation'}: {', '.join(idle)}"


@contextlib.contextmanager
def _hooks(model: nn.Module, called: set[str]) -> Iterator[None]:
    handles = [
        module.register_forward_pre_hook(lambda _module, _inputs, name=name: called.add(name))
        for name, module in model.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_linear_std(model: nn.Module) -> None:
    """Check that initial linear weights have mean 0 and the std of `ufo.init`, within sampling error, and biases are 0.

    Raises:
        AssertionError: a layer differs; the message has its name.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            std, mean = module.weight.std().item(), module.weight.mean().item()
            error = 5 * LINEAR_STD / module.weight.numel() ** 0.5  # five standard errors of the mean
            assert abs(std - LINEAR_STD) < error / 2**0.5, f"{name}: weights start at std {std:.2g}, not {LINEAR_STD}"
            assert abs(mean) < error, f"{name}: weights start at mean {mean:.2g}, not 0"
            assert module.bias is None or not module.bias.any(), f"{name}: its bias does not start at 0"


def _relative_error(got: Tensor, want: Tensor) -> float:
    return ((got - want).abs().max() / want.square().mean().sqrt()).item()


def _assert_close(got: Tensor, want: Tensor, tolerance: float, message: str) -> None:
    assert got.isfinite().all(), f"{message}: not finite"
    error = _relative_error(got, want)
    assert error <= tolerance, f"{message}: off by {error:.2g} of its RMS, at most {tolerance:.2g}"

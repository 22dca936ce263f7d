"""Initial weights, with a separate random stream for each parameter.

Each parameter is drawn from a generator keyed by the seed and its name: removing a part of the net or changing the
normaliser leaves all other weights unchanged. Draws are in float64 and rounded once, so that they do not depend on the
processor's vector width.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from ufo.norms import AttentionNorm

LINEAR_STD = 0.02
"""Standard deviation of linear weights, the positional table and the class token (XCiT, arXiv 2106.09681)."""


def keyed_seed(seed: int, *key: str | int) -> int:
    """Derive a 63-bit seed from a seed and a key; no part of the key may contain a slash.

    >>> keyed_seed(0, "order", 1) == keyed_seed(0, "order", 1) != keyed_seed(0, "order", 2)
    True
    """
    parts = [str(part) for part in (seed, *key)]
    assert not any("/" in part for part in parts), f"a slash joins the parts of a key: {key}"
    text = "/".join(parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def keyed_generator(seed: int, *key: str | int) -> torch.Generator:
    """Return a CPU generator that depends only on the seed and the key."""
    return torch.Generator().manual_seed(keyed_seed(seed, *key))


@torch.no_grad()
def init_parameters(model: nn.Module, *, seed: int) -> None:
    """Initialise every parameter of a net in place, each from its own keyed stream.

    Linear weights, positional table and class token: normal, std 0.02 (XCiT truncates at 100 std, which no draw
    reaches). Linear biases: 0. Convolutions: uniform within 1 / sqrt(fan-in), torch's default. LayerNorm and BatchNorm:
    weight 1, bias 0. LayerScale and normalisers keep the values of their constructors.

    Raises:
        TypeError: a parameter has no initialisation rule.
    """
    kept = [name for name, module in model.named_modules() if isinstance(module, AttentionNorm)]
    for module_name, module in model.named_modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            name = f"{module_name}.{parameter_name}" if module_name else parameter_name
            if any(name.startswith(f"{prefix}.") for prefix in kept) or parameter_name == "layer_scale":
                continue
            _fill(module, parameter_name, parameter, name, keyed_generator(seed, "init", name))


def _fill(module: nn.Module, kind: str, parameter: Tensor, name: str, generator: torch.Generator) -> None:
    match module, kind:
        case nn.Linear(), "weight":
            _draw_normal(parameter, generator)
        case nn.Linear(), "bias":
            nn.init.zeros_(parameter)
        case nn.Conv2d(), ("weight" | "bias"):
            fan_in = module.in_channels // module.groups * math.prod(module.kernel_size)
            uniform = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_((2 * uniform - 1) / math.sqrt(fan_in))
        case ((nn.LayerNorm() | nn.BatchNorm2d()), "weight"):
            nn.init.ones_(parameter)
        case ((nn.LayerNorm() | nn.BatchNorm2d()), "bias"):
            nn.init.zeros_(parameter)
        case _, ("pos_embed" | "cls_token"):
            _draw_normal(parameter, generator)
        case _:
            raise TypeError(f"no initialisation rule for {name} of a {type(module).__name__}")


def _draw_normal(parameter: Tensor, generator: torch.Generator) -> None:
    parameter.copy_(LINEAR_STD * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))


def shared_weights_hash(model: nn.Module) -> str:
    """Hash every parameter outside the normalisers: names, shapes and bits.

    Two nets with the same seed that differ only in the normaliser have the same hash.
    """
    digest = hashlib.sha256()
    norms = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, AttentionNorm))
    for name, parameter in sorted(model.named_parameters()):
        if not name.startswith(norms):
            digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
            digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]

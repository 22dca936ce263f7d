"""Compilation of nets."""

from __future__ import annotations

import os

import torch
from torch import nn

from ablations.data.location import cache_root

MAX_GRAPHS = 1000
"""Largest number of compiled nets in a process, one per arm and shape; torch's limit, 8, is an alarm for mistakes."""


def compiled(net: nn.Module) -> nn.Module:
    """Compile a net, or reuse the code of an equal net that this process compiled, or that is in the disk cache.

    The disk cache is in the project's cache, for the workers of all runs, unless ``TORCHINDUCTOR_CACHE_DIR`` names one.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_root() / "compiled"))
    torch.compiler.config.recompile_limit = torch.compiler.config.accumulated_recompile_limit = MAX_GRAPHS
    return torch.compile(net, fullgraph=True, dynamic=False)  # type: ignore[return-value]

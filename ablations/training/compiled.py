"""Compilation of nets."""

from __future__ import annotations

import torch
from torch import nn

MAX_GRAPHS = 1000
"""Largest number of compiled nets in a process, one per arm and shape; torch's limit, 8, is an alarm for mistakes."""


def compiled(net: nn.Module) -> nn.Module:
    """Compile a net, or reuse the code of an equal net that this process compiled before."""
    torch.compiler.config.recompile_limit = torch.compiler.config.accumulated_recompile_limit = MAX_GRAPHS
    return torch.compile(net, fullgraph=True, dynamic=False)  # type: ignore[return-value]

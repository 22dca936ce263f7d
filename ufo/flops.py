"""Multiply-adds of a call: those of matrix products, and elementwise multiplications apart from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_products(call: Callable[[], object]) -> tuple[int, int]:
    """Return the multiply-adds of a call's matrix products and convolutions, and its elementwise multiplications.

    Fused attention is replaced by its plain form, whose products torch's counter knows on every device.

    >>> count_products(lambda: torch.ones(2, 3) @ torch.ones(3, 4) * 0.5)
    (24, 8)
    """
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mul: _count_entries})
    with sdpa_kernel(SDPBackend.MATH), counter:
        call()
    elementwise = counter.get_flop_counts().get("Global", {}).get(torch.ops.aten.mul, 0)
    return (counter.get_total_flops() - elementwise) // 2, elementwise


def _count_entries(*_inputs: Any, out_shape: Sequence[int], **_options: Any) -> int:
    return math.prod(out_shape)

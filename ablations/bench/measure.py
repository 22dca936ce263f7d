"""Measure seconds, multiply-adds and memory of a call."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ufo.flops import count_products
from ufo.norms import AttentionNorm

MIN_DURATION_S = 0.05
"""Least duration of a measurement, by repeated calls, so that clock resolution and warm-up are negligible."""


def draw_qkv(norm: AttentionNorm, *, images: int, tokens: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Return q, k and v, each (images, h, tokens, d), of normal noise with a fixed seed."""
    generator = torch.Generator(device).manual_seed(0)
    shapes = [(images, norm.num_heads, tokens, width) for width in (norm.key_dim, norm.key_dim, norm.value_dim)]
    return tuple(torch.randn(shape, generator=generator, device=device) for shape in shapes)


def count_multiply_adds(module: nn.Module, *inputs: Any) -> float:
    """Count the multiply-adds of a call's matrix products and convolutions: half of torch's FLOPs.

    A call without any, such as that of a normaliser of elementwise products alone, counts its elementwise ones.
    """
    with torch.no_grad():
        matrices, elementwise = count_products(partial(module, *inputs))
    return float(matrices or elementwise)


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call: the median of three measurements of `MIN_DURATION_S` or more."""
    time_calls(call, 1, device)
    count, elapsed = 1, time_calls(call, 1, device)
    while elapsed < MIN_DURATION_S:
        count *= 2
        elapsed = time_calls(call, count, device)
    return statistics.median([elapsed, time_calls(call, count, device), time_calls(call, count, device)]) / count


def time_calls(call: Callable[[], object], count: int, device: torch.device) -> float:
    """Return the total seconds of ``count`` calls."""
    started = time.perf_counter()
    for _ in range(count):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Return the peak memory of torch's allocator during a call, in bytes above its level before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler's warning of no GPU
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    held = peak = 0
    assert profile.profiler is not None
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":  # an allocation; a release if negative
            held += event.nbytes()
            peak = max(peak, held)
    return peak

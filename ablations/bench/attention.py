"""Benchmark of the attention core: time, memory and multiply-adds of normalisers against the number of tokens N.

The batch size shrinks as N grows, so that each call processes about the same number of tokens in all. A time per token
that grows with N is then due to the normaliser and not to caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from matplotlib.figure import Figure

from ablations.bench.drawing import save_figure
from ablations.bench.measure import count_multiply_adds, draw_qkv, peak_bytes, time_call
from ablations.engine.threads import cpu_threads
from ablations.figures.scaling import cost_against_tokens
from ufo.norms import NORMS, AttentionNorm, build_norm

FLAT_FROM = 1024
"""Number of tokens from which a linear arm must have constant cost per token; below, call overhead dominates."""

FLAT_TIME_PCT, FLAT_BYTES_PCT = 15, 10
"""Largest excess of the costliest token over the cheapest, per cent, that counts as constant."""

LEAST_HEIGHT, ENTRY_HEIGHT = 4.4, 0.19
"""Least height of the figure, and height of an entry of its legend, in inches."""


class AttentionRow(NamedTuple):
    """A measurement of one call: ``time_s``, ``peak_bytes`` without its inputs, or ``multiply_adds``.

    ``training_s`` and ``training_peak_bytes`` are those of forward and backward pass together.
    """

    norm: str
    tokens: int
    images: int
    quantity: str
    round: int
    value: float


def bench_attention(
    norms: Sequence[str],
    *,
    tokens: Sequence[int],
    num_heads: int,
    head_dim: int,
    rounds: int,
    num_threads: int,
    device: torch.device,
    on_rows: Callable[[int, list[AttentionRow]], None],
    dtype: torch.dtype = torch.float32,
    training: bool = False,
    images: int = 1,
) -> list[AttentionRow]:
    """Measure inference for every normaliser and number of tokens, once in each round.

    Args:
        norms: registry names of the normalisers.
        tokens: numbers of tokens N.
        num_heads: number of heads h.
        head_dim: width d of keys and values.
        rounds: number of time measurements; counts and peaks are measured once.
        num_threads: number of CPU threads.
        device: device to measure on.
        on_rows: callback, called after each measurement with the number of its round, from 1, and all rows so far.
        dtype: type of inputs and parameters.
        training: whether to measure forward and backward pass too.
        images: number of images at the largest number of tokens; at others as many tokens in all.

    Raises:
        UnknownNameError: there is no such normaliser.
    """
    subjects = [(norm, count) for norm in norms for count in tokens]
    rows: list[AttentionRow] = []
    with cpu_threads(num_threads):
        for number in range(1, rounds + 1):
            for norm, count in subjects if number % 2 else reversed(subjects):
                module = build_norm(norm, num_heads=num_heads, key_dim=head_dim, value_dim=head_dim)
                batch = max(1, round(images * max(tokens) / count))
                drawn = draw_qkv(module, images=batch, tokens=count, device=device)
                qkv = [part.to(dtype) for part in drawn]
                measured = _times(module.to(device, dtype), qkv, training=training)
                if number == 1:
                    measured |= _sizes(module, qkv, training=training)
                rows += [AttentionRow(norm, count, batch, what, number, value) for what, value in measured.items()]
                on_rows(number, rows)
    return rows


def _times(module: AttentionNorm, qkv: list[torch.Tensor], *, training: bool) -> dict[str, float]:
    device = qkv[0].device
    times = {"time_s": time_call(_inference(module, qkv), device)}
    return times | ({"training_s": time_call(_training(module, qkv), device)} if training else {})


def _sizes(module: AttentionNorm, qkv: list[torch.Tensor], *, training: bool) -> dict[str, float]:
    """Return peak bytes and multiply-adds; the module is left without its values."""
    device, images = qkv[0].device, len(qkv[0])
    sizes: dict[str, float] = {"peak_bytes": peak_bytes(_inference(module, qkv), device)}
    if training:
        sizes["training_peak_bytes"] = peak_bytes(_training(module, qkv), device)
    one = [part[:1].to("meta") for part in qkv]  # counted without being computed
    return sizes | {"multiply_adds": images * count_multiply_adds(module.to("meta"), *one)}


def _inference(module: AttentionNorm, qkv: list[torch.Tensor]) -> Callable[[], object]:
    return torch.no_grad()(lambda: module(*qkv))


def _training(module: AttentionNorm, qkv: list[torch.Tensor]) -> Callable[[], object]:
    """Return a call of forward and backward pass."""
    inputs = [part.detach().requires_grad_() for part in qkv]
    gradient = torch.ones_like(qkv[2])  # the output's shape: as many queries as keys
    return lambda: torch.autograd.grad(module(*inputs), [*inputs, *module.parameters()], gradient)


def per_token(rows: list[AttentionRow]) -> pd.DataFrame:
    """Return the cost per token: median and quartiles over the rounds.

    Returns:
        ``norm``, ``label``, ``arm_order``, ``tokens``, ``quantity``, ``median``, ``low``, ``high``; seconds, bytes or
        multiply-adds per token.
    """
    frame = pd.DataFrame(rows, columns=list(AttentionRow._fields))
    frame["value"] /= frame["tokens"] * frame["images"]
    grouped = frame.groupby(["norm", "tokens", "quantity"], sort=False)["value"]
    parts = {"median": grouped.median(), "low": grouped.quantile(0.25), "high": grouped.quantile(0.75)}
    table = pd.DataFrame(parts).reset_index()
    order = {norm: place for place, norm in enumerate(NORMS)}
    table["label"], table["arm_order"] = table["norm"].map(lambda norm: NORMS[norm].label), table["norm"].map(order)
    return table


def spread_pct(costs: pd.DataFrame, norm: str, quantity: str) -> float:
    """Return by how many per cent the costliest token exceeds the cheapest, at `FLAT_FROM` tokens or more.

    Args:
        costs: result of `per_token`.
        norm: registry name of a measured normaliser.
        quantity: quantity of `AttentionRow`.

    >>> rows = [AttentionRow("xnorm", n, 1, "time_s", 1, value) for n, value in ((1024, 1.0), (4096, 4.4))]
    >>> round(spread_pct(per_token(rows), "xnorm", "time_s"))
    10
    """
    own = costs[(costs["norm"] == norm) & (costs["quantity"] == quantity) & (costs["tokens"] >= FLAT_FROM)]["median"]
    return 100 * (float(own.max() / own.min()) - 1)


def describe_attention(costs: pd.DataFrame) -> list[str]:
    """Return a line per normaliser with its cost per token and whether that is constant."""
    lines = []
    for norm in dict.fromkeys(costs["norm"]):
        every = costs[costs["norm"] == norm]
        large = every[every["tokens"] >= FLAT_FROM]
        can_judge = large["tokens"].nunique() > 1
        own = large if can_judge else every
        time, memory = (own[own["quantity"] == what]["median"] for what in ("time_s", "peak_bytes"))
        times = f"{1e9 * time.min():,.0f} to {1e9 * time.max():,.0f} ns a token"
        peaks = f"{memory.min():,.0f} to {memory.max():,.0f} bytes a token"
        if not can_judge:
            lines.append(f"{norm}: {times}; {peaks}; to judge linearity give two --tokens from {FLAT_FROM:,} up")
            continue
        of_time, of_memory = (spread_pct(costs, norm, what) for what in ("time_s", "peak_bytes"))
        flat = of_time <= FLAT_TIME_PCT and of_memory <= FLAT_BYTES_PCT
        kind = "quadratic" if not NORMS[norm].linear else "linear, flat" if flat else "linear, NOT FLAT"
        lines.append(f"{norm}: {times}, spread {of_time:,.1f} %; {peaks}, spread {of_memory:,.1f} %: {kind}")
    return lines


def draw_attention(costs: pd.DataFrame, path: Path) -> list[Path]:
    """Draw time and memory against tokens, as PNG and PDF; return the paths of the files.

    Args:
        costs: result of `per_token`.
        path: path of the files; its extension is replaced.
    """
    return save_figure(attention_figure(costs), path)


def attention_figure(costs: pd.DataFrame) -> Figure:
    """Return a figure of time and memory against tokens, high enough for its legend.

    Args:
        costs: result of `per_token`.
    """
    height = max(LEAST_HEIGHT, ENTRY_HEIGHT * (costs["norm"].nunique() + 1))
    figure = Figure(figsize=(10, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    cost_against_tokens(costs[costs["quantity"] == "time_s"], left)
    cost_against_tokens(costs[costs["quantity"] == "peak_bytes"], right)
    handles: Any = left.get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize="small", frameon=False)
    return figure

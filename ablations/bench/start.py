"""Scale of attention outputs at initialisation: RMS and quantiles of each normaliser against the number of tokens N.

q, k and v are drawn for one head: unit normal noise for each token, around a mean that all tokens share. A normaliser
whose output is far larger or smaller than another's starts its training with another effective learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ufo.init import keyed_generator
from ufo.norms import NORMS, build_norm

MEAN_STD = 0.5
"""Standard deviation of the mean of a channel that all tokens share; that of the tokens around it is 1."""

LOW, HIGH = 0.01, 0.99
"""Quantiles that bound the range; unlike the extremes they do not grow with the number of entries."""


class StartRow(NamedTuple):
    """Scale of a normaliser's output at initialisation, over all entries of all seeds.

    Args:
        norm: registry name.
        tokens: number of tokens N.
        rms: root mean square.
        low: 1 % quantile.
        high: 99 % quantile.
    """

    norm: str
    tokens: int
    rms: float
    low: float
    high: float


def bench_start(
    norms: Sequence[str],
    *,
    tokens: Sequence[int],
    head_dim: int,
    seeds: Sequence[int],
    on_row: Callable[[StartRow], None],
) -> list[StartRow]:
    """Measure every normaliser at every number of tokens, in float64; all normalisers see the same draws.

    Args:
        norms: registry names of the normalisers.
        tokens: numbers of tokens N.
        head_dim: width d of keys and values.
        seeds: seeds of the draws.
        on_row: callback, called with each measurement.

    Raises:
        UnknownNameError: there is no such normaliser.
    """
    for norm in norms:
        NORMS[norm]
    rows = []
    for norm in norms:
        module = build_norm(norm, num_heads=1, key_dim=head_dim, value_dim=head_dim).double()
        for count in tokens:
            with torch.no_grad():
                drawn = (draw_start(seed, tokens=count, head_dim=head_dim) for seed in seeds)
                entries = np.concatenate([module(*qkv).numpy().ravel() for qkv in drawn])
            low, high = np.quantile(entries, (LOW, HIGH), method="inverted_cdf")
            rms = float(np.sqrt(np.mean(np.square(entries))))
            rows.append(StartRow(norm, count, rms, float(low), float(high)))
            on_row(rows[-1])
    return rows


def draw_start(seed: int, *, tokens: int, head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and v of one head, each (1, 1, N, d): unit normal noise around a mean that the tokens share.

    The means of a seed are the same at every N; the noise is drawn for each N.

    Args:
        seed: seed of the draws.
        tokens: number of tokens N.
        head_dim: width d.
    """

    def draw(part: str) -> Tensor:
        mean = torch.randn(head_dim, generator=keyed_generator(seed, "start", part, "mean"), dtype=torch.float64)
        generator = keyed_generator(seed, "start", part, tokens)
        noise = torch.randn(1, 1, tokens, head_dim, generator=generator, dtype=torch.float64)
        return noise + MEAN_STD * mean

    return draw("q"), draw("k"), draw("v")


def start_table(rows: Sequence[StartRow]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table: a row per normaliser, a column per N, RMS and quantiles as text.

    >>> start_table([StartRow("l2", 64, 0.25, -0.5623, 0.5571), StartRow("l2", 3136, 0.2521, -0.5604, 0.56)])
    (['name', 'N = 64', 'N = 3,136'], [['l2', '0.250 [-0.56, 0.56]', '0.252 [-0.56, 0.56]']])
    """
    cells = {(row.norm, row.tokens): row for row in rows}
    norms, tokens = dict.fromkeys(row.norm for row in rows), dict.fromkeys(row.tokens for row in rows)
    lines = [[norm, *(_cell(cells[norm, count]) for count in tokens)] for norm in norms]
    return ["name", *(f"N = {count:,}" for count in tokens)], lines


def _cell(row: StartRow) -> str:
    return f"{_digits(row.rms, 3)} [{_digits(row.low, 2)}, {_digits(row.high, 2)}]"


def _digits(value: float, digits: int) -> str:
    """Format a number to significant digits, without an exponent.

    >>> _digits(0.05799, 3), _digits(792.4, 3), _digits(12345.6, 3), _digits(-0.000374, 2), _digits(0.0, 2)
    ('0.0580', '792', '12300', '-0.00037', '0')
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{Decimal(f'{value:.{digits - 1}e}'):f}"

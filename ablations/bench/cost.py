"""Measure the cost of each arm of a study, with nothing else running.

For the whole net: multiply-adds and inference time of an image, and time of a training step. For the normaliser:
multiply-adds and time against the number of tokens, which show whether its cost is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ablations.bench.measure import count_multiply_adds, time_call
from ablations.config import CellConfig
from ablations.config.values import value_name
from ablations.data import DataInfo, Rank
from ablations.data.objects.load import load_objects
from ablations.engine.threads import cpu_threads
from ablations.planning.plan import Plan
from ablations.tasks.net import build_net, make_net
from ablations.training.optimizer import build_optimizer
from ufo.norms import AttentionNorm

TOKENS = (256, 512, 1024, 2048, 4096)
"""Numbers of tokens at which a normaliser is measured; a linear one takes 16 times as long at the last."""


class Cost(NamedTuple):
    """A row of cost.csv: multiply-adds, or seconds per image, step or call; `tokens` is None for a whole net."""

    condition: str
    arm: str
    quantity: str
    tokens: int | None
    round: int
    value: float


def measure_costs(
    plan: Plan, *, rounds: int, on_round: Callable[[int], None], on_failure: Callable[[str], None]
) -> list[Cost]:
    """Measure every arm of a plan in every condition, once in each round.

    An arm that raises is reported and left out; the others are measured.

    Args:
        plan: Plan of a study; its first device is used.
        rounds: Number of time measurements, 1 or more.
        on_round: Callback, called with the number of each finished round, from 0.
        on_failure: Callback, called with a message for each arm that cannot be measured.
    """
    device = plan.devices[0]
    measured = []
    for subject in _subjects(plan):
        try:
            measured.append((subject, [*_count(*subject), *_time(*subject, device=device, number=0)]))
        except Exception as error:  # an arm may raise anything; its cells record it
            on_failure(f"{subject[1]}{' at ' * bool(subject[0])}{subject[0]}: {type(error).__name__}: {error}")
    on_round(0)
    for number in range(1, rounds):
        for subject, own in measured:
            own += _time(*subject, device=device, number=number)
        on_round(number)
    return [row for _, own in measured for row in own]


def _subjects(plan: Plan) -> Iterator[tuple[str, str, CellConfig, DataInfo]]:
    """Yield condition, arm, configuration and data set of the first cell of each arm and condition."""
    seen = set[tuple[str, str]]()
    for cell in plan.cells:
        key = (plan.study.condition_of(cell), value_name(cell[plan.study.compare]))
        if key not in seen:
            seen.add(key)
            yield *key, cell, plan.infos[cell.images.data_fingerprint]


def _count(condition: str, arm: str, cell: CellConfig, info: DataInfo) -> Iterator[Cost]:
    """Count the multiply-adds of the net and of its first normaliser at each number of tokens."""
    net = _Net(cell, info, torch.device("cpu"))
    yield Cost(condition, arm, "multiply_adds", None, 0, count_multiply_adds(net.module.eval(), net.one))
    if (norm := _normaliser(net.module)) is None:
        return
    for tokens in TOKENS:
        yield Cost(condition, arm, "multiply_adds", tokens, 0, count_multiply_adds(norm, *_qkv(norm, tokens)))


def _time(
    condition: str, arm: str, cell: CellConfig, info: DataInfo, *, device: torch.device, number: int
) -> Iterator[Cost]:
    with cpu_threads(cell.run.threads_per_cell):
        yield from _time_alone(condition, arm, cell, info, device=device, number=number)


def _time_alone(
    condition: str, arm: str, cell: CellConfig, info: DataInfo, *, device: torch.device, number: int
) -> Iterator[Cost]:
    net = _Net(cell, info, device)
    optimizer = build_optimizer(net.module, lr=1e-9, weight_decay=0.0, fused=device.type == "cuda")

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(net.loss())
        optimizer.step()

    net.module.train()
    yield Cost(condition, arm, "training_step_s", None, number, time_call(step, device))
    net.module.eval()
    with torch.no_grad():
        seconds = time_call(lambda: net.module(net.evaluated), device)
        yield Cost(condition, arm, "inference_s", None, number, seconds / len(net.evaluated))
        if (norm := _normaliser(net.module)) is None:
            return
        for tokens in TOKENS:
            q, k, v = (part.to(device) for part in _qkv(norm, tokens))
            yield Cost(condition, arm, "time_s", tokens, number, time_call(lambda: norm(q, k, v), device))  # noqa: B023


class _Net:
    """A cell's initial net with its inputs: noise, or a detector's first images.

    Attributes:
        module: The net.
        one: Input of one image.
        evaluated: Input of an evaluation batch.
    """

    def __init__(self, cell: CellConfig, info: DataInfo, device: torch.device) -> None:
        self.one: Any
        self.evaluated: Any
        self._images: Any
        self._targets: Any
        if cell.task == "detect":
            data = load_objects(cell, info, workers=0, device=device, rank=Rank())
            _, image = next(iter(data.val))
            self._images, self._targets = data.train.first()
            net = make_net(cell.model_copy(update={"init": "none"}), info)
            self.module, self.one, self.evaluated = net.to(device), [image], [image]
            return
        height, width, channels = info.image_shape
        self.module = build_net(cell, image_shape=info.image_shape, num_classes=len(info.classes)).to(device)
        self._images = self.evaluated = torch.rand(cell.optimisation.batch_size, channels, height, width, device=device)
        self._targets = torch.zeros(cell.optimisation.batch_size, dtype=torch.long, device=device)
        self.one = torch.zeros(1, channels, height, width, device=device)

    def loss(self) -> torch.Tensor:
        """Return the loss of a training batch."""
        if isinstance(self._targets, torch.Tensor):
            return F.cross_entropy(self.module(self._images), self._targets)
        return torch.stack([loss.float() for loss in self.module(self._images, self._targets).values()]).sum()


def _normaliser(net: nn.Module) -> AttentionNorm | None:
    """Return the first normaliser of a net; None if it has none, as timm's nets."""
    return next((module for module in net.modules() if isinstance(module, AttentionNorm)), None)


def _qkv(norm: AttentionNorm, tokens: int) -> tuple[torch.Tensor, ...]:
    """Return q, k and v of one image, each (1, h, tokens, d), of normal noise with a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    widths = (norm.key_dim, norm.key_dim, norm.value_dim)
    return tuple(torch.randn(1, norm.num_heads, tokens, width, generator=generator) for width in widths)

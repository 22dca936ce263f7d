"""What a step takes, as a plan foretells it, on a clock that the test sets forward."""

import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ablations.config import recipes
from ablations.config.make import make_config
from ablations.data import find_source, prepare
from ablations.planning import estimate


@pytest.mark.parametrize(
    ("calls_s", "seconds", "num_calls"),
    [
        ((0.05, 0.03, 0.03, 0.02, 0.01), 0.02, 4),  # short ones: four
        ((3.0, 0.4, 0.3), 0.4, 2),  # a first that loads libraries from a cold disk counts for nothing
        ((0.2, 0.2, 0.3, 0.1), 0.2, 3),  # no more than fits in the time
        ((30.0, 1.0), 30.0, 1),  # a long one is not repeated
    ],
)
def test_the_shortest_of_a_few_calls_counts(monkeypatch, calls_s, seconds, num_calls):
    now, made = 0.0, []

    def call() -> None:
        nonlocal now
        now += calls_s[len(made)]
        made.append(now)

    monkeypatch.setattr(estimate, "time", types.SimpleNamespace(perf_counter=lambda: now))
    assert estimate._time_call(call, torch.device("cpu")) == pytest.approx(seconds)
    assert len(made) == num_calls


@pytest.mark.parametrize(("limit", "val", "test"), [(None, 144, 360), (100, 100, 100), (200, 144, 200)])
def test_only_evaluated_images_take_time(cache: Path, limit, val, test):
    info = prepare(find_source("digits", data_root=cache, download=False, image_size=None))
    base = recipes.defaults(image_side=8, flips=False) | {"data": "digits", "data_fingerprint": info.fingerprint}
    config = make_config(base | {"norm": "xnorm", "seed": 0, "epochs": 4, "warmup_epochs": 0, "eval_limit": limit})
    times = estimate.StepTimes(train_s=0.0, eval_s=1.0, eval_batch=1)
    assert times.cell_seconds(config, info) == 4 * val + test
    assert replace(times, train_s=1.0, eval_s=0.0).cell_seconds(config, info) == estimate.num_steps(config, info)


def test_an_evaluation_batch_is_timed_on_no_more_images_than_are_evaluated(cache: Path):
    info = prepare(find_source("digits", data_root=cache, download=False, image_size=None))
    base = recipes.defaults(image_side=8, flips=False) | {"data": "digits", "data_fingerprint": info.fingerprint}
    config = make_config(base | {"norm": "xnorm", "seed": 0, "eval_limit": 20})
    assert estimate.time_steps(config, info, device=torch.device("cpu")).eval_batch == 20

"""What a step takes, as a plan foretells it, on a clock that the test sets forward."""

import types

import pytest
import torch

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

"""False verdicts on claims in simulated studies; tests/claim_rates.py measures the rates in full."""

from pathlib import Path

import claim_rates
import numpy as np
import pytest

STATISTICS = Path(__file__).resolve().parents[2] / "docs" / "statistics.md"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["4 worse by 1, at the margin", "every kind: 1 true, 5 at the margin, 1 false"])
def test_few_studies_have_a_false_verdict_though_many_would_if_each_claim_were_alone(name):
    rates = claim_rates.false_rates(name, num_studies=50)
    for verdict in ("supported", "contradicted"):
        assert rates[f"verdict {verdict}"] <= 0.1  # 5 % and 1.5 standard errors
        assert rates[f"alone {verdict}"] >= 0.1


@pytest.mark.slow
def test_a_claim_judged_over_a_setting_is_seldom_false():
    """At a margin one of the two tests of a claim about the scale is often below 0.05, and both together seldom."""
    rates = {
        name: claim_rates.false_rates(name, num_studies=40)
        for name in ("null: 4 less stable", "4 explained by scale within 1, 2 at each margin")
    }
    for rate in rates.values():
        assert rate[["verdict supported", "verdict contradicted"]].max() <= 0.1
        assert rate[["alone supported", "alone contradicted"]].max() <= 0.25


def test_a_few_studies_show_the_difference_too():
    """Four of fifteen studies have a false verdict of a single claim, none of them one of the family."""
    setting, rng = claim_rates.SETTINGS["4 worse by 1, at the margin"], np.random.default_rng(1)
    found = [claim_rates.is_false(setting, rng) for _ in range(15)]
    assert sum(one["alone supported"] or one["alone contradicted"] for one in found) == 4
    assert sum(one["verdict supported"] or one["verdict contradicted"] for one in found) == 0


def test_a_false_verdict_is_one_against_the_truth():
    setting = claim_rates.Setting([(claim_rates.WORSE[0], ("contradicted",))], [-4, 0, 0, 0])
    rates = [claim_rates.is_false(setting, np.random.default_rng(seed)) for seed in range(5)]
    assert not any(any(one.values()) for one in rates)
    wrong = claim_rates.Setting([(claim_rates.WORSE[0], ("supported",))], [-4, 0, 0, 0])
    assert claim_rates.is_false(wrong, np.random.default_rng(0))["verdict supported"]


def test_the_documented_rates_are_of_these_settings():
    rows = [
        line.split(" | ") for line in STATISTICS.read_text().splitlines() if line.startswith("| ") and " ± " in line
    ]
    assert [row[0].removeprefix("| ") for row in rows] == list(claim_rates.SETTINGS)

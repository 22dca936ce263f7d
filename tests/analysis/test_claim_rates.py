"""False verdicts on claims in simulated studies; tests/claim_rates.py measures the rates in full."""

import claim_rates
import pytest


@pytest.mark.parametrize("name", ["4 worse by 1, at the margin", "every kind: 1 true, 5 at the margin, 1 false"])
def test_few_studies_have_a_false_verdict_though_many_would_if_each_claim_were_alone(name):
    rates = claim_rates.false_rates(name, num_studies=50)
    for verdict in ("supported", "contradicted"):
        assert rates[f"verdict {verdict}"] <= 0.05 + 0.05  # within 1.6 standard errors of 5 %
        assert rates[f"alone {verdict}"] >= 0.1


def test_a_false_verdict_is_one_against_the_truth():
    setting = claim_rates.Setting([(claim_rates.WORSE[0], ("contradicted",))], [-4, 0, 0, 0])
    rates = [claim_rates.is_false(setting, claim_rates.np.random.default_rng(seed)) for seed in range(5)]
    assert not any(any(one.values()) for one in rates)
    wrong = claim_rates.Setting([(claim_rates.WORSE[0], ("supported",))], [-4, 0, 0, 0])
    assert claim_rates.is_false(wrong, claim_rates.np.random.default_rng(0))["verdict supported"]

"""What the arms cost: counts that are exact, times that are taken, and the verdicts that come of them."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import cells
from torch.utils.flop_counter import FlopCounterMode

import ablations
from ablations.analysis import cost_exponents
from ablations.bench import cost, measure
from ablations.engine.threads import cpu_threads
from ufo.norms import build_norm

CLAIMS = """
data: digits
epochs: 1
train_limit: 128
warmup_epochs: 0
norm: [xnorm, softmax]
seeds: 1
claims:
  - {kind: cost_linear_in_tokens, arm: xnorm}
  - {kind: cost_linear_in_tokens, arm: softmax}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out")
    (out / "file.yaml").write_text(CLAIMS)
    ablations.run(experiment=out / "file.yaml", out=out)
    return out / "norm-digits"


@pytest.mark.slow
def test_costs_are_written_drawn_and_judged(cli, study):
    code, out, _ = cli("bench", "cost", study, "--rounds", 2)
    assert code == 0
    assert f"python -m ablations report {study} draws them" in out
    frame = pd.read_csv(study / "cost.csv")
    times, counts = frame[frame["quantity"].str.endswith("_s")], frame[frame["quantity"] == "multiply_adds"]
    assert set(times["quantity"]) == {"training_step_s", "inference_s", "time_s"}
    assert (times.groupby(["arm", "quantity", times["tokens"].fillna(0)]).size() == 2).all()
    assert (times["value"] > 0).all()
    assert counts.groupby("arm").size().to_dict() == {"xnorm": 6, "softmax": 6}  # the net, and five numbers of tokens
    exponents = {arm: cost_exponents(own).set_index("quantity")["exponent"] for arm, own in frame.groupby("arm")}
    assert exponents["xnorm"]["multiply_adds"] == pytest.approx(1.0)
    assert exponents["softmax"]["multiply_adds"] == pytest.approx(2.0)
    assert exponents["softmax"]["time_s"] > exponents["xnorm"]["time_s"] + 0.3
    assert cli("report", study)[0] == 0
    verdicts = pd.read_csv(study / "tables" / "claims.csv").set_index("claim")["verdict"]
    assert verdicts["the cost of softmax is linear in the number of tokens"] == "contradicted"
    figures = {path.stem for path in (study / "figures").glob("accuracy_against_cost-*.pdf")}
    quantities = ("parameters", "multiply_adds", "inference_s", "training_step_s")
    assert figures == {f"accuracy_against_cost-{quantity}" for quantity in quantities}


def test_the_counts_are_those_of_the_products():
    """Per head, n tokens of width d: xnorm has two products of n d^2 multiply-adds, softmax two of n^2 d."""
    h, d, n = 2, 8, 32
    for name, expected in (("xnorm", 2 * h * n * d * d), ("softmax", 2 * h * n * n * d)):
        norm = build_norm(name, num_heads=h, key_dim=d, value_dim=d)
        qkv = measure.draw_qkv(norm, images=1, tokens=n, device=torch.device("cpu"))
        assert measure.count_multiply_adds(norm, *qkv) == expected
    with FlopCounterMode(display=False) as counter:
        torch.ones(3, 4) @ torch.ones(4, 5)
    assert counter.get_total_flops() == 2 * 60  # a multiply-add is two of torch's


@pytest.mark.process
def test_an_arm_that_raises_costs_the_others_nothing(cli, study, tmp_path, monkeypatch):
    folder = shutil.copytree(study, tmp_path / "copy")
    build = cost.build_net

    def break_one(cell, **sizes):
        if cell.net.norm == "softmax":
            raise RuntimeError("this arm is broken")
        return build(cell, **sizes)

    monkeypatch.setattr(cost, "build_net", break_one)
    code, out, _ = cli("bench", "cost", folder, "--rounds", 2)
    assert code == 1
    assert "not measured, since it raises: softmax: RuntimeError: this arm is broken" in out
    assert set(pd.read_csv(folder / "cost.csv")["arm"]) == {"xnorm"}


def test_a_time_is_that_of_one_call(monkeypatch):
    calls = []
    monkeypatch.setattr(measure, "time_calls", lambda call, count, device: 0.02 * count)
    assert measure.time_call(lambda: calls.append(1), torch.device("cpu")) == pytest.approx(0.02)


@pytest.mark.process
def test_threads_are_those_of_the_cells_and_come_back(study):
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    assert set(cells(study.parent)) == {"xnorm-s0", "softmax-s0"}


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no study in nowhere"),
        (["STUDY", "--data", "cifar10"], "data"),
        (["STUDY", "--device", "tpu"], "tpu"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(cli, study, arguments, message):
    code, _, err = cli("bench", "cost", *(str(study) if one == "STUDY" else one for one in arguments))
    assert (code, err.count("\n")) == (2, 1)
    assert message in err

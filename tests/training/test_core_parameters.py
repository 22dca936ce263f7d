"""What the field's cores learn is exempt from weight decay, trained, and recorded in ``probes.csv``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_lightning import CPU, classifier

from ablations.data import DataInfo, find_source, prepare
from ablations.data.modules import make_data
from ablations.engine.threads import cpu_threads
from ablations.tasks.make import make_module
from ablations.training.loop import LeanTrainer
from ablations.training.optimizer import split_by_decay

DYT = {"alpha": 0.5, "weight": 1.0, "bias": 0.0}
LEARNED = {
    "qk_norm": {"offset": 0.0},
    "ssmax": {"gain": 0.168},
    "dyt": {f"norm_{part}.{name}": start for part in "qk" for name, start in DYT.items()},
}
"""Parameters of a core, and their initial values."""


@pytest.fixture(scope="module")
def digits(cache: Path) -> DataInfo:
    return prepare(find_source("digits", data_root=cache, download=False, image_size=None))


@pytest.mark.parametrize("norm", LEARNED)
def test_a_core_s_parameters_are_exempt_trained_and_recorded(digits, tmp_path, norm):
    config = classifier(digits, norm=norm, epochs=1, train_limit=128)
    module = make_module(config, digits)
    decayed, exempt = split_by_decay(module.net)
    own = {f"blocks.0.attn.norm.{name}" for name in LEARNED[norm]}
    assert own <= exempt.keys()
    assert not own & decayed.keys()
    with cpu_threads(1):
        LeanTrainer(config, device=CPU, callbacks=[], log_dir=tmp_path).fit(module, make_data(config, digits))
    probes = pd.read_csv(tmp_path / "probes.csv").query("layer == 'blocks.0.attn'")
    found = probes.groupby("probe")["value"].last()
    assert set(found.index) == {"output_rms", "grad_norm", *(f"mean_{name}" for name in LEARNED[norm])}
    for name, start in LEARNED[norm].items():
        assert found[f"mean_{name}"] == pytest.approx(exempt[f"blocks.0.attn.norm.{name}"].mean().item(), rel=1e-6)
        assert abs(found[f"mean_{name}"] - start) > 1e-6

"""Reading steps.csv: rows with the keys of their cells, and what is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from studies import LAYERS, make_study

from ablations.api import make_report
from ablations.store import Store
from ablations.store.frames import Frames, read_frames


def study(out: Path, **options: object) -> tuple[Frames, Path]:
    folder = make_study(out, norms=["xnorm", "l2"], seeds=2, stories={("l2", 0): "nan"}, **options)
    return read_frames(Store(folder), numerics=None), folder


def test_rows_have_the_keys_of_their_cells_and_the_order_of_their_layers(tmp_path):
    frames, _ = study(tmp_path, probe_steps=(1, 2, 5))
    assert not frames.problems
    assert list(frames.steps) == [
        *("cell", "arm", "arm_label", "arm_order", "condition", "seed", "outcome", "kind", "measure"),
        *("step", "layer", "probe", "value", "layer_order"),
    ]
    assert len(frames.steps) == 4 * 3 * (1 + 2 * len(LAYERS))
    assert frames.steps["step"].dtype == np.int64
    losses = frames.steps.query("probe == 'loss'")
    assert losses["layer_order"].isna().all()
    assert set(losses["layer"]) == {""}
    found = frames.steps.query("probe == 'output_rms'").drop_duplicates("layer")
    assert dict(zip(found["layer"], found["layer_order"], strict=True)) == {layer: i for i, layer in enumerate(LAYERS)}
    (lost,) = {tuple(own["value"].isna()) for _, own in losses.groupby("cell") if own["value"].isna().any()}
    assert lost == (False, False, True)


def test_a_study_without_them_has_no_rows_and_no_problem(tmp_path):
    frames, _ = study(tmp_path)
    assert not frames.problems
    assert frames.steps.empty


def test_a_cell_that_ended_in_its_first_epoch_has_its_rows(tmp_path):
    _, folder = study(tmp_path, probe_steps=(1,))
    for name in ("probes.csv", "metrics.csv"):
        next(folder.glob(f"cells/l2-s0-*/{name}")).unlink()
    (outcome,) = folder.glob("cells/l2-s0-*/outcome.json")
    outcome.write_text(outcome.read_text().replace('"epochs_run": 1', '"epochs_run": 0').replace('["000000"]', "[]"))
    frames = read_frames(Store(folder), numerics=None)
    assert not frames.problems
    assert len(frames.steps.query("arm == 'l2' and seed == 0")) == 1 + 2 * len(LAYERS)


@pytest.mark.parametrize(
    ("old", "new", "said", "num_lost"),
    [
        ("\n1,,loss,", "\nx,,loss,", "steps.csv: rows without a step left out: 1", 1),
        ("\n1,,loss,", "\n0,,loss,", "steps.csv: rows without a step left out: 1", 1),
        ("\n1,,loss,", "\n1.5,,loss,", "steps.csv: rows without a step left out: 1", 1),
        ("\n2,,loss,", "\n1,,loss,", "steps.csv: repeated rows left out: 1", 1),
        ("\n1,,loss,", f"\n1,,{'x' * 300},", "steps.csv: rows with names of more than 200 characters left out: 1", 1),
        ("\n1,,loss,", "\n1,,loss,junk", "steps.csv: values of value that are not numbers: 1", 0),
        ("step,layer", "steps,layer", "steps.csv has no column step", 14),
    ],
)
def test_what_is_damaged_is_said_and_the_rest_read(old, new, said, num_lost, tmp_path):
    whole, folder = study(tmp_path, probe_steps=(1, 2))
    (path,) = folder.glob("cells/xnorm-s1-*/steps.csv")
    path.write_text(path.read_text().replace(old, new, 1))
    frames = read_frames(Store(folder), numerics=None)
    assert frames.problems == (f"{path.parent.name}: {said}",)
    assert len(frames.steps) == len(whole.steps) - num_lost


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    _, folder = study(tmp_path, probe_steps=(1, 2))
    (path,) = folder.glob("cells/xnorm-s1-*/steps.csv")
    path.rename(tmp_path / "outside.csv")
    path.symlink_to(tmp_path / "outside.csv")
    (said,) = read_frames(Store(folder), numerics=None).problems
    assert said.startswith(f"{path.parent.name}: steps.csv cannot be read")


@pytest.mark.process
def test_a_report_has_them_as_a_file_only_if_there_are_rows(tmp_path):
    _, folder = study(tmp_path, probe_steps=(1, 2))
    assert folder / "steps.csv" in make_report([folder], full=False).files
    for path in folder.glob("cells/*/steps.csv"):
        path.unlink()
    assert folder / "steps.csv" not in make_report([folder], full=False).files
    assert not (folder / "steps.csv").exists()

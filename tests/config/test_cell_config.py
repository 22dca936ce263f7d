"""A cell's fields, their values as text, and its identity."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import typing
from pathlib import Path

import pytest
from pydantic import ValidationError

from ablations.config import CellConfig, UsageError
from ablations.config.cell import FIELDS, CellField
from ablations.config.change import apply_change
from ablations.config.experiment import find_experiment, load_experiment, named_experiments
from ablations.config.make import make_config
from ablations.config.recipes import defaults
from ablations.config.seeds import parse_seeds
from ablations.config.values import parse_values, types_of
from ufo.registry import UnknownNameError

RESULTS = Path(__file__).resolve().parents[2] / "results"


def config(**fields: object) -> CellConfig:
    base = {"data": "digits", "data_fingerprint": "f", "norm": "xnorm", "seed": 0}
    return make_config(defaults(image_side=8, flips=False) | base | fields)


def test_an_id_is_golden_so_that_old_results_stay_known():
    assert config().id == "b8fd528f02"


def test_committed_cells_keep_their_ids_and_their_fields():
    files = sorted(RESULTS.rglob("cells/*/config.json"))
    assert len(files) > 200
    for file in files:
        fields = json.loads(file.read_text())
        cell = CellConfig(**fields)
        assert file.parent.name.endswith(f"-{cell.id}"), file
        assert {name: cell[name] for name in fields} == fields, file


def another_value(field: CellField) -> object:
    """Return a value that the field can have, and that is not the one of `config`."""
    if bool in types_of(field.name):
        return not config()[field.name]
    for candidate in (*typing.get_args(field.info.annotation), 1, 2, 0.5, "5+7", "lpi=off", "other"):
        with contextlib.suppress(ValidationError):
            if (value := field.adapter.validate_python(candidate)) != config()[field.name]:
                return value
    raise AssertionError(f"no other value of {field.name} is known here")


def test_every_field_changes_the_id():
    needed = {"eval_crop": {"streamed": True}, "warmup_epochs": {"epochs": 9}}
    ids = {name: config(**needed.get(name, {}), **{name: another_value(field)}).id for name, field in FIELDS.items()}
    assert len({config().id, *ids.values()}) == len(FIELDS) + 1, ids


def test_the_name_of_an_image_folder_does_not_change_the_id():
    assert config(data="imagefolder:a").id == config(data="imagefolder:b").id


def test_a_field_left_at_its_default_does_not_enter_the_id():
    assert config(depth=None).id == config().id


@pytest.mark.parametrize(
    ("field", "text", "values"),
    [
        ("norm", "xnorm, l2", ["xnorm", "l2"]),
        ("norm", "none", ["none"]),
        ("class_attention", "none,0-2", [None, 0, 1, 2]),
        ("lpi", "on,off,bn_first", [True, False, "bn_first"]),
        ("change", "none, lpi=off,layer_scale=0.1", ["none", "lpi=off", "layer_scale=0.1"]),
        ("lr", "1e-3,3e-3", [0.001, 0.003]),
        ("data", "imagefolder:/a/b-3", ["imagefolder:/a/b-3"]),
        ("classes", "20", ["20"]),
        ("classes", "10,20,none", ["10", "20", None]),
        ("classes", "dog, cat", ["cat+dog"]),
        ("classes", "3+1,cat+dog", ["1+3", "cat+dog"]),
    ],
)
def test_text_becomes_typed_values(field, text, values):
    assert parse_values(field, text) == values


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("lr", "fast", "lr=fast: must be a valid number"),
        ("output_gate", "maybe", "output_gate=maybe: must be on or off"),
        ("lr", "nan", "lr=nan: must be a finite number"),
        ("lr", "-1", "greater than 0"),
        ("lr", "1e-3,0.001", "given twice"),
        ("epochs", "2.5", "epochs=2.5: must"),
        ("epochs", "", "epochs='': must"),
        ("epochs", "5-2", "backwards"),
        ("drop_path", "1", "less than 1"),
        ("lpi", "perhaps", "lpi=perhaps: must be on or off, or must be 'bn_first'"),
        ("change", "lpi", "change=lpi: must"),
        ("precision", "fp8", "precision=fp8: must"),
        ("epoch", "3", "did you mean 'epochs'"),
        ("smoke", "true", "unknown field 'smoke'"),
        ("streamed", "on", "unknown field 'streamed'"),
        ("scored_on", "val", "unknown field 'scored_on'"),
        ("classes", "0", "classes=0: must be a number of classes, or two"),
        ("classes", "cat", "classes=cat: must be a number"),
        ("classes", "cat,", "classes=cat"),
        ("lr", "\udcff", r"lr=\\udcff: it has bytes that are no characters; write it in UTF-8"),
        ("norm", "l2,x\ud800", r"norm=x\\ud800: it has bytes that are no characters"),
    ],
)
def test_a_bad_value_is_named_in_one_line(field, text, message):
    with pytest.raises(UsageError, match=message) as error:
        parse_values(field, text)
    assert "\n" not in str(error.value)


def test_warm_up_longer_than_training_is_refused():
    with pytest.raises(UsageError, match="warmup_epochs=9 exceeds epochs=8"):
        config(warmup_epochs=9)


def test_fields_that_do_not_go_together_are_refused():
    with pytest.raises(UsageError, match=r"eval_crop=0\.9 is for streamed images"):
        config(eval_crop=0.9)


def test_a_change_is_made():
    assert apply_change(config(change="lpi=off")) == config(lpi=False)
    assert apply_change(config(change="depth=1")).net.depth == 1
    assert apply_change(config(change="output_gate=on")) == config(output_gate=True)
    assert apply_change(config()) == config()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("norm=l2", "unknown part of the net 'norm'. Valid: patch, patch_embed"),
        ("lp=off", "unknown part of the net 'lp', did you mean 'lpi'"),
        ("lpi=maybe", "lpi=maybe: must"),
        ("lpi=false", "change=lpi=false: write lpi=off"),
        ("depth=1-3", "change=depth=1-3: give one value of depth"),
        ("depth=none", "change=depth=none: give one value of depth"),
        ("lpi=on", "ufo_vit_pico has lpi=on already; give another"),
        ("class_attention=1", "ufo_vit_pico has class_attention=1 already; give another"),
    ],
)
def test_a_change_that_is_none_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        config(change=change)


@pytest.mark.parametrize(("text", "seeds"), [("3", [0, 1, 2]), ("0-2,7", [0, 1, 2, 7]), ("0,", [0]), ("4,1", [1, 4])])
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "", "3-1", "1,1", "1,x"])
def test_bad_seeds(text):
    with pytest.raises(ValueError, match=r"give how many|at least one seed"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("norm: null", "norm=None: "),
        ("norm: [null]", "norm=None: "),
        ("norm: []", "norm: give at least one value"),
        ("seeds: null", "seeds: no value is given"),
        ("epochs: many", "epochs=many: must"),
        ("epoch: 3", "unknown key 'epoch', did you mean 'epochs'"),
        ("ref: 3", "ref=3: must be a valid string"),
        ("cost: 3", "cost=3: must be a valid string"),
        ("lr: 0.1\nlr: 0.2", "'lr' comes twice"),
        ("epochs: true", "epochs=True: must be a number or a name"),
        ("depth: [on]", "depth=on: "),
        ("plugins: mine", "plugins=mine: give a list of module names"),
    ],
)
def test_a_bad_line_of_an_experiment_is_refused(tmp_path, line, message):
    path = tmp_path / "e.yaml"
    path.write_text(f"study: s\n{line}\n")
    with pytest.raises(UsageError, match=message):
        load_experiment(path)


def test_an_experiment_is_found_by_its_name_whatever_folder_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = named_experiments()["norm_digits"]
    assert find_experiment("norm_digits") == ours
    (tmp_path / "norm_digits").mkdir()
    assert find_experiment("norm_digits") == ours
    (tmp_path / "norm_digits.yaml").write_text("study: mine\n")
    assert load_experiment("norm_digits.yaml").study == "mine"
    assert load_experiment(tmp_path / "norm_digits.yaml").study == "mine"
    assert load_experiment("norm_digits").study == "norm_digits"


def test_an_experiment_may_come_through_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("study: piped\n",))
    writer.start()
    assert load_experiment(tmp_path / "pipe").study == "piped"
    writer.join()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("norm_digit", "unknown experiment 'norm_digit', did you mean 'norm_digits'"),
        ("experiments/norm_digits.yaml", "is not a file; give norm_digits, which comes with the package"),
        ("none.yaml", "is not a file; give its path, or one of architecture, "),
        ("a/b", "is not a file; give its path"),
        ("./norm_digits", "is not a file; give norm_digits, which comes"),
    ],
)
def test_an_experiment_that_is_none_is_refused(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, UnknownNameError), match=message):
        load_experiment(given)


def test_an_experiment_takes_text_numbers_and_lists(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text(
        "norm: xnorm,none\nlr: [1e-3, 0.002]\nclass_attention: null\nlpi: off\nepochs: 3\nseeds: [0-1, 7]\n"
    )
    assert load_experiment(path).asked == {
        "norm": ["xnorm", "none"],
        "lr": [0.001, 0.002],
        "class_attention": [None],
        "lpi": [False],
        "epochs": [3],
        "seed": [0, 1, 7],
    }


def test_an_error_names_one_field_and_its_own_reasons():
    with pytest.raises(UsageError, match=r"^epochs=0: must be greater than or equal to 1$"):
        config(epochs=0, lr=-1)

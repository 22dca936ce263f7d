"""The recipe: what is decayed, and the schedule."""

from __future__ import annotations

from dataclasses import replace

import pytest

import ufo
from ablations.config.growth import extend
from ablations.config.make import make_config
from ablations.config.recipes import FOR_TASK, defaults
from ablations.config.request import Request
from ablations.config.stored_request import request_of
from ablations.planning.plan import make_plan
from ablations.report.again import command
from ablations.training.optimizer import build_optimizer, lr_share, split_by_decay
from ufo.norms import NORMS, AttentionNorm

OURS = [spec.name for spec in NORMS.values() if spec.group in ("paper", "control", "related", "field")]


@pytest.mark.parametrize("norm", OURS)
def test_matrices_alone_are_decayed(norm):
    net = ufo.build("ufo_vit_pico", norm=norm, num_classes=10)
    decayed, exempt = split_by_decay(net)
    assert all(parameter.ndim in (2, 4) for parameter in decayed.values())
    assert not [name for name in decayed if not name.endswith(".weight")]
    cores = tuple(f"{name}." for name, module in net.named_modules() if isinstance(module, AttentionNorm))
    others = [name for name in exempt if not name.startswith(cores)]
    assert {name.split(".")[-1] for name in others} <= {"weight", "bias", "layer_scale", "pos_embed", "cls_token"}
    assert not [name for name in decayed if name.startswith(cores)]
    assert all(exempt[name].ndim == 1 for name in exempt if name.endswith(("weight", "bias")))
    for name in ("pos_embed", "cls_token", "blocks.1.attn_scale.layer_scale", "class_blocks.0.attn_norm.weight"):
        assert name in exempt
    assert {"patch_embed.0.weight", "blocks.0.lpi.conv1.weight", "blocks.1.attn.qkv.weight", "head.weight"} <= set(
        decayed
    )
    assert len(decayed) + len(exempt) == len(list(net.parameters()))


def test_the_optimiser_decays_what_is_to_be_decayed():
    net = ufo.build("ufo_vit_pico", num_classes=10)
    decayed, exempt = split_by_decay(net)
    groups = build_optimizer(net, lr=1e-3, weight_decay=0.07, fused=False).param_groups
    assert [group["weight_decay"] for group in groups] == [0.07, 0.0]
    assert [{id(p) for p in group["params"]} for group in groups] == [
        {id(p) for p in part.values()} for part in (decayed, exempt)
    ]


def test_the_schedule_rises_falls_and_ends_at_its_share():
    shares = [lr_share(step, num_steps=100, num_warmup_steps=10, min_share=0.01) for step in range(101)]
    assert shares[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert max(shares) == 1.0
    assert shares[100] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("recipe", "side", "wanted"),
    [
        ("1x", 480, {"epochs": 12, "schedule": "8+11", "train_sides": "800", "warmup_steps": 500, "lr": 1e-4}),
        ("3x", 480, {"epochs": 36, "schedule": "27+33", "weight_decay": 0.05, "batch_size": 16}),
        ("1x", 128, {"epochs": 12, "schedule": "8+11", "train_sides": "112+128", "eval_side": 128}),
        ("quick", 480, {"model": "ufo_vit_s", "train_sides": "800", "eval_side": 800, "schedule": "cosine"}),
    ],
)
def test_a_detectors_recipe_has_its_schedule_and_the_data_its_scales(recipe, side, wanted):
    values = defaults(image_side=side, flips=True, task="detect", recipe=recipe)
    own = {"task": "detect", "data": "coco:x", "data_fingerprint": "", "norm": "xnorm", "seed": 0}
    config = make_config(values | own)
    assert {field: config[field] for field in wanted} == wanted
    assert config.detection.batch_norm == "sync"
    trained = defaults(image_side=side, flips=True, task="detect", recipe=recipe, from_weights=True)
    assert trained["batch_norm"] == "frozen"
    if recipe == "3x":
        assert config.detection.train_sides.split("+") == [str(s) for s in range(480, 801, 32)]


@pytest.mark.parametrize("recipe", FOR_TASK["classify"])
@pytest.mark.parametrize(("side", "flips", "streamed"), [(8, False, False), (32, True, False), (224, True, True)])
def test_a_recipe_makes_cells_on_any_data(recipe, side, flips, streamed):
    values = defaults(image_side=side, flips=flips, recipe=recipe, streamed=streamed)
    own = {"data": "d", "data_fingerprint": "f", "norm": "xnorm", "seed": 0, "streamed": streamed}
    config = make_config({**values, **own})
    assert config.augmentation.repeats == (3 if streamed and recipe != "quick" else 1)
    assert not (flips is False and "flip" in config.augmentation.augment)


def test_deits_learning_rate_is_proportional_to_the_batch():
    assert defaults(image_side=224, flips=True, recipe="deit", batch_size=1024)["lr"] == pytest.approx(1e-3)
    assert defaults(image_side=224, flips=True, recipe="deit")["lr"] == pytest.approx(1.25e-4)


def test_the_table_of_auto_augment_is_that_of_the_data():
    assert defaults(image_side=32, flips=True, recipe="small_data")["policy"] == "auto_augment_cifar"
    assert defaults(image_side=64, flips=True, recipe="small_data")["policy"] == "auto_augment"


def test_a_warm_up_may_rise_from_above_zero():
    given = {"num_steps": 100, "num_warmup_steps": 10, "min_share": 0.01}
    shares = [lr_share(step, warmup_share=0.5, **given) for step in range(10)]
    assert shares == pytest.approx([0.5 + 0.05 * step for step in range(1, 11)])
    assert lr_share(50, warmup_share=0.5, **given) == lr_share(50, **given)


@pytest.mark.slow  # a study for each recipe
@pytest.mark.parametrize("streamed", ["on", "off"])
@pytest.mark.parametrize("recipe", ["deit", "small_data"])
def test_a_recipe_runs(cli, images, tmp_path, recipe, streamed):
    quick = ("--norm", "xnorm,softmax", "--seeds", 1, "--smoke", "--set", "depth=1", "--batch-size", 16)
    data = ("--data", f"imagefolder:{images}", "--in-memory", streamed, "--set", "train_limit=64")
    code, _, error = cli("run", "--recipe", recipe, *quick, *data, "--out", tmp_path)
    assert code == 0, error
    code, _, error = cli("run", *quick, *data, "--out", tmp_path)
    assert code == 2, "another recipe is another question"
    assert f"asks another question: its recipe is {recipe}, not quick" in error


@pytest.mark.parametrize("recipe", FOR_TASK["classify"])
def test_a_study_of_several_data_sets_is_asked_for_again_by_its_recipe(images, tmp_path, recipe):
    data = ["digits", f"imagefolder:{images}"]
    asked = {"data": data, "seed": [0], "batch_size": [16]}
    plan = make_plan(Request(asked=asked, recipe=recipe, out=tmp_path, devices=("cpu",)))
    folder = plan.store.folder
    again = make_plan(replace(request_of(plan.study, folder=folder, data=data, data_root=tmp_path), devices=("cpu",)))
    assert again.study == plan.study
    assert [cell.id for cell in again.cells] == [cell.id for cell in plan.cells]
    assert f"--recipe {recipe}" in command(plan.study, folder)


def test_a_study_whose_recipe_is_not_recorded_goes_on_and_is_given_none(tmp_path):
    study = make_plan(Request(asked={}, out=tmp_path, devices=("cpu",))).study
    old = study.model_copy(update={"recipe": None})
    assert extend(old, study, named=(), ref=None, num_results=3) == old


def test_an_experiment_file_names_its_recipe_and_a_flag_wins(cli, tmp_path):
    (tmp_path / "e.yaml").write_text("study: e\nrecipe: deit\nepochs: 6\n")
    run = ("run", "--experiment", tmp_path / "e.yaml", "--dry-run", "--out", tmp_path)
    _, out, _ = cli(*run)
    assert "the policy's Color and colour jitter's saturation have no effect on images of one channel" in out
    _, out, _ = cli(*run, "--recipe", "quick")
    assert "colour jitter" not in out
    (tmp_path / "e.yaml").write_text("study: e\nrecipe: diet\n")
    code, _, error = cli(*run)
    assert (code, error.count("\n")) == (2, 1)
    assert "unknown recipe 'diet', did you mean 'deit'? Valid: quick, deit, small_data" in error


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("policy_ops=1",), "policy_ops=1 has no effect without policy=rand_augment; leave it out, or give that too"),
        (
            ("policy_magnitude=5", "policy=auto_augment"),
            "policy_magnitude=5.0 has no effect without policy=rand_augment",
        ),
        (("mix_probability=0.5",), "mix_probability=0.5 has no effect without mixup or cutmix above 0"),
        (
            ("core_precision=float32", "precision=32-true"),
            "core_precision=float32 has no effect without precision=bf16-mixed or 16-mixed",
        ),
        (("core_precision=float32",), "core_precision=float32 has no effect without precision=bf16-mixed or 16-mixed"),
        (("core_precision=float32", "precision=bf16-mixed"), ""),
        (("core_precision=own",), ""),
        (("policy_ops=1", "policy=none,rand_augment"), ""),
        (("policy_ops=2",), ""),
        (("mix_probability=0.5", "cutmix=1"), ""),
    ],
)
def test_a_field_without_effect_is_refused(cli, tmp_path, fields, message):
    asked = [part for field in fields for part in ("--set", field)]
    code, _, error = cli("run", *asked, "--seeds", 1, "--dry-run", "--out", tmp_path)
    assert (code, message in error) == (2 if message else 0, True)

"""Nets of timm as arms: they run in the same harness, and what they cannot share with UFO-ViT is said."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import cells, write_images

import ablations
from ablations.config import CellConfig, UsageError, recipes
from ablations.config.effects import check_nets
from ablations.config.make import make_config
from ablations.report.again import command
from ablations.tasks.net import build_net
from ablations.tasks.timm_net import check_timm_name, make_timm_net
from ablations.training import optimizer

MODELS = "ufo_vit_pico,timm:test_vit,timm:test_resnet"
SMALL = {"img_size": (32, 32), "in_chans": 3, "num_classes": 4}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 32 px."""
    return write_images(tmp_path_factory.mktemp("timm") / "pictures", {"train": 40, "test": 10}, px=32)


@pytest.fixture(scope="module")
def out(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def quick(pictures: Path, out: Path, models: str = MODELS) -> tuple[object, ...]:
    asked = ("--compare", "model", "--model", models, "--data", f"imagefolder:{pictures}", "--seeds", 2)
    return ("run", *asked, "--epochs", 2, "--batch-size", 32, "--set", "drop_path=0.1", "--out", out)


def as_given(text: str, pictures: Path) -> list[str]:
    """Return the arguments of a report's command, with the place of the images put in."""
    return text.replace("\\\n", " ").replace("imagefolder:DIR", f"imagefolder:{pictures}").split()[3:]


@pytest.mark.slow  # six cells of four nets
def test_nets_of_timm_are_arms_of_one_study(cli, pictures, out):
    code, printed, error = cli(*quick(pictures, out))
    assert code == 0, error
    assert "timm:test_vit, timm:test_resnet: pairs of different nets share order, augmentation and split" in printed
    assert "the normaliser, xnorm, and the patch apply to UFO-ViT alone" in printed
    found = cells(out, "model-pictures")
    assert sorted(found) == sorted(
        f"{m}-s{s}" for m in ("ufo_vit_pico", "timm_test_vit", "timm_test_resnet") for s in (0, 1)
    )
    outcomes = {name: json.loads((cell / "outcome.json").read_text()) for name, cell in found.items()}
    assert {outcome["outcome"] for outcome in outcomes.values()} == {"ok"}
    for seed in (0, 1):
        of_seed = [outcome for name, outcome in outcomes.items() if name.endswith(f"-s{seed}")]
        assert len({tuple(outcome["epoch_hashes"]) for outcome in of_seed}) == 1
        assert len({outcome["init_hash"] for outcome in of_seed}) == 3
    assert pd.read_csv(found["timm_test_vit-s0"] / "probes.csv").empty
    assert not pd.read_csv(found["ufo_vit_pico-s0"] / "probes.csv").empty
    results = ablations.load(out / "model-pictures")
    assert set(results.table["arm"]) == set(MODELS.split(","))
    again = command(results.studies[0], out / "model-pictures")
    _, printed, error = cli(*as_given(again, pictures), "--dry-run")
    assert "6 cells: 6 done; 0 to run" in printed, error
    code, printed, error = cli(
        "bench", "cost", out / "model-pictures", "--data", f"imagefolder:{pictures}", "--rounds", 2
    )
    assert code == 0, error
    code, printed, error = cli("report", out / "model-pictures")
    assert code == 0, error


@pytest.mark.slow
def test_a_study_of_nets_of_timm_alone(cli, pictures, tmp_path):
    code, _, error = cli(*quick(pictures, tmp_path, "timm:test_resnet"), "--seeds", "0,")
    assert code == 0, error
    again = command(ablations.load(tmp_path / "model-pictures").studies[0], tmp_path / "model-pictures")
    assert "norm" not in again.replace("model-pictures", "")
    given = [
        f"imagefolder:{pictures}" if part == "imagefolder:DIR" else part
        for part in again.replace("\\\n", " ").split()[3:]
    ]
    _, printed, error = cli(*given, "--dry-run")
    assert "1 cell: 1 done; 0 to run" in printed, error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "timm:test_vot"), "unknown model of timm 'test_vot', did you mean 'test_vit'"),
        (("--model", "timm:ufo_vit_s"), "model=timm:ufo_vit_s: ufo_vit_s is this package's own; give ufo_vit_s"),
        (("--model", "timm:test_vit", "--set", "lpi=off"), "lpi=off does not apply to timm:test_vit: leave it out"),
        (("--model", "timm:test_vit", "--set", "change=lpi=off"), "change=lpi=off does not apply to timm:test_vit"),
        (("--model", "timm:test_vit", "--scale", "matched"), "scale=matched does not apply to timm:test_vit"),
        (("--model", MODELS, "--norm", "xnorm,l2"), "norm=xnorm,l2 does not apply to timm:test_vit"),
        (("--model", "timm:test_vit", "--norm", "l2"), "norm=l2 does not apply to timm:test_vit"),
        (("--model", "timm:test_vit", "--set", "image_size=8"), "timm:test_vit on imagefolder:pictures:"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(cli, pictures, tmp_path, options, message):
    data = ("--data", f"imagefolder:{pictures}", "--set", "train_limit=64", "--batch-size", 32)
    code, _, error = cli("run", "--compare", "model", *options, *data, "--out", tmp_path, "--dry-run")
    assert code == 2, error
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("compared", "is_said"),
    [
        (("change", "--set", "change=none,lpi=off"), True),
        (("num_heads", "--set", "num_heads=2,4"), True),
        (("model", "--model", "ufo_vit_pico,ufo_vit_nano"), True),
        (("norm", "--norm", "xnorm,l2"), False),
        (("lr", "--lr", "1e-3,2e-3"), False),
    ],
)
def test_arms_with_different_nets_say_what_they_share(cli, tmp_path, compared, is_said):
    _, printed, error = cli("run", "--compare", *compared, "--smoke", "--dry-run", "--out", tmp_path)
    assert ("a parameter that two of them have by the same name" in printed) == is_said, error


def test_one_normaliser_beside_a_net_of_timm_is_ufo_vits():
    check_nets({"model": ["ufo_vit_s", "timm:test_vit"], "norm": ["l2"], "patch": [8]})
    check_nets({"model": ["timm:test_vit"], "norm": ["xnorm"], "lpi": [True]})
    check_nets({"model": ["ufo_vit_s"], "norm": ["l2", "xnorm"]})


def test_without_timm_its_nets_are_refused_and_say_why(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"timm:test_vit needs timm, which is not installed: pip install 'timm>="):
        check_timm_name("timm:test_vit")


def test_the_seed_alone_decides_the_weights():
    nets = []
    for global_seed, seed in ((0, 0), (1, 0), (1, 1)):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        nets.append(make_timm_net("timm:test_vit", drop_path=0.0, seed=seed, **SMALL).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    same = [torch.equal(nets[0][name], nets[1][name]) for name in nets[0]]
    assert all(same)
    assert not torch.equal(nets[0]["blocks.0.attn.qkv.weight"], nets[2]["blocks.0.attn.qkv.weight"])


def test_drop_path_reaches_the_net_or_is_refused():
    net = make_timm_net("timm:test_vit", drop_path=0.2, seed=0, **SMALL)
    assert max(getattr(module, "drop_prob", 0) or 0 for module in net.modules()) == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r"timm cannot build vgg11 with .*drop_path_rate=0\.2"):
        make_timm_net("timm:vgg11", drop_path=0.2, seed=0, img_size=(32, 32), in_chans=3, num_classes=4)


def test_what_a_net_of_timm_says_is_not_decayed():
    config = make_config(
        recipes.defaults(image_side=32, flips=True)
        | {"data": "d", "data_fingerprint": "f", "norm": "xnorm", "seed": 0, "model": "timm:test_vit"}
    )
    assert isinstance(config, CellConfig)
    net = build_net(config, image_shape=(32, 32, 3), num_classes=4)
    decayed, exempt = optimizer.split_by_decay(net)
    assert {"pos_embed", "cls_token"} <= set(exempt)
    assert "blocks.0.attn.qkv.weight" in decayed
    assert "blocks.0.norm1.weight" in exempt

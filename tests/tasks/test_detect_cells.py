"""Cells that detect, run for real on a few small images: their files, their pairing, their scores."""

from __future__ import annotations

import bz2
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from objects import coco_folder, of_pycocotools, write

from ablations.config import CellConfig, UsageError, recipes
from ablations.config.make import make_config
from ablations.config.options import CellOptions
from ablations.config.task import AP_METRICS
from ablations.config.task import METRICS as TASK_METRICS
from ablations.data import DataInfo, find_objects, prepare_objects
from ablations.data.modules import make_data
from ablations.data.objects.splits import split_objects
from ablations.engine.cell import Result, run_cell
from ablations.figures.canvas import METRICS
from ablations.tasks.detect.detector import Detector
from ablations.tasks.make import make_module
from ufo.scale import attention_layers, rms

FILES = {"metrics.csv", "probes.csv", "timing.csv", "log.txt", "detections.json.bz2", "precision.csv", "examples"}
TINY = {"fpn_dim": 16, "box_dim": 32, "mask_dim": 16, "rois": 16, "proposals": 40, "most_found": 10, "patch": 8}
SIDE = 64


@pytest.fixture(scope="module")
def coco(tmp_path_factory, cache: Path) -> DataInfo:
    """Twenty images of shapes to train on and four to test on, as COCO's files."""
    root = coco_folder(tmp_path_factory.mktemp("data") / "little", train=20, test=4, side=SIDE)
    return prepare_objects(find_objects(f"coco:{root}", image_size=None))


def make_cell(info: DataInfo, **fields: object) -> CellConfig:
    base = recipes.defaults(image_side=SIDE, flips=True, task="detect")
    own = {"task": "detect", "data": info.name, "data_fingerprint": info.fingerprint, "streamed": True}
    short = {"epochs": 2, "batch_size": 4, "norm": "xnorm", "seed": 0, "smoke": True}
    return make_config(base | own | short | TINY | fields)


def run(info: DataInfo, folder: Path, *, options: CellOptions = CellOptions(), **fields: object) -> Result:  # noqa: B008
    folder.mkdir(parents=True, exist_ok=True)
    return run_cell(make_cell(info, **fields), info, folder=folder, device=torch.device("cpu"), options=options)


def metrics(folder: Path) -> bytes:
    return b"".join((folder / name).read_bytes() for name in ("metrics.csv", "probes.csv", "detections.json.bz2"))


def test_a_cell_leaves_its_files_and_scores_that_the_original_file_gives_too(coco, tmp_path):
    result = run(coco, tmp_path)
    assert (result.outcome, result.kind) == ("ok", ""), result.detail
    assert {path.name for path in tmp_path.iterdir()} == FILES
    frame = pd.read_csv(tmp_path / "metrics.csv")
    assert frame["epoch"].tolist() == [1, 2]
    parts = frame.filter(regex="^train_loss_").sum(axis=1)
    assert parts.tolist() == pytest.approx(frame["train_loss"].tolist())
    content = (tmp_path / "detections.json.bz2").read_bytes()
    detections = json.loads(bz2.decompress(content))
    assert detections
    assert content == bz2.compress(json.dumps(detections).encode())  # nothing else: equal lists are equal files
    file = Path(coco.root) / "annotations" / "instances_val2017.json"
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        for figure, wanted in zip(AP_METRICS, of_pycocotools(file, detections, kind), strict=True):
            ours = result.fields.get(f"test_{name}_{figure}")
            assert ours == (wanted if wanted is None else pytest.approx(wanted, abs=1e-6))
    truth = json.loads((tmp_path / "examples" / "truth.json").read_text())
    assert len(truth["images"]) == 3
    assert all((tmp_path / "examples" / f"{image['id']}.jpg").exists() for image in truth["images"])


def test_a_limited_evaluation_is_scored_on_the_drawn_images_only(coco, tmp_path):
    result = run(coco, tmp_path, eval_limit=2, epochs=1)
    annotations, _, rows = split_objects(coco, train_limit=None, eval_limit=2, with_test=True)["test"]
    drawn = annotations.image_ids[rows].tolist()
    detections = json.loads(bz2.decompress((tmp_path / "detections.json.bz2").read_bytes()))
    assert {found["image_id"] for found in detections} == set(drawn)
    file = Path(coco.root) / "annotations" / "instances_val2017.json"
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        for figure, wanted in zip(AP_METRICS, of_pycocotools(file, detections, kind, images=drawn), strict=True):
            ours = result.fields.get(f"test_{name}_{figure}")
            assert ours == (wanted if wanted is None else pytest.approx(wanted, abs=1e-6))
    truth = json.loads((tmp_path / "examples" / "truth.json").read_text())
    assert [image["id"] for image in truth["images"]] == drawn


@pytest.mark.slow
def test_two_arms_share_weights_images_scales_and_proposals(coco, tmp_path):
    results = {norm: run(coco, tmp_path / norm, norm=norm, epochs=1) for norm in ("xnorm", "softmax")}
    first, second = (results[norm].fields for norm in ("xnorm", "softmax"))
    for name in ("init_hash", "split_hash", "epoch_hashes"):
        assert first[name] == second[name]
    assert run(coco, tmp_path / "other", seed=1, epochs=1).fields["epoch_hashes"] != first["epoch_hashes"]


@pytest.mark.slow
def test_the_global_seed_changes_nothing_and_a_cell_goes_on_as_if_it_had_never_stopped(coco, tmp_path, monkeypatch):
    torch.manual_seed(1)
    run(coco, tmp_path / "whole", drop_path=0.2)
    torch.manual_seed(2)

    plain = Detector.on_train_epoch_start

    def stop(self: Detector) -> None:
        if self.trainer.current_epoch == 1:
            raise KeyboardInterrupt
        plain(self)

    with monkeypatch.context() as patched:
        patched.setattr(Detector, "on_train_epoch_start", stop)
        with pytest.raises(KeyboardInterrupt):
            run(coco, tmp_path / "cut", drop_path=0.2, options=CellOptions(checkpoint_every=1))
    result = run(coco, tmp_path / "cut", drop_path=0.2, options=CellOptions(checkpoint_every=1))
    assert result.fields["resumed_after_epochs"] == [1]
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")


def test_the_learning_rate_rises_in_steps_and_falls_after_its_epochs(coco, tmp_path):
    falls = {"schedule": "1+2", "warmup_epochs": 0, "warmup_steps": 2, "min_lr_share": 0.0, "lr": 1e-3}
    run(coco, tmp_path, epochs=3, train_limit=12, **falls)
    rates = pd.read_csv(tmp_path / "metrics.csv")["lr_after"]
    assert rates.tolist() == pytest.approx([1e-4, 1e-5, 1e-5])


def test_proposals_are_sampled_alike_in_two_arms(coco, tmp_path, monkeypatch):
    """The sampler of the region proposals sees as many anchors in both arms, and draws the same of them."""
    from torchvision.models.detection._utils import BalancedPositiveNegativeSampler as Sampler

    drawn: dict[str, list[torch.Tensor]] = {}
    plain = Sampler.__call__

    def listen(self, labels):
        chosen = plain(self, labels)
        if self.batch_size_per_image == 256:  # of the proposals, not of the heads
            drawn.setdefault(norm, []).extend(torch.where(mask)[0] for mask in chosen[0])
        return chosen

    monkeypatch.setattr(Sampler, "__call__", listen)
    for norm in ("xnorm", "l2"):
        run(coco, tmp_path / norm, norm=norm, epochs=1)
    assert len(drawn["xnorm"]) == len(drawn["l2"]) > 4
    assert all((a == b).all() for a, b in zip(drawn["xnorm"], drawn["l2"], strict=True))


def test_matched_scale_starts_every_attention_at_xnorms(coco):
    """On the image that it is matched on, with the layers before it matched already."""

    def start(norm: str, scale: str) -> tuple[Detector, dict[str, float]]:
        config = make_cell(coco, norm=norm, scale=scale)
        work, train = make_module(config, coco), make_data(config, coco).train_dataloader()
        work.trainer = SimpleNamespace(train_dataloader=train)
        if scale == "matched":
            work.match_scale()
        images, _ = train.first()
        body = work.net.backbone.body.net
        seen: dict[str, float] = {}
        for name, attention in attention_layers(body).items():
            gain = 1.0 if attention.matched_gain is None else attention.matched_gain.item()
            attention.norm.register_forward_hook(
                lambda _, __, output, name=name, gain=gain: seen.update({name: gain * rms(output).item()})
            )
        body.train()(work.net.transform.train()(images[:1])[0].tensors)
        return work, seen

    (_, wanted), (_, own), (_, matched) = (
        start("xnorm", "own"),
        start("single_l2", "own"),
        start("single_l2", "matched"),
    )
    assert own.keys() == wanted.keys() == matched.keys()
    assert all(own[layer] != pytest.approx(wanted[layer], rel=0.1) for layer in wanted), (own, wanted)
    assert matched == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("arms")
def test_a_loss_that_is_no_number_is_a_divergence(coco, tmp_path):
    result = run(coco, tmp_path, norm="turns_nan", lr=1e-4, epochs=8)
    assert (result.outcome, result.kind) == ("diverged", "nan"), result.detail


def test_a_net_that_finds_nothing_has_not_learned(coco, tmp_path):
    result = run(coco, tmp_path, lr=1e-12, smoke=False, warmup_epochs=0, epochs=1)
    assert (result.outcome, result.kind) == ("diverged", "no_learning")
    assert result.detail == "validation box AP50 never passed 0.5 %"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["timm:xcit_nano_12_p16_224", "timm:resnet18", "torchvision:resnet18"])
def test_other_libraries_nets_are_backbones_too(coco, tmp_path, model):
    result = run(coco, tmp_path, model=model, epochs=1, train_limit=4)
    assert result.outcome == "ok", result.detail
    assert (tmp_path / "probes.csv").read_text() == "epoch,layer,probe,value\n"


def test_a_cell_scored_on_validation_opens_no_file_of_the_test_split(coco, tmp_path, monkeypatch):
    from ablations.data.location import data_folder

    folder = data_folder(coco.name, coco.fingerprint, streamed=True)
    copy = tmp_path / "cache" / folder.name
    shutil.copytree(folder, copy)
    (copy / "test.npz").unlink()
    monkeypatch.setenv("ABLATIONS_CACHE", str(tmp_path / "cache"))
    result = run(coco, tmp_path / "cell", scored_on="val", epochs=1)
    assert result.outcome == "ok", result.detail
    assert result.fields["val_mask_ap_pct"] is not None
    assert not (tmp_path / "cell" / "detections.json.bz2").exists()


def test_images_without_objects_are_nothing_to_be_scored_by(tmp_path, cache):
    root = coco_folder(tmp_path / "empty", train=12, test=2)
    path = root / "annotations" / "instances_val2017.json"
    data = json.loads(path.read_text())
    write(path, {**data, "annotations": [{**obj, "iscrowd": 1} for obj in data["annotations"]]})
    with pytest.raises(UsageError, match=r"coco:empty: test has no objects except crowds in 2 images"):
        prepare_objects(find_objects(f"coco:{root}", image_size=None))


@pytest.mark.slow
def test_any_number_of_decoding_processes_gives_the_same_numbers(coco, tmp_path):
    for workers in (0, 2):
        run(coco, tmp_path / str(workers), epochs=1, options=CellOptions(workers=workers))
    assert metrics(tmp_path / "0") == metrics(tmp_path / "2")


def test_figures_know_the_metric_of_every_measure():
    assert {metric.name: metric.column for metric in TASK_METRICS} == METRICS

"""A cell's detections: compressed or plain, whole or damaged."""

from __future__ import annotations

import bz2
import json
from pathlib import Path

import pandas as pd
import pytest
from studies import make_study

from ablations.api import make_report, read_results
from ablations.data.objects import outlines

DETECTORS = {"norms": ("xnorm", "l2"), "task": ["detect"], "seeds": 2}


def packed_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("cells/*/detections.json.bz2"))


def unpack(folder: Path) -> None:
    """Turn a study into one of earlier versions, whose detections are plain JSON."""
    for path in packed_files(folder):
        path.with_suffix("").write_bytes(bz2.decompress(path.read_bytes()))
        path.unlink()


@pytest.mark.slow
def test_plain_and_compressed_detections_make_the_same_report(tmp_path):
    folder = make_study(tmp_path, **DETECTORS)
    packed = make_report([folder], full=False)
    ours = {file: file.read_bytes() for file in packed.files}
    unpack(folder)
    plain = make_report([folder], full=False)
    pd.testing.assert_frame_equal(packed.results.examples, plain.results.examples)
    assert packed.results.examples["score"].notna().any()
    assert not plain.results.problems
    assert any("found_objects" in file.name for file in plain.files)
    assert {file: file.read_bytes() for file in plain.files} == ours


def test_the_standard_library_reads_compressed_detections(tmp_path):
    for path in packed_files(make_study(tmp_path, **DETECTORS)):
        with bz2.open(path) as file:
            assert [item["score"] for item in json.load(file)] == [0.9, 0.3]


def test_ids_below_0_and_objects_that_reach_far_beyond_their_image_are_shown(tmp_path):
    folder = make_study(tmp_path, **DETECTORS)
    for path in packed_files(folder):
        examples = path.parent / "examples"
        truth = json.loads((examples / "truth.json").read_text())
        found = json.loads(bz2.decompress(path.read_bytes()))
        for image in truth["images"]:
            (path.parent / "examples" / f"{image['id']}.jpg").rename(
                path.parent / "examples" / f"{image['id'] - 9}.jpg"
            )
            image["id"] -= 9
        for category in truth["categories"]:
            category["id"] -= 9
        for each in (*truth["annotations"], *found):
            each["image_id"], each["category_id"] = each["image_id"] - 9, each["category_id"] - 9
        image = truth["images"][0]
        far = outlines.FARTHEST_SIDES * max(image["height"], image["width"])
        outline = [[-far, 0, far, 0, 0, far]]
        truth["annotations"].append({**truth["annotations"][0], "image_id": image["id"], "segmentation": outline})
        (examples / "truth.json").write_text(json.dumps(truth))
        path.write_bytes(bz2.compress(json.dumps(found).encode()))
    results = read_results([folder])
    assert not results.problems
    assert (results.examples["image_id"] < 0).any()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lambda whole: whole[:-9], "Compressed data ended before the end-of-stream marker was reached"),
        (lambda whole: whole[:60] + b"\0\0" + whole[62:], "Invalid data stream"),
        (lambda whole: b"", "Compressed data ended"),
        (lambda whole: bz2.compress(b"[{"), "Expecting property name"),
        (lambda whole: bz2.compress(b"\xff"), "'utf-8' codec can't decode"),
        (None, "No such file or directory"),
    ],
)
def test_damaged_detections_are_named_and_cost_themselves_only(tmp_path, content, problem):
    folder = make_study(tmp_path, **DETECTORS)
    whole = read_results([folder])
    assert not whole.problems
    (path,) = [path for path in packed_files(folder) if path.parent.name.startswith("l2-s0-")]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content(path.read_bytes()))
    results = read_results([folder])
    (said,) = results.problems
    assert said.startswith(f"{path.parent.name}: its examples cannot be read: detections.json.bz2: {problem}")
    assert "\n" not in said
    pd.testing.assert_frame_equal(results.cells, whole.cells)
    pd.testing.assert_frame_equal(results.precision, whole.precision)
    kept = whole.examples[whole.examples["arm"] != "l2"].reset_index(drop=True)
    pd.testing.assert_frame_equal(results.examples.reset_index(drop=True), kept)


@pytest.mark.slow
def test_a_report_with_damaged_detections_says_so_and_has_the_other_figures(tmp_path, cli):
    folder = make_study(tmp_path, **DETECTORS)
    path = packed_files(folder)[0]
    path.write_bytes(path.read_bytes()[:-9])
    code, out, _ = cli("report", folder)
    assert code == 1
    assert "detections.json.bz2: Compressed data ended before" in out
    assert {"test_ap.png", "found_objects-7.png"} <= {file.name for file in (folder / "figures").iterdir()}

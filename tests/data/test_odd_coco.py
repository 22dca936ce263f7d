"""COCO's files as other tools write them: what is taken with a line, and what is refused with the way to mend it."""

from __future__ import annotations

import hashlib
import io
import json
import os

import numpy as np
import pytest
from objects import coco_folder, without_outlines, write
from PIL import Image

from ablations.config import UsageError
from ablations.data import find_objects, prepare_objects
from ablations.data.entry import CHECKSUMS
from ablations.data.location import data_folder
from ablations.data.objects.annotations import Annotations
from ablations.data.objects.coco import read_coco
from ablations.data.objects.outlined import OUTLINED, load_outlined
from ablations.data.objects.outlines import extent
from ablations.data.objects.sample import Files

SIZE = (60, 80)
"""Height and width of the image."""


def around(left, top, right, bottom):
    """A polygon of the four corners of a box."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def obj(number=5, **changes):
    """An annotation with changes; ``...`` takes a key away."""
    record = {"id": number, "image_id": 1, "category_id": 4, "bbox": [30, 20, 20, 15], "area": 300, "iscrowd": 0}
    record |= {"segmentation": around(30, 20, 50, 35), **changes}
    return {key: value for key, value in record.items() if value is not ...}


def read(folder, *objects, image=(), categories=(), more_images=(), more_categories=()):
    """Read an image with some objects: the annotations and the notes."""
    path = folder / "train" / "a.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", SIZE[::-1]).save(path)
    data = {
        "images": [{"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1], **dict(image)}, *more_images],
        "annotations": list(objects),
        "categories": [{"id": 4, "name": "dog", **dict(categories)}, *more_categories],
    }
    notes: list[str] = []
    return read_coco(write(folder / "a.json", data), folder=path.parent, notes=notes), notes


def runs(mask):
    flat = mask.flatten(order="F").tolist()
    counts, value = [0], 0
    for bit in flat:
        if bit != value:
            counts.append(0)
            value = bit
        counts[-1] += 1
    return {"size": list(SIZE), "counts": counts}


def as_tiff(mode, size):
    """The bytes of a TIFF file, which knows every mode."""
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "TIFF")
    return buffer.getvalue()


class TestWholeNumbers:
    def test_floats_and_digits_are_taken_and_said(self, tmp_path):
        odd = obj(5.0, image_id="1", category_id=4.0, iscrowd=True), obj("6", image_id=1.0, iscrowd=0.0)
        plain, none = read(tmp_path, obj(5, iscrowd=1), obj(6))
        found, notes = read(
            tmp_path, *odd, image={"id": "1", "height": 60.0, "width": " 80"}.items(), categories={"id": 4.0}.items()
        )
        assert not none
        assert found.as_coco([0]) == plain.as_coco([0])
        assert found.is_crowd.tolist() == [True, False]
        assert notes == [
            "a.json: taken as whole numbers: id of 1 category (the first is 4.0 in category number 1 of the list), "
            'id of 1 image (the first is "1" in image number 1 of the list), height of 1 image (the first is 60.0 in '
            'image 1), width of 1 image (the first is " 80" in image 1), id of 2 annotations (the first is 5.0 in '
            'annotation number 1 of the list), image_id of 2 annotations (the first is "1" in annotation 5), '
            "category_id of 1 annotation (the first is 4.0 in annotation 5), iscrowd of 2 annotations (the first is "
            "true in annotation 5)"
        ]

    @pytest.mark.parametrize(("value", "is_crowd"), [("0", False), ("1", True), (1.0, True), (None, False)])
    def test_a_crowd_is_0_or_1_however_it_is_written(self, tmp_path, value, is_crowd):
        found, notes = read(tmp_path, obj(iscrowd=value))
        assert found.is_crowd.tolist() == [is_crowd]
        assert len(notes) == 1
        assert "iscrowd of 1 annotation" in notes[0]

    @pytest.mark.parametrize("write_one", [str, float])
    def test_run_lengths_are_taken_and_said(self, tmp_path, write_one):
        mask = np.zeros(SIZE, dtype=int)
        mask[20:35, 30:50] = 1
        plain, none = read(tmp_path, obj(segmentation=runs(mask)))
        odd = {key: [write_one(number) for number in numbers] for key, numbers in runs(mask).items()}
        found, (note,) = read(tmp_path, obj(segmentation=odd))
        assert not none
        assert found.as_coco([0]) == plain.as_coco([0])
        assert note.startswith("a.json: taken as whole numbers: size of 1 annotation (the first is ")
        assert "counts of 1 annotation (the first is " in note

    def test_two_spellings_of_one_id_are_one_id(self, tmp_path):
        with pytest.raises(UsageError, match=r"a.json: annotation 5 is listed twice; remove one"):
            read(tmp_path, obj(5), obj("5"))


class TestOutlines:
    @pytest.mark.parametrize("empty", [[], [[]], {}, None, ...])
    def test_an_object_may_have_none(self, tmp_path, empty):
        found, notes = read(tmp_path, obj(segmentation=empty))
        assert not notes
        assert not found.is_outlined.any()
        found.save(tmp_path / "part.npz")
        assert Annotations.load(tmp_path / "part.npz").as_coco([0])["annotations"][0]["segmentation"] == []

    def test_masks_need_them_and_the_line_says_what_to_do(self, tmp_path, cache):
        root = without_outlines(coco_folder(tmp_path / "boxes", train=12, test=2))
        source = find_objects(f"coco:{root}", image_size=None)
        for _ in range(2):  # read, and from the cache
            with pytest.raises(UsageError) as caught:
                prepare_objects(source)
            assert str(caught.value).startswith(
                "instances_train2017.json: annotation 1 has no outline: its segmentation is empty, and"
            )
            assert str(caught.value).endswith("or give --set masks=off to train a detector of boxes alone")
            assert not prepare_objects(source, masks=False).notes

    def test_a_single_one_is_found_in_the_test_part_too(self, tmp_path, cache):
        root = coco_folder(tmp_path / "boxes", train=12, test=2)
        path = root / "annotations" / "instances_val2017.json"
        data = json.loads(path.read_text())
        data["annotations"][1]["segmentation"] = []
        write(path, data)
        source = find_objects(f"coco:{root}", image_size=None)
        with pytest.raises(UsageError, match=r"instances_val2017.json: annotation 2 has no .* is empty; give polygons"):
            prepare_objects(source)
        (note,) = prepare_objects(source, masks=False).notes
        number = sum(len(json.loads(p.read_text())["annotations"]) for p in (root / "annotations").iterdir()) - 1
        assert note == f"masks=off: the outlines of {number} objects are not used"

    @pytest.mark.parametrize(("reach", "is_far"), [(640, False), (641, True), (-641, True), (1e18, True)])
    def test_masks_need_polygons_near_the_image_and_boxes_do_not(self, reach, is_far, tmp_path, cache):
        root = coco_folder(tmp_path / "far", train=12, test=2, side=64)
        path = root / "annotations" / "instances_val2017.json"
        data = json.loads(path.read_text())
        for record in data["annotations"][1:3]:
            record["segmentation"] = [[0, 0, 5, 0, 5, 5], [0, 0, 5, 0, 5, reach]]
        data["annotations"][0]["segmentation"] = {"size": [64, 64], "counts": [0, 64 * 64]}  # a run is no coordinate
        write(path, data)
        source = find_objects(f"coco:{root}", image_size=None)
        for _ in range(2):  # read, and from the cache
            assert any(note.startswith("masks=off: ") for note in prepare_objects(source, masks=False).notes)
            if not is_far:
                prepare_objects(source)
                continue
            with pytest.raises(UsageError) as caught:
                prepare_objects(source)
            assert str(caught.value) == (
                "instances_val2017.json: annotation 2 has a polygon with a coordinate beyond 10 times the longer side "
                f"of its image, and 1 of the other {len(data['annotations']) - 1} have one; cut it off at the image, "
                "or give --set masks=off to train a detector of boxes alone"
            )

    def test_an_entry_of_an_earlier_version_has_no_polygons_far_away(self, tmp_path, cache):
        source = find_objects(f"coco:{coco_folder(tmp_path / 'old', train=12, test=2)}", image_size=None)
        notes = prepare_objects(source).notes
        entry = data_folder(source.name, source.fingerprint, streamed=True)
        found = json.loads((entry / OUTLINED).read_text())
        old = {part: {key: own[key] for key in ("objects", "without", "first")} for part, own in found.items()}
        write(entry / OUTLINED, old)
        assert load_outlined(entry) == found
        (entry / CHECKSUMS).unlink()
        assert prepare_objects(source).notes[1:] == notes


class TestFit:
    """A box and the mask of its object."""

    def test_corners_in_place_of_sides_are_counted(self, tmp_path):
        wrong = [obj(6, bbox=[30, 20, 50, 35]), obj(7, bbox=[40, 30, 70, 50], segmentation=around(40, 30, 70, 50))]
        _, notes = read(tmp_path, obj(5), *wrong)
        assert notes == [
            "a.json: boxes that do not fit the box around their mask: 2 of 3 (the first is annotation 6: bbox 30, 20, "
            "50, 35, a mask from 30, 20 to 50, 35); as left, top, right, bottom 2 would be right; a bbox must be left, "
            "top, width, height in pixels",
            "a.json: boxes that reach more than 2 px beyond their image: 1 of 3 (the first is annotation 7: bbox 40, "
            "30, 70, 50 in 80 x 60 px); as left, top, right, bottom 1 would be right; a bbox must be left, top, width, "
            "height in pixels",
        ]

    @pytest.mark.parametrize("segmentation", [around(0, 0, 80, 60), runs(np.ones(SIZE, dtype=int))])
    def test_a_mask_of_the_whole_image_is_counted(self, tmp_path, segmentation):
        _, (note,) = read(tmp_path, obj(segmentation=segmentation))
        assert "boxes that do not fit the box around their mask: 1 of 1 (" in note
        assert "a mask from 0, 0 to 80, 60); a bbox must be" in note

    def test_an_empty_mask_is_counted(self, tmp_path):
        _, (note,) = read(tmp_path, obj(segmentation=runs(np.zeros(SIZE, dtype=int))))
        assert "(the first is annotation 5: bbox 30, 20, 20, 15, an empty mask)" in note

    def test_boxes_alone_that_reach_beyond_the_image_are_counted(self, tmp_path):
        wrong, right = obj(bbox=[40, 30, 70, 50], segmentation=[]), obj(6, bbox=[-1, -1, 82, 62], segmentation=[])
        _, (note,) = read(tmp_path, wrong, right)
        assert note.startswith("a.json: boxes that reach more than 2 px beyond their image: 1 of 2 (the first is annot")

    @pytest.mark.parametrize(
        "fine",
        [
            {"bbox": [30.4, 20.4, 0.3, 0.3], "segmentation": around(30, 20, 32, 22)},  # of pixels, and of a point
            {"bbox": [30, 20, 20, 30]},  # with a hidden lower half
            {"bbox": [28, 18, 24, 19]},
            {"bbox": [30, 20, 0, 15]},  # flat, of which there is a note of its own
            {"segmentation": [[30, 20, 33, 20, 33, 35], [47, 20, 50, 20, 50, 35]]},  # two parts
        ],
    )
    def test_what_coco_has_too_is_not_counted(self, tmp_path, fine):
        assert read(tmp_path, obj(**fine))[1] == []

    def test_a_crowd_of_run_lengths_fits(self, tmp_path):
        mask = np.zeros(SIZE, dtype=int)
        mask[22:35, 30], mask[20:25, 49] = 1, 1
        assert read(tmp_path, obj(iscrowd=1, segmentation=runs(mask)))[1] == []

    def test_the_box_around_run_lengths_is_that_of_the_pixels(self):
        draw = np.random.default_rng(0)
        for _ in range(50):
            mask = (draw.random((5, 7)) < draw.choice([0.03, 0.1, 0.5, 0.95])).astype(int)
            ys, xs = mask.nonzero()
            wanted = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else None
            assert extent([runs(mask)["counts"]], is_mask=True, height=5) == wanted

    def test_shares_of_the_image_are_counted(self, tmp_path):
        shares = obj(6, bbox=[0.4, 0.3, 0.6, 0.7], segmentation=around(0.4, 0.3, 1, 1))
        _, (note,) = read(tmp_path, obj(5), shares, obj(7, bbox=[0.1, 0.1, 0, 0.5], segmentation=[]))
        assert note == (
            "a.json: boxes of numbers from 0 to 1, like shares of the image: 1 of 3 (the first is annotation 6: bbox "
            "0.4, 0.3, 0.6, 0.7 in 80 x 60 px); a bbox must be left, top, width, height in pixels"
        )


class TestRepeated:
    """Objects and images that are listed again under another id."""

    def test_an_object_with_the_place_and_category_of_another_is_counted(self, tmp_path):
        crowd, category = obj(7, iscrowd=1), {"id": 9, "name": "cat"}
        _, (note,) = read(tmp_path, obj(5), crowd, obj(8, bbox=[30.0, 20, 20, 15]), obj(9), more_categories=[category])
        assert note == (
            "a.json: objects with image, category and box of one before: 2 of 4 (the first is annotation 8, as "
            "annotation 5); each counts as one of its own"
        )
        assert not read(tmp_path, obj(5), obj(6, category_id=9), more_categories=[category])[1]

    @pytest.mark.parametrize("name", ["a.png", "train/a.png"])
    def test_an_image_with_the_file_of_another_is_counted(self, tmp_path, name):
        again = [{"id": number, "file_name": name, "height": 60, "width": 80} for number in (2, 3)]
        *_, note = read(tmp_path, obj(5), obj(6, image_id=3), more_images=again)[1]
        assert note == (
            f"a.json: the file of 2 images is that of an image before (the first is image 2, {name!r}, as image 1); "
            "each counts as an image of its own"
        )


class TestFiles:
    """Where the images lie, and what they are called."""

    @pytest.mark.parametrize(
        ("name", "place"),
        [("train/a.png", "a.png"), ("train\\a.png", "a.png"), ("b\\a.png", "b/a.png"), ("a.png", "train/a.png")],
    )
    def test_a_file_is_found_under_another_name_and_it_is_said(self, tmp_path, name, place):
        path, _ = tmp_path / "train" / place, read(tmp_path)
        path.parent.mkdir(exist_ok=True)
        (tmp_path / "train" / "a.png").rename(path)
        pixels = np.full((*SIZE, 3), 7, dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        if path != tmp_path / "train" / "a.png":
            data = json.loads((tmp_path / "a.json").read_text())
            data["images"][0]["file_name"] = name
            notes: list[str] = []
            found = read_coco(write(tmp_path / "a.json", data), folder=tmp_path / "train", notes=notes)
        else:
            found, notes = read(tmp_path, image={"file_name": name}.items())
            Image.fromarray(pixels).save(path)
        assert found.names.tolist() == [place]
        assert (Files(tmp_path / "train", found)(0) == 7).all()
        assert notes == [
            f"a.json: file_name of 1 image is no file of train as it is written, but one is found (the first is image "
            f"1, {name!r}: {place})"
        ]

    @pytest.mark.parametrize("name", ["../secret.png", "b/../../secret.png", "..\\secret.png", "C:\\secret.png", "/{}"])
    def test_a_file_outside_of_the_folder_is_refused(self, tmp_path, name):
        Image.new("RGB", SIZE[::-1]).save(tmp_path / "secret.png")
        name = name.format(f"{tmp_path}/secret.png")
        with pytest.raises(UsageError) as caught:
            read(tmp_path, image={"file_name": name}.items())
        assert str(caught.value).startswith("a.json: image 1: invalid file_name: '")
        assert str(caught.value).endswith("; must be a path within train, without .. or a root")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (
                as_tiff("RGB", (60, 80)),
                "a.json: image 1: 'a.png' has 80 x 60 pixels, but its record says 60 x 80, and 1 more; height and "
                "width must be those of the pixels as they are stored (in 2 the sides are swapped: an EXIF orientation "
                "is not applied)",
            ),
            (as_tiff("RGB", (79, 60)), "a.json: image 1: 'a.png' has 60 x 79 pixels, but its record says 60 x 80, "),
            (as_tiff("I;16", (80, 60)), "{}a.png is in mode I;16, which has no exact 8-bit form; convert it first"),
            (as_tiff("F", (80, 60)), "{}a.png is in mode F, which has no exact 8-bit form; convert it first"),
            (b"no image", "{}a.png cannot be read: "),
        ],
    )
    def test_images_are_compared_with_the_headers_of_their_files(self, tmp_path, content, said):
        read(tmp_path)
        folder = tmp_path / "train"
        for name in ("a", "b"):
            (folder / f"{name}.png").write_bytes(content)
        data = json.loads((tmp_path / "a.json").read_text())
        data["images"].append({**data["images"][0], "id": 2, "file_name": "b.png"})
        with pytest.raises(UsageError) as caught:
            read_coco(write(tmp_path / "a.json", data), folder=folder)
        assert str(caught.value).startswith(said.format(f"{folder}/"))

    def test_images_in_a_folder_of_the_same_name_count_for_the_fingerprint(self, tmp_path):
        root = coco_folder(tmp_path / "little", train=2, test=1)
        digest = hashlib.sha256()
        for part in ("train2017", "val2017"):
            digest.update((root / "annotations" / f"instances_{part}.json").read_bytes())
            entries = sorted((entry.name, entry.stat().st_size) for entry in os.scandir(root / part))
            digest.update(repr(entries).encode())
        assert find_objects(f"coco:{root}", image_size=None).fingerprint == digest.hexdigest()[:16]
        (root / "train2017").rename(root / "inner")
        (root / "train2017").mkdir()
        (root / "inner").rename(root / "train2017" / "train2017")
        nested = find_objects(f"coco:{root}", image_size=None)
        assert nested.read([])["train"].names.tolist() == [f"train2017/{number:012}.png" for number in (1, 2)]
        before = nested.fingerprint
        assert before == find_objects(f"coco:{root}", image_size=None).fingerprint != digest.hexdigest()[:16]
        for folder in (root / "train2017", root / "train2017" / "train2017", root / "val2017"):
            for name in (".DS_Store", "._a.png"):
                (folder / name).write_text("x")
            (folder / "@eaDir").mkdir()
        assert find_objects(f"coco:{root}", image_size=None).fingerprint == before
        with (root / "train2017" / "train2017" / f"{1:012}.png").open("ab") as file:
            file.write(b"\0")
        assert find_objects(f"coco:{root}", image_size=None).fingerprint != before


class TestFile:
    def test_a_byte_order_mark_is_no_content(self, tmp_path):
        read(tmp_path, obj())
        path = tmp_path / "a.json"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert len(read_coco(path, folder=tmp_path / "train")) == 1

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"images": [' + b"1" * 5000 + b"]}", "is not JSON that can be read: Exceeds the limit"),
            (b'{"images": ' + b"[" * 100_000, "is not JSON that can be read: maximum recursion"),
            ('{"images": "ä"}'.encode("latin-1"), "cannot be read: 'utf-8' codec .*; must be UTF-8"),
            (b"[]", "is not one of COCO's instance files: it has no list of images; it must have images, annotations"),
        ],
    )
    def test_what_cannot_be_read_is_one_line(self, tmp_path, content, message):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(UsageError, match=f"a.json {message}") as caught:
            read_coco(tmp_path / "a.json", folder=tmp_path)
        assert "\n" not in str(caught.value)

    def test_both_files_have_the_same_categories(self, tmp_path, cache):
        root = coco_folder(tmp_path / "little", train=12, test=2)
        path = root / "annotations" / "instances_val2017.json"
        data = json.loads(path.read_text())
        data["categories"][1]["name"] = "square"
        write(path, data)
        with pytest.raises(UsageError) as caught:
            prepare_objects(find_objects(f"coco:{root}", image_size=None))
        assert "instances_val2017.json and instances_train2017.json have different categories, " in str(caught.value)
        assert "9 'square' and 9 'rectangle'; must be the same ids and names" in str(caught.value)


@pytest.mark.parametrize(
    ("paths", "hint"),
    [
        (
            ["train/_annotations.coco.json", "valid/_annotations.coco.json"],
            "; move train/_annotations.coco.json to annotations/instances_train.json, and rename the folder of its "
            "images to train/",
        ),
        (["annotations/instances_default.json"], "; move annotations/instances_default.json to annotations/instances_"),
        (["annotations/captions_train2017.json", "annotations/instances_val2017.json"], ""),
        (["latest_train/_annotations.coco.json", "annotations/instances_retrained.json"], ""),
        (["Train-v2/_annotations.coco.json"], "; move Train-v2/_annotations.coco.json to annotations/instances_train."),
    ],
)
def test_a_folder_in_another_layout_is_refused_with_the_names_to_give(paths, hint, tmp_path):
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("{}")
    with pytest.raises(UsageError, match=rf"no instances_train\*\.json in .*; one is required{hint or '$'}"):
        find_objects(f"coco:{tmp_path}", image_size=None)
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "train").mkdir(exist_ok=True)
    (tmp_path / "annotations" / "instances_train.json").write_text("{}")
    if "valid/_annotations.coco.json" in paths:
        with pytest.raises(
            UsageError, match=r"; move valid/_annotations\.coco\.json to annotations/instances_val\.json"
        ):
            find_objects(f"coco:{tmp_path}", image_size=None)

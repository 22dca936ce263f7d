"""Boxes, outlines and categories: what is read, what is refused, and what a step sees of it."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from objects import COCO_IDS, shapes_as_coco, write
from PIL import Image

from ablations.config import UsageError
from ablations.data.objects.annotations import Annotations
from ablations.data.objects.batches import ObjectEvalBatches, ObjectTrainBatches, by_aspect
from ablations.data.objects.coco import notes_on, read_coco
from ablations.data.objects.sample import Files, View, load_view, scaled_size
from ablations.data.objects.shapes import CATEGORIES, MIN_VISIBLE, PARTS, SIDE, Shapes

CPU = torch.device("cpu")


@pytest.fixture
def coco(tmp_path):
    """Four images of shapes as COCO's files: the JSON's path, what it holds, the images' folder."""
    path, data = shapes_as_coco(tmp_path, images=4)
    return path, data, tmp_path / "images"


def square(**changes):
    """An annotation of an 8 x 6 px image, with changes; None takes a key away."""
    record = {
        "id": 5,
        "image_id": 1,
        "category_id": 4,
        "bbox": [1, 2, 4, 3],
        "area": 12,
        "iscrowd": 0,
        "segmentation": [[1, 2, 5, 2, 5, 5, 1, 5]],
        **changes,
    }
    return {key: value for key, value in record.items() if value is not None}


def one_image(tmp_path, *objects):
    """COCO's files of one image of 8 x 6 px, ramps of red and green, with some objects."""
    pixels = np.zeros((6, 8, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = 30 * np.arange(8), 40 * np.arange(6)[:, None]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = {
        "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}],
        "annotations": list(objects),
        "categories": [{"id": 4, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    return write(tmp_path / "a.json", data), data


class TestReading:
    def test_what_is_read_is_what_is_written_again(self, coco):
        path, data, folder = coco
        annotations = read_coco(path, folder=folder)
        assert annotations.as_coco(range(len(annotations))) == json.loads(json.dumps(data))

    def test_it_survives_being_saved(self, coco, tmp_path):
        path, data, folder = coco
        read_coco(path, folder=folder).save(tmp_path / "part.npz")
        assert Annotations.load(tmp_path / "part.npz").as_coco(range(4)) == json.loads(json.dumps(data))

    def test_labels_follow_the_ids_of_the_categories(self, tmp_path):
        path, _ = one_image(tmp_path, square(), square(id=6, category_id=2))
        annotations = read_coco(path, folder=tmp_path)
        assert annotations.category_names.tolist() == ["cat", "dog"]
        assert annotations.labels.tolist() == [2, 1]

    def test_images_come_in_the_order_of_their_ids(self, coco):
        path, data, folder = coco
        write(path, {**data, "images": data["images"][::-1], "annotations": data["annotations"][::-1]})
        assert read_coco(path, folder=folder).image_ids.tolist() == [1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"category_id": 3}, "annotation 5: unknown category_id 3"),
            ({"image_id": 7}, "annotation 5: unknown image_id 7"),
            ({"segmentation": [[1, 2, 5, 5]]}, "annotation 5: a polygon has 2 points; it needs at least three"),
            ({"segmentation": [[1, 2, 5, 5, 1, 5, 2]]}, "annotation 5: a polygon has 3.5 points"),
            ({"segmentation": [["a"] * 6]}, "annotation 5: a polygon is not a list of numbers"),
            (
                {"segmentation": {"size": [8, 6], "counts": [48]}},
                r"annotation 5: the size of its mask is \[8, 6\], that of its image \[6, 8\]",
            ),
            (
                {"segmentation": {"size": [6, 8], "counts": [40]}},
                "annotation 5: its mask has 40 pixels, its image 48",
            ),
            ({"segmentation": {"size": [6, 8]}}, "annotation 5: its mask has no counts"),
            (
                {"segmentation": {"size": [6, 8], "counts": [0.5, 47.5]}},
                r"annotation 5: the counts of its mask are \[0.5, 47.5\]; must be whole numbers from 0",
            ),
            (
                {"segmentation": {"size": [6, 8], "counts": "zzz"}},
                "annotation 5: the counts of its mask cannot be read",
            ),
            (
                {"segmentation": {"size": [6, 8], "counts": "ab"}},
                "annotation 5: the counts of its mask cannot be read: RLE string is malformed",
            ),
            (
                {"segmentation": {"size": [6, 8], "counts": "o" * 3000}},
                "annotation 5: the counts of its mask cannot be read: RLE string is malformed",
            ),
            ({"id": 2**70}, f"annotation number 2 of the list: invalid id: {2**70}; must be a whole number within 64"),
            ({"segmentation": "drawn"}, "annotation 5: invalid segmentation: 'drawn'; must be a list of polygons"),
            ({"bbox": [1, 2, -4, 3]}, r"annotation 5: bbox \[1, 2, -4, 3\] must be left, top, width and height"),
            ({"bbox": [1, 2, 4]}, r"annotation 5: bbox \[1, 2, 4\] must be left"),
            ({"bbox": [1, 2, 4, float("nan")]}, "annotation 5: bbox .* must be left"),
            ({"area": "large"}, "annotation 5: area large must be a number"),
            ({"area": -1}, "annotation 5: area -1 must be a number from 0; leave it out"),
            ({"bbox": [1, 2, 4, 10**400]}, "annotation 5: bbox .* must be left"),
            ({"bbox": [1, 2, 10**300, 10**300]}, "annotation 5: bbox .* must be left"),
            ({"area": 10**310}, "annotation 5: area 1000.* must be a number from 0"),
            ({"segmentation": [[1, 2, 5, 5, 1, -(10**400)]]}, "annotation 5: a polygon is not a list of numbers"),
            ({"id": None}, "annotation number 2 of the list has no id; must be a whole number"),
            ({"category_id": "dog"}, "annotation 5: invalid category_id: 'dog'; must be a whole number"),
            ({"image_id": 1.5}, "annotation 5: invalid image_id: 1.5; must be a whole number"),
            ({"image_id": True}, "annotation 5: invalid image_id: True; must be a whole number"),
            ({"image_id": 1e300}, r"annotation 5: invalid image_id: 1e\+300; must be a whole number"),
            ({"iscrowd": "yes"}, "annotation 5: invalid iscrowd: 'yes'; must be 0 or 1"),
            ({"iscrowd": 2}, "annotation 5: invalid iscrowd: 2; must be 0 or 1"),
        ],
    )
    def test_a_record_that_makes_no_sense_is_refused_by_name(self, tmp_path, change, message):
        path, _ = one_image(tmp_path, square(id=4), square(**change))
        with pytest.raises(UsageError, match=f"a.json: {message}") as caught:
            read_coco(path, folder=tmp_path)
        assert "\n" not in str(caught.value)
        assert any(word in str(caught.value) for word in ("must ", "it needs "))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda data: data["images"][0].update(file_name="gone.png"), "image 1 not found: no file .*gone.png"),
            (lambda data: data["images"].append(data["images"][0]), "image 1 is listed twice; remove one"),
            (lambda data: data["images"].clear(), "has no images"),
            (lambda data: data["images"][0].update(width=0), "image 1 has no pixels: 6 x 0"),
            (lambda data: data["images"][0].pop("height"), "image 1 has no height"),
            (lambda data: data["images"].append("a.png"), "image number 2 of the list is not a record: 'a.png'"),
            (lambda data: data["annotations"].append(square()), "annotation 5 is listed twice; remove one"),
            (lambda data: data["categories"].append({"id": 4, "name": "cow"}), "category 4 is listed twice"),
            (
                lambda data: data["categories"].append({"id": 7, "name": "dog"}),
                "categories 4 and 7 have the same name, 'dog'; rename one, or give",
            ),
            (lambda data: data["categories"][0].update(name=3), "category number 1 of the list: invalid name: 3; must"),
            (lambda data: data["images"][0].update(id="a1"), "image number 1 of the list: invalid id: 'a1'; must be a"),
            (lambda data: data["images"][0].update(width=7.5), "image 1: invalid width: 7.5; must be a whole number"),
            (lambda data: data["images"][0].update(file_name=1), "image 1: invalid file_name: 1; must be a text"),
            (
                lambda data: data["images"][0].update(file_name="x" * 5000),
                "invalid file_name: 'x{59}; must be a text of",
            ),
            (
                lambda data: data["categories"][0].update(name="\ud800x"),
                r"1 of the list: invalid name: '.ud800x'; must be",
            ),
            (lambda data: data["categories"].clear(), "has no categories"),
            (lambda data: data.pop("categories"), "is not one of COCO's instance files: it has no list of categories"),
        ],
    )
    def test_a_file_that_makes_no_sense_is_refused(self, tmp_path, change, message):
        path, data = one_image(tmp_path, square())
        change(data)
        write(path, data)
        with pytest.raises(UsageError, match=message) as caught:
            read_coco(path, folder=tmp_path)
        assert "a.json" in str(caught.value)

    def test_broken_json_is_named_with_its_place(self, tmp_path):
        (tmp_path / "a.json").write_text('{"images": [\n{]')
        with pytest.raises(UsageError, match=r"a.json is not JSON: .* in line 2, column 2"):
            read_coco(tmp_path / "a.json", folder=tmp_path)
        with pytest.raises(UsageError, match=r"no annotations at .*b.json"):
            read_coco(tmp_path / "b.json", folder=tmp_path)

    def test_what_is_no_example_is_said(self, tmp_path):
        crowd = square(id=6, iscrowd=1, segmentation={"size": [6, 8], "counts": [0, 48]})
        outside = square(id=8, bbox=[9, 2, 4, 3])
        path, data = one_image(tmp_path, square(), crowd, square(id=7, bbox=[1, 2, 0, 3]), outside)
        assert notes_on(read_coco(path, folder=tmp_path), "train") == [
            "train: 1 crowd (the first is annotation 6), no examples, as in COCO",
            "train: 2 boxes without width or height in the image (the first is annotation 7), no examples",
        ]
        write(path, {**data, "annotations": []})
        (note,) = notes_on(read_coco(path, folder=tmp_path), "train")
        assert note == "train: 1 image without objects (the first is 1), used as background in training"
        (note,) = notes_on(read_coco(path, folder=tmp_path), "test")
        assert note.endswith("in which every detection is wrong")


class TestSeeing:
    def load(self, tmp_path, *objects, side=6, mirrored=False):
        path, _ = one_image(tmp_path, *objects)
        annotations = read_coco(path, folder=tmp_path)
        return load_view(View(0, side, mirrored), Files(tmp_path, annotations), annotations, longest=10**6)

    def test_boxes_and_masks_scale_with_the_image(self, tmp_path):
        image, target = self.load(tmp_path, square(), side=12)
        assert image.shape == (3, 12, 16)
        assert target["boxes"].tolist() == [[2, 4, 10, 10]]
        wanted = torch.zeros(12, 16, dtype=torch.uint8)
        wanted[4:10, 2:10] = 1
        assert (target["masks"][0] == wanted).all()
        assert target["labels"].tolist() == [2]

    def test_a_mirrored_image_has_mirrored_objects(self, tmp_path):
        plain_image, plain = self.load(tmp_path, square())
        image, target = self.load(tmp_path, square(), mirrored=True)
        assert (image == plain_image.flip(2)).all()
        assert (image != plain_image).any()
        assert target["boxes"].tolist() == [[3, 2, 7, 5]]
        assert (target["masks"] == plain["masks"].flip(2)).all()

    def test_run_lengths_are_a_mask_too(self, tmp_path):
        plain = self.load(tmp_path, square(), side=12)[1]
        counts = [6 + 2, 3, 3, 3, 3, 3, 3, 3, 6 * 3 + 1]
        runs = {"size": [6, 8], "counts": counts}
        target = self.load(tmp_path, square(segmentation=runs), side=12)[1]
        assert (target["masks"] == plain["masks"]).all()

    def test_what_is_no_example_is_not_seen(self, tmp_path):
        crowd = square(id=6, iscrowd=1, segmentation={"size": [6, 8], "counts": [0, 48]})
        flat, outside = square(id=7, bbox=[1, 2, 0, 3]), square(id=8, bbox=[9, 2, 4, 3])
        target = self.load(tmp_path, crowd, square(), flat, outside)[1]
        assert target["boxes"].tolist() == [[1, 2, 5, 5]]
        empty = self.load(tmp_path)[1]
        assert empty["boxes"].shape == (0, 4)
        assert empty["masks"].shape == (0, 6, 8)
        assert empty["labels"].dtype == torch.int64

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda path: Image.new("RGB", (8, 7)).save(path), "has 7 x 8 pixels, but its annotations say 6 x 8"),
            (lambda path: Image.new("I;16", (8, 6)).save(path), "is in mode I(;16)?, which has no exact 8-bit form"),
            (lambda path: path.write_bytes(b"no image"), "cannot be read"),
        ],
    )
    def test_an_image_that_has_changed_since_it_was_listed_is_named(self, tmp_path, change, message):
        annotations = read_coco(one_image(tmp_path, square())[0], folder=tmp_path)
        change(tmp_path / "a.png")
        with pytest.raises(UsageError, match=f"a.png {message}"):
            Files(tmp_path, annotations)(0)

    def test_the_longer_side_has_its_limit(self):
        assert scaled_size(480, 640, side=800, longest=1333) == (800, 1067)
        assert scaled_size(400, 1000, side=800, longest=1333) == (533, 1333)
        assert scaled_size(1000, 400, side=800, longest=1333) == (1333, 533)


class TestBatches:
    def make(self, coco, *, seed=0, batch_size=2, workers=0, sides=(48, 64, 80), mirrors=True):
        path, _, folder = coco
        annotations = read_coco(path, folder=folder)
        return ObjectTrainBatches(
            annotations=annotations,
            read_image=Files(folder, annotations),
            rows=np.arange(len(annotations)),
            batch_size=batch_size,
            sides=sides,
            longest=100,
            mirrors=mirrors,
            seed=seed,
            workers=workers,
            device=CPU,
        )

    def test_an_epoch_depends_on_seed_and_number_alone(self, coco):
        first, again, other = self.make(coco), self.make(coco), self.make(coco, seed=1)
        first.set_epoch(0)
        torch.manual_seed(7)
        for batches in (first, again, other):
            batches.set_epoch(3)
        assert first.hash == again.hash != other.hash
        for (images, targets), (images2, targets2) in zip(first, again, strict=True):
            assert all((a == b).all() for a, b in zip(images, images2, strict=True))
            assert all((a[key] == b[key]).all() for a, b in zip(targets, targets2, strict=True) for key in a)
        state = torch.get_rng_state()
        list(again)
        assert (torch.get_rng_state() == state).all()

    def test_every_scale_and_both_ways_come(self, coco):
        batches = self.make(coco, batch_size=1)
        seen = set()
        for epoch in range(12):
            batches.set_epoch(epoch)
            seen |= {(view.side, view.mirrored) for views in batches._views for view in views}
        assert seen == {(side, way) for side in (48, 64, 80) for way in (False, True)}

    @pytest.mark.slow
    def test_workers_change_nothing(self, coco):
        alone, helped = self.make(coco), self.make(coco, workers=2)
        for epoch in range(2):
            alone.set_epoch(epoch)
            helped.set_epoch(epoch)
            for (images, targets), (images2, targets2) in zip(alone, helped, strict=True):
                assert all((a == b).all() for a, b in zip(images, images2, strict=True))
                assert all((a["masks"] == b["masks"]).all() for a, b in zip(targets, targets2, strict=True))

    def test_evaluation_sees_each_image_once_as_it_is(self, coco):
        path, _, folder = coco
        annotations = read_coco(path, folder=folder)
        read_image = Files(folder, annotations)
        rows = np.array([1, 3])
        seen = list(ObjectEvalBatches(annotations=annotations, read_image=read_image, rows=rows, workers=0, device=CPU))
        assert [row for row, _ in seen] == [1, 3]
        assert (seen[0][1] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8).tolist() == read_image(1).tolist()

    def test_upright_images_keep_to_themselves_and_none_is_lost(self):
        is_upright = [i % 3 == 0 for i in range(20)]
        order = torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist()
        batches = by_aspect(order, is_upright, batch_size=3)
        assert len(batches) == 20 // 3
        assert len({i for batch in batches for i in batch}) == 18
        mixed = [batch for batch in batches if len({is_upright[i] for i in batch}) > 1]
        assert len(mixed) <= 1
        for batch in batches[:-1]:
            assert [order.index(i) for i in batch] == sorted(order.index(i) for i in batch)
        ends = [max(order.index(i) for i in batch) for batch in batches[:-1]]
        assert all(first < second for first, second in pairwise(ends))


class TestShapes:
    def test_an_image_is_the_same_whenever_it_is_drawn(self):
        assert (Shapes().image("test", 3) == Shapes().image("test", 3)).all()
        assert (Shapes().image("test", 3) != Shapes().image("test", 4)).any()
        assert (Shapes().image("test", 3) != Shapes().image("val", 3)).any()

    def test_boxes_areas_and_outlines_agree(self):
        annotations = Shapes().annotations("val")
        assert len(annotations) == PARTS["val"]
        assert set(annotations.labels.tolist()) == set(CATEGORIES)
        for row in range(20):
            _, target = load_view(
                View(row, SIDE, False), lambda row: Shapes().image("val", row), annotations, longest=SIDE
            )
            total = sum(target["masks"])
            assert total.max() == 1, "a pixel belongs to one shape alone"
            for mask, box, obj in zip(target["masks"], target["boxes"], annotations.objects(row), strict=True):
                ys, xs = mask.nonzero(as_tuple=True)
                assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                assert mask.sum() == annotations.areas[obj]

    def test_a_shape_differs_from_what_is_around_it(self):
        annotations = Shapes().annotations("val")
        for row in range(20):
            image = Shapes().image("val", row).astype(float)
            _, target = load_view(
                View(row, SIDE, False), lambda row: Shapes().image("val", row), annotations, longest=SIDE
            )
            around = image[sum(target["masks"]).numpy() == 0].mean(axis=0)
            for mask in target["masks"].numpy().astype(bool):
                assert np.abs(image[mask].mean(axis=0) - around).max() > 40

    def test_enough_of_every_shape_can_be_seen(self):
        """A circle's area and its box's would be pi / 4 apart, were it whole; no shape is less than its share."""
        annotations = Shapes().annotations("val")
        share = annotations.areas / (annotations.boxes[:, 2] * annotations.boxes[:, 3])
        assert share.min() > 0.1
        assert annotations.areas.min() >= MIN_VISIBLE * 4 * (0.08 * SIDE) ** 2 * 0.2

    def test_coco_ids_of_the_tests_have_gaps(self, coco):
        path, _, folder = coco
        assert read_coco(path, folder=folder).category_ids.tolist() == list(COCO_IDS.values())

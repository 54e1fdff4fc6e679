"""Images with boxes: digits on canvases, VOC trees and COCO files; what is left out is counted and told."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from box_trees import coco_tree, voc_tree
from PIL import Image

from prune_env.common.errors import DataError, DataWarning
from prune_env.data import BoxSource, LeftOut, box_target, load_source, make_splits
from prune_env.data.box_source import PADDING, fitted

BOX = (11, 6, 40, 25)


def source_of(name: str, path: Path, size: Any = (40, 60)) -> BoxSource:
    source = load_source(name, path, size)
    assert isinstance(source, BoxSource)
    return source


class TestABox:
    def test_that_shows_nothing_is_left_out_and_counted(self) -> None:
        left_out = LeftOut()
        boxes = [(1, 2, 8, 9), (3, 3, 3, 9), (9, 4, 5, 8), (20, 0, 30, 5), (0, 0, float("nan"), 4), (-5, -5, 3, 4)]
        target = box_target(boxes, [1, 2, 3, 4, 5, 6], (10, 12), left_out)
        assert target["boxes"].tolist() == [[1, 2, 8, 9], [0, 0, 3, 4]]
        assert target["labels"].tolist() == [1, 6]
        assert left_out == LeftOut(degenerate=3, outside=1)

    def test_that_is_too_thin_for_float32_is_left_out(self) -> None:
        left_out = LeftOut()
        boxes = [
            (300.0, 1.0, 300.0 + 1e-7, 9.0),
            (1.0, 300.0, 9.0, 300.0001),
            (399.9999, 1.0, 450.0, 9.0),
            (1, 1, 2, 2),
        ]
        target = box_target(boxes, [1, 2, 3, 4], (400, 400), left_out)
        assert target["labels"].tolist() == [4]
        assert left_out == LeftOut(degenerate=2, outside=1)

    def test_is_told_once_with_the_numbers(self) -> None:
        with pytest.warns(DataWarning, match=r"'x': boxes were left out: 2 without width or height, 3 around crowds$"):
            LeftOut(degenerate=2, crowds=3).tell("x")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            LeftOut().tell("x")

    def test_may_be_missing(self) -> None:
        target = box_target([], [], (10, 12), LeftOut())
        assert (target["boxes"].shape, target["boxes"].dtype) == ((0, 4), torch.float32)
        assert (target["labels"].shape, target["labels"].dtype) == ((0,), torch.int64)


class TestScatteredDigits:
    def test_are_2400_images_whose_boxes_are_in_the_canvas_and_hardly_overlap(self) -> None:
        digits = load_source("scattered_digits")
        assert isinstance(digits, BoxSource)
        assert (digits.size, digits.channels, digits.classes, digits.names[3]) == ((96, 96), 1, 10, "3")
        for split, count in (("train", 2000), ("test", 400)):
            targets = digits.targets(split)  # type: ignore[arg-type]
            assert len(targets) == count
            boxes = torch.cat([target["boxes"] for target in targets])
            sides = boxes[:, 2:] - boxes[:, :2]
            assert boxes.min() >= 0
            assert boxes.max() <= 96
            assert (sides.min(), sides.max()) == (14, 36)
            assert torch.equal(sides[:, 0], sides[:, 1])
            assert 3.0 < len(boxes) / count < 6.0
            assert set(torch.cat([target["labels"] for target in targets]).tolist()) == set(range(1, 11))

    def test_are_brighter_within_their_boxes(self) -> None:
        digits = load_source("scattered_digits")
        for index in range(20):
            image = digits.load("test", np.array([index]))[0, 0]
            inside = torch.zeros_like(image, dtype=torch.bool)
            for x0, y0, x1, y1 in digits.targets("test")[index]["boxes"].int().tolist():
                inside[y0:y1, x0:x1] = True
            assert image[inside].mean() > image[~inside].mean() + 0.1
            assert 0.0 <= image.min() <= image.max() <= 1.0


class TestAVocTree:
    def tree(self, path: Path, **objects: Any) -> Path:
        inside = {"a": [("cat", BOX)], "b": [("dog", BOX), ("cat", BOX)], "c": [], "d": [("dog", BOX)], **objects}
        return voc_tree(path, {"trainval": ["a", "b", "c"], "test": ["d"]}, inside)

    def test_gives_boxes_from_0_and_labels_in_the_order_of_the_names(self, tmp_path: Path) -> None:
        voc = source_of("voc", self.tree(tmp_path))
        assert voc.names == ("cat", "dog")
        assert [target["labels"].tolist() for target in voc.targets("train")] == [[1], [2, 1], []]
        assert voc.targets("test")[0]["boxes"].tolist() == [[10, 5, 40, 25]]
        image = np.asarray(Image.open(tmp_path / "JPEGImages" / "d.png")) / 255
        assert voc.load("test", np.array([0]))[0].permute(1, 2, 0).numpy() == pytest.approx(image, abs=1e-6)

    @pytest.mark.parametrize(("size", "inner"), [((40, 90), (40, 60)), ((80, 60), (40, 60)), ((20, 30), (20, 30))])
    def test_is_fitted_into_the_canvas_with_its_boxes(
        self, tmp_path: Path, size: tuple[int, int], inner: tuple[int, int]
    ) -> None:
        voc = source_of("voc", self.tree(tmp_path), size)
        assert fitted((40, 60), size) == inner
        loaded = voc.load("test", np.array([0]))
        assert loaded.shape == (1, 3, *size)
        assert bool((loaded[0, :, inner[0] :] == PADDING).all())
        assert bool((loaded[0, :, :, inner[1] :] == PADDING).all())
        scale = inner[0] / 40
        assert voc.targets("test")[0]["boxes"].tolist() == [[10 * scale, 5 * scale, 40 * scale, 25 * scale]]

    def test_without_a_test_list_is_tested_on_val(self, tmp_path: Path) -> None:
        objects = {"a": [("cat", BOX)], "b": [("cat", BOX)]}
        voc = source_of("voc", voc_tree(tmp_path, {"train": ["a"], "val": ["b"]}, objects))
        assert (len(voc.targets("train")), len(voc.targets("test"))) == (1, 1)

    @pytest.mark.parametrize("lists", [{"train": ["a"], "val": ["b", "a"]}, {"train": ["a", "a"], "val": ["b"]}])
    def test_that_lists_an_image_twice_is_refused(self, tmp_path: Path, lists: dict[str, list[str]]) -> None:
        objects = {"a": [("cat", BOX)], "b": [("cat", BOX)]}
        with pytest.raises(DataError, match=r"a\.png is listed twice, in one split or in both"):
            source_of("voc", voc_tree(tmp_path, lists, objects))

    def test_may_have_names_with_spaces_and_a_second_column(self, tmp_path: Path) -> None:
        objects = {"a b": [("cat", BOX)], "c": [("cat", BOX)], "d": []}
        voc = source_of("voc", voc_tree(tmp_path, {"train": ["a b", "c  -1"], "val": ["d"]}, objects))
        assert [len(target["boxes"]) for target in voc.targets("train")] == [1, 1]

    def test_whose_list_is_no_text_is_refused(self, tmp_path: Path) -> None:
        root = self.tree(tmp_path)
        (root / "ImageSets" / "Main" / "test.txt").write_bytes(b"\xff\xfe")
        with pytest.raises(DataError, match=r"test\.txt is no list of image names"):
            source_of("voc", root)

    def test_with_an_empty_box_tells_it(self, tmp_path: Path) -> None:
        with pytest.warns(DataWarning, match="'voc': boxes were left out: 1 without width or height, 1 outside"):
            voc = source_of("voc", self.tree(tmp_path, a=[("cat", (4, 4, 4, 4)), ("cat", (70, 4, 80, 9))]))
        assert voc.targets("train")[0]["boxes"].shape == (0, 4)

    def test_that_lacks_files_is_refused_with_their_names(self, tmp_path: Path) -> None:
        root = self.tree(tmp_path)
        (root / "Annotations" / "b.xml").unlink()
        with pytest.raises(DataError, match=r"b\.xml does not exist; every listed image needs an annotation"):
            source_of("voc", root)
        (root / "JPEGImages" / "b.png").unlink()
        with pytest.raises(DataError, match=r"trainval\.txt names 1 images that .*Images does not hold, such as 'b'"):
            source_of("voc", root)
        (root / "ImageSets" / "Main" / "trainval.txt").unlink()
        with pytest.raises(DataError, match=r"trainval\.txt.*ImageSets"):
            source_of("voc", root)

    def test_whose_image_has_another_size_than_its_annotation_is_refused(self, tmp_path: Path) -> None:
        root = self.tree(tmp_path)
        Image.new("RGB", (50, 40)).save(root / "JPEGImages" / "d.png")
        with pytest.raises(DataError, match=r"d\.png has 40x50 pixels, but its annotation says 40x60"):
            source_of("voc", root).load("test", np.array([0]))

    @pytest.mark.parametrize("text", ["<annotation>", "<annotation><object><name>cat</name></object></annotation>"])
    def test_with_a_damaged_annotation_is_refused(self, tmp_path: Path, text: str) -> None:
        root = self.tree(tmp_path)
        (root / "Annotations" / "a.xml").write_text(text)
        with pytest.raises(DataError, match=r"a\.xml is no annotation in VOC's form"):
            source_of("voc", root)

    @pytest.mark.parametrize("side", ["1" + 400 * "0", "60000001"])
    def test_whose_annotation_gives_an_endless_side_is_refused(self, tmp_path: Path, side: str) -> None:
        root = self.tree(tmp_path)
        text = (root / "Annotations" / "a.xml").read_text()
        (root / "Annotations" / "a.xml").write_text(text.replace("<height>40<", f"<height>{side}<"))
        with pytest.raises(DataError, match=r"a\.xml is no .* has height [16]0.* and width 60; at most 60,000,000 pix"):
            source_of("voc", root)


class TestACocoTree:
    def test_keeps_the_ids_of_coco_as_labels_and_images_without_boxes(self, tmp_path: Path) -> None:
        coco = source_of("coco", coco_tree(tmp_path), (60, 60))
        assert coco.classes == 5
        assert (coco.names[1], coco.names[4]) == ("cat", "dog")
        assert [target["labels"].tolist() for target in coco.targets("train")] == [[2, 5], [5], []]
        assert coco.targets("train")[0]["boxes"].tolist() == [[6, 4, 36, 24], [10, 10, 20, 20]]
        assert coco.targets("train")[1]["boxes"].tolist() == [[0, 0, 40, 60]]
        assert coco.load("train", np.array([1, 2])).shape == (2, 3, 60, 60)

    def test_with_other_ids_numbers_them(self, tmp_path: Path) -> None:
        categories = [{"id": 900, "name": "cat"}, {"id": 0, "name": "dog"}]
        annotations = [{"image_id": 7, "category_id": number, "bbox": [1, 1, 5, 5]} for number in (0, 900)]
        root = coco_tree(tmp_path, categories=categories, annotations=annotations)
        (root / "annotations" / "instances_val.json").write_text(
            (root / "annotations" / "instances_train.json").read_text()
        )
        coco = source_of("coco", root)
        assert coco.names == ("dog", "cat")
        assert coco.targets("train")[0]["labels"].tolist() == [1, 2]

    @pytest.mark.parametrize(
        ("annotation", "words"),
        [
            ({"category_id": 3}, r"annotation 1 names the category 3; the file's categories are 2, 5"),
            ({"image_id": 70}, "annotation 1 names the image 70, which the file does not list"),
            ({"bbox": [1, 2, 3]}, r"bbox must be \[x, y, width, height\] in pixels, given \[1, 2, 3\]"),
        ],
    )
    def test_with_an_unknown_id_or_a_wrong_box_is_refused(
        self, tmp_path: Path, annotation: dict[str, Any], words: str
    ) -> None:
        whole = {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 1, 5, 5], **annotation}
        with pytest.raises(DataError, match=words):
            source_of("coco", coco_tree(tmp_path, annotations=[whole]))

    @pytest.mark.parametrize(
        ("key", "entry", "words"),
        [
            ("images", {"id": 7, "file_name": "0.png", "height": 0, "width": 60}, "image 7 has height 0 and width 60"),
            (
                "images",
                {"id": 7, "file_name": "0.png", "height": 1e400, "width": 60},
                "height and width as whole numbers",
            ),
            ("images", {"id": 7, "file_name": "0.png", "height": 10**400, "width": 60}, "height 10.* and width 60; bo"),
            ("images", {"id": 7, "file_name": "0.png", "height": 40, "width": 1e300}, "height 40 and width 10.*; bo"),
            ("images", {"id": "7", "file_name": "0.png", "height": 40, "width": 60}, "given {'id': '7'"),
            ("images", {"id": 7, "file_name": "/etc/0.png", "height": 40, "width": 60}, "relative to .*, without '..'"),
            (
                "images",
                {"id": 7, "file_name": "../val/0.png", "height": 40, "width": 60},
                "'../val/0.png', but file names",
            ),
            (
                "images",
                {"id": 7, "file_name": "in/0.png", "height": 40, "width": 60},
                "does not hold, such as 'in/0.png'",
            ),
            ("categories", {"id": 2}, "a category needs a name, and an id that is a whole number; given {'id': 2}"),
            ("categories", {"id": "x", "name": "cat"}, "a category needs a name"),
            ("categories", 3, "a category needs a name, .*given 3"),
            ("annotations", 3, "an annotation must be an object with image_id, category_id and bbox; given 3"),
            ("annotations", {"image_id": [7], "category_id": 2, "bbox": [1, 1, 5, 5]}, r"names the image \[7\]"),
            ("annotations", {"image_id": 7, "category_id": [2], "bbox": [1, 1, 5, 5]}, r"names the category \[2\]"),
            ("annotations", {"image_id": 7, "category_id": 2, "bbox": [10**400, 1, 5, 5]}, "bbox must be .*given"),
        ],
    )
    def test_with_a_damaged_entry_is_refused(self, tmp_path: Path, key: str, entry: Any, words: str) -> None:
        changes = {"annotations": []} if key == "images" else {}
        root = coco_tree(tmp_path, **{**changes, key: [entry]})
        with pytest.raises(DataError, match=rf"instances_train\.json.*{words}"):
            source_of("coco", root)

    def test_with_two_images_of_one_id_is_refused(self, tmp_path: Path) -> None:
        images = [{"id": 7, "file_name": f"{number}.png", "height": 40, "width": 60} for number in (0, 1)]
        with pytest.raises(DataError, match="two images have the id 7"):
            source_of("coco", coco_tree(tmp_path, images=images, annotations=[]))

    def test_whose_splits_share_an_image_is_refused(self, tmp_path: Path) -> None:
        root = coco_tree(tmp_path)
        (root / "train").rename(root / "images")
        shutil.rmtree(root / "val")
        with pytest.raises(DataError, match=r"0\.png is listed twice, in one split or in both"):
            source_of("coco", root)

    def test_may_hold_images_in_folders_of_their_own(self, tmp_path: Path) -> None:
        images = [{"id": 7, "file_name": "in/0.png", "height": 40, "width": 60}]
        root = coco_tree(tmp_path, images=images, annotations=[])
        (root / "train" / "in").mkdir()
        (root / "train" / "0.png").rename(root / "train" / "in" / "0.png")
        assert source_of("coco", root).load("train", np.array([0])).shape == (1, 3, 40, 60)

    def test_that_names_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        images = [{"id": 7, "file_name": "lost.png", "height": 4, "width": 4}]
        with pytest.raises(DataError, match=r"names 1 images that .*train does not hold, such as 'lost\.png'"):
            source_of("coco", coco_tree(tmp_path, images=images, annotations=[]))

    def test_tells_of_crowds_and_empty_boxes(self, tmp_path: Path) -> None:
        annotations = [
            {"image_id": 7, "category_id": 2, "bbox": [1, 1, 5, 5], "iscrowd": 1},
            {"image_id": 7, "category_id": 2, "bbox": [1, 1, 0, 5]},
        ]
        with pytest.warns(DataWarning, match="1 without width or height, 1 around crowds"):
            coco = source_of("coco", coco_tree(tmp_path, annotations=annotations))
        assert [len(target["boxes"]) for target in coco.targets("train")] == [0, 0, 0]

    def test_without_annotations_is_refused_with_the_layout(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"'coco' was looked for .*annotations/instances_train"):
            source_of("coco", tmp_path)
        for text in ("[]", "", "[" * 100_000):
            (coco_tree(tmp_path) / "annotations" / "instances_val.json").write_text(text)
            with pytest.raises(DataError, match=r"instances_val\.json is no annotation file"):
                source_of("coco", tmp_path)


def test_subsets_hold_every_class_in_its_share() -> None:
    digits = load_source("scattered_digits")

    def stratum(target: Any) -> frozenset[int]:
        return frozenset(target["labels"].tolist())

    one, same, other = (make_splits(digits, 200, 100, seed, 50, stratum) for seed in (0, 0, 1))
    whole = np.bincount([label for target in digits.targets("train") for label in stratum(target)], minlength=11) / 2000
    drawn = [digits.targets("train")[index] for index in one.reward_indices]
    part = np.bincount([label for target in drawn for label in stratum(target)], minlength=11) / 200
    assert part == pytest.approx(whole, abs=0.02)
    assert np.array_equal(one.reward_indices, same.reward_indices)
    assert not np.array_equal(one.reward_indices, other.reward_indices)
    assert not set(one.reward_indices) & set(one.calibration_indices)
    assert (len(one.reward_indices), len(one.calibration_indices), len(one.test_indices)) == (200, 100, 50)
    with pytest.raises(DataError, match=r"data\.reward_images=2001 is too large: 2000 images are left"):
        make_splits(digits, 2001, 1, 0, None, stratum)

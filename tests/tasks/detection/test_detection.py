"""The task of detection: the contract, the loss of each image, the candidates, the teacher, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from detectors import CLASSES, SIDE, boxed_batch, own_detector, small_centre, small_torchvision
from torch import Tensor, nn

from prune_env import RunConfig
from prune_env.common.errors import ConfigError, DataError, ModelError, WeightsError
from prune_env.data import Batch, BoxedImages, BoxSource
from prune_env.models.suppression import detections
from prune_env.tasks import Classification, Detection, core_of, make_task, pictures_of
from prune_env.tasks.detection.contract import check_detections, check_losses
from prune_env.tasks.detection.drawing import drawn
from prune_env.testing import check_task
from prune_env.walk.tracing import training_code

TASK = Detection()
ONE_STAGE = ("centre", "ssd", "retinanet", "fcos")
KINDS = (*ONE_STAGE, "fasterrcnn", "own")


def detector(kind: str) -> nn.Module:
    if kind == "own":
        model = own_detector()
        return model.eval()
    return small_centre() if kind == "centre" else small_torchvision(kind)


def config_of(*overrides: str) -> RunConfig:
    document = {
        "task": {"name": "detection"},
        "model": {"name": "centre_detector"},
        "data": {"name": "scattered_digits", "reward_images": 8, "calibration_images": 8, "test_images": 8},
    }
    return RunConfig.from_mapping(document, overrides)


@pytest.mark.parametrize("kind", ["centre", "ssd", "own"])
def test_the_task_keeps_the_promises_of_a_task(kind: str) -> None:
    model = detector(kind)
    if kind == "own":
        from prune_env.models.detectors import _as_list

        model.register_forward_pre_hook(_as_list)
    check_task("detection", model, boxed_batch(3))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_in_eval_mode_is_the_detector_s_own_of_each_image(kind: str) -> None:
    model, batch = detector(kind), boxed_batch(3)
    with torch.no_grad():
        outputs = TASK.forward(model, batch)
        TASK.check(outputs, batch)
        each = TASK.loss(outputs, batch)
        expected = []
        for image, target in zip(batch.images, batch.targets, strict=True):
            with training_code(model), torch.random.fork_rng([]):
                torch.manual_seed(0)
                expected.append(sum(loss.detach() for loss in model([image], [target]).values()))
        mean, total = (TASK.loss(outputs, batch, reduction).item() for reduction in ("mean", "sum"))
    assert each.shape == (3,)
    assert not model.training
    torch.testing.assert_close(each, torch.stack(expected).float(), rtol=1e-4, atol=1e-5)
    assert (mean, total) == pytest.approx((each.mean().item(), each.sum().item()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_in_training_is_the_sum_of_the_detector_s_losses(kind: str) -> None:
    model, batch = detector(kind).train(), boxed_batch(4)
    torch.manual_seed(1)
    outputs = TASK.forward(model, batch)
    TASK.check(outputs, batch)
    loss = TASK.loss(outputs, batch, "mean")
    assert loss.item() == pytest.approx(sum(part.item() for part in outputs.answer.values()), rel=1e-5)
    loss.backward()
    assert any(bool(parameter.grad.any()) for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("size", [(SIDE, SIDE), (40, 64)])
@pytest.mark.parametrize("kind", ONE_STAGE)
def test_the_part_before_nms_and_the_decoder_give_the_own_detections(kind: str, size: tuple[int, int]) -> None:
    model, batch = detector(kind), boxed_batch(3, size=size)
    core = core_of(TASK, model, batch.images)
    assert core is not None
    assert core.outputs == ("scores", "boxes")
    with torch.no_grad():
        expected, found = model(list(batch.images)), core.decode(core.module(batch.images))
    assert sum(len(one["boxes"]) for one in expected) > 3
    for own, decoded in zip(expected, found, strict=True):
        assert torch.equal(own["labels"], decoded["labels"])
        torch.testing.assert_close(own["scores"], decoded["scores"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(own["boxes"], decoded["boxes"], rtol=1e-4, atol=1e-3)
    assert core.files.keys() == {"decoder.json", "decoder.py"}


@pytest.mark.parametrize("kind", ["fasterrcnn", "own"])
def test_a_detector_that_is_not_known_from_within_has_no_such_part_and_no_teacher(kind: str) -> None:
    model, batch = detector(kind), boxed_batch(2)
    with pytest.raises(ModelError, match="has no part before the suppression of boxes that is known"):
        core_of(TASK, model, batch.images)
    outputs = TASK.forward(model, batch)
    with pytest.raises(ConfigError, match=r"distillation: a teacher needs .* Give distillation=0"):
        TASK.distillation(outputs, outputs, batch, 2.0)


class TestTheDistanceFromATeacher:
    @pytest.mark.parametrize("kind", ONE_STAGE)
    def test_is_0_from_itself_and_moves_the_student_alone(self, kind: str) -> None:
        student, teacher, batch = detector(kind), detector(kind), boxed_batch(2)
        same = TASK.distillation(TASK.forward(student, batch), TASK.forward(teacher, batch), batch, 4.0)
        assert same.item() == pytest.approx(0.0, abs=1e-4)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.mul_(1.2)
        distance = TASK.distillation(TASK.forward(student.train(), batch), TASK.forward(teacher, batch), batch, 4.0)
        assert distance.item() > 1e-4
        distance.backward()
        assert any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in student.parameters())
        assert all(parameter.grad is None for parameter in teacher.parameters())

    def test_is_the_weighted_divergence_of_scores_and_boxes(self) -> None:
        from prune_env.tasks.detection.distillation import candidate_distance

        boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 9.0, 9.0]]])
        theirs = torch.tensor([[[0.8], [0.1]]])
        far = torch.tensor([[[0.0, 0.0, 10.0, 5.0], [5.0, 5.0, 9.0, 9.0]]])
        # Generalised IoU of the first boxes is 0.5; the weights are 0.8 and 0.1.
        assert float(candidate_distance((far, theirs), (boxes, theirs), 3.0)) == pytest.approx(
            0.8 * 0.5 / 0.9, rel=1e-4
        )
        ours = torch.tensor([[[0.8], [0.3]]])
        soft = [torch.sigmoid(torch.logit(torch.tensor(value)) / 2.0) for value in (0.1, 0.3)]
        kl = soft[0] * (soft[0] / soft[1]).log() + (1 - soft[0]) * ((1 - soft[0]) / (1 - soft[1])).log()
        found = candidate_distance((boxes, ours), (boxes, theirs), 2.0)
        assert float(found) == pytest.approx(float(4.0 * 0.1 * kl / 0.9), rel=1e-3)


WRONG = {
    "tensor": r"a list of 1 dicts, .*it returned a tensor \[1, 5\] of float32",
    "keys": r"it returned a dict \(boxes: a tensor \[1, 4\] of float32\) for image 0",
    "boxes": r"it returned a dict \(boxes: a tensor \[4\] of float32, labels: .*for image 0",
    "labels": r"labels are whole numbers, scores are not; it returned a dict \(.*labels: a tensor \[1\] of float32",
    "losses": r"in training mode, a detector must return a dict of losses.*it returned a tensor \[\] of float32",
}


class TestAUsersOwnDetector:
    def test_is_taken_as_it_is(self) -> None:
        config = config_of("model.name=detectors:own_detector")
        model = TASK.build_model(config.model, TASK.load(config.data), torch.rand(1, 3, SIDE, SIDE))
        with torch.no_grad():
            assert len(model.eval()(torch.rand(2, 3, SIDE, SIDE))) == 2
        assert list(model.state_dict()) == list(own_detector().state_dict())

    @pytest.mark.parametrize("wrong", WRONG)
    def test_that_breaks_the_contract_is_refused_with_what_was_expected_and_what_came(self, wrong: str) -> None:
        config = config_of("model.name=detectors:own_detector", f"model.arguments.wrong={wrong}")
        with pytest.raises(ModelError, match=f"no detector by torchvision's contract: .*{WRONG[wrong]}"):
            TASK.build_model(config.model, TASK.load(config.data), torch.rand(1, 3, SIDE, SIDE))

    def test_that_does_not_run_is_refused_with_the_images(self) -> None:
        config = config_of("model.name=detectors:own_detector")
        with pytest.raises(ModelError, match=r"does not run on an input of shape \[1, 1, 48, 48\]: RuntimeError"):
            TASK.build_model(config.model, TASK.load(config.data), torch.rand(1, 1, SIDE, SIDE))

    @pytest.mark.parametrize("outputs", [None, [None, None], [{}], [{"boxes": 1, "labels": 2, "scores": 3}]])
    def test_outputs_of_any_type_are_described(self, outputs: Any) -> None:
        with pytest.raises(ModelError, match="it returned a"):
            check_detections(outputs, 1)
        with pytest.raises(ModelError, match="it returned a"):
            check_losses(outputs)


def test_images_without_boxes_and_labels_of_one_class_each_are_told_apart() -> None:
    with pytest.raises(DataError, match=r"data\.name: digits given, but its images have no boxes"):
        TASK.load(config_of("data.name=digits").data)
    with pytest.raises(DataError, match=r"data\.name: scattered_digits given, but its images have no single label"):
        Classification().load(config_of().data)


def own_source(labels: Any = (1,), boxes: Any = ((4, 4, 20, 20),), images: int = 2) -> BoxSource:
    """The user's own data set by name: two equal splits of dark images."""
    target = {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), "labels": torch.tensor(labels).long()}
    train, test = (BoxedImages(np.zeros((images, 32, 40, 3), np.uint8), [target] * images) for _ in range(2))
    return BoxSource("own", ("a", "b"), (32, 40), train, test)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"labels": [0]}, r"train split: image 0: labels must be 1 to 2 \(0 is a detector's background\), given 0"),
        ({"labels": [3]}, "labels must be 1 to 2 .*given 3"),
        ({"labels": [1, 2]}, r"labels must be int64 \[1\], one for each box, given \[2\]"),
        ({"boxes": [[20, 4, 4, 20]]}, r"a box must have x0 < x1, y0 < y1 .* the 32x40 image, given \[20.0, 4.0"),
        ({"boxes": [[50, 4, 60, 20]]}, "a box must have"),
        ({"boxes": [[4, 4, float("nan"), 20]]}, "a box must have"),
        ({"labels": [], "boxes": []}, "no training image holds an object"),
        ({"images": 0}, "the train split has no images"),
    ],
)
def test_a_data_set_that_teaches_nothing_or_wrong_things_is_refused(
    monkeypatch: pytest.MonkeyPatch, made: dict[str, Any], words: str
) -> None:
    source = own_source(**made)
    monkeypatch.setattr("prune_env.tasks.detection.task.load_source", lambda *_: source)
    with pytest.raises(DataError, match=words):
        TASK.load(config_of().data)
    source = own_source()
    assert TASK.load(config_of().data) is source
    source.test.targets[1] = {"boxes": torch.zeros(0, 4)}  # type: ignore[index]
    with pytest.raises(
        DataError, match="test split: image 1: a target needs the tensors 'boxes' and 'labels', given boxes"
    ):
        TASK.load(config_of().data)


def test_pretrained_weights_are_refused_for_data_whose_labels_mean_something_else() -> None:
    from prune_env.models.detectors import check_pretrained_names
    from prune_env.models.torchvision_detectors import pretrained_names

    name = "ssdlite320_mobilenet_v3_large"
    coco = list(pretrained_names(name)[1:])
    gaps = [f"unused {label}" if own == "N/A" else own for label, own in enumerate(coco, start=1)]
    check_pretrained_names(name, "pretrained", gaps)
    check_pretrained_names(name, None, ["cat"])
    dense = [own for own in coco if own != "N/A"]
    with pytest.raises(WeightsError, match="label 12 is 'stop sign' in the data set, but 'N/A' to 'ssdlite320"):
        check_pretrained_names(name, "pretrained", dense)
    source = own_source()
    config = config_of(f"model.name={name}", "model.weights=pretrained")
    with pytest.raises(WeightsError, match="label 1 is 'a' in the data set, but 'person'"):
        TASK.build_model(config.model, source, torch.rand(1, 3, 32, 40))


def test_names_of_detectors_are_those_of_torchvision_and_our_own() -> None:
    source = TASK.load(config_of().data)
    with pytest.raises(ModelError, match=r"no detector 'ssdlite320'; did you mean 'ssdlite320_mobilenet_v3_large'"):
        TASK.build_model(config_of("model.name=ssdlite320").model, source, torch.rand(1, 1, 96, 96))
    with pytest.raises(ModelError, match="takes images of 3 channels; the data has 1"):
        TASK.build_model(config_of("model.name=ssd300_vgg16").model, source, torch.rand(1, 1, 96, 96))
    model = TASK.build_model(config_of().model, source, torch.rand(1, 1, 96, 96))
    assert sum(parameter.numel() for parameter in model.parameters()) == 160_606


def test_what_detection_does_not_have_is_refused() -> None:
    model, batch = small_centre(), boxed_batch(2)
    outputs = TASK.forward(model, batch)
    with pytest.raises(ConfigError, match=r"label_smoothing: 0\.1 given"):
        TASK.loss(outputs, batch, "mean", 0.1)
    with pytest.raises(ConfigError, match=r"criterion\.name: this criterion draws targets"):
        TASK.sampled(outputs, batch, torch.Generator())


def test_images_of_different_sizes_are_taken_by_the_small_detector() -> None:
    model, batch = small_centre(), boxed_batch(2)
    small = batch.images[0, :, :32, :40]
    with torch.no_grad():
        one, _ = model([small, batch.images[1]])
        alone = model([torch.nn.functional.pad(small, (0, 8, 0, 16))])[0]
    torch.testing.assert_close(one["boxes"], alone["boxes"])
    with pytest.raises(ValueError, match="targets must be given"):
        small_centre().train()(batch.images)


def test_candidates_that_overlap_a_better_one_of_their_class_go() -> None:
    from prune_env.models.suppression import Rule

    boxes = torch.tensor([[[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 1, 1]]], dtype=torch.float32)
    scores = torch.tensor([[[0.9, 0.1], [0.8, 0.7], [0.5, 0.0], [0.01, 0.01]]])
    (found,) = detections(boxes, scores, Rule(score=0.05, overlap=0.5, most=3))
    assert found["scores"].tolist() == pytest.approx([0.9, 0.7, 0.5])
    assert found["labels"].tolist() == [1, 2, 1]
    (few,) = detections(boxes, scores, Rule(score=0.05, overlap=1.0, candidates=1, by_class=True))
    assert few["scores"].tolist() == pytest.approx([0.9, 0.7])


def test_pictures_show_objects_in_white_and_detections_in_colour() -> None:
    source, batch = TASK.load(config_of().data), boxed_batch(1, colours=1)
    box = torch.tensor([[8.0, 8.0, 24.0, 30.0]])
    target = {"boxes": box, "labels": torch.tensor([2])}

    class Answer:
        detections = ({"boxes": box + 4, "labels": torch.tensor([2]), "scores": torch.tensor([0.9])},)

    given = Batch(torch.zeros_like(batch.images), [target])
    (picture,) = pictures_of(make_task(config_of().task), source, given, Answer())
    assert picture.shape == (288, 288, 3)
    times = 288 // SIDE
    assert picture[8 * times, 16 * times].tolist() == [255, 255, 255]
    assert picture[34 * times, 16 * times].tolist() == [86, 180, 233]
    faint = type("Answer", (), {"detections": ({**Answer.detections[0], "scores": torch.tensor([0.1])},)})
    (without,) = pictures_of(TASK, source, given, faint)
    assert without[34 * times, 16 * times].tolist() == [0, 0, 0]


@pytest.mark.parametrize("box", [[20.0, 20.0, 4.0, 4.0], [4.0, 4.0, 4.0, 20.0], [4.0, float("nan"), 20.0, 20.0]])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_leave_out_boxes_without_area_and_show_any_number_of_channels(box: list[float], channels: int) -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    found = {"boxes": torch.tensor([box]), "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}
    picture = drawn(torch.zeros(channels, 32, 32), nothing, found, ())
    assert picture.shape == (288, 288, 3)
    assert not picture.any()


@pytest.mark.parametrize("name", ["crop_flip", "resized_crop_flip"])
def test_boxes_move_with_the_image(name: str) -> None:
    count = 40
    images = torch.zeros(count, 3, 40, 64)
    images[:, 0, 12:28, 20:44] = 1.0
    target = {"boxes": torch.tensor([[20.0, 12.0, 44.0, 28.0]]), "labels": torch.tensor([2])}
    draws = torch.rand(count, TASK.draws, generator=torch.Generator().manual_seed(0))
    moved = TASK.augment(Batch(images, [target] * count), draws, name)
    assert moved.images.shape == images.shape
    places = set()
    for image, found in zip(moved.images, moved.targets, strict=True):
        bright: Tensor = (image[0] > 0.75).nonzero()
        if not len(found["boxes"]):
            assert len(bright) < 16
            continue
        x0, y0, x1, y1 = found["boxes"][0].tolist()
        edges = [bright[:, 1].min(), bright[:, 0].min(), bright[:, 1].max() + 1, bright[:, 0].max() + 1]
        assert [x0, y0, x1, y1] == pytest.approx([float(edge) for edge in edges], abs=1.6)
        places.add((round(x0), round(y0)))
    assert len(places) > 10
    assert torch.equal(TASK.augment(Batch(images, [target] * count), draws, name).images, moved.images)


def test_boxes_that_leave_the_image_are_dropped_with_their_labels() -> None:
    images = torch.zeros(1, 3, 40, 40)
    targets = [
        {"boxes": torch.tensor([[0.0, 0.0, 5.0, 5.0], [20.0, 20.0, 30.0, 30.0]]), "labels": torch.tensor([1, CLASSES])}
    ]
    moved = TASK.augment(Batch(images, targets), torch.tensor([[0.99, 0.99, 0.9, 0.0, 0.0]]), "crop_flip")
    assert moved.targets[0]["labels"].tolist() == [CLASSES]
    assert moved.targets[0]["boxes"].tolist() == [[15, 15, 25, 25]]
    assert targets[0]["boxes"].shape == (2, 4)

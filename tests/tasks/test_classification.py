"""Classification: metrics, loss, drawn labels and distillation against scikit-learn and formulas written out."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss, top_k_accuracy_score
from torch import Tensor, nn
from toy import TASK, image_set
from zoo import Net

from prune_env import RunConfig
from prune_env.common.errors import DataError, EvaluationError, ModelError
from prune_env.data import ArraySource, Batch, ImageSet, load_source
from prune_env.evaluation.measuring import measure, measure_all
from prune_env.tasks import Reduction
from prune_env.tasks.classification import check_output, sampled_labels
from prune_env.testing import check_task

CLASSES = 9
LABELS = torch.randint(CLASSES, (40,), generator=torch.Generator().manual_seed(1))
LOGITS = 2.0 * torch.randn(40, CLASSES, generator=torch.Generator().manual_seed(0))
BATCH = Batch(torch.arange(40, dtype=torch.float32).view(-1, 1, 1, 1), LABELS)


class Table(nn.Module):
    """Scores by the image's first value."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)
        self.dropped = nn.Dropout(0.9)

    def forward(self, images: Tensor) -> Tensor:
        return self.dropped(self.rows[images[:, 0, 0, 0].long()])


@pytest.mark.parametrize("size", [1, 3, 40])
def test_metrics_are_those_of_scikit_learn_whatever_the_batches(size: int) -> None:
    model = Table(LOGITS).train()
    found, _ = measure_all(model, ImageSet(*BATCH).batches(size), TASK)
    every = list(range(CLASSES))
    assert list(found) == ["accuracy", "top5", "loss"]
    assert found["accuracy"] == pytest.approx(top_k_accuracy_score(LABELS, LOGITS, k=1, labels=every))
    assert found["top5"] == pytest.approx(top_k_accuracy_score(LABELS, LOGITS, k=5, labels=every))
    assert 0 < found["accuracy"] < found["top5"] < 1
    assert found["loss"] == pytest.approx(log_loss(LABELS, softmax(LOGITS.double().numpy(), axis=1), labels=every))
    assert model.training
    assert measure(model.eval(), ImageSet(*BATCH).batches(size), TASK) == (found["accuracy"], found["loss"], 40)


def test_of_four_classes_the_right_one_is_always_among_five() -> None:
    images = ImageSet(BATCH.images[:4], torch.tensor([0, 1, 2, 0]))
    found, _ = measure_all(Table(torch.eye(4)), images.batches(4), TASK)
    assert (found["accuracy"], found["top5"]) == (0.75, 1.0)


def test_a_metric_that_is_reset_knows_no_earlier_batch() -> None:
    for metric in TASK.metrics():
        metric.update(-LOGITS, BATCH)
        metric.reset()
        metric.update(F.one_hot(LABELS, CLASSES), BATCH)
        assert metric.compute() == 1.0


def test_the_loss_is_the_cross_entropy_of_each_image() -> None:
    logits = LOGITS.double().numpy()
    by_hand = -log_softmax(logits, axis=1)[np.arange(40), LABELS]
    each = TASK.loss(LOGITS, BATCH)
    assert each.numpy() == pytest.approx(by_hand, rel=1e-5)
    assert float(TASK.loss(LOGITS, BATCH, "mean")) == pytest.approx(by_hand.mean(), rel=1e-5)
    assert float(TASK.loss(LOGITS, BATCH, "sum")) == pytest.approx(by_hand.sum(), rel=1e-5)
    assert TASK.loss(LOGITS.bfloat16(), BATCH).dtype == torch.float32


def test_smoothing_spreads_a_label_over_all_classes() -> None:
    spread = 0.7 * np.eye(CLASSES)[LABELS] + 0.3 / CLASSES
    by_hand = -(spread * log_softmax(LOGITS.double().numpy(), axis=1)).sum(axis=1)
    assert TASK.loss(LOGITS, BATCH, "none", 0.3).numpy() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_is_the_divergence_of_the_softened_outputs(temperature: float) -> None:
    student, teacher = (scores.double().numpy() / temperature for scores in (LOGITS, LOGITS.flip(0)))
    divergence = (softmax(teacher, axis=1) * (log_softmax(teacher, axis=1) - log_softmax(student, axis=1))).sum(axis=1)
    found = TASK.distillation(LOGITS, LOGITS.flip(0), BATCH, temperature)
    assert float(found) == pytest.approx(temperature**2 * divergence.mean(), rel=1e-5)
    assert float(TASK.distillation(LOGITS, LOGITS + 5.0, BATCH, temperature)) == pytest.approx(0.0, abs=1e-5)


def test_labels_are_drawn_from_the_softmax() -> None:
    outputs = torch.tensor([[0.0, 1.0, 2.0]]).repeat(20_000, 1)
    shares = torch.bincount(sampled_labels(outputs, torch.Generator().manual_seed(0)), minlength=3) / 20_000
    assert shares.numpy() == pytest.approx(outputs[0].softmax(0).numpy(), abs=0.02)


def test_drawn_labels_belong_to_the_same_images_and_follow_from_the_generator() -> None:
    first, second = (TASK.sampled(LOGITS, BATCH, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.images is BATCH.images
    assert torch.equal(first.targets, second.targets)
    assert not torch.equal(first.targets, BATCH.targets)


def test_labels_are_not_drawn_from_what_is_not_finite() -> None:
    with pytest.raises(EvaluationError, match="not finite"):
        TASK.sampled(LOGITS / 0.0, BATCH, torch.Generator())


def test_images_are_varied_and_labels_are_not() -> None:
    images = image_set(8)
    draws = torch.rand(8, TASK.draws, generator=torch.Generator().manual_seed(0))
    varied = TASK.augment(Batch(images.images, images.targets), draws, "crop_flip")
    assert not torch.equal(varied.images, images.images)
    assert torch.equal(varied.targets, images.targets)


def test_subsets_are_balanced_by_the_label() -> None:
    digits = TASK.load(RunConfig.from_mapping({"model": {"name": "x"}, "data": {"name": "digits"}}).data)
    assert isinstance(digits, ArraySource)
    strata = [TASK.stratum(target) for target in digits.targets("test")]
    assert strata == load_source("digits").test.labels.tolist()


def test_a_data_set_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DataError, match="digits"):
        TASK.load(RunConfig.from_mapping({"model": {"name": "x"}, "data": {"name": "digit"}}).data)


class Heads(nn.Module):
    """A table of scores that gives its second head in training mode, and None in its place in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.second = Table(LOGITS), Table(LOGITS.flip(0))
        self.main.dropped = self.second.dropped = nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.main(images), self.second(images) if self.training else None


class TestANetworkWithTwoHeads:
    def test_is_measured_by_its_main_head(self) -> None:
        found, alone = (measure_all(model, ImageSet(*BATCH).batches(7), TASK)[0] for model in (Heads(), Table(LOGITS)))
        assert found == alone

    @pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
    def test_is_trained_on_both(self, reduction: Reduction) -> None:
        outputs = TASK.forward(Heads().train(), BATCH)
        main, second = (TASK.loss(scores, BATCH, reduction, 0.1) for scores in (LOGITS, LOGITS.flip(0)))
        torch.testing.assert_close(TASK.loss(outputs, BATCH, reduction, 0.1), main + 0.3 * second)

    def test_is_student_and_teacher_by_its_main_head(self) -> None:
        student, teacher = TASK.forward(Heads().train(), BATCH), TASK.forward(Heads().eval(), BATCH)
        assert TASK.distillation(student, teacher, BATCH, 2.0).item() == pytest.approx(0.0, abs=1e-6)
        found = TASK.distillation(student, LOGITS.flip(0), BATCH, 2.0)
        torch.testing.assert_close(found, TASK.distillation(LOGITS, LOGITS.flip(0), BATCH, 2.0))

    def test_keeps_the_promises_of_a_task(self) -> None:
        check_task("classification", Heads(), BATCH)


def built(*overrides: str) -> nn.Module:
    config = RunConfig.from_mapping({"model": {"name": "digits_resnet"}, "data": {"name": "digits"}}, overrides)
    return TASK.build_model(config.model, TASK.load(config.data), torch.zeros(1, 1, 8, 8))


def test_a_network_has_one_output_for_each_class_of_the_data() -> None:
    assert built().eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(ModelError, match=r"of shape \[1, 7\]; a tensor of shape \[1, 10\] is needed"):
        built("model.arguments={classes: 7}")


def classifier(output: Callable[[Tensor], object]) -> nn.Module:
    """A network for images [N, 3, 8, 8] whose output is the given function of ten scores."""
    return Net(lambda net, x: output(net.fc(x.flatten(1))), fc=nn.Linear(3 * 64, 10))


WRONG_OUTPUTS = {
    "five outputs": (lambda x: x[:, :5], r"of shape \[{n}, 5\]"),
    "a dict of two": (lambda x: {"left": x, "right": x}, r"a dict \(left: of shape .*, right: of shape .*\)"),
    "a tuple of unlike tensors": (lambda x: (x[:, :5], x), r"a tuple \(of shape \[{n}, 5\], of shape \[{n}, 10\]\)"),
    "a map": (lambda x: x[:, :, None, None], r"of shape \[{n}, 10, 1, 1\]"),
    "no batch": (lambda x: x[0], r"of shape \[10\]"),
    "another batch": (lambda x: torch.cat([x, x]), r"of shape \[{m}, 10\]"),
    "nothing": (lambda _: None, "a NoneType"),
}


class TestTheOutput:
    @pytest.mark.parametrize("wrong", WRONG_OUTPUTS)
    def test_that_is_not_a_score_for_each_class_is_refused_with_what_is_needed(self, wrong: str) -> None:
        output, found = WRONG_OUTPUTS[wrong]
        model = classifier(output).eval()
        images = ImageSet(image_set(12, colours=3).images, torch.arange(12) % 10)
        needed = r"The network's output is {}; a tensor of shape \[{}, (10|classes)\] is needed"
        with pytest.raises(ModelError, match=needed.format(found.format(n=1, m=2), 1)):
            check_output(model, images.images[:1], 10)
        with pytest.raises(ModelError, match=needed.format(found.format(n=12, m=24), 12)):
            measure(model, images.batches(12), TASK)

    def test_with_more_scores_than_classes_is_taken(self) -> None:
        check_output(classifier(lambda x: x), torch.zeros(1, 3, 8, 8), 7)

    def test_is_looked_at_in_eval_mode_without_gradients_and_leaves_the_modes(self) -> None:
        seen: list[tuple[bool, bool]] = []
        model = classifier(lambda x: x)
        model.fc.register_forward_hook(lambda module, _, output: seen.append((module.training, output.requires_grad)))
        model.train()
        model.fc.eval()
        check_output(model, torch.zeros(1, 3, 8, 8), 10)
        assert seen == [(False, False)]
        assert model.training
        assert not model.fc.training

    @pytest.mark.parametrize("error", [KeyError("mine"), AttributeError("mine"), ZeroDivisionError("mine")])
    def test_of_a_network_that_does_not_run_is_refused_with_the_images_shape(self, error: Exception) -> None:
        def fail(_: Tensor) -> Tensor:
            raise error

        model = classifier(fail).train()
        with pytest.raises(ModelError, match=r"does not run on an input of shape \[1, 3, 8, 8\]: .*mine"):
            check_output(model, torch.zeros(1, 3, 8, 8), 10)
        assert model.training

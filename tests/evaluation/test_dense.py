"""The dense network is measured before anything else; one that does not know its images is refused, with reasons."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from toy import TASK, digits_config, digits_splits, trained_digits

from prune_env.common.errors import DoubtfulNetworkError, DoubtfulNetworkWarning
from prune_env.data import Splits
from prune_env.env.loading import load_splits
from prune_env.evaluation.dense import DenseQuality, far_above, measure_dense
from prune_env.evaluation.pairs import Pairs
from prune_env.runs.starting import check_dense
from prune_env.tasks import Metric, make_task, quality_of

CPU = torch.device("cpu")
METRIC = quality_of(TASK)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load_splits(digits_config("data.reward_images=400"))


def scaled(splits: Splits, mean: float, std: float) -> Splits:
    return replace(splits, source=replace(splits.source, mean=(mean,), std=(std,)))


class After(nn.Module):
    """A network with its scores changed."""

    def __init__(self, model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.model(images))


def test_a_trained_network_on_its_own_images_is_beyond_doubt_and_unchanged(splits: Splits) -> None:
    model = trained_digits()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    dense = measure_dense(model, splits, TASK, CPU)
    assert not dense.doubtful
    assert dense.quality > 0.95
    assert (dense.chance, dense.images, dense.suspicions) == (0.1, 400, ())
    assert str(dense) == f"dense network: accuracy {dense.quality:.2%} on 400 reward images"
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 1 / 255), (0.0, 1.0), (0.485, 0.229)], ids=["0..255", "0..1", "of other images"]
)
def test_wrong_scaling_is_found_by_new_batch_norm_statistics(splits: Splits, mean: float, std: float) -> None:
    dense = measure_dense(trained_digits(), scaled(splits, mean, std), TASK, CPU)
    assert dense.misread
    assert dense.doubtful
    assert f"{dense.recalibrated:.2%} with batch norms measured anew" in dense.doubts()
    assert f"mean {mean:.4g}, std {std:.4g}, values from" in dense.doubts()


def test_random_weights_are_near_chance(splits: Splits) -> None:
    torch.manual_seed(0)
    model = make_task().build_model(digits_config().model, splits.source, splits.reward().images[:1])
    dense = measure_dense(model.eval(), splits, TASK, CPU)
    assert dense.near_chance
    assert "within 3 standard errors of chance (10.00% without a look at the image, up to 14.50%)" in dense.doubts()


def test_classes_in_another_order_are_recognised(splits: Splits) -> None:
    order = [3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    dense = measure_dense(After(trained_digits(), lambda scores: scores[:, order]), splits, TASK, CPU)
    assert dense.near_chance
    (reason,) = dense.suspicions
    assert reason.startswith("class order: with its classes in another order the network would be right on 9")


def test_one_answer_for_all_images_is_recognised(splits: Splits) -> None:
    dense = measure_dense(After(trained_digits(), lambda scores: scores * 0 + torch.arange(10.0)), splits, TASK, CPU)
    (reason,) = dense.suspicions
    assert reason.startswith("the network gives class 9 for 100% of the images")


def test_the_quality_is_that_of_all_images_and_the_comparison_that_of_some(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure_dense(trained_digits(), scaled(splits, 0.0, 1.0), TASK, CPU)
    monkeypatch.setattr("prune_env.evaluation.dense.LOOKED_AT", 300)
    parts = measure_dense(trained_digits(), scaled(splits, 0.0, 1.0), TASK, CPU)
    assert parts.quality == pytest.approx(whole.quality)
    assert (whole.compared, parts.compared, parts.images) == (400, 300, 400)
    assert parts.misread


def test_the_same_images_are_compared_one_by_one(splits: Splits) -> None:
    dense = measure_dense(trained_digits(), scaled(splits, 0.485, 0.229), TASK, CPU)
    assert dense.pairs is not None
    assert dense.pairs.images == dense.compared == 400
    assert dense.pairs.difference == pytest.approx(dense.recalibrated - dense.original)


@pytest.mark.parametrize(
    ("pairs", "misread"),
    [
        (Pairs(won=9, lost=0, images=400), True),
        (Pairs(won=8, lost=0, images=400), False),
        (Pairs(won=60, lost=51, images=400), False),
        (Pairs(won=0, lost=9, images=400), False),
    ],
    ids=["9 to 0", "8 to 0", "60 to 51", "worse"],
)
def test_a_rise_is_believed_where_the_images_agree_on_it(pairs: Pairs, misread: bool) -> None:
    dense = DenseQuality(METRIC, 0.9, 0.9 + pairs.difference, 0.9, 400, 0.1, 400, "", pairs=pairs)
    assert dense.misread is misread


def test_a_quality_that_does_not_name_its_right_images_asks_for_a_larger_rise() -> None:
    # Two shares of 400 images: three standard errors of their difference are 6.4 points.
    assert not DenseQuality(METRIC, 0.9, 0.96, 0.9, 400, 0.1, 400, "").misread
    assert DenseQuality(METRIC, 0.9, 0.97, 0.9, 400, 0.1, 400, "").misread


def test_too_few_images_tell_nothing() -> None:
    dense = DenseQuality(METRIC, 1.0, 1.0, 1.0, 4, 0.5, 4, "")
    assert dense.bound > 1
    assert dense.near_chance
    assert not far_above(1.0, 0.0, METRIC, 0)


def test_a_quality_that_counts_no_images_is_near_chance_at_nothing() -> None:
    class Overlap(type(METRIC)):  # type: ignore[misc]
        counts = False

    metric: Metric = Overlap()
    assert DenseQuality(metric, 0.01, 0.01, 0.01, 10, 0.0, 10, "").near_chance
    assert not DenseQuality(metric, 0.02, 0.02, 0.02, 10, 0.0, 10, "").doubtful
    assert DenseQuality(metric, 0.2, 0.31, 0.2, 10, 0.0, 10, "").misread
    assert not DenseQuality(metric, 0.2, 0.29, 0.2, 10, 0.0, 10, "").misread


def test_a_doubtful_network_is_refused_unless_forced() -> None:
    settings = digits_config("run.force=false")
    splits = digits_splits()
    torch.manual_seed(0)
    model = make_task().build_model(settings.model, splits.source, splits.reward().images[:1]).eval()
    heard: list[DenseQuality] = []
    with pytest.raises(DoubtfulNetworkError, match=r"(?s)reasons:\n  - weights: model\.weights is null.*--force"):
        check_dense(settings, splits, model, on_dense=heard.append)
    assert [dense.near_chance for dense in heard] == [True]
    with pytest.warns(DoubtfulNetworkWarning, match="Likely reasons"):
        check_dense(digits_config("run.force=true"), splits, model)
    check_dense(settings, splits, trained_digits())

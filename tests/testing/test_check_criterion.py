"""Every promise that a criterion can break, and the sentence that says so."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from prune_env.common.errors import ConfigError
from prune_env.criteria import CRITERIA, ScoringContext, register_criterion
from prune_env.testing import check_criterion
from prune_env.walk import Scores

pytestmark = pytest.mark.usefixtures("same_global_state")


def norms(context: ScoringContext) -> Scores:
    return {unit.name: context.walk.magnitudes(unit) for unit in context.walk.units}


def shifted(context: ScoringContext, by: float) -> Scores:
    return {unit: values + by for unit, values in norms(context).items()}


class TestCriterion:
    def test_that_keeps_them_passes_registered_or_not(self) -> None:
        check_criterion(norms)
        with CRITERIA.restored():
            check_criterion(register_criterion("norms")(norms))
            check_criterion("norms")

    def test_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'l1'"):
            check_criterion("L1")

    @pytest.mark.parametrize(
        ("scores", "words"),
        [
            (lambda context: {**norms(context), "0.0": np.full(6, np.nan)}, "gave unit '0.0' a score that is not fin"),
            (lambda context: {**norms(context), "0.0": np.zeros(5)}, r"gave unit '0.0' scores of shape \(5,\)"),
            (lambda _: {"0.0": np.zeros(6)}, r"gave unit '\S+' no scores"),
            (lambda context: context.walk.nothing, "AttributeError: .*'nothing'"),
        ],
    )
    def test_gives_finite_scores_to_every_channel(self, scores: Callable[[ScoringContext], Scores], words: str) -> None:
        with pytest.raises(AssertionError, match=rf"^criterion '.*lambda.*' fails on a chain .*{words}"):
            check_criterion(scores)

    def test_goes_by_no_global_generator(self) -> None:
        for draw in (lambda: np.random.rand(), lambda: float(torch.rand(()))):
            with pytest.raises(AssertionError, match=r"other scores the second time.*draw from .*context\.seed"):
                check_criterion(lambda context, draw=draw: shifted(context, draw()))  # type: ignore[misc]

    def test_keeps_nothing_between_calls(self) -> None:
        calls = itertools.count()
        with pytest.raises(AssertionError, match=r"unit '0\.0': it gives other scores the second time"):
            check_criterion(lambda context: shifted(context, next(calls)))

    def test_goes_by_the_seed_only_where_it_says_so(self) -> None:
        def seeded(context: ScoringContext) -> Scores:
            return shifted(context, context.seed)

        check_criterion(seeded)
        seeded.random = False  # type: ignore[attr-defined]
        with pytest.raises(AssertionError, match="gives other scores for another seed, and says random=False"):
            check_criterion(seeded)

    def test_looks_at_images_and_targets_only_where_it_says_so(self) -> None:
        def looking(context: ScoringContext) -> Scores:
            return shifted(context, 0.0 if context.data is None else float(context.images.sum()))

        def reading(context: ScoringContext) -> Scores:
            assert context.data is not None
            assert isinstance(context.data.targets, torch.Tensor)
            return shifted(context, float(context.data.targets[0]))

        check_criterion(looking)
        looking.needs = "images"  # type: ignore[attr-defined]
        check_criterion(looking)
        looking.needs = "weights"  # type: ignore[attr-defined]
        with pytest.raises(AssertionError, match="gives other scores without images, and says needs='weights'"):
            check_criterion(looking)
        check_criterion(reading)
        reading.needs = "images"  # type: ignore[attr-defined]
        with pytest.raises(AssertionError, match="gives other scores for other targets, and says needs='images'"):
            check_criterion(reading)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda context: context.walk.model(context.images), r"changes the network's tensor '.*running_mean'"),
            (lambda context: context.walk.model.eval(), "which modules are in training mode"),
            (lambda context: context.walk.model.requires_grad_(False), "which parameters need gradients"),
            (lambda context: context.walk.model.register_forward_hook(print), "how many hooks modules have"),
            (lambda context: context.walk.model.register_buffer("x", torch.ones(1)), "which tensors the network has"),
            (lambda context: context.images.mul_(0.0), "changes the images or targets"),
            (lambda context: context.walk.model[0][0].weight.sum().backward(), "which parameters hold gradients"),
        ],
    )
    def test_changes_nothing(self, change: Callable[[Any], object], words: str) -> None:
        def changing(context: ScoringContext) -> Scores:
            change(context)
            return norms(context)

        with pytest.raises(AssertionError, match=f"on a chain of convolutions: it .*{words}"):
            check_criterion(changing)

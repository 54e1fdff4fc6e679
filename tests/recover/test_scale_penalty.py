"""The penalty `bn_scale`: the L1 norm of the scales of units that may be cut, and of nothing else."""

import pytest
import torch
from penalised import context_of, trained_with
from torch import nn
from toy import toy_resnet, toy_walk

from prune_env.common.errors import ConfigError
from prune_env.recover.penalties import PenaltyContext, ScalePenalty


def attached(protect: tuple[str, ...] = (), **given: object) -> ScalePenalty:
    context = context_of(**given)
    walk = toy_walk(context.model, dict.fromkeys(protect, "mine"))
    penalty = ScalePenalty(PenaltyContext(context.settings, context.model, context.images, frozenset(), lambda: walk))
    penalty.attach(penalty.network(context.model), None, lambda value: value)
    return penalty


def test_the_penalty_is_l1_of_the_scales() -> None:
    penalty = attached(strength=0.5)
    model = penalty.model
    norms = [model.get_submodule(name).weight.detach() for name in ("stem_bn", "down_bn", "up_bn")]
    assert float(penalty.penalty().detach()) == pytest.approx(0.5 * float(torch.cat(norms).abs().sum()), rel=1e-5)


def test_only_scales_of_units_that_may_be_cut_are_pulled() -> None:
    penalty = attached(protect=("down",))
    penalty.penalty().backward()
    touched = {name for name, parameter in penalty.model.named_parameters() if parameter.grad is not None}
    assert touched == {"stem_bn.weight", "up_bn.weight"}


def test_training_shrinks_scales_and_leaves_a_plain_network() -> None:
    sums = {}
    for strength in (0.0, 0.05):
        penalty, trainer = trained_with("bn_scale", strength=strength, epochs=6)
        norms = [trainer.result.get_submodule(name).weight.detach() for name in ("stem_bn", "down_bn", "up_bn")]
        sums[strength] = float(torch.cat(norms).abs().sum())
    assert sums[0.05] < 0.8 * sums[0.0]
    assert penalty.finish(trainer.result).state_dict().keys() == toy_resnet().state_dict().keys()
    assert set(penalty.record(trainer.result)["shares"]) == {"stem_bn", "down_bn", "up_bn"}


def test_a_network_without_norms_to_cut_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    with pytest.raises(ConfigError, match="'bn_scale' shrinks the scales of batch norms, but no unit"):
        ScalePenalty(context_of(model))

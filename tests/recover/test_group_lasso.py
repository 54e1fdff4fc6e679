"""The penalty `group_lasso`: a channel's norm covers what its cut removes, and weak channels are pulled ever harder."""

import math

import pytest
import torch
from penalised import context_of, trained_with, trainer_with
from torch import nn
from toy import image_set, toy_resnet, toy_walk
from zoo import Net

from prune_env.recover.penalties import GroupLasso
from prune_env.walk import LayerWalk
from prune_env.walk.unit import Unit


def attached(model: nn.Module | None = None, **given: object) -> GroupLasso:
    context = context_of(model, **given)
    penalty = GroupLasso(context)
    penalty.attach(penalty.network(context.model), None, lambda value: value)
    return penalty


def weights_in(model: nn.Module) -> float:
    """The sum of the squares of all weights of layers and scales of batch norms."""
    return sum(float(module.weight.detach().square().sum()) for module in model.modules() if hasattr(module, "weight"))


def unit_of(walk: LayerWalk, name: str) -> Unit:
    return next(unit for unit in walk.units if unit.name == name)


@pytest.mark.parametrize("name", ["stem", "down", "up", "mid"])
def test_a_channel_s_norm_covers_what_its_cut_removes(name: str) -> None:
    model = toy_resnet()
    walk = toy_walk(model)
    unit = unit_of(walk, name)
    norms = GroupLasso(context_of(model)).norms(unit, model)
    for channel in (0, unit.channels - 1):
        left = [other for other in range(unit.channels) if other != channel]
        smaller = walk.plan_keeping({name: left}).apply(model)
        assert float(norms[channel].detach()) == pytest.approx(
            math.sqrt(weights_in(model) - weights_in(smaller)), rel=1e-3
        )


def test_depthwise_and_grouped_weights_count_once() -> None:
    model = Net(
        lambda net, images: net.fc(torch.relu(net.last(net.deep(net.first(images)))).mean((2, 3))),
        first=nn.Conv2d(2, 6, 3),
        deep=nn.Conv2d(6, 6, 3, groups=6),
        last=nn.Conv2d(6, 4, 1),
        fc=nn.Linear(4, 3),
    ).eval()
    walk = toy_walk(model)
    norms = GroupLasso(context_of(model)).norms(unit_of(walk, "first"), model)
    smaller = walk.plan_keeping({"first": [0, 1, 2, 4, 5]}).apply(model)
    assert float(norms[3].detach()) == pytest.approx(math.sqrt(weights_in(model) - weights_in(smaller)), rel=1e-3)


def test_the_penalty_is_the_sum_of_norms_at_the_start() -> None:
    penalty = attached(strength=0.5)
    walk = toy_walk()
    expected = sum(float(penalty.norms(unit, penalty.model).detach().sum()) for unit in walk.free)
    assert float(penalty.penalty().detach()) == pytest.approx(0.5 * expected, rel=1e-5)


def test_protected_units_are_left_alone() -> None:
    context = context_of()
    walk = toy_walk(context.model, protect=dict.fromkeys(("stem", "down", "up"), "mine"))
    penalty = GroupLasso(type(context)(context.settings, context.model, context.images, frozenset(), lambda: walk))
    penalty.attach(penalty.network(context.model), None, lambda value: value)
    penalty.penalty().backward()
    touched = {name for name, parameter in context.model.named_parameters() if parameter.grad is not None}
    assert touched == {"mid.weight", "out.weight"}


def test_strengths_grow_for_weak_channels_as_the_training_goes() -> None:
    penalty = attached(growth=15.0, strength=1.0)
    model, unit = penalty.model, unit_of(toy_walk(), "stem")
    norms = penalty.norms(unit, model).detach()
    weakest, strongest = int(norms.argmin()), int(norms.argmax())
    for step in range(1, 11):
        penalty.progress(step / 10)
    gradients = torch.autograd.grad(penalty.penalty(), model.get_submodule("stem_bn").weight)[0]
    pulls = gradients.abs() * norms / model.get_submodule("stem_bn").weight.detach().abs()
    assert float(pulls[weakest]) == pytest.approx(16.0, rel=1e-3)
    assert float(pulls[strongest]) == pytest.approx(1.0, rel=1e-3)


def test_a_channel_of_zeros_has_a_finite_gradient() -> None:
    model = toy_resnet()
    for parameter in model.parameters():
        parameter.data.zero_()
    penalty = attached(model)
    penalty.progress(0.5)
    penalty.penalty().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_training_shrinks_the_weak_channels_of_units_and_keeps_the_strong_ones() -> None:
    shrunk, strong = {}, {}
    for strength in (0.0, 0.05):
        penalty, trainer = trained_with("group_lasso", strength=strength, epochs=6)
        assert isinstance(penalty, GroupLasso)
        norms = {unit.name: penalty.norms(unit, trainer.result).detach() for unit in penalty.units}
        shrunk[strength] = {name: float(one.min()) for name, one in norms.items()}
        strong[strength] = {name: float(one.min() / one.max()) for name, one in norms.items()}
    assert all(shrunk[0.05][name] < 0.5 * shrunk[0.0][name] for name in shrunk[0.0])
    assert all(strong[0.05][name] < strong[0.0][name] for name in strong[0.0])
    assert max(penalty.record(trainer.result)["shares"].values()) > 0.1


def test_the_plain_network_has_the_same_weights_and_no_buffers_of_growth() -> None:
    penalty, trainer = trained_with("group_lasso", average=0.3)
    images = image_set(5).images
    expected = trainer.result.eval()(images)
    plain = penalty.finish(trainer.result)
    assert torch.equal(plain(images), expected)
    assert plain.state_dict().keys() == toy_resnet().state_dict().keys()


def test_a_resumed_training_grows_as_one_that_was_not_interrupted() -> None:
    _, whole = trained_with("group_lasso", strength=0.02, epochs=4)
    _, half = trainer_with("group_lasso", strength=0.02, epochs=4)
    for _ in range(2):
        half.run_epoch()
    _, other = trainer_with("group_lasso", strength=0.02, epochs=4)
    other.resume(half.state(), 2)
    for _ in range(2):
        other.run_epoch()
    expected = whole.state()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in other.state().items())

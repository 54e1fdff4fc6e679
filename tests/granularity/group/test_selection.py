"""Selectors in a training: fewer inputs step by step, then a choice that stays, the same however it is interrupted."""

from math import ceil

import numpy as np
import pytest
import torch
from practice import CPU, batches_of, network, settings_of
from torch import Tensor, nn
from toy import CLASSES, TASK, image_set, toy_walk
from zoo import Net, conv

from prune_env import LayerWalk, PruningPlan
from prune_env.config.training import FinetuneSection
from prune_env.data import ArraySource, LabelledArrays
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.granularity.group.edit import GroupEdit, groups_of
from prune_env.granularity.group.selected_groups import apply_with_selectors, without_selectors
from prune_env.granularity.group.selection import SelectorTraining, selectors_of
from prune_env.granularity.group.selectors import RAMP, GroupPrunedConv2d
from prune_env.recover import Batches, Trainer, Workers

FROZEN = ceil(20 * RAMP[1])
"""The first of the 20 steps of four epochs in which the choice stays."""


def planned() -> tuple[LayerWalk, PruningPlan]:
    """The small network of `practice`; ``up`` reads 2 of 6 channels in 2 groups, ``mid`` 3 of 8 in 4."""
    walk = toy_walk(network().eval())
    grouped = {
        "up": GroupEdit(inputs=[[0, 3], [1, 5]], filters=[[0, 1, 2, 3], [4, 5, 6, 7]]),
        "mid": GroupEdit(
            inputs=[[0, 1, 2], [0, 1, 7], [3, 5, 6], [4, 6, 7]], filters=[[0, 1, 5], [2, 3, 4], [6, 8, 11], [7, 9, 10]]
        ),
    }
    return walk, walk.plan_keeping({}, grouped)


def selecting() -> nn.Module:
    """A network with selectors, always the same one."""
    walk, plan = planned()
    torch.manual_seed(1)
    return apply_with_selectors(plan, walk.model)


def trainer_of(settings: FinetuneSection, model: nn.Module, penalty: float = 1e-3) -> Trainer:
    execution = ExecutionSettings.for_training(settings.layout or "contiguous", settings.dtype or "float32")
    batches = batches_of(settings)
    return Trainer(model, batches, settings, 0, Workers(CPU), execution, trainable=SelectorTraining(penalty))


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two states are equal byte for byte, including NaNs and signed zeros."""
    return one.keys() == other.keys() and all(
        one[name].contiguous().numpy().tobytes() == other[name].contiguous().numpy().tobytes() for name in one
    )


@pytest.mark.parametrize("average", [0.0, 0.3])
def test_the_inputs_that_are_read_fall_from_all_to_those_wanted(average: float) -> None:
    model = selecting()
    trainer = trainer_of(settings_of(epochs=4, average=average), model)
    live, kept = selectors_of(model), selectors_of(trainer.result)
    seen: list[list[int]] = []

    def look(_: int) -> None:
        seen.append([layer.reads for layer in live])
        assert [layer.reads for layer in kept] == seen[-1]

    for _ in range(4):
        trainer.run_epoch(look)
    assert seen[0] == [6, 8]
    for counts, wanted in zip(zip(*seen, strict=True), (2, 3), strict=True):
        assert list(counts) == sorted(counts, reverse=True)
        assert set(counts[FROZEN - 1 :]) == {wanted}
        assert len(set(counts)) > 3


@pytest.mark.parametrize("average", [0.0, 0.3])
def test_the_choice_is_made_at_the_end_of_the_ramp_and_stays(average: float) -> None:
    model = selecting()
    trainer = trainer_of(settings_of(epochs=4, average=average), model)
    live, kept = selectors_of(model), selectors_of(trainer.result)
    frozen: list[bool] = []
    shares: list[list[Tensor]] = []

    def look(_: int) -> None:
        states = {layer.frozen for layer in (*live, *kept)}
        assert len(states) == 1
        frozen.extend(states)
        if live[0].frozen:
            shares.append([layer.shares.clone() for layer in live])
            for one, other in zip(live, kept, strict=True):
                assert torch.equal(one.shares, other.shares)
        else:
            assert not any(layer.shares.any() for layer in (*live, *kept))

    for _ in range(4):
        trainer.run_epoch(look)
    assert frozen == [False] * (FROZEN - 1) + [True] * (21 - FROZEN)
    assert all(torch.equal(one, other) for found in shares for one, other in zip(found, shares[0], strict=True))
    for layer, groups, inputs in zip(live, (2, 4), (2, 3), strict=True):
        assert (layer.shares > 0).sum(1).tolist() == [inputs] * groups


@pytest.mark.parametrize("average", [0.0, 0.3])
def test_the_kept_network_has_no_selectors(average: float) -> None:
    walk, plan = planned()
    trainer = trainer_of(settings_of(epochs=4, average=average), selecting())
    for _ in range(4):
        trainer.run_epoch()
    images = image_set(8).images
    exported, _ = without_selectors(trainer.result, plan, walk)
    with torch.no_grad():
        torch.testing.assert_close(exported(images), trainer.result(images), rtol=1e-5, atol=1e-5)


def test_frozen_selectors_learn_no_more_while_the_kernels_do() -> None:
    model = selecting()
    trainer = trainer_of(settings_of(epochs=4, weight_decay=0.0, learning_rate=0.05), model, penalty=1.0)
    for _ in range(3):
        trainer.run_epoch()
    # The selectors keep the momentum that they had.
    before = copied(dict(model.named_parameters()))
    means = [layer.means.clone() for layer in selectors_of(model)]
    for layer in selectors_of(model):
        assert layer.penalty().item() == 0.0
    trainer.run_epoch()
    assert all(torch.equal(layer.means, mean) for layer, mean in zip(selectors_of(model), means, strict=True))
    for parameter in (parameter for layer in selectors_of(model) for parameter in layer.selector.parameters()):
        assert parameter.grad is not None
        assert not parameter.grad.any()
    assert not torch.equal(dict(model.named_parameters())["up.convolution.weight"], before["up.convolution.weight"])


@pytest.mark.parametrize(
    ("given", "done"),
    [
        ({}, 1),
        ({"average": 0.3}, 2),
        ({"average": 0.3}, 3),
        ({"layout": "channels_last"}, 3),
        ({"dtype": "bfloat16"}, 2),
    ],
    ids=str,
)
@pytest.mark.slow
def test_a_resumed_training_ends_as_one_that_was_not_interrupted(given: dict[str, str], done: int) -> None:
    settings = settings_of(epochs=4, augment="crop_flip", **given)
    whole = trainer_of(settings, selecting())
    expected = [whole.run_epoch().loss for _ in range(4)]
    half = trainer_of(settings, selecting())
    for _ in range(done):
        half.run_epoch()
    state = half.state()
    half.run_epoch()
    other = trainer_of(settings, apply_with_selectors(planned()[1], planned()[0].model))
    assert not equal(other.state(), state)
    other.resume(state, done)
    assert equal(other.state(), state)
    for one, two in zip(selectors_of(other.result), selectors_of(half.result), strict=True):
        assert one.frozen == (5 * done >= FROZEN)
        assert two.frozen == (5 * done + 5 >= FROZEN)
    assert [other.run_epoch().loss for _ in range(4 - done)] == expected[done:]
    assert equal(other.state(), whole.state())
    assert equal(copied(other.result.state_dict()), copied(whole.result.state_dict()))


@pytest.mark.parametrize("epochs", [3, 5])
def test_a_resumed_selection_is_as_frozen_as_it_was_whatever_the_number_of_epochs(epochs: int) -> None:
    settings = settings_of(epochs=epochs)
    trainer = trainer_of(settings, selecting())
    for done in range(1, epochs):
        trainer.run_epoch()
        other = trainer_of(settings, selecting())
        other.resume(trainer.state(), done)
        pairs = list(zip(selectors_of(trainer.result), selectors_of(other.result), strict=True))
        assert all((one.frozen, one.reads) == (two.frozen, two.reads) for one, two in pairs)
    assert trainer.run_epoch().loss == other.run_epoch().loss


def test_the_penalty_lowers_the_gates() -> None:
    gates = []
    for penalty in (0.0, 5.0):
        model = selecting()
        trainer = trainer_of(settings_of(epochs=8, weight_decay=0.0), model, penalty)
        for _ in range(3):
            trainer.run_epoch()
        # The choices for the last images.
        gates.append(float(torch.stack([layer.penalty() for layer in selectors_of(model)]).mean().detach()))
    assert gates[1] < 0.9 * gates[0]


COLOURS = 12


def labelled(count: int) -> ArraySource:
    """Noise of 12 colours; the class is the brightest of the first four."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 128, (count, 8, 8, COLOURS), dtype=np.uint8)
    labels = generator.integers(0, CLASSES, count)
    images[np.arange(count), :, :, labels] += 100
    arrays = LabelledArrays.from_arrays(images, labels, "labelled")
    return ArraySource("labelled", CLASSES, arrays, arrays, (0.25,) * COLOURS, (0.25,) * COLOURS)


def chosen_of_needed(seed: int) -> int:
    """How many of the 16 inputs that a trained network's four groups read are among the first four."""
    torch.manual_seed(seed)
    model = Net(lambda net, x: net.fc(torch.relu(net.r(x)).mean((2, 3))), r=conv(COLOURS, 8), fc=nn.Linear(8, CLASSES))
    walk = LayerWalk.trace(model.eval(), torch.zeros(1, COLOURS, 8, 8))
    blocks = [[0, 1], [2, 3], [4, 5], [6, 7]]
    # The plan starts from the worst choice.
    plan = walk.plan_keeping({}, {"r": GroupEdit(inputs=[[8, 9, 10, 11]] * 4, filters=blocks)})
    network = apply_with_selectors(plan, walk.model)
    settings = settings_of(epochs=20, batch_size=16, learning_rate=0.1)
    batches = Batches(labelled(96), np.arange(96), settings, seed, Workers(CPU), TASK)
    trainer = Trainer(network, batches, settings, seed, Workers(CPU), trainable=SelectorTraining(0.01))
    for _ in range(20):
        trainer.run_epoch()
    (layer,) = selectors_of(trainer.result)
    assert isinstance(layer, GroupPrunedConv2d)
    _, found = without_selectors(trainer.result, plan, walk)
    assert [own.tolist() for own in layer.chosen] == groups_of(found)["r"].inputs
    return sum(channel < CLASSES for inputs in groups_of(found)["r"].inputs for channel in inputs)


@pytest.mark.slow
def test_the_inputs_that_labels_need_are_chosen_more_often_than_by_chance() -> None:
    found = [chosen_of_needed(seed) for seed in range(2)]
    # By chance 16 / 3 each.
    assert min(found) >= 12

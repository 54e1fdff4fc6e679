"""Selectors on a plan's groups: they train the cut network, and a plan and its weights remain."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import image_set, toy_resnet, toy_walk
from zoo import (
    imprint,
)

from prune_env import LayerWalk, PruningPlan
from prune_env.common.errors import PlanError
from prune_env.granularity.group.edit import GroupEdit, groups_of
from prune_env.granularity.group.gathered import GatheredConv2d
from prune_env.granularity.group.selected_groups import apply_with_selectors, without_selectors
from prune_env.granularity.group.selectors import GroupPrunedConv2d
from prune_env.granularity.group.unread import without_unread
from prune_env.plan import apply_plan
from prune_env.repair.least_squares import LeastSquares
from prune_env.testing.counts import counted_macs, counted_params

GROUPS = {"down": 2, "up": 4, "mid": 3, "out": 2}
READS = {"down": 4, "up": 3, "mid": 5, "out": 6}
ORDERS = (False, True)


def reads_of(plan: PruningPlan) -> dict[str, int]:
    """How many inputs each group of a convolution reads, by convolution."""
    return {name: edit.reads for name, edit in groups_of(plan).items()}


def plan_of(walk: LayerWalk, reordered: bool) -> PruningPlan:
    """A plan that cuts widths and groups four convolutions; optionally ``down`` and ``mid`` are reordered."""
    generator = np.random.default_rng(1)
    kept = {
        "stem": [0, 1, 3, 4, 6, 7],
        "down": [0, 2, 3, 5, 6, 8, 9, 11],
        "up": list(range(16)),
        "mid": list(range(0, 24, 2)),
    }
    reads = {"down": "stem", "up": "down", "mid": "up", "out": "mid"}
    grouped = {}
    for name, count in GROUPS.items():
        filters = np.array(kept.get(name, kept["up"]))
        if reordered and name in ("down", "mid"):
            filters = generator.permutation(filters)
        grouped[name] = GroupEdit(
            inputs=[some(kept[reads[name]], READS[name], generator) for _ in range(count)],
            filters=[sorted(own.tolist()) for own in np.split(filters, count)],
        )
    return walk.plan_keeping(kept, grouped)


def some(channels: Sequence[int], count: int, generator: np.random.Generator) -> list[int]:
    return sorted(generator.permutation(channels)[:count].tolist())


def layers_of(network: nn.Module) -> dict[str, GroupPrunedConv2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, GroupPrunedConv2d)}


def frozen(walk: LayerWalk, plan: PruningPlan, seed: int = 0) -> nn.Module:
    """The network with selectors that have chosen at random, with gates that differ."""
    network = apply_with_selectors(plan, walk.model)
    generator = torch.Generator().manual_seed(seed)
    for layer in layers_of(network).values():
        layer.means.copy_(0.2 + torch.rand(layer.means.shape, generator=generator))
        layer.progress(1.0)
        layer.freeze()
    return network


def images_of(count: int = 4) -> Tensor:
    return image_set(count, seed=5).images


@pytest.mark.parametrize("reordered", ORDERS)
def test_selectors_have_the_plan_s_groups_and_all_kernels_between_the_channels_that_stay(reordered: bool) -> None:
    walk = toy_walk()
    plan = plan_of(walk, reordered)
    layers = layers_of(apply_with_selectors(plan, walk.model))
    sizes = {"down": (8, 6), "up": (16, 8), "mid": (12, 16), "out": (16, 12)}
    assert layers.keys() == GROUPS.keys()
    for name, layer in layers.items():
        assert (layer.spec.groups, layer.spec.inputs) == (GROUPS[name], READS[name])
        assert layer.convolution.weight.shape[:2] == sizes[name]
        assert (layer.convolution.weight != 0).all()
        assert layer.reads == sizes[name][1]
        assert not layer.frozen


@pytest.mark.parametrize("reordered", ORDERS)
@torch.no_grad()
def test_with_every_gate_at_one_it_is_the_network_that_only_lost_channels(reordered: bool) -> None:
    walk = toy_walk()
    plan = plan_of(walk, reordered)
    network = apply_with_selectors(plan, walk.model)
    for layer in layers_of(network).values():
        nn.init.zeros_(layer.selector.gates.weight)
    whole = plan.model_copy(update={"edits": {"group": {}}}).apply(walk.model)
    torch.testing.assert_close(network(images_of()), whole(images_of()), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_cut_channels_leave_is_repaired_before_there_are_groups() -> None:
    walk = toy_walk()
    plan = plan_of(walk, True)
    images = image_set(32, seed=3)
    readers = [member.module for unit in walk.units for member in unit.members if member.side == "in"]
    repair = LeastSquares(walk.model, readers, [(images.images, images.targets)])
    network = apply_with_selectors(plan, walk.model, repair)
    for layer in layers_of(network).values():
        nn.init.zeros_(layer.selector.gates.weight)
    whole = apply_plan(plan.model_copy(update={"edits": {"group": {}}}), walk.model, repair)
    found = network(images_of())
    torch.testing.assert_close(found, whole(images_of()), rtol=1e-4, atol=1e-4)
    assert (found - plan.model_copy(update={"edits": {"group": {}}}).apply(walk.model)(images_of())).abs().max() > 1e-3


@pytest.mark.parametrize("reordered", ORDERS)
@torch.no_grad()
def test_with_the_plan_s_own_inputs_and_gates_at_one_it_is_the_plan_s_network(reordered: bool) -> None:
    walk = toy_walk()
    plan = plan_of(walk, reordered)
    small = plan.apply(walk.model)
    network = apply_with_selectors(plan, walk.model)
    for name, layer in layers_of(network).items():
        gathered = small.get_submodule(name)
        assert isinstance(gathered, GatheredConv2d)
        chosen = gathered.index.view(GROUPS[name], -1)
        layer.shares.copy_(torch.zeros_like(layer.shares).scatter(1, chosen, 1.0))
        layer.frozen = True
    torch.testing.assert_close(network(images_of()), small(images_of()), rtol=1e-4, atol=1e-5)
    exported, narrow = without_selectors(network, plan, walk)
    assert narrow.kept == without_unread(plan, walk).kept
    torch.testing.assert_close(exported(images_of()), small(images_of()), rtol=1e-4, atol=1e-5)
    wanted = narrow.apply(walk.model).state_dict()
    assert exported.state_dict().keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(exported.state_dict()[name], tensor)


@pytest.mark.parametrize("reordered", ORDERS)
@torch.no_grad()
def test_without_its_selectors_a_frozen_network_gives_the_same(reordered: bool) -> None:
    walk = toy_walk()
    plan = plan_of(walk, reordered)
    network = frozen(walk, plan)
    exported, _ = without_selectors(network, plan, walk)
    assert layers_of(exported) == {}
    torch.testing.assert_close(exported(images_of()), network(images_of()), rtol=1e-5, atol=1e-5)
    assert (exported(images_of()) - plan.apply(walk.model)(images_of())).abs().max() > 1e-3


@pytest.mark.parametrize("reordered", ORDERS)
@torch.no_grad()
def test_the_plan_that_is_left_makes_the_network_that_takes_the_trained_weights(
    tmp_path: Path, reordered: bool
) -> None:
    walk = toy_walk()
    plan = plan_of(walk, reordered)
    network = frozen(walk, plan)
    exported, chosen = without_selectors(network, plan, walk)
    path = tmp_path / "plan.json"
    chosen.save(path)
    small = PruningPlan.load(path).apply(toy_resnet(seed=4))
    shapes = [{name: tensor.shape for name, tensor in one.state_dict().items()} for one in (small, exported)]
    assert shapes[0] == shapes[1]
    for name in GROUPS:
        assert torch.equal(small.get_submodule(name).index, exported.get_submodule(name).index)
    small.load_state_dict(exported.state_dict())
    torch.testing.assert_close(small(images_of()), network(images_of()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reordered", ORDERS)
def test_the_plan_that_is_left_reads_other_inputs_and_has_no_channel_that_nothing_reads(reordered: bool) -> None:
    walk = toy_walk()
    plan = plan_of(walk, reordered)
    network = frozen(walk, plan)
    exported, chosen = without_selectors(network, plan, walk)
    assert (chosen.groups, reads_of(chosen)) == (plan.groups, reads_of(plan)) == (GROUPS, READS)
    assert all(planned.inputs != groups_of(plan)[name].inputs for name, planned in groups_of(chosen).items())
    # Only out reads the 16 channels of mid, in 2 groups of 6; mid itself has 3 groups of 4.
    read = {channel for inputs in groups_of(chosen)["out"].inputs for channel in inputs}
    spare = [len(set(own) - read) for own in groups_of(plan)["mid"].filters]
    assert min(spare) > 0
    assert [len(own) for own in groups_of(chosen)["mid"].filters] == [4 - min(spare)] * 3
    assert read <= set(chosen.kept["mid"]) < set(plan.kept["mid"])
    assert counted_macs(exported, images_of()) == chosen.costs.macs < plan.costs.macs
    assert counted_params(exported) == chosen.costs.params < plan.costs.params


@pytest.mark.parametrize(("multiple", "widths"), [(4, {"down": 8, "mid": 12}), (9, {"down": 8, "mid": 9})])
def test_what_nothing_reads_goes_in_the_multiples_asked_for(multiple: int, widths: dict[str, int]) -> None:
    walk = toy_walk()
    plan = plan_of(walk, False)
    _, chosen = without_selectors(frozen(walk, plan), plan, walk, multiple)
    assert {name: chosen.widths[name] for name in widths} == widths


def test_the_inputs_are_those_of_the_selectors_as_the_dense_network_numbers_them() -> None:
    walk = toy_walk()
    plan = plan_of(walk, True)
    network = frozen(walk, plan)
    layer = layers_of(network)["up"]
    # up reads down, whose 8 channels come in the order of its groups.
    order = groups_of(plan)["down"].filters_in_order
    assert order != sorted(order)
    layer.shares.zero_()
    for group, places in enumerate(([0, 1, 2], [2, 5, 7], [0, 3, 6], [4, 5, 6])):
        layer.shares[group, places] = 1.0
    _, chosen = without_selectors(network, plan, walk)
    assert groups_of(chosen)["up"].inputs == [
        sorted(order[place] for place in places) for places in ([0, 1, 2], [2, 5, 7], [0, 3, 6], [4, 5, 6])
    ]


def test_the_dense_and_the_trained_network_are_left_alone() -> None:
    model = toy_resnet().train()
    model.down_bn.eval()
    walk = toy_walk(model)
    plan = plan_of(walk, True)
    before = imprint(model)
    network = frozen(walk, plan)
    trained = imprint(network)
    exported, chosen = without_selectors(network, plan, walk)
    with torch.no_grad():
        for parameter in exported.parameters():
            parameter.zero_()
    assert imprint(model) == before
    assert imprint(network) == trained
    assert plan == plan_of(walk, True) != chosen


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_those_of_the_dense_network(training: bool) -> None:
    walk = toy_walk(toy_resnet().train(training))
    plan = plan_of(walk, True)
    network = apply_with_selectors(plan, walk.model)
    assert {module.training for module in network.modules()} == {training}
    exported, _ = without_selectors(frozen(walk, plan), plan, walk)
    assert {module.training for module in exported.modules()} == {training}


def test_gates_that_are_all_shut_still_leave_a_plan() -> None:
    walk = toy_walk()
    plan = plan_of(walk, True)
    network = apply_with_selectors(plan, walk.model)
    for layer in layers_of(network).values():
        layer.means.zero_()
        layer.freeze()
    exported, chosen = without_selectors(network, plan, walk)
    assert reads_of(chosen) == READS
    assert GroupEdit.model_validate(groups_of(chosen)["up"].model_dump()) == groups_of(chosen)["up"]
    with torch.no_grad():
        torch.testing.assert_close(exported(images_of()), network(images_of()))


def test_a_plan_without_groups_has_no_selectors() -> None:
    walk = toy_walk()
    plan = walk.plan({"stem": 4})
    network = apply_with_selectors(plan, walk.model)
    assert layers_of(network) == {}
    exported, same = without_selectors(network, plan, walk)
    assert same == plan
    assert exported is not network


def test_groups_that_do_not_fit_are_refused_as_without_selectors() -> None:
    walk = toy_walk()
    plan = plan_of(walk, False)
    grouped = {**groups_of(plan), "down": GroupEdit(inputs=[[0, 2], [1, 3]], filters=groups_of(plan)["down"].filters)}
    with pytest.raises(PlanError, match="Group 0 of 'down' reads input channel 2"):
        apply_with_selectors(plan.model_copy(update={"edits": {"group": grouped}}), walk.model)


def test_units_that_the_walk_protects_by_now_stay_as_the_plan_has_them() -> None:
    walk = toy_walk()
    plan = plan_of(walk, True)
    unit = next(unit for unit in plan.units if unit.name == "mid")
    whole = unit.model_copy(update={"kept": list(range(unit.channels))})
    grouped = {name: planned for name, planned in groups_of(plan).items() if name != "mid"}
    open_plan = plan.model_copy(
        update={"units": [whole if one.name == "mid" else one for one in plan.units], "edits": {"group": grouped}}
    )
    network = frozen(walk, open_plan)
    _, cut = without_selectors(network, open_plan, walk)
    _, left = without_selectors(network, open_plan, walk.protecting({"mid": "by the test"}))
    assert cut.widths["mid"] < left.widths["mid"] == unit.channels
    assert groups_of(left) == groups_of(cut)

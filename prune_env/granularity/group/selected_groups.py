"""Networks with selectors for a plan's groups, and the plan that results from the selectors' choice."""

import numpy as np
from torch import nn

from prune_env.common.copying import copied
from prune_env.granularity.group.edit import GroupEdit, groups_of, with_groups
from prune_env.granularity.group.gathered import GroupSpec
from prune_env.granularity.group.selectors import GroupPrunedConv2d
from prune_env.granularity.group.unread import without_unread
from prune_env.plan import PruningPlan
from prune_env.plan.apply import edited, staying
from prune_env.surgery.channels import Repair, kept_side, places_of, replaced, slice_network
from prune_env.walk import LayerWalk


def apply_with_selectors(plan: PruningPlan, model: nn.Module, repair: Repair | None = None) -> nn.Module:
    """Applies a plan like `apply_plan`, but gives each group a selector and all kernels of the kept channels.

    Args:
        plan: The plan; the selectors replace the inputs of its groups.
        model: The dense network; not modified.
        repair: New weights for the layers that read cut channels; None leaves these layers sliced.
    """
    small = slice_network(model, staying(plan, model), repair)
    for name, planned in groups_of(plan).items():
        convolution = small.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        spec = GroupSpec(planned.groups, planned.reads)
        small = replaced(small, name, GroupPrunedConv2d.from_conv(convolution, spec).train(small.training))
    return small


def without_selectors(
    trained: nn.Module, plan: PruningPlan, walk: LayerWalk, multiple: int = 1
) -> tuple[nn.Module, PruningPlan]:
    """Removes frozen selectors from a network and writes the inputs that they chose into the plan.

    Channels that no group chose are cut as far as `without_unread` allows.

    Args:
        trained: The network with frozen selectors; not modified.
        plan: The plan that the network was made from.
        walk: The walk of the dense network.
        multiple: As `without_unread`.

    Returns:
        The network in the shape that the new plan's ``apply`` makes, with its trained weights; the new plan.
    """
    model = walk.model
    network, grouped, kept = copied(trained), groups_of(plan), staying(plan, model)
    for name, planned in groups_of(plan).items():
        layer = network.get_submodule(name)
        assert isinstance(layer, GroupPrunedConv2d)
        places = kept_side(model.get_submodule(name), kept, name, "in")
        inputs = [np.sort(places[chosen]).tolist() for chosen in layer.chosen]
        grouped[name] = GroupEdit(inputs=inputs, filters=planned.filters)
        network = replaced(network, name, layer.masked())
    chosen = without_unread(with_groups(plan, grouped), walk, multiple)
    left = staying(chosen, model)
    cuts = {
        (name, side): places_of(kept_side(model.get_submodule(name), kept, name, side))[channels]
        for (name, side), channels in left.items()
    }
    network = edited(slice_network(network, cuts), model, chosen.by_layer, left)
    return network, chosen

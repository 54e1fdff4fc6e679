"""The first steps of tracing: check the weights, observe one forward pass, protect the units that the user names."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from prune_env.common.errors import ModelError, suggest
from prune_env.common.hooks import watching
from prune_env.common.layers import Convolution, channels_of
from prune_env.walk.coupling import has_channels
from prune_env.walk.unit import Unit


@dataclass(frozen=True)
class LayerShape:
    """The output size of one convolution or linear layer, for one image.

    Attributes:
        positions: Output positions over all calls (H*W for a convolution).
        height: Output height in pixels (1 for a linear layer).
        width: Output width in pixels.
    """

    positions: int
    height: int
    width: int


def refuse_unusable_weights(model: nn.Module) -> None:
    """Refuses weights that have no shape yet (lazy layers) or are not finite.

    NaN differs even from itself, so that the proof of every unit would fail.

    Raises:
        ModelError: If there is such a tensor; names the first one.
    """
    for name, values in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(values):
            raise ModelError(
                f"{name!r} has no shape yet (a lazy layer that has not seen an input). Run the network once on images, "
                "or give the layer its channels."
            )
        # Other buffers may hold infinities, for example attention masks.
        learned = isinstance(values, nn.Parameter) or name.endswith(("running_mean", "running_var"))
        if learned and not torch.isfinite(values.detach()).all():
            raise ModelError(
                f"{name!r} holds numbers that are not finite, so nothing can be measured with this network. "
                "Check the weights file, or the training that made it."
            )


def copied(model: nn.Module) -> nn.Module:
    """Returns a deep copy; refuses weights computed from other tensors (weight norm), which slicing cannot reach."""
    for name, module in model.named_modules():
        for tensor in ("weight", "bias") if has_channels(module) else ():
            if not isinstance(getattr(module, tensor, None), nn.Parameter | None):
                raise ModelError(
                    f"{name!r} computes its {tensor} from other tensors (a weight norm or a parametrization). Remove "
                    "this first: torch.nn.utils.parametrize.remove_parametrizations, or remove_weight_norm."
                )
    return copy.deepcopy(model)


def observe(model: nn.Module, example_input: Tensor) -> dict[str, LayerShape]:
    """Runs the network once and records the output size of every convolution and linear layer, in calling order."""
    shapes: dict[str, LayerShape] = {}

    def note(name: str, module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # Count the batch dimension too: the input is one image, but a network may fold positions into the batch.
        positions = output.numel() // channels_of(module, "out")
        if name in shapes:
            positions += shapes[name].positions
        spatial = output.shape[2:] if isinstance(module, Convolution) else ()
        height, width = (*spatial[-2:], 1, 1)[:2]
        shapes[name] = LayerShape(positions, int(height), int(width))

    names = [name for name, module in model.named_modules() if isinstance(module, (*Convolution, nn.Linear))]
    try:
        with watching(model, names, after=note), torch.no_grad():
            model(example_input)
    except Exception as error:  # the user's own code may raise anything
        raise does_not_run(error, example_input) from error
    if not shapes:
        raise ModelError("The network calls no convolution or linear layer, so there is nothing to prune.")
    return shapes


def does_not_run(error: Exception, images: Tensor) -> ModelError:
    """Builds the error for the user when the network's own forward pass fails on images."""
    return ModelError(
        f"The network does not run on an input of shape {list(images.shape)}: {str(error) or type(error).__name__}. "
        "Give an example input of the size that the network expects."
    )


def protect_named(units: Iterable[Unit], reasons: Mapping[str, str], model: nn.Module) -> list[Unit]:
    """Protects the units that the user names, by the unit's name or by a module that the unit runs through."""
    units = list(units)
    modules = dict(model.named_modules())
    for key, reason in reasons.items():
        name, _, side = key.partition(":")
        touched = {
            unit.name
            for unit in units
            for member in unit.members
            if member.module == name and member.side == (side or "out")
        }
        if not touched and (side not in ("", "in") or not has_channels(modules.get(name))):
            known = [unit.name for unit in units]
            raise ModelError(f"protect: there is no module {name!r} with prunable channels: {suggest(name, known)}.")
        units = [replace(u, protected=u.protected or (reason if u.name in touched else None)) for u in units]
    return units

"""The layer walk: the units of a network in forward order, with exact costs. Traced once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_env.common.errors import ModelError, UserError, suggest
from prune_env.common.fingerprint import fingerprint
from prune_env.common.layers import is_layer, rows_of, unwrapped
from prune_env.plan import Edit, Edits, PlannedBudget, PlannedCosts, PruningPlan
from prune_env.plan.edits import NO_EDITS
from prune_env.walk.approximation import with_errors
from prune_env.walk.costs import CostModel, Metric, build_cost_model
from prune_env.walk.example import Example
from prune_env.walk.planned import planned_unit
from prune_env.walk.proof import failing_units
from prune_env.walk.shapes import LayerShape
from prune_env.walk.tracing import (
    Deadline,
    called_in_training,
    followed,
    is_deterministic,
    is_short,
    probe_of,
    protect_named,
    refuse_unusable_weights,
    training_code,
)
from prune_env.walk.unit import Unit
from prune_env.walk.units import costs_without_layer, units_from

Scores = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class LayerWalk:
    """A network's units in forward order, with closed-form costs.

    Attributes:
        model: The dense network that was traced; untouched.
        units: Every unit in forward order, the protected ones too.
        shapes: The output size of each convolution and linear layer, in calling order.
        cost_model: MACs and params at any widths.
        fingerprint: Every module's type and shape.
        idle: Convolutions and linear layers that the forward pass never called, in training mode neither; they stay
            dense.

    Example:
        >>> import torch
        >>> from torch import Tensor, nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> walk = LayerWalk.trace(model, torch.zeros(1, 3, 8, 8))
        >>> [(unit.name, unit.channels, unit.protected) for unit in walk.units]
        [('0', 8, None), ('2', 4, "its channels are the network's output")]
        >>> walk.macs(), walk.macs({"0": 4})
        (12384, 6192)
    """

    model: nn.Module = field(repr=False)
    units: tuple[Unit, ...]
    shapes: Mapping[str, LayerShape] = field(repr=False)
    cost_model: CostModel = field(repr=False)
    fingerprint: Mapping[str, str] = field(repr=False)
    idle: tuple[str, ...] = ()

    @classmethod
    def trace(
        cls,
        model: nn.Module,
        example_input: Any,
        protect: Mapping[str, str] | None = None,
        *,
        keywords: Mapping[str, Any] | None = None,
        seconds: float = 120.0,
        approximate: bool = False,
    ) -> Self:
        """Finds the units of a network and proves each by cutting it.

        Args:
            model: The network; it is copied for tracing and left untouched. A compiled network is unwrapped.
            example_input: What the network is called with: a tensor [N, C, H, W], a list of images, a mapping, or a
                tuple of all arguments. Where all tensors are a batch of the same N, only the first input is run, and
                costs are for one input; otherwise costs are for the example as it is.
            protect: Reasons by unit name or module name. A module's name protects the units of its output channels;
                with ``:in`` after the name, the units that the module reads.
            keywords: Arguments that the network is called with by keyword.
            seconds: The time limit of the walk.
            approximate: Whether units may be cut although this changes what stays (layer norm, attention over
                channels).

        Returns:
            The walk. Units that cannot be cut safely are protected, with the reason.

        Raises:
            ModelError: If the network does not run on the example, calls no convolution or linear layer, or has weights
                that are missing or not finite; if a name in ``protect`` is unknown or has no channels of its own; or
                if the walk takes too long.
        """
        if not isinstance(protect or {}, Mapping):
            raise ModelError(f"protect: a mapping of names to reasons is needed; {type(protect).__name__} given.")
        if not seconds > 0:
            raise ModelError(f"seconds: {seconds} given; the time limit must be above 0.")
        with torch.inference_mode(mode=False), torch.no_grad():
            return cls._trace(
                unwrapped(model), Example.given(example_input, keywords), protect or {}, Deadline(seconds), approximate
            )

    @classmethod
    def _trace(
        cls, model: nn.Module, example: Example, protect: Mapping[str, str], tick: Deadline, approximate: bool
    ) -> Self:
        refuse_unusable_weights(model)
        probe, example = probe_of(model, example)
        try:
            follower = followed(probe, example, tick, approximate)
        except ModelError as error:
            if not is_short(model):
                raise
            raise ModelError(
                f"{error} Networks of 16 bits are walked as a float32 copy; code that names float16 or bfloat16 must "
                "take the type of its weights instead."
            ) from error
        layers = [name for name, module in model.named_modules() if is_layer(module)]
        idle = [name for name in layers if name not in follower.shapes]
        trained = called_in_training(follower, probe, example) if idle else ()
        classes = follower.labels.classes()
        units = protect_named(units_from(follower, classes), protect, probe)
        if follower.random is not None and not is_deterministic(probe, example):
            reason = f"the network is not deterministic: {follower.random} draws random numbers"
            units = [replace(unit, protected=unit.protected or reason) for unit in units]
        exact = [unit for unit in units if unit.free and unit.inexact is None]
        failures = failing_units(probe, example, exact, tick=tick, decides=follower.decides)
        if trained:
            with training_code(probe):
                failures |= failing_units(probe, example, exact, tick=tick)
        if failures and follower.random is None and not is_deterministic(probe, example):
            reason = "the network is not deterministic: two forward passes on the same example differ"
            failures = {unit.name: reason for unit in exact}
        units = [replace(unit, protected=failures.get(unit.name, unit.protected)) for unit in units]
        units = with_errors(probe, example, units, tick)
        shapes = follower.shapes
        positions = dict.fromkeys(trained, 0) | {name: shape.positions for name, shape in shapes.items()}
        return cls(
            model,
            tuple(units),
            shapes,
            build_cost_model(model, units, positions, follower.macs, costs_without_layer(follower, classes, units)),
            fingerprint(model),
            tuple(name for name in idle if name not in trained),
        )

    def measured_on(self, images: Tensor) -> Self:
        """Returns the walk with the errors of its inexact units measured on other images [N, C, H, W]."""
        model, example = probe_of(self.model, Example((images,)))
        return replace(self, units=tuple(with_errors(model, example, self.units, lambda _place: None)))

    @property
    def free(self) -> tuple[Unit, ...]:
        """The units that an action may cut, in forward order."""
        return tuple(unit for unit in self.units if unit.free)

    def protecting(self, reasons: Mapping[str, str]) -> Self:
        """Returns the walk with more units protected.

        Args:
            reasons: Reasons by unit name. A unit that is already protected keeps its reason.
        """
        units = tuple(replace(unit, protected=unit.protected or reasons.get(unit.name)) for unit in self.units)
        return replace(self, units=units)

    def width_list(self, widths: Mapping[str, int] | None = None) -> list[int]:
        """Returns widths in the units' order; units that are not named stay dense.

        Raises:
            UserError: If a name is unknown, a width is out of range, or a protected unit would be cut.
        """
        given = dict(widths or {})
        numbers = []
        for unit in self.units:
            width = given.pop(unit.name, unit.channels)
            if not 1 <= width <= unit.channels or width != int(width):
                raise UserError(f"Unit {unit.name!r}: width {width} given; allowed are 1 to {unit.channels}.")
            if width != unit.channels and not unit.free:
                raise UserError(
                    f"Unit {unit.name!r}: width {width} given, but the unit is protected: {unit.protected}. "
                    f"Leave it out, or give {unit.channels}."
                )
            numbers.append(int(width))
        if given:
            name = next(iter(given))
            raise UserError(f"There is no unit {name!r}: {suggest(name, (unit.name for unit in self.units))}.")
        return numbers

    def macs(self, widths: Mapping[str, int] | None = None, edits: Edits = NO_EDITS) -> int:
        """Returns multiply-adds of convolution and linear layers for one image.

        Args:
            widths: Number of channels that stay, by unit name; units that are not named stay dense.
            edits: Edits of layers, by layer.

        Returns:
            The exact count of the network cut to these widths, with these edits.

        Raises:
            UserError: If a unit or layer is unknown, or a width is not allowed.
        """
        numbers = self.width_list(widths)
        return self.cost_model.macs(numbers, self._edited(numbers, edits))

    def params(self, widths: Mapping[str, int] | None = None, edits: Edits = NO_EDITS) -> int:
        """Returns the number of parameters, without buffers, at the given widths and edits; arguments as `macs`."""
        numbers = self.width_list(widths)
        return self.cost_model.params(numbers, self._edited(numbers, edits))

    def _edited(self, numbers: list[int], edits: Edits) -> dict[str, int]:
        layers = {layer.name: layer for layer in self.cost_model.layers}
        for name in edits:
            if name not in layers:
                raise UserError(f"There is no layer {name!r} to edit: {suggest(name, layers)}.")
        weights = {}
        for name, edit in edits.items():
            layer = layers[name]
            weights[name] = edit.weights(layer.kernel, layer.inputs.at(numbers), layer.outputs.at(numbers))
        return weights

    def reach(self, metric: Metric = "macs", least: Mapping[str, int] | None = None) -> float:
        """Returns the share of the dense cost removed by cutting free units to ``least`` widths (default: 1 each)."""
        floor = [(least or {}).get(unit.name, 1) if unit.free else unit.channels for unit in self.units]
        return 1.0 - self.cost_model.cost(metric, floor) / self.cost_model.cost(metric, self.width_list())

    def plan(
        self,
        widths: Mapping[str, int],
        scores: Scores | None = None,
        budget: PlannedBudget | None = None,
        provenance: Mapping[str, str | int | float | None] | None = None,
    ) -> PruningPlan:
        """Returns the plan that keeps the best-scored channels of each unit.

        Args:
            widths: Number of channels that stay, by unit name; units that are not named stay dense.
            scores: One score per channel, [channels], by unit name. Higher scores stay; of equal scores, the lower
                channel stays. The default is L1 norms.
            budget: The budget to record in the plan.
            provenance: Facts to record in the plan: seed, versions, command.

        Returns:
            The complete plan.

        Raises:
            UserError: If a unit is unknown, or a width or the scores of a cut unit are not allowed.
        """
        numbers = self.width_list(widths)
        if scores is None:
            scores = {unit.name: self.magnitudes(unit) for unit in self.units}
        kept = {
            unit.name: best_channels(scores.get(unit.name), unit, width)
            for unit, width in zip(self.units, numbers, strict=True)
        }
        return self.plan_keeping(kept, NO_EDITS, budget, provenance)

    def plan_keeping(
        self,
        kept: Mapping[str, Sequence[int]],
        edits: Edits = NO_EDITS,
        budget: PlannedBudget | None = None,
        provenance: Mapping[str, str | int | float | None] | None = None,
    ) -> PruningPlan:
        """Returns the plan that keeps the given channels and makes the given edits.

        Args:
            kept: The channels that stay, by unit name; units that are not named stay dense.
            edits: Edits of layers, by layer.
            budget: As in `plan`.
            provenance: As in `plan`.

        Raises:
            UserError: If an edited layer is unknown, or the number of channels of a unit is not allowed.
        """
        widths = {name: len(channels) for name, channels in kept.items()}
        by_kind: dict[str, dict[str, Edit]] = {}
        for name, edit in edits.items():
            by_kind.setdefault(edit.kind, {})[name] = edit
        return PruningPlan(
            units=[planned_unit(unit, kept.get(unit.name, range(unit.channels))) for unit in self.units],
            edits=by_kind,
            costs=self.costs(widths, edits),
            budget=budget,
            provenance=dict(provenance or {}),
            fingerprint=dict(self.fingerprint),
        )

    def costs(self, widths: Mapping[str, int], edits: Edits = NO_EDITS) -> PlannedCosts:
        """Returns MACs and params, both dense and at the given widths and edits; arguments as `macs`."""
        macs, params = self._dense
        return PlannedCosts(
            dense_macs=macs,
            macs=self.macs(widths, edits),
            dense_params=params,
            params=self.params(widths, edits),
        )

    @cached_property
    def _dense(self) -> tuple[int, int]:
        """MACs and params of the dense network, which every plan records."""
        return self.macs(), self.params()

    def magnitudes(self, unit: Unit, power: int = 1) -> npt.NDArray[np.float64]:
        """Sums ``abs(weight) ** power`` over the weights that produce each channel of a unit; returns [channels]."""
        modules = dict(self.model.named_modules())
        total = np.zeros(unit.channels)
        for member in unit.members:
            module = modules[member.module]
            if member.side == "out" and is_layer(module):
                norms = rows_of(module).abs().pow(power).flatten(1).sum(dim=1).double().cpu().numpy()
                total += norms[member.index].sum(axis=1)
        return total


def best_channels(scores: npt.NDArray[np.float64] | None, unit: Unit, width: int) -> list[int]:
    """Returns a unit's best-scored channels, ascending; of equal scores, the lower channel is kept.

    Raises:
        UserError: If the scores are not one finite number for each channel.
    """
    if width == unit.channels:
        return list(range(unit.channels))
    if scores is None or len(scores) != unit.channels:
        given = "none" if scores is None else len(scores)
        raise UserError(
            f"Unit {unit.name!r}: one score for each of its {unit.channels} channels is needed; {given} given."
        )
    if not np.isfinite(scores).all():
        channel = int(np.argmin(np.isfinite(scores)))
        raise UserError(f"Unit {unit.name!r}: a score is not a finite number: {scores[channel]} for channel {channel}.")
    order = np.argsort(-np.asarray(scores), kind="stable")
    kept: list[int] = np.sort(order[:width]).tolist()
    return kept

"""The policy file: a trained actor as plain tensors, and the meaning of its inputs and outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from prune_env.common.errors import ConfigError, PlanError, WeightsError
from prune_env.common.files import atomic_write
from prune_env.common.records import Record
from prune_env.common.tensor_records import read_tensor_file, to_tensor_file
from prune_env.common.text import shorten
from prune_env.config import RunConfig
from prune_env.config.granularity import GRANULARITIES
from prune_env.config.older import RENAMED
from prune_env.env import PruningEnv
from prune_env.env.observation import FEATURES, FloatArray
from prune_env.env.proposal import Proposal
from prune_env.granularity import Granularity
from prune_env.plan import PruningPlan

POLICY_VERSION: Literal[1] = 1
METADATA = "prune_env.policy"

Bound = Literal["tanh", "clip"]

BOUNDS: Mapping[Bound, type[nn.Module]] = MappingProxyType({"tanh": nn.Tanh, "clip": nn.Hardtanh})
"""Last layers that bound the action to [-1, 1], by name."""


class PolicyRecord(Record):
    """The header of a policy file; fields as `Policy`.

    Attributes:
        version: Version of the format.
        bound: The bound of the actions to [-1, 1], a key of `BOUNDS`.
    """

    raises = WeightsError
    remedy = "Restore the file from a copy, or train a policy with this release."

    version: Literal[1]
    granularity: str | None = None
    action: str
    limits: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    features: list[str]
    bound: Bound = "tanh"

    @classmethod
    def upgraded(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Refuses other versions and other observations."""
        if (version := document.get("version", "none")) != POLICY_VERSION:
            raise ValueError(
                f"it is a policy of version {shorten(repr(version))}; this release reads version {POLICY_VERSION}"
            )
        if document.get("features") != list(FEATURES):
            raise ValueError(
                f"it was trained on another observation (this release has {len(FEATURES)} features: "
                f"{', '.join(FEATURES)})"
            )
        return document


@dataclass(frozen=True, eq=False)
class Policy:
    """A deterministic policy: maps an observation to an action.

    Attributes:
        actor: Maps observations float32 [N, len(features)] to actions in [-1, 1], [N, numbers]; bounded by tanh or
            clipped.
        action: The meaning of an action, one of `Granularity.allowed_actions`.
        granularity: The name of the granularity that the actions are for.
        limits: The settings that scale the actions, as in training (`Granularity.limits`); settings that are not named
            are not checked.
        features: The names of the observation's features, in order.
    """

    actor: nn.Sequential
    action: str
    granularity: str
    limits: Mapping[str, float] = field(default_factory=dict)
    features: tuple[str, ...] = FEATURES

    def check(self, config: RunConfig) -> None:
        """Refuses settings that would change the meaning of the policy's actions.

        Args:
            config: Settings; ``granularity.action`` is not checked.

        Raises:
            ConfigError: Names the setting and the value that the policy was trained with.
        """
        self._check_granularity(config.granularity.name)
        for setting in self.limits:
            section, _, key = setting.partition(".")
            self._check_limit(setting, getattr(getattr(config, section, None), key, None))

    def _check_granularity(self, given: str) -> None:
        if given != self.granularity:
            raise ConfigError(
                f"granularity.name: {given} given, but the policy was trained with {self.granularity}. Give "
                f"granularity.name={self.granularity}."
            )

    def check_action(self, given: str) -> None:
        """Refuses another meaning of actions (``granularity.action``) than the policy's.

        Raises:
            ConfigError: Names the meaning that the policy was trained with.
        """
        if given != self.action:
            raise ConfigError(
                f"granularity.action: {given} given, but the policy was trained with {self.action}. Give "
                f"granularity.action={self.action}."
            )

    def _check_limit(self, setting: str, given: object) -> None:
        known = self.limits.get(setting, given)
        if given != known:
            raise ConfigError(
                f"{setting}: {given} given, but the policy was trained with {known}, which scales its actions. "
                f"Give {setting}={known}."
            )

    @property
    def layers(self) -> list[nn.Linear]:
        """The actor's linear layers."""
        return [layer for layer in self.actor if isinstance(layer, nn.Linear)]

    @property
    def hidden(self) -> tuple[int, ...]:
        """Neurons of each hidden layer, as ``agent.hidden``."""
        return tuple(layer.out_features for layer in self.layers[:-1])

    @property
    def bound(self) -> Bound:
        """What bounds the actions: ``tanh`` or ``clip``."""
        return next(name for name, kind in BOUNDS.items() if isinstance(self.actor[-1], kind))

    def act(self, observation: FloatArray) -> FloatArray:
        """The action for one observation [len(features)], float32 [numbers].

        Raises:
            WeightsError: If the action is not finite: the weights are too large for float32.
        """
        with torch.no_grad():
            action = np.asarray(self.actor(torch.from_numpy(observation)[None])[0].numpy(), dtype=np.float32)
        if not np.isfinite(action).all():
            raise WeightsError("The policy's action is not a finite number: its weights are too large. Train it anew.")
        return action

    def propose(self, env: PruningEnv) -> Proposal:
        """Walks an environment once and returns the finished plan as a proposal; evaluates nothing.

        Raises:
            ConfigError: If the environment gives actions another meaning than the policy.
        """
        granularity = env.granularity
        self._check_granularity(granularity.settings.name)
        self.check_action(granularity.action)
        for setting, given in granularity.limits().items():
            self._check_limit(setting, given)
        observation, _ = env.reset()
        for _ in env.problem.budget.units:
            env.decide(self.act(observation))
            observation = env.observation()
        return env.proposal()


def save_policy(policy: Policy, path: Path) -> None:
    """Writes a policy as safetensors; the file appears whole or not at all."""
    tensors = {}
    for number, layer in enumerate(policy.layers):
        tensors[f"{number}.weight"] = layer.weight
        tensors[f"{number}.bias"] = layer.bias
    record = PolicyRecord(
        version=POLICY_VERSION,
        granularity=policy.granularity,
        action=policy.action,
        limits=dict(policy.limits),
        features=list(policy.features),
        bound=policy.bound,
    )
    atomic_write(Path(path), to_tensor_file(record.as_record(), tensors, METADATA))


def load_policy(path: str | Path) -> Policy:
    """Reads a policy; never executes anything in the file.

    Raises:
        WeightsError: If the file is missing, damaged or no policy, or was made for another observation or action.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no policy at {path}. A run writes its policy to RUN/policy.safetensors.")
    record, tensors = read_tensor_file(path, PolicyRecord, METADATA)
    actor = _actor_from(tensors, path, record.bound)
    granularity = record.granularity or _granularity_of(record.action, _numbers(actor))
    if granularity is None:
        raise WeightsError(
            f"{path} gives {_numbers(actor)} numbers as an action {shorten(repr(record.action))}, which no granularity "
            "takes. Train a policy with this release."
        )
    limits = {RENAMED.get(name, name): value for name, value in record.limits.items()}
    return Policy(actor, record.action, granularity, limits)


def load_plan_or_policy(source: Path) -> PruningPlan | Policy:
    """Reads a plan or a policy from a file, or the plan of a run directory.

    Raises:
        PlanError: If the file does not exist.
    """
    if source.is_dir():
        return PruningPlan.load(source / "plan.json")
    if not source.exists():
        raise PlanError(f"{source} does not exist. Give a plan.json, a policy.safetensors or a run directory.")
    return load_policy(source) if source.suffix == ".safetensors" else PruningPlan.load(source)


def _granularity_of(action: str, numbers: int) -> str | None:
    """The granularity that takes this action with this many numbers, for policies that do not record theirs."""
    for name in GRANULARITIES:
        granularity: type[Granularity] = GRANULARITIES.find(name)
        if action in granularity.allowed_actions() and granularity.action_numbers(action) == numbers:
            return name
    return None


def _numbers(actor: nn.Sequential) -> int:
    """How many numbers an actor's action has."""
    return [layer.out_features for layer in actor if isinstance(layer, nn.Linear)][-1]


def policy_of(actor: nn.Module, env: PruningEnv, bound: Bound = "tanh") -> Policy:
    """Makes a policy from a copy of an actor's linear layers.

    Args:
        actor: Linear layers with ReLU between them.
        env: The environment that the actions are for.
        bound: The bound of the actions to [-1, 1]: ``tanh`` or ``clip``.
    """
    layers = [layer for layer in actor.modules() if isinstance(layer, nn.Linear)]
    tensors: dict[str, torch.Tensor] = {}
    for number, layer in enumerate(layers):
        tensors[f"{number}.weight"] = layer.weight.detach().clone()
        tensors[f"{number}.bias"] = layer.bias.detach().clone()
    granularity = env.granularity
    actor = _actor_from(tensors, Path("actor"), bound)
    return Policy(actor, granularity.action, granularity.settings.name, dict(granularity.limits()))


def _actor_from(tensors: dict[str, torch.Tensor], path: Path, bound: Bound) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = len(FEATURES)
    count = len(tensors) // 2
    for number in range(count):
        weight, bias = tensors.get(f"{number}.weight"), tensors.get(f"{number}.bias")
        if weight is None or bias is None or weight.ndim != 2 or weight.shape[1] != width:
            raise WeightsError(f"{path}: layer {number} of the policy is missing or does not fit the layer before it.")
        if len(weight) < 1 or bias.shape != weight.shape[:1]:
            raise WeightsError(
                f"{path}: layer {number} of the policy has weights of shape {list(weight.shape)} and a bias of shape "
                f"{list(bias.shape)}; a layer needs one neuron or more, and one bias for each neuron."
            )
        if not (weight.is_floating_point() and bias.is_floating_point()):
            raise WeightsError(
                f"{path}: layer {number} of the policy holds {_kind(weight)} weights and a bias of {_kind(bias)}; "
                "both must be floating-point numbers."
            )
        weight, bias = weight.float(), bias.float()
        if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise WeightsError(f"{path}: layer {number} of the policy holds numbers that are not finite in float32.")
        # Skip the random initialisation: it would change the global generator that a learner draws from.
        layer = nn.utils.skip_init(nn.Linear, width, len(weight))
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers += [layer, BOUNDS[bound]() if number == count - 1 else nn.ReLU()]
        width = len(weight)
    if not layers:
        raise WeightsError(f"{path}: the policy has no layer; it needs one linear layer or more.")
    return nn.Sequential(*layers)


def _kind(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

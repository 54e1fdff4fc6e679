"""The policy file: a trained actor as plain tensors, and the meaning of its inputs and outputs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import nn

from prune_env.common.errors import ConfigError, PlanError, WeightsError
from prune_env.common.files import atomic_write
from prune_env.common.text import shorten
from prune_env.config import RunConfig
from prune_env.config.granularity import GRANULARITIES
from prune_env.config.older import RENAMED
from prune_env.env import PruningEnv
from prune_env.env.observation import FEATURES, FloatArray
from prune_env.env.proposal import Proposal
from prune_env.granularity import Granularity
from prune_env.plan import PruningPlan

POLICY_VERSION = 1
METADATA = "prune_env.policy"

BOUNDS: Mapping[str, type[nn.Module]] = MappingProxyType({"tanh": nn.Tanh, "clip": nn.Hardtanh})
"""Last layers that bound the action to [-1, 1], by name."""


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
    def bound(self) -> str:
        """What bounds the actions: ``tanh`` or ``clip``."""
        return next(name for name, kind in BOUNDS.items() if isinstance(self.actor[-1], kind))

    def act(self, observation: FloatArray) -> FloatArray:
        """The action for one observation [len(features)], float32 [numbers]."""
        with torch.no_grad():
            return np.asarray(self.actor(torch.from_numpy(observation)[None])[0].numpy(), dtype=np.float32)

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
        tensors[f"{number}.weight"] = layer.weight.detach().contiguous()
        tensors[f"{number}.bias"] = layer.bias.detach().contiguous()
    # One JSON entry: safetensors writes several entries in an order that differs between processes.
    about = {
        "version": POLICY_VERSION,
        "granularity": policy.granularity,
        "action": policy.action,
        "limits": dict(policy.limits),
        "features": policy.features,
        "bound": policy.bound,
    }
    atomic_write(Path(path), save_tensors(tensors, {METADATA: json.dumps(about)}))


def load_policy(path: str | Path) -> Policy:
    """Reads a policy; never executes anything in the file.

    Raises:
        WeightsError: If the file is missing, damaged or no policy, or was made for another observation or action.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no policy at {path}. A run writes its policy to RUN/policy.safetensors.")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (the file is no mapping)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not a policy: it is not a readable safetensors file ({error}).") from None
    if not isinstance(about, dict) or about.get("version") != POLICY_VERSION:
        version = about.get("version", "none") if isinstance(about, dict) else "none"
        raise WeightsError(f"{path} is a policy of version {version}; this release reads version {POLICY_VERSION}.")
    action = about.get("action")
    if about.get("features") != list(FEATURES) or not isinstance(action, str):
        raise WeightsError(
            f"{path} was trained on another observation (this release has {len(FEATURES)} features: "
            f"{', '.join(FEATURES)}) or with another kind of action. Train a policy with this release."
        )
    bound = about.get("bound", "tanh")
    if not isinstance(bound, str) or bound not in BOUNDS:
        raise WeightsError(f"{path} bounds its actions by {bound!r}; this release knows {', '.join(BOUNDS)}.")
    limits = about.get("limits", {})
    if not isinstance(limits, dict) or not all(map(_is_positive, limits.values())):
        raise WeightsError(
            f"{path} gives {shorten(repr(limits))} as the settings that scale its actions, which are not settings with "
            "numbers above 0. The file is damaged; train the policy anew."
        )
    actor = _actor_from(tensors, path, bound)
    granularity = about.get("granularity") or _granularity_of(action, _numbers(actor))
    if not isinstance(granularity, str):
        raise WeightsError(
            f"{path} gives {_numbers(actor)} numbers as an action {shorten(repr(action))}, which no granularity takes. "
            "Train a policy with this release."
        )
    return Policy(actor, action, granularity, {RENAMED.get(name, name): value for name, value in limits.items()})


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


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < inf


def policy_of(actor: nn.Module, env: PruningEnv, bound: str = "tanh") -> Policy:
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


def _actor_from(tensors: dict[str, torch.Tensor], path: Path, bound: str) -> nn.Sequential:
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
        if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise WeightsError(f"{path}: layer {number} of the policy holds numbers that are not finite.")
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

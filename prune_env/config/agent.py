"""The agent's section of a run's settings, and its presets."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt

from prune_env.config.sections import Section

AMC_PRESET: Mapping[str, Any] = MappingProxyType(
    {
        "hidden": (300, 300),
        "actor_learning_rate": 1e-4,
        "critic_learning_rate": 1e-3,
        "batch_size": 64,
        "buffer_episodes": 100,
        "tau": 0.01,
        "gamma": 1.0,
        "warmup_episodes": 100,
        "noise": 0.5,
        "noise_decay": 0.95,
        "noise_floor": 0.0,
        "updates_per_step": 1.0,
        "baseline_momentum": 0.5,
        "decomposed_episodes": 0,
        "imitation": 0.0,
        "demonstrations": False,
    }
)
"""The settings of AMC's released search (He et al., ECCV 2018), which runs 800 episodes with them."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"amc": AMC_PRESET})


class AgentSection(Section):
    """Who decides, and how it learns."""

    name: str = Field(
        default="ddpg",
        min_length=1,
        description="The agent or search that proposes keep ratios, or your own as package.module:class.",
    )
    preset: Literal["amc"] | None = Field(
        default=None,
        description="amc: AMC's published settings for the keys of this section not given (what else it has is "
        "granularity.action=ratio env.min_keep=0.2); null: none.",
    )
    hidden: tuple[PositiveInt, ...] = Field(
        default=(64, 64),
        min_length=1,
        description="Neurons of each hidden layer of actor and critic, each 1 or more.",
    )
    actor_learning_rate: float = Field(default=1e-3, gt=0, description="Learning rate of the actor (Adam), above 0.")
    critic_learning_rate: float = Field(default=1e-3, gt=0, description="Learning rate of the critic (Adam), above 0.")
    batch_size: int = Field(
        default=64,
        ge=1,
        description="Transitions per update, 1 or more; means nothing where the steps share the reward.",
    )
    buffer_episodes: int = Field(
        default=1000, ge=1, description="Episodes that the replay buffer holds, 1 or more; not PPO."
    )
    tau: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="Share of the target networks replaced per update, in (0, 1]; means nothing where the steps share "
        "the reward.",
    )
    gamma: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Discount per step, in [0, 1]; 0 (our choice): each step earns the "
        "plan's reward and nothing else; AMC: 1.",
    )
    warmup_episodes: int | None = Field(
        default=None,
        ge=0,
        description="Episodes of uniform random actions, 0 or more; null: none after demonstrations, a tenth of "
        "the episodes without; not PPO.",
    )
    noise: float = Field(
        default=0.1,
        ge=0,
        description="Standard deviation of the exploration at first, in actions of [0, 1], 0 or more; DDPG and TD3.",
    )
    noise_decay: float = Field(
        default=0.985,
        gt=0,
        le=1,
        description="Factor on the exploration per episode after the warm-up, in (0, 1]; DDPG and TD3.",
    )
    noise_floor: float = Field(
        default=0.03,
        ge=0,
        description="Least standard deviation of the exploration, in actions of [0, 1], 0 or more; DDPG and TD3.",
    )
    updates_per_step: float = Field(
        default=1.0, gt=0, description="Updates per step of an episode, made after it, above 0; not PPO."
    )
    baseline_momentum: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Weight of a batch's mean reward in the moving-average baseline, in [0, 1]; 0: none.",
    )

    decomposed_episodes: int = Field(
        default=16,
        ge=0,
        description="Episodes that an update looks at, whose steps share the reward (our choice); 0: every step "
        "carries the whole reward, as in AMC, and gamma, tau, batch_size and baseline_momentum count; DDPG alone.",
    )
    imitation: float = Field(
        default=3.0,
        ge=0,
        description="How strongly the actor is held to the best plan so far at first, 0 (not at all) or more (our "
        "choice); it falls evenly, to nothing in the last episode; only where the steps share the reward; DDPG alone.",
    )
    demonstrations: bool = Field(
        default=True,
        description="Whether the agent is first shown the plans of the greedy and the power rule and the uniform one "
        "(our choice); half of the episodes at most, and without probes nothing; DDPG and TD3.",
    )

    def with_preset(self) -> Self:
        """The section with the preset's values wherever the user gave none.

        Returns:
            The section itself where no preset is named.
        """
        if self.preset is None:
            return self
        not_given = {key: value for key, value in PRESETS[self.preset].items() if key not in self.model_fields_set}
        return self.model_copy(update=not_given)

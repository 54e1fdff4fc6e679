"""The agent's section of the settings, and its presets."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from prune_env.config.sections import Section
from prune_env.config.trust import OWN_CODE

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
"""The settings of AMC's released search (He et al., ECCV 2018), which runs 800 episodes."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"amc": AMC_PRESET})


class AgentSection(Section):
    """The agent or search, and its learning."""

    name: Annotated[str, OWN_CODE] = Field(
        default="ddpg",
        min_length=1,
        description="The agent or search that proposes keep ratios, or your own as package.module:class.",
    )
    preset: Literal["amc"] | None = Field(
        default=None,
        description="amc: AMC's published settings for all keys of this section that are not given (for its other "
        "settings, give granularity.action=ratio env.min_keep=0.2); null: no preset.",
    )
    policy: str | None = Field(
        default=None,
        min_length=1,
        description="Path of a policy.safetensors that the agent starts from: its weights, and for DDPG and TD3 its "
        "plan as the first demonstration. The search replay proposes its plan alone (or that of a plan.json); null: "
        "none.",
    )
    hidden: tuple[Annotated[int, Field(gt=0, le=65536)], ...] = Field(
        default=(64, 64),
        min_length=1,
        max_length=16,
        description="Neurons in each hidden layer of actor and critic, each 1 to 65536; at most 16 layers.",
    )
    actor_learning_rate: float = Field(
        default=1e-3, gt=0, description="Learning rate of the actor (Adam), above 0; not SAC."
    )
    critic_learning_rate: float = Field(
        default=1e-3, gt=0, description="Learning rate of the critic (Adam), above 0; of SAC's actor too; not PPO."
    )
    batch_size: int = Field(
        default=64,
        ge=1,
        description="Transitions per update, 1 or more; not PPO, nor DDPG if decomposed_episodes is above 0.",
    )
    buffer_episodes: int = Field(default=1000, ge=1, description="Episodes in the replay buffer, 1 or more; not PPO.")
    tau: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="Share of the target networks replaced per update, in (0, 1]; not PPO, nor DDPG if "
        "decomposed_episodes is above 0.",
    )
    gamma: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Discount per step, in [0, 1]; 0 (our choice): each step earns only the plan's reward; AMC: "
        "1; not PPO, nor DDPG if decomposed_episodes is above 0.",
    )
    warmup_episodes: int | None = Field(
        default=None,
        ge=0,
        description="Episodes of uniform random actions at first, 0 or more; null: none after demonstrations, "
        "otherwise a tenth of the episodes; not PPO.",
    )
    noise: float = Field(
        default=0.1,
        ge=0,
        description="Initial standard deviation of the exploration noise, for actions in [0, 1], 0 or more; DDPG and "
        "TD3.",
    )
    noise_decay: float = Field(
        default=0.985,
        gt=0,
        le=1,
        description="Factor on the exploration noise per episode after the warm-up, in (0, 1]; DDPG and TD3.",
    )
    noise_floor: float = Field(
        default=0.03,
        ge=0,
        description="Least standard deviation of the exploration noise, for actions in [0, 1], 0 or more; DDPG and "
        "TD3.",
    )
    updates_per_step: float = Field(
        default=1.0, gt=0, description="Updates per step of an episode, made after the episode, above 0; not PPO."
    )
    baseline_momentum: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Weight of a batch's mean reward in the moving-average baseline, in [0, 1]; 0: no "
        "baseline; not PPO, nor DDPG if decomposed_episodes is above 0.",
    )

    decomposed_episodes: int = Field(
        default=16,
        ge=0,
        description="Episodes per update, with the reward decomposed over the steps (our choice); 0: every step earns "
        "the whole reward, as in AMC, and gamma, tau, batch_size and baseline_momentum are used; only DDPG.",
    )
    imitation: float = Field(
        default=3.0,
        ge=0,
        description="Initial weight of the loss that pulls the actor towards the best plan so far, 0 (off) or more "
        "(our choice); falls linearly to 0 in the last episode; only DDPG, if decomposed_episodes is above 0.",
    )
    demonstrations: bool = Field(
        default=True,
        description="Whether the first episodes show the agent the plans of the greedy rule, the power rule and the "
        "uniform plan (our choice); at most half of the episodes, and none without probes; DDPG and TD3.",
    )

    def with_preset(self) -> Self:
        """Fills in the preset's values for all keys that the user did not give.

        Returns:
            The filled section; the section itself without a preset.
        """
        if self.preset is None:
            return self
        not_given = {key: value for key, value in PRESETS[self.preset].items() if key not in self.model_fields_set}
        return self.model_copy(update=not_given)

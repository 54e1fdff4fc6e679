"""What each part of the agent brings: `python -m benchmarks.ablation`."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.synthetic_walks import optimum, synthetic_problem
from prune_env import RunConfig
from prune_env.agents import train_agent
from prune_env.agents.ddpg import PruningDDPG
from prune_env.env.observation import DYNAMIC, FEATURES, Observer
from prune_env.runs.intervals import Interval

SEEDS = range(5)
EVALUATIONS = (100, 300)

VARIANTS: dict[str, list[str]] = {
    "default": [],
    "the whole reward on every step": ["agent.decomposed_episodes=0", "agent.updates_per_step=2"],
    "nothing is shown": ["agent.demonstrations=false"],
    "neither": ["agent.decomposed_episodes=0", "agent.updates_per_step=2", "agent.demonstrations=false"],
    "the action is the keep ratio": ["env.action=ratio"],
    "no probes, so nothing is shown": ["sensitivity.probe_keep=null"],
    "no imitation": ["agent.imitation=0"],
    "no imitation, noise from 0.3": ["agent.imitation=0", "agent.noise=0.3"],
    "imitation of 1": ["agent.imitation=1"],
    "imitation of 10": ["agent.imitation=10"],
    "an update of 4 episodes": ["agent.decomposed_episodes=4"],
    "an update of 64 episodes": ["agent.decomposed_episodes=64"],
    "half as many updates": ["agent.updates_per_step=0.5"],
    "twice as many updates": ["agent.updates_per_step=2"],
    "half the noise": ["agent.noise=0.05"],
    "twice the noise": ["agent.noise=0.2"],
    "noise that falls twice as fast": ["agent.noise_decay=0.97"],
    "noise that falls half as fast": ["agent.noise_decay=0.9925"],
    "noise that falls until the end": ["agent.noise_decay=0.9957"],  # 0.1 to 0.03 in 280 episodes
    "no least noise": ["agent.noise_floor=0"],
    "layers of 32": ["agent.hidden=[32,32]"],
    "layers of 128": ["agent.hidden=[128,128]"],
    "the state lacks what the probes have shown": [],
    "the state lacks what is left of the budget": [],
    "the state is the depth alone": [],
    "rewards standardised, not ranked": [],
    "rewards as they are": [],
    "AMC's settings and action": ["agent.preset=amc", "agent.warmup_episodes=20", "env.action=ratio"],
    "TD3": ["agent.name=td3"],
    "SAC": ["agent.name=sac"],
    "PPO": ["agent.name=ppo"],
    "CMA-ES": ["agent.name=cma"],
    "CMA from the best of what the agent is shown": ["agent.name=cma_from_rules"],
    "TPE": ["agent.name=tpe"],
    "random": ["agent.name=random"],
    "power rule": ["agent.name=power"],
    "greedy": ["agent.name=greedy"],
}


def blind_to(*features: str) -> Callable[..., Any]:
    """`Observer.observe` without some features."""
    columns, observe = [FEATURES.index(feature) for feature in features], Observer.observe

    def observed(*given: Any) -> Any:
        found = observe(*given)
        found[columns] = 0.0
        return found

    return observed


def scored_by(score: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    """`PruningDDPG._episodes` with other scores than those of ranks."""
    episodes = PruningDDPG._episodes

    def scored(agent: PruningDDPG) -> Any:
        observations, actions, ranked = episodes(agent)
        assert agent.replay_buffer is not None
        rewards = agent.replay_buffer.rewards[: len(ranked) * agent.steps, 0].reshape(len(ranked), -1)
        return observations, actions, score(torch.from_numpy(rewards[:, -1]))

    return scored


PATCHES: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "the state lacks what the probes have shown": (Observer, "observe", blind_to("sensitivity")),
    "the state lacks what is left of the budget": (Observer, "observe", blind_to(*DYNAMIC)),
    "the state is the depth alone": (Observer, "observe", blind_to(*FEATURES[1:])),
    "rewards standardised, not ranked": (
        PruningDDPG,
        "_episodes",
        scored_by(lambda rewards: (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-9)),
    ),
    "rewards as they are": (PruningDDPG, "_episodes", scored_by(lambda rewards: rewards)),
}
"""Parts of the agent that no setting switches off."""


def share_closed(overrides: list[str], seed: int, coupled: bool) -> list[float]:
    """The share of the way from the uniform plan's loss to the least loss, after each of `EVALUATIONS`."""
    settings: dict[str, Any] = {"seed": seed, "model": {"name": "chain"}, "data": {"name": "none"}}
    config = RunConfig.from_mapping(settings, [*overrides, f"search.evaluations={EVALUATIONS[-1]}"])
    problem = synthetic_problem(seed, coupled)
    problem.probe_keep = config.sensitivity.probe_keep
    uniform = problem.attempt(problem.budget.uniform(), "uniform").outcome.loss
    least = optimum(problem)
    losses: list[float] = []
    problem.listeners.append(
        lambda trial: losses.append(np.inf if trial.proposed_by == "probe" else trial.outcome.loss)
    )
    train_agent(problem, config)
    best = np.minimum.accumulate([uniform, *losses])
    return [float((uniform - best[min(count, len(best) - 1)]) / (uniform - least)) for count in EVALUATIONS]


def main(names: list[str]) -> None:
    """Prints the table of all variants, or of the variants whose names contain a given word."""
    torch.set_num_threads(1)
    title = f"share of the way from uniform to the optimum, {len(SEEDS)} seeds, mean and 95 % bootstrap interval, in %"
    table = Table(box=SIMPLE, title=title, title_justify="left")
    table.add_column("variant")
    for kind in ("separable", "coupled"):
        for count in EVALUATIONS:
            table.add_column(f"{kind}, {count} evaluations", justify="right")
    chosen = {key: value for key, value in VARIANTS.items() if not names or any(name in key for name in names)}
    for name, overrides in track(chosen.items(), "ablating", console=Console(stderr=True)):
        cells = []
        for coupled in (False, True):
            patch = mock.patch.object(*PATCHES[name]) if name in PATCHES else nullcontext()
            with patch:
                found = np.array([share_closed(overrides, seed, coupled) for seed in SEEDS])
            cells += [str(Interval.of(column.tolist())) for column in found.T]
        table.add_row(name, *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The longer way, step by step: settings, images, problem, and a search that a callback stops.

`python examples/stop_early.py` prunes the network of own_model.py; `prune_env.prune` takes the same steps.
"""

import torch
from own_model import my_data, my_network, train_it

from prune_env import RunConfig
from prune_env.agents import train_agent
from prune_env.data import given_source, make_splits
from prune_env.env.builders import build_problem
from prune_env.search import Episode, Search, SearchCallback, SearchResult


class NoGain(SearchCallback):
    """Stops a search that has found nothing better for a number of episodes.

    The life cycle is that of Stable-Baselines3's callbacks: start, each episode, end.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.found = 0

    def on_start(self, search: Search) -> None:
        print(f"dense: accuracy {search.problem.baseline.quality:.2%}")

    def on_episode(self, episode: Episode) -> bool:
        if episode.trial is episode.best:
            self.found = episode.number
            print(f"episode {episode.number}: accuracy {episode.best.outcome.quality:.2%}")
        return episode.number - self.found < self.patience  # False stops the search

    def on_end(self, result: SearchResult) -> None:
        print(f"stopped after {result.episodes} episodes")


def main() -> None:
    torch.manual_seed(0)
    model, (train, test) = my_network(), my_data()
    train_it(model, train)
    model.eval()

    # Every setting of docs/configuration.md; the names stand in plans and reports.
    config = RunConfig.from_mapping(
        {
            "model": {"name": "my_network"},
            "data": {"name": "digits", "reward_images": 300, "calibration_images": 200},
            "budget": {"keep": 0.4},
            "search": {"evaluations": 60},
            "run": {"device": "cpu"},
        }
    )
    # Reward set, calibration set, training and test images: disjoint, and the same for the same seed.
    splits = make_splits(given_source(train, test), 300, 200, seed=config.seed)
    # Traces the network, proves its units, protects sensitive layers, scores channels, and times the forward passes.
    problem = build_problem(config, splits, model)
    print(f"{len(problem.budget.units)} units can be cut")

    result = train_agent(problem, config, (NoGain(patience=10),))

    small = problem.evaluator.pruned(result.best.plan)  # physically smaller, batch norms recalibrated
    print(f"{sum(parameter.numel() for parameter in small.parameters()):,} parameters stay")


if __name__ == "__main__":
    main()

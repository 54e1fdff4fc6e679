"""The numbers of one episode, under the tags that TensorBoard and every other logger show."""

from prune_env.env.problem import PruningProblem
from prune_env.search.episode import Episode

LAYOUT = {
    "The search": {
        "reward": ["Multiline", ["rollout/reward", "rollout/best_reward"]],
        "costs": ["Multiline", ["share/macs", "share/params"]],
        "losses": ["Multiline", ["train/actor_loss", "train/critic_loss"]],
    }
}
"""The layout of TensorBoard's custom scalars."""


def scalars_of(episode: Episode, problem: PruningProblem) -> dict[str, float]:
    """The scalars of an episode by tag.

    ``rollout/reward``, ``rollout/best_reward`` and ``rollout/QUALITY``; ``share/macs`` and ``share/params``, the shares
    of the dense network's costs; the search's own, such as ``train/actor_loss``; ``units/keep_ratio/UNIT`` for every
    free unit; the granularity's own series as ``units/FAMILY/LAYER``. ``rollout`` and ``train`` are
    Stable-Baselines3's families. TensorBoard sorts families by the alphabet and opens the first, which is ``rollout``.
    QUALITY is the task's name for its quality.

    Args:
        episode: The episode.
        problem: Its problem.
    """
    trial, widths = episode.trial, episode.trial.plan.widths
    return {
        "rollout/reward": trial.reward,
        "rollout/best_reward": episode.best.reward,
        f"rollout/{trial.quality_name}": trial.outcome.quality,
        "share/macs": trial.outcome.macs / problem.baseline.macs,
        "share/params": trial.outcome.params / problem.baseline.params,
        **episode.scalars,
        **{f"units/keep_ratio/{unit.name}": widths[unit.name] / unit.channels for unit in problem.budget.units},
        **{
            f"units/{family}/{name}": value
            for family, by_layer in problem.granularity.series(trial.edits).items()
            for name, value in by_layer.items()
        },
    }

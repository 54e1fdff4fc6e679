"""The numbers of one episode, under the tags that TensorBoard and every other logger show."""

from prune_env.env.problem import PruningProblem
from prune_env.search.episode import Episode

LAYOUT = {
    "The search": {
        "reward": ["Multiline", ["rollout/reward", "rollout/best_reward"]],
        "costs": ["Multiline", ["rollout/macs_share", "rollout/params_share"]],
        "losses": ["Multiline", ["train/actor_loss", "train/critic_loss"]],
    }
}
"""The layout of TensorBoard's custom scalars."""


def scalars_of(episode: Episode, problem: PruningProblem) -> dict[str, float]:
    """The scalars of an episode by tag.

    ``rollout/reward``, ``rollout/best_reward``, ``rollout/QUALITY``, ``rollout/macs_share`` and
    ``rollout/params_share``; the search's own, such as ``train/actor_loss``; ``units/keep_ratio/UNIT`` for every free
    unit; the granularity's own series as ``units/FAMILY/LAYER``. ``rollout`` and ``train`` are Stable-Baselines3's
    families; the units come after them in the alphabet, so that they do not hide them. QUALITY is the task's name for
    its quality.

    Args:
        episode: The episode.
        problem: Its problem.
    """
    trial, widths = episode.trial, episode.trial.plan.widths
    return {
        "rollout/reward": trial.reward,
        "rollout/best_reward": episode.best.reward,
        f"rollout/{trial.quality_name}": trial.outcome.quality,
        "rollout/macs_share": trial.outcome.macs / problem.baseline.macs,
        "rollout/params_share": trial.outcome.params / problem.baseline.params,
        **episode.scalars,
        **{f"units/keep_ratio/{unit.name}": widths[unit.name] / unit.channels for unit in problem.budget.units},
        **{
            f"units/{family}/{name}": value
            for family, by_layer in problem.granularity.series(trial.edits).items()
            for name, value in by_layer.items()
        },
    }

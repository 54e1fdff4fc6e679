"""How long an episode takes, told before the search."""

from prune_env.data import ImageSet, Splits
from prune_env.env.builders import make_repair, usual_execution
from prune_env.env.loading import device_of
from prune_env.env.space import SearchSpace
from prune_env.evaluation.evaluator import Evaluator

IMAGES = 32
"""Images of the reward and of the calibration set that are timed first [our choice]."""

SHORT = 1.0
"""Up to this number of seconds a whole episode is timed [our choice]."""


def episode_seconds(space: SearchSpace, splits: Splits) -> float:
    """Returns the seconds of one episode: cut the network to the uniform plan, repair, recalibrate and measure it.

    A long episode is told from a part of the images. What a repair measures once a search does not count, nor do the
    faster execution settings that a search finds.

    Args:
        space: The search space.
        splits: The data.
    """
    whole = splits.reward(), splits.calibration()
    part = whole[0].first(IMAGES), whole[1].first(IMAGES)
    seconds = _seconds(space, splits, *part)
    shares = {"forward": len(whole[0]) / len(part[0]), "recalibration": len(whole[1]) / len(part[1])}
    told = sum(seconds[phase] * shares.get(phase, 1.0) for phase in seconds)
    return told if told > SHORT else sum(_seconds(space, splits, *whole).values())


def _seconds(space: SearchSpace, splits: Splits, reward: ImageSet, calibration: ImageSet) -> dict[str, float]:
    """The seconds of each phase of an evaluation; a short one is repeated, as the first one warms up."""
    config, budget = space.config, space.budget
    few = config.repair.model_copy(update={"images": min(config.repair.images, len(calibration))})
    repair = make_repair(config.model_copy(update={"repair": few}), splits, space.walk, space.granularity.makes_edits)
    execution, task = usual_execution(config), space.context.task
    evaluator = Evaluator(space.walk, reward, calibration, execution, device_of(config), repair, task)
    plan = space.walk.plan(budget.names(budget.uniform()))
    evaluator.run(plan)
    if sum(evaluator.seconds.values()) < SHORT:
        evaluator.run(plan)
    return evaluator.seconds

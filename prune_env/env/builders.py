"""Builders that turn a configuration into a walk, a budget, an evaluator and a problem."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from prune_env.budget import Budget
from prune_env.budget.latency_model import LatencyModel, fit_latency
from prune_env.budget.width_multiple import fastest_multiple
from prune_env.common.errors import BudgetError
from prune_env.config import RunConfig
from prune_env.config.protection import RESIDUAL_STREAMS
from prune_env.criteria import ScoringContext, load_scores, score_channels
from prune_env.data import Splits, load_images
from prune_env.data.timing import batch_to_time
from prune_env.env.loading import check_names, device_of
from prune_env.env.problem import PruningProblem
from prune_env.env.space import ScoresOnDemand, SearchSpace
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionChoice, ExecutionSettings
from prune_env.evaluation.execution_choice import ExecutionChooser
from prune_env.evaluation.racing import Race
from prune_env.granularity import Granularity, GranularityContext, GranularityMeasurements, make_granularity
from prune_env.plan import PruningPlan
from prune_env.protection.feature_ranks import feature_map_ranks
from prune_env.protection.sensitivity import SensitivityReport, find_sensitive_layers
from prune_env.repair import REPAIRS, RepairContext
from prune_env.rewards import Reward, make_reward, needs_latency
from prune_env.surgery import Repair
from prune_env.tasks import make_task
from prune_env.walk import LayerWalk, Scores
from prune_env.walk.residual_streams import residual_streams

IMAGES_AT_ONCE = 64
"""Images per batch for ranks and scores. The size is fixed so that a resumed run computes bit-identical values."""


@dataclass(frozen=True)
class Remembered:
    """Measurements of an earlier part of a run, which are not repeated.

    Attributes:
        scores: A file of the criterion's scores (`save_scores`); used only if its weights and images match.
        latency: The formula that computes latency from the widths.
        granularity: The result of `Granularity.measurements`.
        timed: Whether to measure times that are only displayed.
    """

    scores: Path | None = None
    latency: LatencyModel | None = None
    granularity: GranularityMeasurements | None = None
    timed: bool = True


NOTHING_REMEMBERED = Remembered()

ERROR_IMAGES = 64
"""Calibration images on which the errors of inexact units are measured."""


def trace(config: RunConfig, splits: Splits, model: nn.Module) -> LayerWalk:
    """Traces a network on one image of the data set and protects the modules that the user named."""
    named = {name: reason for name, reason in config.env.protect.items() if name != RESIDUAL_STREAMS}
    walk = LayerWalk.trace(
        model, _one_image(splits), named, seconds=config.env.trace_seconds, approximate=config.env.approximate
    )
    if any(unit.inexact for unit in walk.free):
        walk = walk.measured_on(splits.calibration().first(ERROR_IMAGES).images)
    return walk.protecting(_streams(config, splits, walk))


def _one_image(splits: Splits) -> Tensor:
    return load_images(splits.source, "train", splits.reward_indices[:1]).images


def _streams(config: RunConfig, splits: Splits, walk: LayerWalk) -> dict[str, str]:
    """Returns the reason of each residual stream, by unit name, if the user protects them."""
    reason = config.env.protect.get(RESIDUAL_STREAMS)
    if reason is None:
        return {}
    streams = residual_streams(walk.model, walk.units, _one_image(splits))
    return {name: f"{reason}, written by {layers} layers" for name, layers in streams.items()}


def build_walk(config: RunConfig, splits: Splits, model: nn.Module) -> tuple[LayerWalk, SensitivityReport | None]:
    """Traces a network, protects its sensitive units and returns the evidence; None if the search for them is off."""
    walk, settings = trace(config, splits, model), config.sensitivity
    if not settings.enabled:
        return walk, None
    images = splits.calibration().images[: settings.images]
    ranks = feature_map_ranks(walk, images, IMAGES_AT_ONCE)
    report = find_sensitive_layers(ranks, settings.rank_threshold, settings.layer_threshold, settings.top_share)
    return walk.protecting(report.sensitive), report


def build_budget(config: RunConfig, splits: Splits, walk: LayerWalk, latency: LatencyModel | None = None) -> Budget:
    """Makes the budget of a walk; ``env.round_to: null`` measures the fastest width multiple.

    Raises:
        BudgetError: If the budget cannot be met by whole channels, unless the granularity is `beyond_channels`.
    """
    formula = latency.cost_form(walk) if latency is not None else None
    given, wanted = config.env, config.budget
    beyond = make_granularity(config.granularity).beyond_channels

    def of(multiple: int, beyond_channels: bool = False) -> Budget:
        also = wanted.also
        return Budget(walk, wanted.metric, wanted.keep, given.min_keep, multiple, formula, beyond_channels, also)

    if given.round_to is not None:
        return of(given.round_to, beyond)
    try:
        return fastest_multiple(walk, of, _timed_batch(config, splits), config.seed)
    except BudgetError:
        # Networks of whole channels are timed. Where they cannot meet the budget, there is nothing to time.
        return of(1, beyond)


def build_evaluator(
    config: RunConfig,
    splits: Splits,
    walk: LayerWalk,
    repair: Repair | None,
    execution: ExecutionSettings | None = None,
) -> Evaluator:
    """Makes the evaluator of a walk on the configuration's reward and calibration set.

    Args:
        config: The run's settings.
        splits: The data.
        walk: The network's walk.
        repair: The repair of `make_repair`; None for no repair.
        execution: The execution settings; None takes them from the configuration.
    """
    execution, task = execution or usual_execution(config), make_task(config.task)
    return Evaluator(walk, splits.reward(), splits.calibration(), execution, device_of(config), repair, task)


def build_space(
    config: RunConfig,
    splits: Splits,
    model: nn.Module,
    on_progress: Callable[[str], None] = lambda _: None,
    remembered: Remembered = NOTHING_REMEMBERED,
) -> SearchSpace:
    """Traces a network, protects sensitive units, and prepares budget and granularity; measures no plan.

    Args:
        config: The run's settings.
        splits: The data.
        model: The dense network with its weights.
        on_progress: Receives progress messages.
        remembered: Measurements of an earlier part of the run.

    Raises:
        BudgetError: If the budget cannot be met.
    """
    check_names(config)
    on_progress("tracing the network, proving its units and measuring feature-map ranks")
    walk, report = build_walk(config, splits, model)
    reward, latency = make_reward(config.reward.name, config.reward.settings), remembered.latency
    timed = latency is not None or config.budget.metric == "latency" or needs_latency(reward)
    if timed or config.env.round_to is None or make_granularity(config.granularity).Measurements is not None:
        config = _pinned(config)
    if latency is not None:
        latency.refuse_unfit(walk)
    elif timed:
        on_progress("timing the network's layers at many widths")
        latency = fit_latency(walk, _timed_batch(config, splits), config.env.min_keep, config.seed)
    budget, context = build_budget(config, splits, walk, latency), scoring_context(config, splits, walk)

    def score() -> Scores:
        on_progress(f"scoring channels by {config.criterion.name}")
        return _scores(config, context, remembered.scores)

    scores = ScoresOnDemand(score)
    granularity = _prepared_granularity(config, splits, context, scores, report, remembered, on_progress)
    granularity.reachable(budget)
    return SearchSpace(config, walk, budget, granularity, scores, context, reward, report, latency)


def build_problem(
    config: RunConfig,
    splits: Splits,
    model: nn.Module,
    on_progress: Callable[[str], None] = lambda _: None,
    remembered: Remembered = NOTHING_REMEMBERED,
) -> PruningProblem:
    """Makes the problem for a search: the search space, and an evaluator with the fastest execution.

    Arguments and errors are those of `build_space`; a budget that cannot be met is refused before any plan is measured.
    """
    space = build_space(config, splits, model, on_progress, remembered)
    config, walk, scores = space.config, space.walk, dict(space.scores)
    ranks = partial(_reward_of, reward=space.reward, walk=walk, latency=space.latency)
    repair = make_repair(config, splits, walk, space.granularity.makes_edits)
    choice = _chosen_execution(config, splits, space, repair, ranks, on_progress)
    evaluator = build_evaluator(config, splits, walk, repair, choice.execution)
    facts = {"model": config.model.name, "criterion": config.criterion.name, "repair": config.repair.name}
    return PruningProblem(
        walk,
        space.budget,
        evaluator,
        scores,
        space.reward,
        space.report,
        input_size=splits.source.size,
        context=space.context,
        granularity=space.granularity,
        latency=space.latency,
        probe_keep=config.sensitivity.probe_keep,
        race=Race.on(evaluator, space.reward) if config.search.racing else None,
        execution_choice=choice,
        provenance={**facts, "seed": config.seed},
    )


def _prepared_granularity(
    config: RunConfig,
    splits: Splits,
    context: ScoringContext,
    scores: Scores,
    report: SensitivityReport | None,
    remembered: Remembered,
    on_progress: Callable[[str], None],
) -> Granularity:
    return make_granularity(config.granularity).prepare(
        GranularityContext(
            context,
            scores,
            config.env.min_keep,
            partial(_timed_batch, config, splits),
            _untouched(config, context.walk, report) | set(_streams(config, splits, context.walk)),
            remembered.granularity,
            remembered.timed,
            on_progress,
        )
    )


def _chosen_execution(
    config: RunConfig,
    splits: Splits,
    space: SearchSpace,
    repair: Repair | None,
    ranks: Callable[[Evaluator, PruningPlan], float],
    on_progress: Callable[[str], None],
) -> ExecutionChoice:
    """Chooses the execution settings, and sets torch's threads to theirs."""
    chooser = ExecutionChooser(
        space.walk,
        space.budget,
        splits.reward(),
        splits.calibration(),
        device_of(config),
        space.scores,
        ranks,
        repair,
        {key: getattr(config, key).model_dump() for key in ("data", "criterion", "repair", "reward")},
        on_progress,
        space.context.task,
    )
    choice = chooser.choose(config.execution, config.search.evaluations)
    if choice.execution.threads is not None:
        torch.set_num_threads(choice.execution.threads)
    return choice


def _pinned(config: RunConfig) -> RunConfig:
    """Pins layout and threads so that timings before the search match the search."""
    usual = usual_execution(config)
    pinned = {"layout": usual.layout, "threads": usual.threads}
    return config.model_copy(update={"execution": config.execution.model_copy(update=pinned)})


def _scores(config: RunConfig, context: ScoringContext, known: Path | None) -> Scores:
    scores = load_scores(config.criterion.name, context, known) if known is not None else None
    return scores if scores is not None else score_channels(config.criterion.name, context)


def _untouched(config: RunConfig, walk: LayerWalk, report: SensitivityReport | None) -> set[str]:
    """Modules that are protected by name, or whose outputs belong to a sensitive unit."""
    sensitive = [unit for unit in walk.units if report is not None and unit.name in report.sensitive]
    named = {name.removesuffix(":in") for name in config.env.protect}
    return named | {member.module for unit in sensitive for member in unit.members if member.side == "out"}


def _reward_of(
    evaluator: Evaluator, plan: PruningPlan, reward: Reward, walk: LayerWalk, latency: LatencyModel | None
) -> float:
    """The reward of a plan on a candidate evaluator of the execution choice."""
    outcomes = [evaluator.evaluate(plan), evaluator.dense()]
    if latency is not None:
        widths = ([one.widths[unit.name] for unit in walk.units] for one in (plan, walk.plan({})))
        outcomes = [
            replace(outcome, latency=latency.seconds(walk, one)) for outcome, one in zip(outcomes, widths, strict=True)
        ]
    return reward(*outcomes)


def make_repair(config: RunConfig, splits: Splits, walk: LayerWalk, edits: bool = False) -> Repair | None:
    """Makes the repair that a configuration names, for layers with cut inputs or edits; None for no repair."""

    def scoring() -> ScoringContext:
        return replace(scoring_context(config, splits, walk), data=splits.calibration().first(config.repair.images))

    # An edit may drop inputs of a layer even where the producing unit keeps all channels.
    units = walk.units if edits else walk.free
    reading = {member.module for unit in units for member in unit.members if member.side == "in"}
    readers = [name for name in walk.shapes if name in reading]
    return REPAIRS.find(config.repair.name)(RepairContext(config.repair, tuple(readers), scoring))


def scoring_context(config: RunConfig, splits: Splits, walk: LayerWalk) -> ScoringContext:
    """The input of a criterion: the walk and the first ``criterion.images`` calibration images."""
    data = splits.calibration().first(config.criterion.images)
    return ScoringContext(walk, data, config.seed, IMAGES_AT_ONCE, device_of(config), make_task(config.task))


def usual_execution(config: RunConfig) -> ExecutionSettings:
    """The execution settings of a configuration, with defaults where they are null."""
    given = {key: value for key, value in config.execution.model_dump().items() if value is not None}
    return ExecutionSettings(**{"threads": torch.get_num_threads(), **given})


def _timed_batch(config: RunConfig, splits: Splits) -> Tensor:
    """The batch for latency measurements, [``budget.batch``, C, H, W]."""
    return batch_to_time(splits, config.budget.batch, device_of(config), usual_execution(config).memory_format)

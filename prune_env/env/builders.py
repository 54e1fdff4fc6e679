"""From a configuration to a problem: data, network, walk, sensitive layers, budget, form, evaluator."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from prune_env.budget import Budget
from prune_env.budget.latency_model import LatencyModel, fit_latency
from prune_env.budget.width_multiple import fastest_multiple
from prune_env.common.errors import ConfigError, ModelError
from prune_env.config import RunConfig
from prune_env.criteria import ScoringContext, criterion_named, load_scores, score_channels
from prune_env.data import ImageSet, Splits, load_images, load_source, make_splits
from prune_env.data.timing import batch_to_time
from prune_env.env.problem import Groups, PruningProblem
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.evaluation.execution_choice import ExecutionChooser
from prune_env.granularity.group.grouping import Grouping
from prune_env.granularity.group.kernel_scores import score_kernels
from prune_env.granularity.group.times import Times, faster_counts, time_groups
from prune_env.logits import check_output
from prune_env.models import build_model
from prune_env.plan import PruningPlan
from prune_env.protection.feature_ranks import feature_map_ranks
from prune_env.protection.sensitivity import SensitivityReport, find_sensitive_layers
from prune_env.recover import train
from prune_env.repair.least_squares import LeastSquares
from prune_env.repair.merging import Merging, similar_filters
from prune_env.surgery import Repair
from prune_env.walk import LayerWalk
from rewards import make_reward

IMAGES_AT_ONCE = 64
"""In a batch that evidence is gathered from: whatever the form, or a run taken up would find other last digits."""

TIMED_REWARDS = ("latency_penalty",)
"""Rewards that look at the latency."""


def load_model(
    config: RunConfig,
    splits: Splits,
    on_epoch: Callable[[int, float], None] | None = None,
    accept: Callable[[nn.Module], object] | None = None,
) -> nn.Module:
    """The network that a configuration names, trained on the spot where it asks for that.

    Args:
        config: The run's settings.
        splits: The data; training on the spot uses only images that no other set holds.
        on_epoch: Called with the epoch's number and its mean loss.
        accept: Called with the network before any training; may refuse it by an error of its own.
    """
    torch.manual_seed(config.seed)
    source = splits.source
    model = build_model(
        config.model.name, source.classes, source.channels, config.model.weights, config.model.arguments
    )
    check_output(model, load_images(source, "train", splits.reward_indices[:1]).images, source.classes)
    if accept is not None:
        accept(model)
    if config.model.weights is None and config.pretrain.epochs:
        train(model, splits, config.pretrain, config.seed, device_of(config), on_epoch)
    return model.eval()


def load_splits(config: RunConfig) -> Splits:
    """The data that a configuration names, split by index."""
    data = config.data
    source = load_source(data.name, data.path, data.image_size)
    return make_splits(source, data.reward_images, data.calibration_images, config.seed, data.test_images)


def device_of(config: RunConfig) -> torch.device:
    """The device that a configuration asks for.

    Raises:
        ModelError: If it asks for a GPU and there is none.
    """
    wanted = config.run.device
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"run.device: {wanted} given, but this machine has no usable GPU. Give cpu or auto.")
    device = torch.device(wanted)
    if device.index is not None and device.index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ModelError(f"run.device: {wanted} given, but this machine has {count} GPUs, cuda:0 to cuda:{count - 1}.")
    return device


def check_names(config: RunConfig) -> None:
    """Refuses a criterion, a reward or a device that does not exist, before any time is spent.

    Raises:
        ConfigError: If there is no such criterion, or racing does not go with the reward.
        RewardError: If there is no such reward, or its settings do not fit.
        ModelError: If there is no such device.
    """
    if config.search.racing and ":" in config.reward.name:
        raise ConfigError(
            f"search.racing: true given with the reward {config.reward.name!r}; allowed with the library's own "
            "rewards, which do not look at the loss and do not fall where accuracy rises. Set search.racing to false."
        )
    if config.env.action == "pruning_rate" and config.env.granularity != "group":
        raise ConfigError("env.action: pruning_rate given, which is for env.granularity: group. Give both, or ratio.")
    timed = config.budget.metric == "latency" or config.reward.name in TIMED_REWARDS
    if timed and config.env.granularity == "group":
        raise ConfigError(
            "env.granularity: group given with a budget or reward of latency, whose formula knows channels alone. "
            "Count macs or params; env.only_faster_groups keeps the group counts that are faster on this machine."
        )
    criterion_named(config.criterion.name)
    make_reward(config.reward.name, config.reward.settings)
    device_of(config)


def trace(config: RunConfig, splits: Splits, model: nn.Module) -> LayerWalk:
    """The walk of a network on images of the data's size, with what the user protects."""
    image = load_images(splits.source, "train", splits.reward_indices[:1]).images
    return LayerWalk.trace(model, image, config.env.protect)


def make_evaluator(config: RunConfig, splits: Splits, walk: LayerWalk, grouped: bool = False) -> Evaluator:
    """The evaluator of a walk on the configuration's reward and calibration set; nothing is measured for it.

    Args:
        config: The run's settings.
        splits: The data.
        walk: The network's walk.
        grouped: Whether convolutions may fall into groups.
    """
    repair = make_repair(config, splits, walk, grouped)
    return Evaluator(walk, splits.reward(), splits.calibration(), usual_execution(config), device_of(config), repair)


def make_repair(config: RunConfig, splits: Splits, walk: LayerWalk, grouped: bool = False) -> Repair | None:
    """What a configuration has cut layers repaired by, also convolutions in groups; None for nothing."""
    if config.repair.name == "none":
        return None
    context = replace(scoring_context(config, splits, walk), data=_first(splits.calibration(), config.repair.images))
    if config.repair.name == "merge":
        if grouped:
            raise ConfigError(
                "repair.name: merge given, which knows no convolutions in groups. Give none or least_squares."
            )
        return Merging(walk, similar_filters(context))
    normed = {pair.conv for pair in context.fold_pairs}
    model = copy.deepcopy(walk.model).float().to(device_of(config))
    # A convolution that falls into groups reads less also of a unit that stays whole.
    units = walk.units if grouped else walk.free
    readers = {member.module: None for unit in units for member in unit.members if member.side == "in"}
    return LeastSquares(model, readers, context.batches(), normed, config.repair.ridge)


def scoring_context(config: RunConfig, splits: Splits, walk: LayerWalk) -> ScoringContext:
    """What a criterion looks at: the walk, and the first of the calibration images."""
    data = _first(splits.calibration(), config.criterion.images)
    return ScoringContext(walk, data, config.seed, IMAGES_AT_ONCE, device_of(config))


def _first(images: ImageSet, count: int) -> ImageSet:
    return ImageSet(images.images[:count], images.labels[:count])


def usual_execution(config: RunConfig) -> ExecutionSettings:
    """The form that a configuration gives, the usual one where it leaves that open."""
    given = {key: value for key, value in config.form.model_dump().items() if value is not None}
    return ExecutionSettings(**{"threads": torch.get_num_threads(), **given})


def make_problem(
    config: RunConfig,
    splits: Splits,
    model: nn.Module,
    tell: Callable[[str], None] = lambda _: None,
    known: Path | None = None,
    latency: LatencyModel | None = None,
    group_times: Times | None = None,
) -> PruningProblem:
    """Traces a network, protects what is sensitive, measures the fastest form, and readies it for a search.

    Args:
        config: The run's settings.
        splits: The data.
        model: The dense network with its weights.
        tell: Hears in words what is going on.
        known: A file of scores (`save_scores`), which are used if they are of these weights and images.
        latency: What latency follows from the widths by, where it was measured before.
        group_times: What convolutions take in groups, where it was measured before.

    Raises:
        BudgetError: If the budget cannot be met; before any plan is evaluated.
    """
    check_names(config)
    tell("tracing the network, proving its units and reading feature-map ranks")
    walk = trace(config, splits, model)
    report = None
    if config.sensitivity.enabled:
        report = _find_sensitive(config, splits, walk)
        walk = walk.protecting(report.sensitive)
    reward = make_reward(config.reward.name, config.reward.settings)
    timed = latency is not None or config.budget.metric == "latency" or config.reward.name in TIMED_REWARDS
    if timed or config.env.round_to is None or config.env.granularity == "group":
        # What is timed here is timed as it will run.
        form = usual_execution(config)
        pinned = {"layout": form.layout, "threads": form.threads}
        config = config.model_copy(update={"form": config.form.model_copy(update=pinned)})
    if timed and latency is None:
        tell("timing the network's layers at many widths")
        latency = fit_latency(walk, _timed_batch(config, splits), config.env.min_keep, config.seed)
    budget = _budget(config, splits, walk, latency)
    context = scoring_context(config, splits, walk)
    groups = None
    if config.env.granularity == "group":
        groups = _groups(config, splits, context, report, group_times, tell)
    tell(f"scoring channels by {config.criterion.name}")
    scores = load_scores(config.criterion.name, context, known) if known is not None else None
    if scores is None:
        scores = score_channels(config.criterion.name, context)
    sets, device = (splits.reward(), splits.calibration()), device_of(config)

    def rank(evaluator: Evaluator, plan: PruningPlan) -> float:
        dense, plain = walk.plan({}), reward
        if latency is None:
            return plain(evaluator.evaluate(plan), evaluator.dense())
        seconds = [latency.seconds(walk, [one.widths[unit.name] for unit in walk.units]) for one in (plan, dense)]
        return plain(
            replace(evaluator.evaluate(plan), latency=seconds[0]), replace(evaluator.dense(), latency=seconds[1])
        )

    repair = make_repair(config, splits, walk, groups is not None)
    facts = {key: getattr(config, key).model_dump() for key in ("data", "criterion", "repair", "reward")}
    chooser = ExecutionChooser(walk, budget, *sets, device, scores, rank, repair, facts, tell)
    choice = chooser.choose(config.form, config.search.evaluations)
    if choice.form.threads is not None:
        torch.set_num_threads(choice.form.threads)
    evaluator = Evaluator(walk, *sets, choice.form, device, repair)
    problem = PruningProblem(
        walk,
        budget,
        evaluator,
        scores,
        reward,
        report,
        input_size=splits.source.size,
        groups=groups,
        min_keep=config.env.min_keep,
        latency=latency,
        probe_keep=config.sensitivity.probe_keep,
        racing=config.search.racing,
        execution_choice=choice,
        context=context,
        provenance={
            "model": config.model.name,
            "criterion": config.criterion.name,
            "repair": config.repair.name,
            "seed": config.seed,
        },
    )
    problem.reachable(config.env.action)
    return problem


def _groups(
    config: RunConfig,
    splits: Splits,
    context: ScoringContext,
    report: SensitivityReport | None,
    times: Times | None,
    tell: Callable[[str], None],
) -> Groups:
    """What convolutions may fall into groups by; those that are protected or sensitive themselves may not."""
    sensitive = [unit for unit in context.walk.units if report is not None and unit.name in report.sensitive]
    untouched = {name.removesuffix(":in") for name in config.env.protect}
    untouched |= {member.module for unit in sensitive for member in unit.members if member.side == "out"}
    grouping = Grouping(context.walk, config.env.max_groups, untouched)
    if times is None:
        tell("timing convolutions in groups")
        times = time_groups(grouping, _timed_batch(config, splits))
    if config.env.only_faster_groups:
        grouping = Grouping(context.walk, config.env.max_groups, untouched, faster_counts(times))
    tell(f"scoring kernels by {config.criterion.kernels}")
    names = [found.name for found in grouping.convolutions]
    return Groups(grouping, score_kernels(config.criterion.kernels, context, names), times)


def _timed_batch(config: RunConfig, splits: Splits) -> Tensor:
    """The batch that latency is of."""
    return batch_to_time(splits, config.budget.batch, device_of(config), usual_execution(config).memory_format)


def _budget(config: RunConfig, splits: Splits, walk: LayerWalk, latency: LatencyModel | None) -> Budget:
    """The budget; where widths may be multiples of what is fastest, that is measured."""
    form = latency.form(walk) if latency is not None else None
    given, wanted = config.env, config.budget

    def of(multiple: int) -> Budget:
        return Budget(walk, wanted.metric, wanted.keep, given.min_keep, multiple, form)

    if given.round_to is not None:
        return of(given.round_to)
    return fastest_multiple(walk, of, _timed_batch(config, splits), config.seed)


def _find_sensitive(config: RunConfig, splits: Splits, walk: LayerWalk) -> SensitivityReport:
    settings = config.sensitivity
    images = splits.calibration().images[: settings.images]
    ranks = feature_map_ranks(walk, images, IMAGES_AT_ONCE)
    return find_sensitive_layers(ranks, settings.rank_threshold, settings.layer_threshold, settings.top_share)

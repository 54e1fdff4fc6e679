"""`prune-env inspect`: the dry run. Shows units, costs, protected units with reasons, and the time of an episode."""

from typing import Any

from prune_env.commands.common import (
    AsJson,
    ConfigArgument,
    Force,
    Overrides,
    forced,
    print_json,
    results,
    run_command,
    tell,
    tell_dense,
)
from prune_env.commands.next_steps import print_next, with_config
from prune_env.commands.progress import phases
from prune_env.common.words import counted
from prune_env.data import describe_images, images_in_words
from prune_env.env.episode_time import episode_seconds
from prune_env.env.space import SearchSpace
from prune_env.evaluation.dense import DenseQuality
from prune_env.report.inspection import inspect_space, render_granularity, render_units
from prune_env.runs.settings import read_settings
from prune_env.runs.starting import load_space


def inspect_walk(
    config: ConfigArgument, overrides: Overrides = None, force: Force = False, as_json: AsJson = False
) -> None:
    """Shows, without a search: units, coupling, costs, ranks, protected units and reasons, reachable budgets, time."""
    settings = read_settings(config, forced(overrides, force))
    with phases("loading") as say:
        splits, space, dense = load_space(settings, on_progress=say, on_dense=tell_dense)
        say("timing an episode")
        record = inspect_space(space, dense, episode_seconds(space, splits))
        record = {"data": describe_images(splits.source), **record}
    if as_json:
        print_json(record)
        return
    tell(f"images: {images_in_words(splits.source)}")
    for table in render_units(space, record):
        results.print(table)
    _tell_costs(space, dense, record, settings.env.min_keep, settings.search.evaluations)
    for table in render_granularity(space, settings.budget.batch):
        results.print(table)
    if space.walk.idle:
        tell(f"never called in the forward pass, left dense: {', '.join(space.walk.idle)}")
    print_next(with_config(str(config), overrides or (), inspected=True))


def _tell_costs(
    space: SearchSpace, dense: DenseQuality, record: dict[str, Any], min_keep: float, evaluations: int
) -> None:
    limits, seconds = record["budget"], record["seconds_per_episode"]
    limits = {limits["metric"]: limits, **limits["also"]}
    budgets = "".join(
        f"budget: keep {one['keep']:.1%} of the {metric}; reachable: {one['reachable'][0]:.1%} to "
        f"{one['reachable'][1]:.0%} with env.min_keep {min_keep}\n"
        for metric, one in limits.items()
    )
    tell(
        f"dense: {record['dense']['macs']:,} MACs, {record['dense']['params']:,} params, reward-set "
        f"{dense.metric.name} {dense.quality:{dense.metric.format}}\n"
        f"{fixed_macs_in_words(record)}params that the cost formula takes as fixed: {record['fixed_params']:,}\n"
        f"free units reach {record['reach']['macs']:.1%} of the MACs, {record['reach']['params']:.1%} of the params\n"
        f"{budgets}"
        f"an episode takes about {seconds:.2f} s; {evaluations} evaluations about {seconds * evaluations / 60:.1f} min"
    )
    if (latency := space.latency) is not None:
        dense_seconds = latency.seconds(space.walk, space.walk.width_list())
        tell(
            f"latency by the formula: {1e3 * dense_seconds:.1f} ms a batch of {latency.batch} for the dense network, "
            f"{counted(latency.threads, 'thread')}; error {latency.error:.1%} on networks outside the fit"
        )


def fixed_macs_in_words(record: dict[str, Any], most: int = 3) -> str:
    """The multiply-adds of operations that no unit changes, the largest ones by name; empty if there are none."""
    fixed = sorted(record["fixed_macs"].items(), key=lambda item: -item[1])
    if not fixed:
        return ""
    names = ", ".join(f"{name} {macs:,}" for name, macs in fixed[:most])
    more = f" and {len(fixed) - most} more" if len(fixed) > most else ""
    return f"of these MACs no unit changes {sum(macs for _, macs in fixed):,}: {names}{more}\n"


if __name__ == "__main__":
    run_command(inspect_walk)

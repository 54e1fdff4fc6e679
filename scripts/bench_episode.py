"""`prune-env bench episode`: the time of an episode against its bare forward passes."""

import os
import resource
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from prune_env.commands.common import AsJson, ConfigArgument, Overrides, print_json, results, tell
from prune_env.commands.episode_times import EpisodeBench, learner_named
from prune_env.commands.next_steps import print_next, with_config
from prune_env.commands.progress import phases, tracked
from prune_env.common.memory import live_megabytes
from prune_env.common.words import counted
from prune_env.config import RunConfig
from prune_env.env.builders import build_problem
from prune_env.env.loading import load_model, load_splits
from prune_env.report.fitting import plain_table
from prune_env.runs.settings import read_settings
from prune_env.search.registry import check_named_search

SETTLING = 100
"""Episodes before the memory is measured: torch caches the kernels of new shapes, up to about a thousand."""

Rounds = Annotated[int, typer.Option(min=1, help="Number of timed plans; medians are reported.")]
Episodes = Annotated[int, typer.Option(min=0, help="Episodes over which the growth of memory is measured.")]


def bench_episode(
    config: ConfigArgument,
    overrides: Overrides = None,
    rounds: Rounds = 11,
    episodes: Episodes = 500,
    as_json: AsJson = False,
) -> None:
    """Times whole episodes, their evaluations, and the bare forward passes of the same networks, in turn.

    The configured agent must learn after each episode: ddpg, td3 or sac.
    """
    bench = ready_bench(read_settings(config, overrides or ()), 2 * rounds + SETTLING + episodes)
    start = resident_megabytes()
    for _ in tracked(range(rounds), "timing", rounds):
        bench.round()
    settling = SETTLING if episodes else 0
    for _ in tracked(range(settling), "letting memory settle", settling):
        bench.episode()
    settled, live = resident_megabytes(), live_megabytes()
    for _ in tracked(range(episodes), "measuring memory", episodes):
        bench.episode()
    grown = live_megabytes()
    record = {
        **bench.record(),
        "rss_start_mb": start,
        "rss_settled_mb": settled,
        "rss_growth_mb": resident_megabytes() - settled if episodes else None,
        "live_growth_mb": grown - live if episodes and live is not None and grown is not None else None,
        "rss_episodes": episodes,
        "cache_hits": bench.problem.evaluator.hits,
    }
    if as_json:
        print_json(record)
    else:
        _tell(record)
        print_next(with_config(str(config), overrides or ()))


def ready_bench(settings: RunConfig, episodes: int) -> EpisodeBench:
    """Makes the problem and the agent of a configuration, and runs the agent's first episodes.

    Args:
        settings: The run's settings.
        episodes: Number of episodes to run later.
    """
    check_named_search(settings)
    learner_named(settings.agent.name)
    # Without racing: a stopped evaluation cannot be compared with complete forward passes.
    settings = settings.model_copy(update={"search": settings.search.model_copy(update={"racing": False})})
    with phases("loading") as say:
        splits = load_splits(settings)
        problem = build_problem(settings, splits, load_model(settings, splits), say)
        say("the agent's first episodes")
        return EpisodeBench(settings, splits, problem, episodes)


def resident_megabytes() -> float:
    """Resident memory of this process in MB; the peak on systems without /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _tell(record: dict[str, Any]) -> None:
    execution, (rewarded, calibrated) = record["execution"], record["images"]
    tell(
        f"{record['model']}, {record['units']} free units, {rewarded} reward and {calibrated} calibration images; "
        f"{execution['dtype']}, {execution['layout']}, batch norms {'folded' if execution['folded'] else 'kept'}, "
        f"batches of {execution['batch']}, {counted(execution['threads'], 'thread')}; medians of "
        f"{counted(record['plans'], 'plan')}"
    )
    table = plain_table("")
    table.add_column("part")
    table.add_column("seconds", justify="right")
    table.add_column("of the limit", justify="right")
    lines = {name: record[f"{name}_s"] for name in ("limit", "evaluation", "episode")}
    lines |= {f"  {name}": seconds for name, seconds in record["phases_s"].items()}
    for name, seconds in lines.items():
        table.add_row(name, f"{seconds:.4f}", f"{seconds / record['limit_s']:.3f}")
    results.print(table)
    tell(
        f"Evaluation over limit {record['evaluation_over_limit']:.2f}, episode over limit "
        f"{record['episode_over_limit']:.2f}, {record['episodes_per_minute']:.0f} episodes a minute; a step "
        f"{record['step_us']:.0f} microseconds, slicing {record['slice_ms']:.1f} ms; {record['cache_hits']} plans were "
        "proposed again."
    )
    if record["rss_growth_mb"] is not None:
        live = "" if record["live_growth_mb"] is None else f" ({record['live_growth_mb']:+.1f} MB of it not freed)"
        tell(
            f"Resident memory {record['rss_start_mb']:.0f} MB at the start, {record['rss_settled_mb']:.0f} MB after "
            f"the first {SETTLING} episodes or more, {record['rss_growth_mb']:+.1f} MB in the next "
            f"{record['rss_episodes']}{live}."
        )

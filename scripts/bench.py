"""`prune-env bench`: the time of an episode, and the ranking by cheaper rewards."""

import typer

from prune_env.commands.bench_episode import bench_episode
from prune_env.commands.bench_rewards import bench_rewards
from prune_env.commands.common import run_app

bench = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Measures speed and reward quality on your network and data."
)
bench.command("episode")(bench_episode)
bench.command("rewards")(bench_rewards)

if __name__ == "__main__":
    run_app(bench)

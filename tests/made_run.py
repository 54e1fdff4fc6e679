"""A run as `prune-env train` leaves it, made in milliseconds, with hostile names."""

import shlex
from pathlib import Path

import numpy as np
from toy import toy_problem, toy_walk

from prune_env import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.runs.run_directory import RunDirectory

EVIL = "<script>alert('x')</script>\u202e\x07"
SHOWN = EVIL.encode("unicode_escape").decode()
IMAGES = "/home/me/my own/images"
CONFIG = RunConfig.from_mapping({"model": {"name": f"toy {EVIL}"}, "data": {"name": "noise", "path": IMAGES}})


def row(name: str, reward: float, test: float | None, share: float, milliseconds: float = 3.0) -> dict:
    latency = {"median": milliseconds, "q1": milliseconds - 0.1, "q3": milliseconds + 0.1}
    macs, params = int(100_000 * share), int(5_000 * share)
    return {
        "name": name,
        "reward_accuracy": reward,
        "test_accuracy": test,
        "macs": macs,
        "params": params,
        "latency_ms": latency,
    }


SUMMARY = {
    "model": f"toy {EVIL}",
    "search": "ddpg",
    "budget": {"metric": "macs", "keep": 0.5},
    "rows": [
        row("dense", 0.934, 0.93, 1.0),
        row("uniform", 0.87, 0.861, 0.5),
        row("ddpg", 0.919, 0.909, 0.49),
    ],
    "best_reward": -0.081,
    "threads": 2,
    "device": "cpu",
    "batch_size": 32,
    "episodes": 6,
    "evaluations": 11,
    "seconds": 12.0,
    "seconds_per_evaluation": 1.25,
    "command": shlex.join(["prune-env", "train", "/home/me/toy.yaml", f"model.name={EVIL}", f"data.path={IMAGES}"]),
}

SENSITIVITY = {
    "layers": [
        {
            "layer": f"mid{EVIL}",
            "unit": "mid",
            "height": 4,
            "width": 5,
            "low_rank_share": 0.75,
            "mean_rank": 0.31,
            "histogram": [5, 4, 3, 0, 0, 0, 0, 0, 0, 4],
        }
    ],
    "sensitive": {"mid": "sensitive: 75% of the maps of mid are low-rank (threshold 50%)"},
    "rank_threshold": 0.5,
    "layer_threshold": 0.5,
}


def made_problem() -> PruningProblem:
    return toy_problem(toy_walk(protect={"mid": f"mine {EVIL}"}), keep=0.8)


def made_run(folder: Path, problem: PruningProblem, config: RunConfig = CONFIG, plans: int = 6) -> RunDirectory:
    """A finished run in a new folder, without a report: a probe, the uniform plan, and random plans, each better."""
    run, search = RunDirectory.create(folder), config.agent.name
    run.write_config(config)
    generator = np.random.default_rng(config.seed)
    for number, kind in enumerate(["probe", "uniform", *[search] * plans]):
        widths = problem.budget.uniform() if kind == "uniform" else generator.integers(2, problem.budget.channels + 1)
        plan = problem.plan(widths)
        run.append_evaluation(
            {
                "number": number,
                "kind": kind,
                "widths": problem.budget.names(widths),
                "reward": -0.9 + 0.6 * number / (plans + 1),
                "accuracy": 0.1 + 0.7 * number / (plans + 1),
                "images": None,
                "loss": 1.0,
                "macs": plan.costs.macs,
                "params": plan.costs.params,
                "cached": False,
                "seconds": 0.1,
            }
        )
    plan.save(run.plan)
    rows = [{**row, "name": search if row["name"] == "ddpg" else row["name"]} for row in SUMMARY["rows"]]
    run.write_json(run.summary, {**SUMMARY, "search": search, "rows": rows})
    run.write_json(run.sensitivity, SENSITIVITY)
    return run

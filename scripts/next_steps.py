"""What to do next: the only place that knows which commands make sense after a result, and after Ctrl-C."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from prune_env.commands.common import notice

Step = tuple[str, str]
"""A command, and what it is for."""


def print_next(steps: Sequence[Step]) -> None:
    """Prints commands on standard error, ready to copy: results alone are on standard output."""
    if steps:
        notice("Next:")
    for command, purpose in steps:
        notice(f"  {command}  # {purpose}", whole=True)


def with_config(config: str, overrides: Sequence[str] = (), inspected: bool = False) -> list[Step]:
    """After a look at settings, without a run."""
    given = shlex.join([config, *overrides])
    look = (f"prune-env inspect {given}", "what can be cut, without a search")
    train = (f"prune-env train {given} --finetune", "search a plan and fine-tune the pruned network")
    return [train] if inspected else [look, train]


def with_weights(config: str, weights: Path) -> list[Step]:
    """After a training from scratch."""
    return [(f"prune-env train {_given(config, f'model.weights={weights}')} --finetune", "prune the trained network")]


def with_name(setting: str) -> list[Step]:
    """After a list of names."""
    return [(f"prune-env inspect CONFIG {setting}=NAME", "use one of these names, here or in the file of settings")]


def with_comparison(folder: Path, best: str, config: str, overrides: Sequence[str]) -> list[Step]:
    """After a comparison of searches."""
    given = _given(config, *overrides, f"agent.name={best}", f"run.directory=runs/{best}")
    return [
        (f"tensorboard --logdir {_given(folder)}", "their curves"),
        (f"prune-env train {given} --finetune", f"prune by the best, {best}"),
    ]


def with_run(root: Path, done: str = "") -> list[Step]:
    """After a command on a run; what the run already has is not named again.

    Args:
        root: The run directory.
        done: The command that has just ended.
    """
    run, tuning = _given(root), root / "finetune"
    steps = []
    if not (tuning / "summary.json").is_file():
        resume = " --resume" if tuning.is_dir() else ""
        steps.append((f"prune-env finetune {run}{resume}", "train the pruned network, with the dense one as teacher"))
    for target, purpose in (("torch-export", "a file for plain torch"), ("onnx", "a file for ONNX runtimes")):
        if not (root / f"export-{target}").is_dir():
            steps.append((f"prune-env export {run} --to {target}", purpose))
    if done != "evaluate":
        steps.append((f"prune-env evaluate {run}", "measure all of its networks again"))
    if done in ("train", "replay", "report"):
        steps.append((f"tensorboard --logdir {run}", "the curves"))
    return steps


def with_replay(source: Path, config: str, overrides: Sequence[str]) -> list[Step]:
    """After a replay that wrote nothing."""
    given = _given(source, config, *overrides, f"run.directory=runs/{Path(config).stem}-replay")
    return [(f"prune-env replay {given}", "keep the result as a run, to fine-tune and export it")]


def after_interrupted_search(root: Path) -> str:
    """What is whole after Ctrl-C in a search, and how to go on."""
    if not (root / "config.yaml").is_file():
        return "Interrupted before the search began. Nothing was written."
    evaluations, plan = root / "evaluations.jsonl", root / "plan.json"
    lines = evaluations.read_bytes().count(b"\n") if evaluations.is_file() else 0
    best = f", and {plan} is the best plan so far" if plan.is_file() else ""
    # The first line is the uniform plan, which is not counted.
    return (
        f"Interrupted after {max(0, lines - 1)} evaluations. Every file in {root} is whole{best}. To go on:\n"
        f"  prune-env train --resume {_given(root)}"
    )


def after_interrupted_finetuning(root: Path, name: str) -> str:
    """What is whole after Ctrl-C in a fine-tuning, and how to go on."""
    named = "" if name == "finetune" else f" --name {_given(name)}"
    if not (root / name / "config.yaml").is_file():
        return (
            f"Interrupted before the fine-tuning began. The run in {root} is whole. To start it again:\n"
            f"  prune-env finetune {_given(root)}{named}"
        )
    return (
        f"Interrupted. Every file in {root} is whole, up to the last finished epoch. To go on:\n"
        f"  prune-env finetune {_given(root)}{named} --resume"
    )


def after_interrupted_pretraining(root: Path) -> str:
    """What is whole after Ctrl-C in a training from scratch, and how to go on."""
    if not (root / "config.yaml").is_file():
        return "Interrupted before the training began. Nothing was written."
    return (
        f"Interrupted. Every file in {root} is whole, up to the last finished epoch. To go on:\n"
        f"  prune-env pretrain --resume {_given(root)}"
    )


def after_interrupted_runs(root: Path) -> str:
    """What is whole after Ctrl-C in a command of several runs, and how to go on."""
    return f"Interrupted. Finished runs in {root} are kept, and all files are whole. To go on, repeat the command."


def _given(*words: str | Path) -> str:
    """Arguments as a shell reads them."""
    return shlex.join(map(str, words))

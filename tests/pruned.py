"""The folder of a finished run on the digits, made without a search: half of every unit stays."""

from pathlib import Path

from toy import digits_config, digits_splits, trained_digits

from prune_env import RunConfig
from prune_env.env.builders import trace
from prune_env.env.loading import load_splits
from prune_env.models import save_weights
from prune_env.runs.run_directory import RunDirectory

QUICK = (
    "finetune.epochs=3",
    "finetune.batch_size=64",
    "finetune.layout=contiguous",
    "finetune.dtype=float32",
)
"""A fine-tuning of a second or two, the same on every machine."""


def pruned_config(*overrides: str) -> RunConfig:
    """Settings of a run that has trained its dense network itself."""
    sets = ("data.reward_images=700", "data.calibration_images=100", "data.test_images=100")
    return digits_config("pretrain.epochs=2", "run.device=cpu", *sets, *QUICK, *overrides)


def pruned_run(root: Path) -> RunDirectory:
    """The folder of a run, with its settings, plan and dense weights."""
    config, model = pruned_config(), trained_digits()
    run = RunDirectory.create(root)
    run.write_config(config)
    save_weights(model, run.dense_weights)
    run.write_record(run.splits, load_splits(config).record())
    walk = trace(config, digits_splits(), model)
    plan = walk.plan({unit.name: (unit.channels + 1) // 2 for unit in walk.free})
    run.write_bytes(run.plan, plan.to_json())
    return run

"""Whether the reward set holds images that no network of a run was trained on."""

from pathlib import Path

from prune_env.common.errors import ConfigError
from prune_env.common.records import read_record
from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust
from prune_env.data import Splits
from prune_env.data.splits import SplitsRecord
from prune_env.runs.run_directory import RunDirectory


def reward_set_is_unseen(run: RunDirectory, splits: Splits, trust: Trust = NOTHING) -> bool:
    """Whether the dense network of a run was never trained on the run's reward set, as far as files can tell.

    Pretraining before a search, and `prune-env pretrain`, leave the reward set out. Weights from elsewhere were as a
    rule trained on all training images, and the reward set is among these. Fine-tuning always leaves the reward set
    out.

    Args:
        run: The run whose plan is fine-tuned.
        splits: The data of the fine-tuning.
        trust: The code that settings may name. Where they name other code, the files cannot tell.
    """
    if not run.splits.is_file() or read_record(run.splits, SplitsRecord) != splits.record():
        return False
    config = _settings(run, trust)
    if config is None:
        return False
    if config.model.weights is None:
        # Without pretraining, the network came with weights of its own, such as one that was given in Python.
        return config.pretrain.epochs > 0
    return _left_out(Path(config.model.weights), splits, trust)


def _left_out(weights: Path, splits: Splits, trust: Trust) -> bool:
    """Whether a training folder of `prune-env pretrain` trained these weights from scratch without the reward set."""
    folder = RunDirectory(weights.parent)
    if not (weights.is_file() and folder.config.is_file() and folder.splits.is_file()):
        return False
    theirs, ours = read_record(folder.splits, SplitsRecord), splits.record()
    same = (theirs.source, theirs.reward) == (ours.source, ours.reward)
    config = _settings(folder, trust) if same else None
    return config is not None and config.model.weights is None


def _settings(folder: RunDirectory, trust: Trust) -> RunConfig | None:
    try:
        return folder.settings(trust=trust)
    except ConfigError:
        return None

"""All files of a run: what each holds, and one function that reads any of them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from prune_env.budget.latency_model import LatencyModel
from prune_env.common.errors import ConfigError, suggest
from prune_env.common.records import Record, read_record, read_records, renamed
from prune_env.common.tensor_records import read_tensor_file
from prune_env.config.granularity import GRANULARITIES
from prune_env.criteria.score_file import ScoresRecord
from prune_env.data.splits import SplitsRecord
from prune_env.env.problem_record import problem_record
from prune_env.env.trial import ArrivedRecord
from prune_env.evaluation.execution import ExecutionRecord
from prune_env.plan import PruningPlan
from prune_env.protection.sensitivity import SensitivityReport
from prune_env.recover.checkpoint import read_checkpoint_record
from prune_env.runs.criterion_comparison import CriterionRecord
from prune_env.runs.fidelity import FidelityRecord
from prune_env.runs.run_directory import EARLIER_EXECUTION, RunDirectory
from prune_env.search.policy import load_policy


def read_run_file(path: Path, quality: str = "accuracy") -> object:
    """Reads and checks a file of a run or a training by its name.

    Args:
        path: The file, for example ``RUN/plan.json``.
        quality: The task's name for its quality, which some files use.

    Returns:
        The content: a record, a list of records, a plan, a policy, or a record with its tensors.

    Raises:
        ConfigError: If no file of a run has this name.
        UserError: If the file is damaged; names the file, the field, the value, what is allowed and what to do.
    """
    readers = _readers(quality)
    if path.name not in readers:
        raise ConfigError(f"No file of a run is called {path.name!r}; {suggest(path.name, readers)}.")
    return readers[path.name](path)


def check_files(run: RunDirectory, quality: str) -> None:
    """Reads every file of a run, so that damage is told before hours of work.

    Raises:
        UserError: As `read_run_file`.
    """
    for name in _readers(quality):
        if (run.root / name).is_file():
            read_run_file(run.root / name, quality)


def _readers(quality: str) -> Mapping[str, Callable[[Path], object]]:
    """The reader of each file, by the file's name."""
    records: dict[str, type[Record]] = {
        "splits.json": SplitsRecord,
        "sensitivity.json": SensitivityReport,
        "latency.json": LatencyModel,
        "execution.json": ExecutionRecord,
        EARLIER_EXECUTION: ExecutionRecord,
        "problem.json": problem_record(quality),
    }
    records |= {
        kind.file: kind for name in GRANULARITIES if (kind := GRANULARITIES.find(name).Measurements) is not None
    }
    lines: dict[str, type[Record]] = {
        "arrived.jsonl": renamed(ArrivedRecord, quality=quality),
        "fidelity.jsonl": renamed(FidelityRecord, quality=quality),
        "criteria.jsonl": CriterionRecord,
    }
    return {
        "plan.json": PruningPlan.load,
        "selecting.json": PruningPlan.load,
        "policy.safetensors": load_policy,
        "scores.safetensors": partial(read_tensor_file, kind=ScoresRecord),
        "checkpoint.safetensors": partial(read_checkpoint_record, quality=quality),
        "summary.json": lambda path: RunDirectory(path.parent).read_json(path),
        "evaluations.jsonl": lambda path: RunDirectory(path.parent).evaluations(quality),
        **{name: partial(read_record, kind=kind) for name, kind in records.items()},
        **{name: partial(read_records, kind=kind) for name, kind in lines.items()},
    }

"""RunDirectory: the files of one run."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from prune_env.common.errors import RunError
from prune_env.common.records import append_record, read_record, read_records, renamed
from prune_env.common.versions import versions
from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust
from prune_env.env.trial import TrialRecord
from prune_env.evaluation.execution import ExecutionRecord
from prune_env.runs.folder import Folder, cannot_write

EARLIER_EXECUTION = "form.json"
"""Name of `RunDirectory.execution` in earlier releases."""


@dataclass(frozen=True)
class RunDirectory(Folder):
    """The folder of one run, with the paths of its files.

    Attributes:
        root: The folder.
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Opens an existing run.

        Args:
            path: The folder of the run.

        Returns:
            The run.

        Raises:
            RunError: The folder does not exist, or holds no run.
        """
        run = cls(Path(path))
        if not run.root.is_dir():
            raise RunError(f"run directory {str(run.root)!r} does not exist")
        if not run.config.is_file():
            raise RunError(f"{str(run.root)!r} is not a run directory: it has no {run.config.name}")
        return run

    @property
    def config(self) -> Path:
        """The resolved settings, with seed and versions."""
        return self.root / "config.yaml"

    @property
    def plan(self) -> Path:
        """The best plan so far."""
        return self.root / "plan.json"

    @property
    def policy(self) -> Path:
        """The actor's weights."""
        return self.root / "policy.safetensors"

    @property
    def first_policy(self) -> Path | None:
        """The policy or plan of ``agent.policy`` as it was when the run started; None if there was none."""
        return next(self.root.glob("agent_policy.*"), None)

    @property
    def evaluations_file(self) -> Path:
        """Every plan tried, with its metrics, one JSON object per line."""
        return self.root / "evaluations.jsonl"

    @property
    def arrived(self) -> Path:
        """Outcomes that came before their turn, one JSON object per line; only while a search runs."""
        return self.root / "arrived.jsonl"

    @property
    def problem(self) -> Path:
        """The problem in numbers: the dense network's outcome, and what each unit can save (`PruningProblem`)."""
        return self.root / "problem.json"

    @property
    def splits(self) -> Path:
        """The image indices of the reward, calibration and test set."""
        return self.root / "splits.json"

    @property
    def sensitivity(self) -> Path:
        """The evidence for the sensitive layers."""
        return self.root / "sensitivity.json"

    @property
    def scores(self) -> Path:
        """The criterion's scores."""
        return self.root / "scores.safetensors"

    @property
    def execution(self) -> Path:
        """The execution settings of the forward passes, and the measurements that chose them."""
        return self.root / "execution.json"

    @property
    def latency(self) -> Path:
        """The formula that computes latency from the widths, if the budget or the reward needs it."""
        return self.root / "latency.json"

    @property
    def summary(self) -> Path:
        """The result in numbers."""
        return self.root / "summary.json"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard log."""
        return self.root / "tensorboard"

    @property
    def dense_weights(self) -> Path:
        """The weights that the search starts from, if this run trained them: by pretraining or sparse training."""
        return self.root / "dense.safetensors"

    @property
    def sparsify(self) -> Path:
        """Folder of the sparse training before the search, if there is one."""
        return self.root / "sparsify"

    @property
    def started(self) -> bool:
        """Whether the run holds all files of its start; false while its sparse training is not finished."""
        return self.execution.is_file() or (self.root / EARLIER_EXECUTION).is_file()

    @property
    def teacher(self) -> Path:
        """Folder of the teacher's outputs, which the run's fine-tunings share."""
        return self.root / "teacher"

    @property
    def report(self) -> Path:
        """The report: an HTML page."""
        return self.root / "report.html"

    @property
    def pictures(self) -> Path:
        """What the networks of the result say about a few test images, if the task draws pictures."""
        return self.root / "pictures.png"

    def execution_record(self) -> ExecutionRecord:
        """The content of `execution`; of ``form.json`` in a run of an earlier release.

        Raises:
            RunError: The file is missing or damaged.
        """
        earlier = self.root / EARLIER_EXECUTION
        return read_record(
            earlier if earlier.exists() and not self.execution.exists() else self.execution, ExecutionRecord
        )

    def keep_first_policy(self, source: Path) -> None:
        """Copies the policy or plan of ``agent.policy``, a file or a run directory, so that a resume finds it."""
        file = source / self.plan.name if source.is_dir() else source
        self.write_bytes(self.root / f"agent_policy{file.suffix}", file.read_bytes())

    def settings(self, overrides: Sequence[str] = (), trust: Trust = NOTHING) -> RunConfig:
        """Reads the settings that the run was started with.

        Args:
            overrides: Settings that replace those of the run: ``key.path=value``.
            trust: The code that the settings may name, besides what the overrides name.

        Raises:
            ConfigError: If the file cannot be read, a setting is invalid, or it names code that is not trusted.
        """
        return RunConfig.load(self.config, overrides, trust)

    def write_config(self, config: RunConfig) -> None:
        """Writes the resolved settings, with the package versions as comments above them."""
        header = [f"# {name} {version}\n" for name, version in versions().items()]
        self.write_text(self.config, "".join(header) + config.dump_yaml())

    def append_evaluation(self, record: Mapping[str, Any]) -> None:
        """Adds one evaluation as the last line of ``evaluations.jsonl``.

        Args:
            record: Values that JSON can hold.

        Raises:
            RunError: The record cannot be written; the earlier evaluations are unchanged.
            ValueError: The record holds a number that is not finite.
        """
        try:
            append_record(self.evaluations_file, record)
        except OSError as error:
            raise cannot_write(self.evaluations_file, error) from error

    def evaluations(self, quality: str) -> list[TrialRecord]:
        """The evaluations so far, in order; an incomplete last line (a kill, a full disk) is ignored.

        Args:
            quality: The task's name for its quality.

        Raises:
            RunError: A line is damaged or out of its place; names the file, the line and the field.
        """
        trials = read_records(self.evaluations_file, renamed(TrialRecord, quality=quality))
        for place, trial in enumerate(trials):
            if trial.number not in (place, None):
                raise RunError(
                    f"{str(self.evaluations_file)!r}, line {place + 1} is damaged: number: given {trial.number}; must "
                    f"be {place}: lines are missing, repeated or exchanged. {trial.remedy}"
                )
        return trials

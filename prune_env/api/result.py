"""The result of `prune_env.prune`: the pruned network, its plan, its policy and its measurements."""

import html as escaping
import io
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from rich.console import Console
from torch import nn

from prune_env.common.copying import copied
from prune_env.common.files import atomic_write
from prune_env.models import load_weights, save_weights
from prune_env.plan import PruningPlan
from prune_env.report import html
from prune_env.report.network_table import render, warnings_of
from prune_env.runs.finetuning import FinishedTraining
from prune_env.runs.finishing import FinishedSearch
from prune_env.runs.networks import LATENCY_BATCH, NetworkRow
from prune_env.runs.run_directory import RunDirectory
from prune_env.search.policy import Policy
from prune_env.tasks import quality_of

if TYPE_CHECKING:
    import pandas

WIDTH = 120
"""Columns of the table in `PruningResult.summary`."""


@dataclass(frozen=True)
class ReportPage:
    """The report of a run, one self-contained page; a notebook shows it as the result of a cell.

    Attributes:
        html: The page.
    """

    html: str = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Writes the page into a file; an older file is replaced."""
        atomic_write(Path(path), self.html.encode())
        return Path(path)

    def _repr_html_(self) -> str:
        # A frame of its own keeps the page's style from the notebook's.
        return f'<iframe srcdoc="{escaping.escape(self.html)}" width="100%" height="700" style="border:0"></iframe>'


@dataclass(frozen=True, eq=False)
class PruningResult:
    """A pruned network, and how it came about.

    Attributes:
        model: The pruned network, fine-tuned if that made it better, float32, in eval mode, on the given network's
            device.
        plan: The plan of this network: it makes the given network's architecture physically smaller.
        policy: What the agent learned, for other networks; None from searches that learn none.
        rows: The measured networks: dense, uniform, the search's best and the fine-tuned one.
        chosen: The name of the row that ``model`` is.
        trials: Every plan tried, as plain data.
        run: The run, as the commands leave it.
    """

    model: nn.Module = field(repr=False)
    plan: PruningPlan = field(repr=False)
    policy: Policy | None = field(repr=False)
    rows: tuple[NetworkRow, ...] = field(repr=False)
    chosen: str
    trials: tuple[dict[str, Any], ...] = field(repr=False)
    run: RunDirectory

    @classmethod
    def of(
        cls, finished: FinishedSearch, tuned: FinishedTraining | None, dense: nn.Module, device: torch.device
    ) -> Self:
        """Takes the better of the fine-tuned network and the network of the search.

        Args:
            finished: The search.
            tuned: The fine-tuning; None if there was none.
            dense: The user's network.
            device: The device of the result.
        """
        run, rows = finished.search.run, list(finished.rows)
        best, plan = rows[-1], finished.result.best.plan
        if tuned is not None:
            rows.append(tuned.rows[-1])
        if tuned is not None and rows[-1].final >= best.final:
            best, plan = rows[-1], PruningPlan.load(tuned.folder.plan)
            model = plan.apply(copied(dense).to("cpu", torch.float32))
            load_weights(model, tuned.folder.weights)
        else:
            model = finished.search.problem.evaluator.pruned(plan)
        model = model.to(device).to(memory_format=torch.contiguous_format).eval()
        trials = tuple(trial.as_record() for trial in run.evaluations(quality_of(best.task).name))
        return cls(model, plan, finished.result.policy, tuple(rows), best.name, trials, run)

    def summary(self) -> str:
        """What was gained and lost, and the table of the measured networks, as text for `print`."""
        text = io.StringIO()
        console = Console(file=text, width=WIDTH)
        console.print(render(list(self.rows), ""))
        return "\n".join([self._words(), text.getvalue().rstrip(), *warnings_of(self.rows)])

    def to_dataframe(self) -> "pandas.DataFrame":
        """Every plan tried, one row each: who proposed it, reward, quality, costs, seconds, and the width of each unit.

        Raises:
            ImportError: If pandas is not installed; ``trials`` holds the same as plain data.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_dataframe() needs pandas, which is not installed: pip install pandas. Without it, .trials holds "
                "the same rows as dicts."
            ) from error
        return pandas.json_normalize([*self.trials])

    def report(self) -> ReportPage:
        """The report of the search: pictures, the plan unit by unit, the evidence and all settings."""
        return ReportPage(self.run.report.read_text(encoding="utf-8"))

    def save(self, directory: str | Path) -> Path:
        """Copies the whole run and the pruned network into a new folder.

        ``export-safetensors`` within it holds ``plan.json`` and ``weights.safetensors`` of the pruned network, as
        `prune-env export` leaves them; the rest is what `prune-env train` and `finetune` leave.

        Args:
            directory: A folder that does not exist.

        Returns:
            The folder.

        Raises:
            RunError: If the folder exists or cannot be made.
        """
        with RunDirectory.making(directory) as made:
            shutil.copytree(self.run.root, made.root, dirs_exist_ok=True)
            exported = made.root / "export-safetensors"
            if not exported.exists():
                exported.mkdir()
                self.plan.save(exported / "plan.json")
                save_weights(self.model, exported / "weights.safetensors")
        return Path(directory)

    def _words(self) -> str:
        """The chosen network against the dense one, in a sentence."""
        dense, best = self.rows[0], next(row for row in self.rows if row.name == self.chosen)
        metric, (quality, images) = quality_of(dense.task), best.final
        words = (
            f"{self.chosen}: {metric.name} {quality:{metric.format}} on the {images} set, where the dense network has "
            f"{dense.final[0]:{metric.format}}, with {best.macs / dense.macs:.1%} of its MACs and "
            f"{best.params / dense.params:.1%} of its params"
        )
        # Fine-tuning changes no shape, so the network of the search is as fast.
        timed = [row.latency for row in self.rows[1:] if (row.macs, row.params) == (best.macs, best.params)]
        if dense.latency is None or timed[0] is None or timed[0].q3 >= dense.latency.q1:
            return words  # quartiles that overlap tell no difference
        return f"{words}; {dense.latency.median / timed[0].median:.2f} times as fast on this machine"

    def __str__(self) -> str:
        """The summary's sentence."""
        return self._words()

    def _repr_html_(self) -> str:
        """The summary for a notebook."""
        dense = self.rows[0]
        metric = quality_of(dense.task)
        rows = [
            [
                row.name,
                f"{row.reward_quality:{metric.format}}",
                f"{row.final[0]:{metric.format}}" if row.test else "not measured",
                f"{row.macs / dense.macs:.1%}",
                f"{row.params / dense.params:.1%}",
                "not measured" if row.latency is None else f"{1e3 * row.latency.median:.2f}",
            ]
            for row in self.rows
        ]
        headings = ["", f"{metric.title}, reward set", "test set", "MACs", "params", f"ms / {LATENCY_BATCH} images"]
        table = html.HtmlTable(headings, rows, right=range(1, 6), chosen=self.chosen)
        return html.render("result.html", words=self._words(), given=table, warnings=warnings_of(self.rows))

"""The TensorBoard log of a search: curves over the evaluations, pictures, the settings and the units."""

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from math import nan
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from torch.utils.tensorboard import summary as protos

from prune_env.common.event_log import EventLog
from prune_env.common.text import printable
from prune_env.config import RunConfig
from prune_env.data import Splits
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.report.figure_style import figure_pixels
from prune_env.report.figures import Tried, keep_ratio_heat_map, quality_against_macs, series_heat_map
from prune_env.report.scalars import LAYOUT, scalars_of
from prune_env.rewards import Outcome
from prune_env.runs.pictures import compared_pictures
from prune_env.runs.searching import SearchRun
from prune_env.search.base import Search
from prune_env.search.episode import Episode
from prune_env.tasks import draws_pictures

EPISODES_PER_PICTURE = 25
REST = 50.0
"""After pictures were drawn, none are drawn for this many times as long: workers wait for the process that draws."""

_MARKDOWN = re.compile(r"[\\`*_{}\[\]()>#+.!|-]")
"""Characters that Markdown gives a meaning, which a backslash takes away."""


def watch_on_board(search: SearchRun) -> "BoardListener":
    """Makes a listener for the TensorBoard log of a run; a `prune_env.runs.searching.Watch`."""
    return BoardListener(search.run.tensorboard, search.problem, search.settings, search.splits)


class BoardListener:
    """Writes a search to TensorBoard; give it to `prune_env.search.loop.train_agent` as a listener.

    Scalars of each episode are those of `prune_env.report.scalars.scalars_of`. A step is an evaluation, as
    `prune-env compare` counts: the uniform plan is 0, and probes count. Images: ``units/keep_ratio``, ``units/FAMILY``
    and ``share/QUALITY_against_macs``, at the end and every 25 episodes, or less often where drawing them would take
    more than 2 % of the time. Texts: ``settings`` and ``units``. The custom scalars show reward, costs and losses side
    by side.

    Args:
        folder: The folder of the log; made if it does not exist.
        problem: The problem of the search. The listener records all of its trials from now on, also outside episodes.
        config: The run's settings.
        splits: The data, for the task's pictures of the dense and the best network at the end,
            ``test/dense_and_best``; None for no such pictures.
    """

    def __init__(self, folder: Path, problem: PruningProblem, config: RunConfig, splits: Splits | None = None) -> None:
        self.problem = problem
        self.config = config
        self.splits = splits
        # A resumed search repeats its recorded trials, so let TensorBoard purge the earlier log.
        again = 0 if problem.recalling else None
        self._log = EventLog(folder, again)
        self._history: list[list[float]] = []
        self._series: dict[str, list[Mapping[str, float]]] = {}
        self._last: Episode | None = None
        self._tried = [self._point("dense", nan, problem.baseline)]
        self._heard: Trial | None = None
        self._pictured = -1
        self._rested = 0.0
        problem.listeners.append(self._hear)
        self._log.add_text("settings", _code_block(config.dump_yaml()))
        self._log.add_text("units", _units_table(problem))
        self._log.add_summary(protos.custom_scalars(LAYOUT), 0)

    def __call__(self, episode: Episode, search: Search) -> None:  # noqa: ARG002  (part of the listener protocol)
        """Writes one episode."""
        trial = episode.trial
        if trial is not self._heard:
            self._hear(trial)
        widths = trial.plan.widths
        self._history.append([widths[unit.name] / unit.channels for unit in self.problem.budget.units])
        for family, by_layer in self.problem.granularity.series(trial.edits).items():
            self._series.setdefault(family, []).append(by_layer)
        self._last = episode
        self._log.add_scalars(scalars_of(episode, self.problem), trial.number)
        if (episode.number + 1) % EPISODES_PER_PICTURE == 0 and time.monotonic() >= self._rested:
            self._write_pictures(episode)

    def close(self) -> None:
        """Writes the last pictures and closes the log; a second call does nothing."""
        if self._hear not in self.problem.listeners:
            return
        self.problem.listeners.remove(self._hear)
        if self._last is not None:
            if self._pictured != self._last.number:
                self._write_pictures(self._last)
            self._write_outputs(self._last)
        self._log.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with suppress(OSError):  # a full disk stopped the search already, and is told once
            self.close()

    def _hear(self, trial: Trial) -> None:
        self._heard = trial
        self._tried.append(self._point(trial.proposed_by, trial.reward, trial.outcome))

    def _point(self, proposed_by: str, reward: float, outcome: Outcome) -> Tried:
        quality = outcome.quality if outcome.complete else nan
        return Tried(proposed_by, reward, quality, outcome.macs / self.problem.baseline.macs)

    def _write_pictures(self, episode: Episode) -> None:
        started = time.monotonic()
        budget = self.problem.budget
        names = [unit.name for unit in budget.units]
        number = episode.trial.number
        first = number + 1 - len(self._history)
        quality = self.problem.quality_name
        scatter = quality_against_macs(self._tried, quality, budget.keep if budget.metric == "macs" else None)
        figures = {
            "units/keep_ratio": keep_ratio_heat_map(np.array(self._history), names, first),
            f"share/{quality}_against_macs": scatter,
        }
        for family, history in self._series.items():
            figures[f"units/{family}"] = series_heat_map(family, history, first)
        for tag, figure in figures.items():
            self._log.add_image(tag, figure_pixels(figure), number)
        self._pictured, drawn = episode.number, time.monotonic()
        self._rested = drawn + REST * (drawn - started)

    def _write_outputs(self, episode: Episode) -> None:
        """Writes what the dense and the best network say about a few test images, if the task draws pictures."""
        if self.splits is None or not draws_pictures(self.problem.evaluator.task):
            return
        plans = {"dense": self.problem.walk.plan({}), "best": episode.best.plan}
        networks = {name: self.problem.evaluator.pruned(plan) for name, plan in plans.items()}
        picture = compared_pictures(self.problem.evaluator, self.splits, networks, self.config.seed)
        if picture is not None:
            self._log.add_image("test/dense_and_best", picture, episode.trial.number)


def _code_block(text: str) -> str:
    """Text as an indented Markdown code block, which no content can close, unlike a fenced block."""
    return "".join(f"    {line}\n" for line in printable(text).splitlines())


def _units_table(problem: PruningProblem) -> str:
    """The walk as a Markdown table."""

    def cell(value: str) -> str:
        escaped = _MARKDOWN.sub(r"\\\g<0>", printable(value).replace("\n", " "))
        return escaped.replace("&", "&amp;").replace("<", "&lt;")

    rows = ["| unit | channels | protected |", "|---|---:|---|"]
    rows += [f"| {cell(unit.name)} | {unit.channels} | {cell(unit.protected or '')} |" for unit in problem.walk.units]
    return "\n".join(rows)

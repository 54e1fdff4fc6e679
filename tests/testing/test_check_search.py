"""Every promise that a search can break, and the sentence that says so."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from prune_env.common.errors import ConfigError
from prune_env.env.trial import Trial
from prune_env.search import SEARCHES, Proposal, Search
from prune_env.testing import check_search

pytestmark = pytest.mark.usefixtures("same_global_state")


class Random(Search):
    """A search that keeps its promises; each class below breaks one promise."""

    def ask(self) -> Proposal | None:
        return Proposal(self.widths())

    def widths(self) -> Any:
        return self.problem.budget.random(self.generator)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.generator = np.random.default_rng(self.config.seed)


class Trying(Random):
    def tell(self, proposal: Proposal, trial: Trial) -> None:  # noqa: ARG002
        self.tried = self.problem.attempt(self.widths(), "me")


class Listening(Random):
    """A search that calls proposals independent although they depend on what it was told."""

    independent = np.inf

    def tell(self, proposal: Proposal, trial: Trial) -> None:  # noqa: ARG002
        self.generator.random()


class Overbearing(Random):
    def widths(self) -> Any:
        return self.problem.budget.channels


class Drifting(Random):
    def widths(self) -> Any:
        return self.problem.budget.random(np.random.default_rng(np.random.randint(1000)))


class Remembering(Random):
    calls = itertools.count()

    def widths(self) -> Any:
        return self.problem.budget.random(np.random.default_rng(next(self.calls)))


class Clocked(Random):
    """A search that depends on whether a trial was recalled, which differs in a resumed run."""

    def tell(self, proposal: Proposal, trial: Trial) -> None:  # noqa: ARG002
        self.generator.random(1 + trial.recalled)


class SecretlyProbing(Random):
    def ask(self) -> Proposal | None:
        assert self.problem.loss_rises
        return super().ask()


class Contradicting(Random):
    needs_probes = True


class Cutting(Random):
    def ask(self) -> Proposal | None:
        with torch.no_grad():
            self.problem.walk.model.fc.weight.mul_(2.0)
        return super().ask()


class Rescoring(Random):
    def ask(self) -> Proposal | None:
        for values in self.problem.scores.values():
            values[:] = 0.0
        return super().ask()


class Idle(Random):
    def ask(self) -> Proposal | None:
        return None


class Failing(Random):
    def widths(self) -> Any:
        raise KeyError("nothing learned")


class Telling(Random):
    @property
    def scalars(self) -> dict[str, float]:
        return {"search/step": float("inf")}


class TestSearch:
    def test_that_keeps_them_passes_registered_or_not(self) -> None:
        check_search(f"{__name__}:Random")
        with SEARCHES.restored():
            SEARCHES.add("mine", Random)
            check_search(Random)
        assert "Random" not in SEARCHES

    def test_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="there is no agent or search 'xyzzy'"):
            check_search("xyzzy")

    @pytest.mark.parametrize(
        ("search", "words"),
        [
            (Trying, r"RuntimeError: .* has tried plans with PruningProblem\.attempt\."),
            (Listening, r", trial \d+: with search\.lag=1, several workers give another plan"),
            (Overbearing, r", trial 0: the plan takes \d+ MACs, and \d+ are allowed\. .*project"),
            (Drifting, r", trial 0: the same seed gives another plan the second time.* global generator"),
            (Remembering, r", trial 0: the same seed gives another plan the second time"),
            (Clocked, r"fails with search\.evaluations=12: RunError: .*|a run that is resumed after 1 trials"),
            (SecretlyProbing, r"reads probes, and says probes=False"),
            (Contradicting, r"says needs_probes=True and probes=False"),
            (Cutting, r"it changes the network's tensor 'fc\.weight'"),
            (Rescoring, r"it changes the problem's scores"),
            (Idle, r"ended without trying a plan"),
            (Failing, r"fails with search\.evaluations=12: KeyError: 'nothing learned'"),
            (Telling, r"its scalar 'search/step' is inf"),
        ],
    )
    def test_that_breaks_one_is_told_which(self, search: type[Search], words: str) -> None:
        with pytest.raises(AssertionError, match=f"^search '{search.__name__}'.*{words}"):
            check_search(search)

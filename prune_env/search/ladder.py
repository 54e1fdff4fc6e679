"""The ladder: a search's best plans are measured again after ever longer trainings, and rank by what they are then.

A plan in `SHARE` goes on from each rung to the next, as soon as it is among the best of its rung: successive halving
without waiting (ASHA, Li et al., MLSys 2020). Who goes on depends on the outcomes alone, in the order of the proposals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from prune_env.env.proposal import Proposal
from prune_env.env.trial import Trial
from prune_env.evaluation.evaluator import plan_key

SHARE = 4
"""Of this many plans on a rung, one goes on to the next rung [our choice]."""

RUNG = "rung"
"""Who proposes the plans that are measured after a training, in records."""


@dataclass(eq=False)
class _Climber:
    """One plan of the search.

    Attributes:
        proposal: The search's proposal.
        trials: The plan's trials by rung: first as it was cut, then after each training.
        asked: The highest rung for which a training was asked for.
        stands_for: The trial that the search was last told for this plan.
    """

    proposal: Proposal
    trials: list[Trial]
    stands_for: Trial
    asked: int = 0


@dataclass(eq=False)
class Ladder:
    """Promotes plans, and ranks them.

    Attributes:
        rungs: Steps of training on each rung, ascending.
    """

    rungs: Sequence[int]
    _climbers: list[_Climber] = field(default_factory=list)
    _known: set[bytes] = field(default_factory=set)

    def promote(self) -> Proposal | None:
        """The next plan to be trained, on the highest rung that one is due for; None if none is due."""
        for rung in reversed(range(len(self.rungs))):
            there = [climber for climber in self._climbers if len(climber.trials) > rung]
            for climber in _best_first(there, rung)[: len(there) // SHARE]:
                if climber.asked == rung:
                    climber.asked = rung + 1
                    plan = climber.trials[0].plan
                    return replace(climber.proposal, plan=plan, note=climber, steps=self.rungs[rung])
        return None

    def hear(self, proposal: Proposal, trial: Trial) -> list[tuple[Proposal, Trial]]:
        """Takes the outcome of a proposal of the search or of `promote`.

        The plans of a rung keep, as a set, the places that their outcomes of the rung below gave them, and exchange
        these places by their outcomes of this rung. So no plan falls behind one that was not trained.

        Returns:
            The search's proposals whose rank has changed, each with the trial, of a plan as it was cut, whose place
            the proposal has now.
        """
        if proposal.steps:
            proposal.note.trials.append(trial)
        elif (key := plan_key(trial.plan)) not in self._known and trial.outcome.complete:
            self._known.add(key)
            self._climbers.append(_Climber(proposal, [trial], trial))
        changed = []
        for climber, place in zip(self._ranked(), _best_first(self._climbers, 0), strict=True):
            if climber.stands_for is not place.trials[0]:
                climber.stands_for = place.trials[0]
                changed.append((climber.proposal, climber.stands_for))
        return changed

    def _ranked(self) -> list[_Climber]:
        """All plans, the best first."""
        ranked = _best_first(self._climbers, 0)
        for rung in range(1, len(self.rungs) + 1):
            places = [place for place, climber in enumerate(ranked) if len(climber.trials) > rung]
            for place, climber in zip(places, _best_first([ranked[place] for place in places], rung), strict=True):
                ranked[place] = climber
        return ranked


def _best_first(climbers: Sequence[_Climber], rung: int) -> list[_Climber]:
    """Plans by their outcomes of a rung: by reward, and by loss among equal rewards."""
    return sorted(climbers, key=lambda one: (-one.trials[rung].reward, one.trials[rung].outcome.loss))

"""A worker: a copy of the problem's evaluator in another process, which measures what it is sent."""

import pickle
import time
import traceback
from dataclasses import dataclass, replace

import torch

from prune_env.common.errors import ConfigError, RunError, UserError
from prune_env.common.memory import keep_freed_memory
from prune_env.env.planner import Planner
from prune_env.env.problem import PruningProblem
from prune_env.env.proposal import Proposal
from prune_env.env.trial import Measured
from prune_env.evaluation.evaluator import Evaluator
from prune_env.rewards import Outcome
from prune_env.search.pools.base import Order


@dataclass(frozen=True)
class Bench:
    """Everything that measures a plan, as it is sent to a worker once.

    Attributes:
        planner: Makes the plans.
        evaluator: Measures them; the worker builds its own from the walk, the images and the execution settings.
        threads: Threads of torch in the worker.
    """

    planner: Planner
    evaluator: Evaluator
    threads: int = 1

    @classmethod
    def of(cls, problem: PruningProblem) -> "Bench":
        """The bench of a problem."""
        return cls(replace(problem.planner, provenance={}), problem.evaluator, problem.evaluator.execution.threads or 1)

    def packed(self) -> bytes:
        """The bench as bytes.

        Raises:
            ConfigError: Names the part that cannot be sent.
        """
        try:
            return pickle.dumps(self, protocol=pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"search.workers: {self._unsendable()} cannot be sent to another process ({error}). Define its class "
                "in a module, not in a function or in __main__, and keep locks, files and lambdas out of it; or give "
                "search.workers=1."
            ) from None

    def _unsendable(self) -> str:
        """The first part that cannot be sent, in words."""
        evaluator, planner = self.evaluator, self.planner
        model = evaluator.walk.model
        parts = {
            **{f"the network's module {name!r}": module for name, module in model.named_modules() if name},
            "the network": model,
            "the walk": evaluator.walk,
            "the repair (repair.name)": evaluator.repair,
            "the task (task.name)": evaluator.task,
            "the granularity (granularity.name)": planner.granularity,
            "the budget": planner.budget,
        }
        for words, part in parts.items():
            try:
                pickle.dumps(part)
            except (pickle.PicklingError, TypeError, AttributeError):
                return f"{words}, of class {type(part).__module__}.{type(part).__qualname__},"
        return "the problem"


class Worker:
    """Measures plans in its own process.

    Args:
        packed: `Bench.packed`.
    """

    def __init__(self, packed: bytes) -> None:
        keep_freed_memory()
        bench: Bench = pickle.loads(packed)
        torch.set_num_threads(bench.threads)
        self.bench = bench

    def uniform(self) -> Outcome:
        """The outcome of the uniform plan, which must be the driver's to the last digit."""
        return uniform_outcome(self.bench.planner, self.bench.evaluator)

    def measure(self, order: Order) -> Measured | Exception:
        """Measures a plan; an error of the plan is returned, so that it is raised in the plan's turn."""
        started = time.perf_counter()
        try:
            plan = self.bench.planner.plan(order.proposal)
            outcome = self.bench.evaluator.run(plan, order.stop_early)
        except UserError as error:
            return error
        except Exception as error:
            # Errors of any class cross processes as text: their own classes may not.
            return RunError(f"A worker failed on evaluation {order.number}: {error!r}\n{traceback.format_exc()}")
        return Measured(outcome, time.perf_counter() - started)


def uniform_outcome(planner: Planner, evaluator: Evaluator) -> Outcome:
    """The outcome of the uniform plan."""
    return evaluator.evaluate(planner.plan(Proposal(planner.budget.uniform())))


def refusal(worker: str, theirs: Outcome, ours: Outcome) -> str | None:
    """Why a worker is not used: it measures the uniform plan otherwise than the driver; None if it may be used."""
    if (theirs.quality, theirs.loss) == (ours.quality, ours.loss):
        return None
    return (
        f"The worker {worker} measures the uniform plan otherwise: quality {theirs.quality!r} and loss "
        f"{theirs.loss!r}; here they are {ours.quality!r} and {ours.loss!r}. It has another processor, another release "
        "of torch or another number of threads, and would change the result, so it is not used."
    )


def cannot_start(worker: str, error: Exception) -> RunError:
    """The error of a worker that cannot build its evaluator, as text: the error's own class may not cross processes."""
    return RunError(f"The worker {worker} cannot start: {error!r}\n{traceback.format_exc()}")

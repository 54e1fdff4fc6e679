"""The pool of one: plans are measured in this process, one after the other."""

from collections import deque

from prune_env.env.problem import PruningProblem
from prune_env.search.pools.base import Arrival, Order, Pool


class Here(Pool):
    """Measures plans with the problem's own evaluator when their results are waited for.

    Args:
        problem: The problem.
    """

    size = 1

    def __init__(self, problem: PruningProblem) -> None:
        self.problem = problem
        self._orders: deque[Order] = deque()

    def submit(self, order: Order) -> None:
        """Queues an order."""
        self._orders.append(order)

    def wait(self) -> Arrival:
        """Measures the oldest order."""
        order = self._orders.popleft()
        # An error must rise here with its own traceback: there is no other process that could have raised it.
        plan = self.problem.planner.plan(order.proposal)
        return Arrival(order.number, self.problem.measure(plan, order.stop_early, order.proposal.steps))

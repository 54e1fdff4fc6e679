"""Replays a plan on other weights or a policy on another network, and compares with dense, uniform and greedy."""

from dataclasses import asdict
from pathlib import Path

from torch import nn

from prune_env.config import RunConfig
from prune_env.config.sections import ExecutionSection, Section
from prune_env.data import Splits
from prune_env.env import PruningEnv
from prune_env.env.builders import Remembered, build_problem, usual_execution
from prune_env.env.fitting import fit_plan, rival_plans
from prune_env.env.loading import check_names, load_model, load_splits, refuse_sparse_training
from prune_env.evaluation.evaluator import Evaluator
from prune_env.plan import PruningPlan
from prune_env.runs.finishing import rival_rules
from prune_env.runs.networks import NetworkRow, compare_plans
from prune_env.runs.starting import OnDense, OnProgress, check_dense, quietly
from prune_env.search.policy import Policy

SEARCH = "replay"
"""The search that proposes the plan of ``agent.policy``."""


def replay_settings(source: Path, learned: PruningPlan | Policy, settings: RunConfig) -> RunConfig:
    """The settings of a run that replays: `prune_env.runs.searching.start_search` takes them.

    Args:
        source: The file of the plan or the policy, or a run directory (its plan).
        learned: What it holds. A plan sets the budget: its own cost, so that its rivals cost the same.
        settings: The settings of the network.

    Raises:
        ConfigError: If the settings ask for a sparse training.
    """
    refuse_sparse_training(settings)
    agent = settings.agent.model_copy(update={"name": SEARCH, "policy": str(source)})
    settings = _to_replay(learned, settings).model_copy(update={"agent": agent})
    if isinstance(learned, Policy):
        return settings
    # A latency is valid only on the machine that measured it: such a plan is compared at its MACs.
    metric = "params" if learned.budget is not None and learned.budget.metric == "params" else "macs"
    share = getattr(learned.costs, metric) / getattr(learned.costs, f"dense_{metric}")
    return settings.model_copy(update={"budget": settings.budget.model_copy(update={"metric": metric, "keep": share})})


def _to_replay(learned: PruningPlan | Policy, settings: RunConfig) -> RunConfig:
    """The settings with the policy's actions, and without a choice of execution settings.

    That choice takes many times as long as the single plan.
    """
    update: dict[str, Section] = {"execution": ExecutionSection(**asdict(usual_execution(settings)))}
    if isinstance(learned, Policy):
        update["granularity"] = settings.granularity.model_copy(update={"action": learned.action})
    return settings.model_copy(update=update)


def replay_on(
    learned: PruningPlan | Policy, settings: RunConfig, on_progress: OnProgress = quietly, on_dense: OnDense = quietly
) -> list[NetworkRow]:
    """Applies a plan to the network that the settings name, or lets a policy prune this network; writes nothing.

    Args:
        learned: The plan or the policy.
        settings: The settings.
        on_progress: Receives progress messages.
        on_dense: Receives the quality of the dense network.

    Returns:
        The dense network, the uniform one at the plan's cost (if such a plan exists), for a policy the greedy rule's
        (if ``sensitivity.probe_keep`` is set), and the one of the ``replay``.

    Raises:
        PlanError: If the plan does not fit this network.
        ConfigError: If the policy was trained with other limits than the settings'.
        DoubtfulNetworkError: If the dense network's quality is near chance, or its images are not those it knows.
    """
    check_names(settings)
    refuse_sparse_training(settings)
    on_progress("building the network and tracing it")
    splits = load_splits(settings)
    model = load_model(settings, splits, accept=learned.apply if isinstance(learned, PruningPlan) else None)
    check_dense(settings, splits, model, on_dense=on_dense)
    if isinstance(learned, PruningPlan):
        evaluator, plan = fit_plan(learned, settings, splits, model)
        rules: dict[str, PruningPlan] = {}
    else:
        evaluator, plan, rules = _propose(learned, settings, splits, model)
    plans = {**rival_plans(evaluator, splits, settings, plan), **rules, SEARCH: plan}
    on_progress("measuring")
    return compare_plans(evaluator, splits, plans)


def _propose(
    policy: Policy, settings: RunConfig, splits: Splits, model: nn.Module
) -> tuple[Evaluator, PruningPlan, dict[str, PruningPlan]]:
    """The evaluator, the policy's plan, and the plans of rules at the same budget."""
    policy.check(settings)
    settings = _to_replay(policy, settings)
    settings = settings.model_copy(update={"agent": settings.agent.model_copy(update={"name": SEARCH})})
    problem = build_problem(settings, splits, model, remembered=Remembered(timed=False))
    plan = policy.propose(PruningEnv(problem=problem, proposed_by=SEARCH)).plan
    assert plan is not None
    return problem.evaluator, plan, rival_rules(problem, settings)

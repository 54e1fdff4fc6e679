"""Replays a plan on other weights or a policy on another network, and compares with dense and uniform."""

from dataclasses import asdict
from pathlib import Path

from torch import nn

from prune_env.common.errors import PlanError
from prune_env.config import RunConfig
from prune_env.config.sections import ExecutionSection
from prune_env.data import Splits
from prune_env.env import PruningEnv
from prune_env.env.builders import Remembered, build_problem, usual_execution
from prune_env.env.fitting import fit_plan, rival_plans
from prune_env.env.loading import check_names, load_model, load_splits, refuse_sparse_training
from prune_env.evaluation.evaluator import Evaluator
from prune_env.plan import PruningPlan
from prune_env.runs.networks import NetworkRow, compare_plans
from prune_env.runs.starting import OnDense, check_dense, quietly
from prune_env.search.policy import Policy, load_policy


def read_plan_or_policy(source: Path) -> PruningPlan | Policy:
    """Reads a plan or a policy from a file, or the plan of a run directory.

    Raises:
        PlanError: If the file does not exist.
    """
    if source.is_dir():
        return PruningPlan.load(source / "plan.json")
    if not source.exists():
        raise PlanError(f"{source} does not exist. Give a plan.json, a policy.safetensors or a run directory.")
    return load_policy(source) if source.suffix == ".safetensors" else PruningPlan.load(source)


def replay_on(learned: PruningPlan | Policy, settings: RunConfig, on_dense: OnDense = quietly) -> list[NetworkRow]:
    """Applies a plan to the network that the settings name, or lets a policy prune this network.

    Args:
        learned: The plan or the policy.
        settings: The settings.
        on_dense: Receives the quality of the dense network.

    Returns:
        The dense network, the uniform one at the plan's cost (if such a plan exists), and the ``replayed`` one.

    Raises:
        PlanError: If the plan does not fit this network.
        ConfigError: If the policy was trained with other limits than the settings'.
        DoubtfulNetworkError: If the dense network's quality is near chance, or its images are not those it knows.
    """
    check_names(settings)
    refuse_sparse_training(settings)
    splits = load_splits(settings)
    model = load_model(settings, splits, accept=learned.apply if isinstance(learned, PruningPlan) else None)
    check_dense(settings, splits, model, on_dense=on_dense)
    if isinstance(learned, PruningPlan):
        evaluator, plan = fit_plan(learned, settings, splits, model)
    else:
        evaluator, plan = _propose(learned, settings, splits, model)
    plans = {**rival_plans(evaluator, splits, settings, plan), "replayed": plan}
    return compare_plans(evaluator, splits, plans)


def _propose(policy: Policy, settings: RunConfig, splits: Splits, model: nn.Module) -> tuple[Evaluator, PruningPlan]:
    policy.check(settings)
    # Skip the choice of execution settings: it takes many times as long as the single evaluation here.
    execution = ExecutionSection(**asdict(usual_execution(settings)))
    granularity = settings.granularity.model_copy(update={"action": policy.action})
    settings = settings.model_copy(update={"execution": execution, "granularity": granularity})
    problem = build_problem(settings, splits, model, remembered=Remembered(timed=False))
    return problem.evaluator, policy.propose(PruningEnv(problem=problem, proposed_by="replay")).plan

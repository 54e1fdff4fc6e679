"""ExecutionChooser: the fastest execution settings that rank alike, measured once for a machine and a network."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy import digits_config, digits_splits, image_set, toy_resnet, toy_walk, trained_digits
from zoo import Net

from prune_env import PruningPlan
from prune_env.budget import Budget
from prune_env.common.errors import CacheWarning
from prune_env.common.records import read_record
from prune_env.config.sections import ExecutionSection
from prune_env.criteria import ScoringContext, score_channels
from prune_env.data import ImageSet
from prune_env.env.builders import build_problem
from prune_env.evaluation import execution_choice
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionRecord, ExecutionSettings
from prune_env.evaluation.execution_choice import ExecutionChooser, run_with_threads
from prune_env.evaluation.execution_options import LONG_SEARCH, USUAL_THREADS

GIVEN = "execution={layout: contiguous, dtype: float32, folded: false, batch: 32, threads: 1}"
OPEN = ExecutionSection()
Clock = Callable[[ExecutionSettings], float]
Timed = Callable[[Clock], list[ExecutionSettings]]


def given() -> ExecutionSection:
    return digits_config(GIVEN).execution


def loss(evaluator: Evaluator, plan: PruningPlan) -> float:
    return -evaluator.evaluate(plan).loss


def chooser(
    ranks: Callable[[Evaluator, PruningPlan], float] = loss, model: nn.Module | None = None
) -> ExecutionChooser:
    walk = toy_walk(model)
    budget = Budget(walk, "macs", 0.5)
    return ExecutionChooser(
        walk,
        budget,
        image_set(64, 1),
        image_set(32, 2),
        torch.device("cpu"),
        score_channels("l1", ScoringContext(walk)),
        ranks,
    )


def seconds(execution: ExecutionSettings) -> float:
    """By default, the usual settings are the fastest."""
    return (
        1.0
        + (execution.layout == "contiguous")
        + (not execution.folded)
        + (execution.dtype == "bfloat16")
        + execution.batch / 1e3
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "prune_env" / "execution"


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Timed:
    """Replaces the clock; gives the list to which each timed candidate is added."""

    def use(clock: Clock) -> list[ExecutionSettings]:
        seen: list[ExecutionSettings] = []

        def time(
            _: ExecutionChooser, candidates: Sequence[ExecutionSettings], _sets: tuple[ImageSet, ImageSet]
        ) -> dict[ExecutionSettings, float]:
            seen.extend(candidates)
            return {execution: 1e-4 * clock(execution) for execution in candidates}

        monkeypatch.setattr(ExecutionChooser, "_time", time)
        return seen

    return use


class TestGivenSettings:
    def test_is_taken_without_measuring_or_writing_anything(self, folder: Path, timed: Timed) -> None:
        seen = timed(seconds)
        choice = chooser().choose(given(), 1000)
        assert (choice.execution, choice.reason) == (ExecutionSettings("contiguous", "float32", False, 32, 1), "given")
        assert (seen, choice.timings, folder.parent.exists()) == ([], (), False)

    def test_is_kept_in_what_was_given_where_the_rest_is_measured(self, folder: Path, timed: Timed) -> None:
        seen = timed(seconds)
        choice = chooser().choose(ExecutionSection(layout="contiguous", batch=48), 10)
        assert (choice.execution.layout, choice.execution.batch, choice.reason) == ("contiguous", 48, "measured")
        assert {execution.layout for execution in seen} == {"contiguous"}
        assert list(folder.iterdir())


class TestAMeasuredChoice:
    def test_is_kept_below_the_cache_and_remembered(self, folder: Path) -> None:
        first = chooser().choose(OPEN, 10)
        (file,) = folder.iterdir()
        assert read_record(file, ExecutionRecord) == first.record()
        again = chooser().choose(OPEN, 10)
        assert (first.reason, again.reason, again.execution) == ("measured", "remembered", first.execution)
        assert {execution.layout for execution, _ in first.timings} == {"channels_last", "contiguous"}
        assert all(0 < taken < 1 for _, taken in first.timings)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"\xff\xfe",
            b"null",
            b"[" * 100_000,
            *(
                json.dumps({"execution": {"threads": 1}, "reason": "measured"} | wrong).encode()
                for wrong in (
                    {"execution": {"speed": 3}},
                    {"execution": {"batch": 64.0}},
                    {"execution": {"threads": 1.0}},
                    {"agreement": float("nan")},
                    {"digest": "0"},
                )
            ),
        ],
        ids=lambda content: str(content[-40:]),
    )
    def test_is_measured_again_where_the_file_is_damaged_and_the_file_is_named(
        self, folder: Path, timed: Timed, content: bytes
    ) -> None:
        timed(seconds)
        first = chooser().choose(OPEN, 10)
        (file,) = folder.iterdir()
        file.write_bytes(content)
        with pytest.warns(CacheWarning, match=rf"^'{file}' .*The file is ignored, and the execution settings are meas"):
            again = chooser().choose(OPEN, 10)
        assert (again.reason, again.execution) == ("measured", first.execution)
        assert chooser().choose(OPEN, 10).reason == "remembered"

    @pytest.mark.parametrize("wrong", [{"batch": 7}, {"layout": "sideways"}, {"dtype": "bfloat16"}, {"threads": 99}])
    def test_is_measured_again_where_the_file_holds_what_is_not_open(
        self, folder: Path, timed: Timed, wrong: dict[str, object]
    ) -> None:
        timed(seconds)
        record = chooser().choose(OPEN, 10).record().as_record()
        (file,) = folder.iterdir()
        file.write_text(json.dumps({**record, "execution": {**record["execution"], **wrong}}))
        assert chooser().choose(OPEN, 10).reason == "measured"

    @pytest.mark.parametrize("what", ["weights", "budget", "protection", "facts"])
    @pytest.mark.usefixtures("folder")
    def test_is_not_taken_for_what_may_rank_plans_otherwise(self, timed: Timed, what: str) -> None:
        timed(seconds)
        first = chooser()
        first.choose(OPEN, 10)
        model = toy_resnet(seed=1) if what == "weights" else toy_resnet()
        walk = toy_walk(model, {"stem": "kept"} if what == "protection" else None)
        budget = Budget(walk, "macs", 0.6 if what == "budget" else 0.5)
        facts = {"reward": "another"} if what == "facts" else {}
        other = replace(first, walk=walk, budget=budget, facts=facts)
        assert other.choose(OPEN, 10).reason == "measured"
        assert first.choose(OPEN, 10).reason == "remembered"

    def test_is_not_taken_for_another_network_or_other_settings(self, folder: Path, timed: Timed) -> None:
        timed(seconds)
        chooser().choose(OPEN, 10)
        assert chooser(model=toy_resnet(channels=12)).choose(OPEN, 10).reason == "measured"
        assert chooser().choose(ExecutionSection(folded=None, batch=16), 10).reason == "measured"
        assert len(list(folder.iterdir())) == 3

    def test_does_not_need_a_folder_that_can_be_written(self, folder: Path, timed: Timed) -> None:
        timed(seconds)
        folder.parent.write_text("a file where the folder should be")
        reasons = [chooser().choose(OPEN, 10).reason for _ in range(2)]
        assert reasons == ["measured", "measured"]


class TestTheFastest:
    @pytest.mark.parametrize(
        ("clock", "expected"),
        [
            (seconds, {}),
            (lambda execution: 2.0 - (execution.layout == "contiguous"), {"layout": "contiguous"}),
            (lambda execution: 2.0 - (not execution.folded), {"folded": False}),
            (lambda execution: 2.0 - (execution.batch == 32), {"batch": 32}),
            (lambda execution: 2.0 - 0.04 * (execution.layout == "contiguous"), {}),
            (lambda _: 1.0, {}),
        ],
        ids=["the usual", "contiguous", "not folded", "small batches", "a hair faster", "all alike"],
    )
    @pytest.mark.usefixtures("folder")
    def test_replaces_the_usual_settings_only_if_it_is_clearly_faster(
        self, timed: Timed, clock: Clock, expected: dict[str, object]
    ) -> None:
        timed(clock)
        usual = ExecutionSettings(batch=64, threads=USUAL_THREADS)
        assert chooser().choose(OPEN, 10).execution == replace(usual, **expected)

    @pytest.mark.usefixtures("folder")
    def test_is_not_one_in_which_the_network_does_not_run(self) -> None:
        def forward(net: Net, images: Tensor) -> Tensor:
            if len(images) == 32:
                raise RuntimeError("no kernel")
            return net.fc(torch.relu(net.conv(images)).mean((2, 3)))

        model = Net(forward, conv=nn.Conv2d(2, 8, 3), fc=nn.Linear(8, 4)).eval()
        choice = chooser(model=model).choose(ExecutionSection(layout="contiguous", folded=True, threads=1), 10)
        assert choice.execution.batch == 64
        assert [execution.batch for execution, _ in choice.timings] == [64, 16]

    @pytest.mark.usefixtures("folder")
    def test_is_found_for_a_network_that_cannot_run_in_the_usual_layout(self) -> None:
        """A network that runs in one layout only, because it views maps as vectors."""
        model = Net(
            lambda net, x: net.fc(torch.relu(net.conv(x)).view(len(x), -1)),
            conv=nn.Conv2d(2, 8, 3),
            fc=nn.Linear(8 * 36, 4),
        )
        choice = chooser(model=model.eval()).choose(OPEN, 10)
        assert choice.execution.layout == "contiguous"

    def test_runs_with_its_threads_and_gives_them_back(self) -> None:
        seen: list[int] = []
        walk = toy_walk()
        evaluator = Evaluator(walk, image_set(8), image_set(8), ExecutionSettings(threads=2))
        evaluator.network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
        run_with_threads(evaluator, walk.plan({}))
        assert (seen, torch.get_num_threads()) == ([2], 1)


class TestBfloat16:
    @staticmethod
    def fast(execution: ExecutionSettings) -> float:
        return 2.0 - (execution.dtype == "bfloat16")

    @pytest.mark.usefixtures("folder")
    def test_is_not_looked_at_in_a_short_search(self, timed: Timed) -> None:
        seen = timed(self.fast)
        assert chooser().choose(OPEN, LONG_SEARCH - 1).execution.dtype == "float32"
        assert {execution.dtype for execution in seen} == {"float32"}
        chooser().choose(OPEN, LONG_SEARCH)
        assert "bfloat16" in {execution.dtype for execution in seen}

    @pytest.mark.parametrize(
        ("sign", "taken", "agreement"),
        [(1, "bfloat16", 1.0), (-1, "float32", -1.0), (0, "float32", None)],
        ids=["agrees", "reverses", "is constant"],
    )
    @pytest.mark.filterwarnings("ignore:An input array is constant")
    @pytest.mark.usefixtures("folder")
    def test_is_taken_only_if_it_ranks_plans_as_float32_does(
        self, timed: Timed, sign: int, taken: str, agreement: float | None
    ) -> None:
        def ranks(evaluator: Evaluator, plan: PruningPlan) -> float:
            return plan.costs.params * (sign if evaluator.execution.dtype == "bfloat16" else 1)

        timed(self.fast)
        choice = chooser(ranks).choose(OPEN, LONG_SEARCH)
        assert choice.execution.dtype == taken
        assert choice.agreement == (None if agreement is None else pytest.approx(agreement))

    @pytest.mark.usefixtures("folder")
    def test_keeps_its_batch_norms_where_folding_spoils_the_ranks(self, timed: Timed) -> None:
        def ranks(evaluator: Evaluator, plan: PruningPlan) -> float:
            spoilt = evaluator.execution.dtype == "bfloat16" and evaluator.execution.folded
            return plan.costs.params * (-1 if spoilt else 1)

        timed(self.fast)
        execution = chooser(ranks).choose(OPEN, LONG_SEARCH).execution
        assert (execution.dtype, execution.folded) == ("bfloat16", False)

    @pytest.mark.usefixtures("folder")
    def test_is_held_against_the_least_agreement(self, timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(execution_choice, "AGREEMENT", 1.1)
        timed(self.fast)
        assert chooser(lambda _, plan: plan.costs.params).choose(OPEN, LONG_SEARCH).execution.dtype == "float32"

    @pytest.mark.usefixtures("folder")
    def test_is_not_compared_where_it_is_slower(self, timed: Timed) -> None:
        def ranks(*_: object) -> float:
            raise AssertionError("compared")

        timed(seconds)
        assert chooser(ranks).choose(OPEN, LONG_SEARCH).agreement is None


class TestATask:
    def test_holds_the_choice_and_evaluates_in_its_settings(self) -> None:
        problem = build_problem(digits_config(GIVEN), digits_splits(), trained_digits())
        assert problem.execution_choice is not None
        assert problem.execution_choice.reason == "given"
        assert (
            problem.evaluator.execution
            == problem.execution_choice.execution
            == ExecutionSettings("contiguous", "float32", False, 32, 1)
        )

    def test_measures_what_the_config_leaves_open(self, folder: Path) -> None:
        config = digits_config("execution={layout: channels_last, batch: 64, threads: 1}", "search.evaluations=10")
        heard: list[str] = []
        problem = build_problem(config, digits_splits(), trained_digits(), heard.append)
        assert problem.execution_choice is not None
        assert (problem.execution_choice.reason, len(list(folder.iterdir()))) == ("measured", 1)
        assert problem.evaluator.execution == problem.execution_choice.execution
        assert any("fastest execution settings" in line for line in heard)


def test_random_plans_are_at_the_budget_and_the_same_each_time() -> None:
    model = chooser()
    plans = [list(execution_choice.random_plans(model.walk, model.budget, model.scores, 10)) for _ in range(2)]
    assert plans[0] == plans[1]
    assert len({tuple(plan.widths.values()) for plan in plans[0]}) >= 8
    assert all(0.9 * model.budget.limit < plan.costs.macs <= model.budget.limit for plan in plans[0])

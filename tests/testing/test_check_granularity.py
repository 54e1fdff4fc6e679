"""Every promise that a granularity can break, and the sentence that says so."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from own_granularity import Middle, MiddleEdit

from prune_env.budget import Budget
from prune_env.common.errors import ConfigError
from prune_env.granularity import ActionDimension, Granularity, PlanBuilder
from prune_env.granularity.base import Series
from prune_env.granularity.channel import Channel, ChannelPlanBuilder
from prune_env.granularity.group.times import GroupMeasurements
from prune_env.plan import register_edit
from prune_env.plan.edits import EDITS
from prune_env.surgery import Sides
from prune_env.testing import check_granularity

pytestmark = pytest.mark.usefixtures("same_global_state")


class Unbounded(ChannelPlanBuilder):
    """A builder that keeps the requested widths, whatever the budget is."""

    def decide(self, numbers: Sequence[float]) -> None:
        (keep,) = numbers
        self._close(self.budget.allowed(self.number, keep * int(self.budget.channels[self.number])))


class Greedy(Channel):
    name = "greedy"

    def builder(self, budget: Budget) -> PlanBuilder:
        return Unbounded(budget, self._scores)


class Fickle(Channel):
    name = "fickle"

    def builder(self, budget: Budget) -> PlanBuilder:
        return ChannelPlanBuilder(budget, {name: np.random.rand(len(s)) for name, s in self._scores.items()})


class Lopsided(Channel):
    name = "lopsided"

    def actions(self) -> tuple[ActionDimension, ...]:
        (keep,) = super().actions()
        return (ActionDimension("keep ratio", keep.decode, lambda _number, _even: 0.0),)


class Miscounting(Channel):
    name = "miscounting"

    @classmethod
    def action_numbers(cls, action: str) -> int:  # noqa: ARG003
        return 2


class Shy(Channel):
    name = "shy"

    def demonstration_count(self, rules: int, budget: Budget) -> int:  # noqa: ARG002
        return rules + 1


class Lost(Channel):
    name = "lost"

    def measurements(self) -> GroupMeasurements:
        return GroupMeasurements(times={})


class Wild(Channel):
    name = "wild"

    def series(self, record: Mapping[str, Any]) -> Series:  # noqa: ARG002
        return {"widths": {"stem": float("nan")}}


class HeavyMiddle(MiddleEdit):
    kind = "heavy"

    def weights(self, kernel: int, inputs: int, outputs: int) -> int:  # noqa: ARG002
        return inputs * outputs + 1


class WholeMiddle(MiddleEdit):
    kind = "whole"

    def masked(self, module: Any, sides: Sides, cut: Any) -> dict[str, torch.Tensor]:  # noqa: ARG002
        return dict(cut(sides))


class TestGranularity:
    def test_that_keeps_them_passes(self) -> None:
        check_granularity(Channel)

    def test_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'channel'"):
            check_granularity("channels")

    @pytest.mark.parametrize(
        ("granularity", "words"),
        [
            (Greedy, r"action 'share', plan \d+: the plan takes \d+ MACs, and \d+ are allowed"),
            (Fickle, r"action 'share', plan \d+: the same actions give another plan the second time"),
            (Lopsided, r"'keep ratio' decodes -1\.0 and encodes the result as 0\.0"),
            (Miscounting, r"an action 'share' has 1 numbers, and action_numbers says 2"),
            (Shy, r"gives 2 demonstrations, and demonstration_count says 3"),
            (Lost, r"gives measurements of class GroupMeasurements, and its Measurements is None"),
            (Wild, r"plan 0: its series 'widths' holds a number that is not finite"),
        ],
    )
    def test_that_breaks_one_is_told_which(self, granularity: type[Granularity], words: str) -> None:
        with pytest.raises(AssertionError, match=f"^granularity '{granularity.name}'.*{words}"):
            check_granularity(granularity)

    @pytest.mark.parametrize(
        ("edit", "words"),
        [
            (HeavyMiddle, r"the plan says \d+ MACs .*, and its network has .*weights"),
            (WholeMiddle, r"the evaluator's network and that of plan\.apply differ by .* of the largest output"),
        ],
    )
    def test_an_edit_is_the_same_layer_for_all(
        self, edit: type[MiddleEdit], words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("own_granularity.MiddleEdit", edit)
        with EDITS.restored():
            register_edit(edit)
            with pytest.raises(AssertionError, match=f"^granularity 'middle'.*{words}"):
                check_granularity(Middle)

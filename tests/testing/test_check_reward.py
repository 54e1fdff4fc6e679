"""Every promise that a reward can break, and the sentence that says so."""

from collections.abc import Callable

import numpy as np
import pytest

from prune_env.rewards import Outcome, RewardError
from prune_env.testing import check_reward

pytestmark = pytest.mark.usefixtures("same_global_state")


class TestReward:
    def test_that_keeps_them_passes(self) -> None:
        check_reward(lambda outcome, dense: outcome.quality - 0.1 * outcome.macs / dense.macs)

    def test_that_takes_settings_is_given_them(self) -> None:
        def priced(outcome: Outcome, dense: Outcome, price: float) -> float:
            return outcome.quality - price * outcome.macs / dense.macs

        check_reward(priced, {"price": 0.5})  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match="missing 1 required positional argument: 'price'"):
            check_reward(priced)  # type: ignore[arg-type]

    def test_that_does_not_exist_or_lacks_a_setting_is_refused(self) -> None:
        with pytest.raises(RewardError, match="did you mean 'error'"):
            check_reward("Error")
        with pytest.raises(RewardError, match="'keep' is required"):
            check_reward("budget_penalty")

    @pytest.mark.parametrize(
        ("reward", "words"),
        [
            (lambda outcome, _: 1.0 / outcome.quality, "fails for Outcome.*ZeroDivisionError"),
            (lambda *_: float("nan"), "is nan for Outcome.* must be a finite number"),
            (lambda *_: "much", "is 'much' for Outcome.* must be a finite number"),
            (lambda *_: np.random.rand(), r"the second time\. It must be a function of the two outcomes"),
            (lambda outcome, _: -outcome.latency, "looks at the latency says needs_latency=True: TypeError"),
            (lambda outcome, _: -(outcome.latency or 0.0), "with a latency, which .* Say needs_latency=True"),
        ],
    )
    def test_is_a_finite_function_of_the_outcomes(
        self, reward: Callable[[Outcome, Outcome], float], words: str
    ) -> None:
        with pytest.raises(AssertionError, match=f"^reward '.*lambda.*' .*{words}"):
            check_reward(reward)

    def test_is_given_the_latency_that_it_says_it_needs(self) -> None:
        def quick(outcome: Outcome, dense: Outcome) -> float:
            assert outcome.latency is not None
            assert dense.latency is not None
            return -outcome.latency / dense.latency

        quick.needs_latency = True  # type: ignore[attr-defined]
        check_reward(quick)

    @pytest.mark.parametrize("by", ["quality over macs", "loss", "falling"])
    def test_rises_with_quality_where_it_says_so(self, by: str) -> None:
        def ranking(outcome: Outcome, dense: Outcome) -> float:  # noqa: ARG001
            values = {"quality over macs": outcome.quality / outcome.macs, "loss": -outcome.loss}
            return values.get(by, -outcome.quality)

        check_reward(ranking)
        ranking.rises_with_quality = True  # type: ignore[attr-defined]
        if by == "quality over macs":
            check_reward(ranking)
            return
        with pytest.raises(
            AssertionError, match=r"says rises_with_quality=True\..* never fall where the quality rises"
        ):
            check_reward(ranking)

    @pytest.mark.parametrize("by", ["quality", "loss", "macs"])
    def test_ranks_as_quality_where_it_says_so(self, by: str) -> None:
        def ranking(outcome: Outcome, dense: Outcome) -> float:  # noqa: ARG001
            return {"quality": outcome.quality**3, "loss": -outcome.loss, "macs": round(outcome.quality)}[by]

        check_reward(ranking)
        ranking.ranks_as_quality = True  # type: ignore[attr-defined]
        if by == "quality":
            check_reward(ranking)
            return
        with pytest.raises(
            AssertionError, match=r"says ranks_as_quality=True\..* be greater where the quality is greater"
        ):
            check_reward(ranking)

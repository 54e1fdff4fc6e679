"""Rewards: what they prefer, what they refuse, and in which words."""

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_env.rewards import (
    Outcome,
    Reward,
    RewardError,
    Setting,
    make_reward,
    needs_latency,
    ranks_as_quality,
    register,
    reward_names,
    reward_summaries,
)
from prune_env.rewards.registry import restored

DENSE = Outcome(quality=0.95, loss=0.2, macs=1_000_000, params=10_000, latency=0.1)

EVERY_REWARD = [
    ("error", {}),
    ("error_log_macs", {}),
    ("error_log_params", {}),
    ("accuracy_guaranteed", {}),
    ("accuracy_guaranteed", {"floor": 0.9}),
    ("accuracy_guaranteed", {"drop": 0.05}),
    ("budget_penalty", {"keep": 0.5}),
    ("budget_penalty", {"keep": 0.5, "weight": 3}),
    ("latency_penalty", {"keep": 0.5}),
    ("latency_penalty", {"keep": 0.5, "weight": 3}),
]

accuracies = st.floats(0, 1)
costs = st.integers(1, DENSE.macs)


def outcome(accuracy: float, macs: int = 500_000, params: int = 5_000) -> Outcome:
    return Outcome(quality=accuracy, loss=1.0, macs=macs, params=params, latency=1e-7 * macs)


@pytest.fixture
def own_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a user's module with valid and invalid rewards."""
    (tmp_path / "own_rewards_of_a_test.py").write_text(
        "def good(outcome, baseline, scale=1.0):\n    return scale * outcome.accuracy\n"
        "def text(outcome, baseline):\n    return 'much'\n"
        "def nan(outcome, baseline):\n    return float('nan')\n"
        "def integer(outcome, baseline):\n    return 3\n"
        "def lonely(outcome):\n    return 1.0\n"
        "class Namespace:\n    inner = staticmethod(good)\n"
        "def telling(outcome, baseline, scale=1.0):\n    return scale * outcome.accuracy\n"
        "telling.needs_latency = telling.ranks_as_quality = True\n"
        "from rewards import Setting, register\n"
        "@register('scaled', needs_latency=True, scale=Setting(0, 1, 'a factor'))\n"
        "def scaled(scale):\n    return lambda outcome, baseline: scale * outcome.accuracy\n"
        "number = 3\n"
    )
    (tmp_path / "broken_rewards_of_a_test.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with restored():
        yield "own_rewards_of_a_test"
    sys.modules.pop("own_rewards_of_a_test", None)


@pytest.mark.parametrize(("name", "settings"), EVERY_REWARD)
@settings(deadline=None, max_examples=30)
@given(first=accuracies, second=accuracies, macs=costs, params=st.integers(1, DENSE.params))
def test_better_accuracy_never_gives_less_reward_at_equal_cost(
    name: str, settings: dict[str, float], first: float, second: float, macs: int, params: int
) -> None:
    reward = make_reward(name, settings)
    worse, better = sorted((first, second))
    assert reward(outcome(better, macs, params), DENSE) >= reward(outcome(worse, macs, params), DENSE)


@pytest.mark.parametrize(("name", "settings"), EVERY_REWARD)
@settings(deadline=None, max_examples=30)
@given(accuracy=accuracies, first=costs, second=costs)
def test_fewer_macs_never_give_less_reward_at_equal_accuracy(
    name: str, settings: dict[str, float], accuracy: float, first: int, second: int
) -> None:
    reward = make_reward(name, settings)
    fewer, more = sorted((first, second))
    assert reward(outcome(accuracy, fewer), DENSE) >= reward(outcome(accuracy, more), DENSE)


@settings(deadline=None, max_examples=30)
@given(above=accuracies, below=accuracies, cheap=costs, dear=costs, floor=accuracies)
def test_any_plan_above_the_floor_beats_any_plan_below_it(
    above: float, below: float, cheap: int, dear: int, floor: float
) -> None:
    reward = make_reward("accuracy_guaranteed", {"floor": floor})
    high = reward(outcome(max(above, floor), dear), DENSE)
    low = reward(outcome(below, cheap), DENSE)
    assert 0 <= high <= 1
    if below < floor - 1e-6:
        assert low < 0 <= high


@settings(deadline=None, max_examples=30)
@given(first=costs, second=costs)
def test_the_cheapest_plan_above_the_floor_wins_whatever_its_accuracy(first: int, second: int) -> None:
    reward = make_reward("accuracy_guaranteed", {"floor": 0.9})
    cheap, dear = sorted((first, second))
    assert reward(outcome(0.9, cheap), DENSE) >= reward(outcome(1.0, dear), DENSE)


@settings(deadline=None, max_examples=30)
@given(right=st.integers(10, 1000))
def test_a_plan_that_loses_exactly_the_allowed_drop_is_above_the_floor(right: int) -> None:
    # Counts over 1,000 images: a drop of 0.01 is ten images, exactly, though not in binary fractions.
    dense = Outcome(quality=right / 1000, loss=0.2, macs=1_000_000, params=10_000)
    reward = make_reward("accuracy_guaranteed")
    assert reward(outcome((right - 10) / 1000), dense) == 0.5
    if right > 10:
        assert reward(outcome((right - 11) / 1000), dense) == pytest.approx(-0.001)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("error", {}, -0.1),
        ("error_log_macs", {}, -0.1 * math.log(500_000)),
        ("error_log_params", {}, -0.1 * math.log(5_000)),
        ("accuracy_guaranteed", {"floor": 0.9}, 0.5),
        ("accuracy_guaranteed", {}, 0.9 - 0.94),
        ("accuracy_guaranteed", {"drop": 0.03}, 0.9 - 0.92),
        ("budget_penalty", {"keep": 0.5}, 0.9),
        ("budget_penalty", {"keep": 0.3}, 0.9 - 0.2),
        ("budget_penalty", {"keep": 0.3, "weight": 2}, 0.9 - 0.4),
        ("latency_penalty", {"keep": 0.5}, 0.9),
        ("latency_penalty", {"keep": 0.3, "weight": 2}, 0.9 - 0.4),
    ],
)
def test_rewards_follow_their_formula(name: str, settings: dict[str, float], expected: float) -> None:
    assert make_reward(name, settings)(outcome(0.9), DENSE) == pytest.approx(expected)


def test_a_reward_of_latency_says_that_there_is_none() -> None:
    unmeasured = Outcome(quality=0.9, loss=1.0, macs=500_000, params=5_000)
    with pytest.raises(RewardError, match="'latency_penalty' needs outcomes with a latency"):
        make_reward("latency_penalty", {"keep": 0.5})(unmeasured, DENSE)


def test_the_registry_names_every_reward() -> None:
    assert set(reward_names()) == {name for name, _ in EVERY_REWARD}


def test_an_unknown_reward_is_refused_with_the_nearest_name_and_the_list() -> None:
    with pytest.raises(RewardError, match=r"^reward\.name: .* 'eror'; did you mean 'error'\? .*budget_penalty"):
        make_reward("eror")


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("budget_penalty", {}, "setting 'keep' is required"),
        ("budget_penalty", {"kep": 0.5}, r"unknown setting 'kep', did you mean 'keep'\?"),
        ("budget_penalty", {"keep": 0.0}, r"keep = 0.0 is not a number in \(0, 1\]"),
        ("budget_penalty", {"keep": math.nan}, r"keep = nan is not a number in \(0, 1\]"),
        ("budget_penalty", {"keep": 0.5, "weight": -1}, r"weight = -1 is not a number in \[0, inf\)"),
        ("budget_penalty", {"keep": True}, "keep = True is not a number"),
        ("accuracy_guaranteed", {"floor": 90}, r"floor = 90 is not a number in \[0, 1\].*least quality"),
        ("accuracy_guaranteed", {"floor": 0.9, "drop": 0.1}, "both given; give one of them"),
        ("error", {"keep": 0.5}, "unknown setting 'keep', known: none.*Its settings: none"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_allowed(name: str, settings: dict[str, float], words: str) -> None:
    with pytest.raises(RewardError, match=words):
        make_reward(name, settings)


def test_a_reward_of_the_users_own_is_called_with_its_settings(own_reward: str) -> None:
    assert make_reward(f"{own_reward}:good")(outcome(0.5), DENSE) == 0.5
    assert make_reward(f"{own_reward}:good", {"scale": 4.0})(outcome(0.5), DENSE) == 2.0
    assert make_reward(f"{own_reward}:Namespace.inner")(outcome(0.5), DENSE) == 0.5


def test_an_integer_is_a_reward(own_reward: str) -> None:
    value = make_reward(f"{own_reward}:integer")(outcome(0.5), DENSE)
    assert (value, type(value)) == (3.0, float)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_anywhere:reward", r"cannot be imported \(ModuleNotFoundError.*PYTHONPATH"),
        ("own_rewards_of_a_test:missing", "'missing' does not exist in module 'own_rewards_of_a_test'"),
        ("broken_rewards_of_a_test:reward", r"cannot be imported \(SyntaxError"),
        (":reward", r"write it as package\.module:callable"),
        ("own_rewards_of_a_test:", r"write it as package\.module:callable"),
        ("own_rewards_of_a_test:number", "is of type int and is not callable; name a function"),
        ("own_rewards_of_a_test:lonely", r"would be called with \(outcome, baseline\).* \(outcome\)"),
    ],
)
@pytest.mark.usefixtures("own_reward")
def test_a_callable_that_cannot_be_used_is_refused_before_the_search(name: str, words: str) -> None:
    with pytest.raises(RewardError, match=words):
        make_reward(name)


def test_settings_that_the_users_callable_does_not_take_are_refused(own_reward: str) -> None:
    with pytest.raises(RewardError, match=r"\(outcome, baseline, size=2\).*unexpected keyword argument 'size'"):
        make_reward(f"{own_reward}:good", {"size": 2})


@pytest.mark.parametrize(("function", "shown"), [("text", r"'much' \(str\)"), ("nan", r"nan \(float\)")])
def test_a_reward_that_is_no_finite_number_is_refused(own_reward: str, function: str, shown: str) -> None:
    reward = make_reward(f"{own_reward}:{function}")
    with pytest.raises(RewardError, match=f"returned {shown} for Outcome.*must return a finite number"):
        reward(outcome(0.5), DENSE)


def test_a_reward_that_is_registered_is_found_by_name_and_only_once() -> None:
    def half(share: float = 0.5) -> Reward:
        return lambda outcome, dense: share * outcome.accuracy / dense.accuracy

    with restored():
        register("half", share=Setting(0, 1, "a share"))(half)
        assert make_reward("half")(outcome(0.5), DENSE) == 0.25 / DENSE.accuracy
        with pytest.raises(ValueError, match="'half' is registered already"):
            register("half")(half)


def test_what_is_registered_within_restored_is_forgotten_also_after_an_error() -> None:
    before = reward_names()

    def fail() -> None:
        with restored():
            register("passing")(lambda: make_reward("error"))
            assert "passing" in reward_names()
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert reward_names() == before


def test_an_own_factory_that_was_registered_is_made_as_its_registration_says(own_reward: str) -> None:
    reward = make_reward(f"{own_reward}:scaled", {"scale": 0.5})
    assert reward(outcome(0.5), DENSE) == 0.25
    assert needs_latency(reward)
    with pytest.raises(RewardError, match=r"scale = 7 is not a number in \[0, 1\]"):
        make_reward(f"{own_reward}:scaled", {"scale": 7})


@pytest.mark.parametrize(("name", "settings"), EVERY_REWARD)
def test_a_registered_reward_says_whether_it_needs_the_latency_and_ranks_as_quality(
    name: str, settings: dict[str, float]
) -> None:
    reward = make_reward(name, settings)
    assert needs_latency(reward) == (name == "latency_penalty")
    assert ranks_as_quality(reward) == (name == "error")


def test_an_own_reward_says_so_by_its_attributes_also_with_settings(own_reward: str) -> None:
    for numbers in ({}, {"scale": 2.0}):
        silent, telling = (make_reward(f"{own_reward}:{name}", numbers) for name in ("good", "telling"))
        assert not needs_latency(silent)
        assert not ranks_as_quality(silent)
        assert needs_latency(telling)
        assert ranks_as_quality(telling)


def test_every_reward_has_a_line_that_says_what_it_is() -> None:
    assert tuple(reward_summaries()) == reward_names()
    assert all(len(line) > 10 for line in reward_summaries().values())


def test_rewards_need_neither_torch_nor_another_part_of_the_library() -> None:
    code = (
        "import prune_env.rewards, sys; "
        "others = [m for m in sys.modules if m.startswith('prune_env.') and not m.startswith('prune_env.rewards')]; "
        "sys.exit(bool(others) or 'torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0

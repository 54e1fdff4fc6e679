"""What `prune-env inspect` says of a network beside its units: what no unit changes, and what is not exact."""

import pickle

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from toy import TASK, digits_config, digits_splits, trained_digits

from prune_env.commands.inspect_walk import fixed_macs_in_words
from prune_env.data import ImageSet
from prune_env.env.builders import build_space
from prune_env.env.episode_time import episode_seconds
from prune_env.env.space import ScoresOnDemand
from prune_env.evaluation.dense import DenseQuality
from prune_env.report.inspection import inspect_space, render_units
from prune_env.tasks import quality_of

DENSE = DenseQuality(quality_of(TASK), 0.9, 0.9, 0.9, 400, 0.1, 400, "")


class Mixing(nn.Module):
    """A network with attention over positions, a bare parameter and a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.scale = nn.Parameter(torch.ones(3, 5))
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.mid(torch.relu(self.stem(images))))
        rows = self.norm(maps.flatten(2).transpose(1, 2))
        mixed = torch.bmm(torch.bmm(rows, rows.transpose(1, 2)).softmax(2), rows)
        return self.head(mixed.mean(1) * self.scale.mean())


def test_it_names_the_costs_that_no_unit_changes() -> None:
    config = digits_config("sensitivity.enabled=false", "search.evaluations=4", "budget.keep=0.9")
    record = inspect_space(build_space(config, digits_splits(), Mixing().eval()), DENSE, 1.0)
    # The product of maps with each other; the second one, with weights of positions, goes with its channels.
    products = 64 * 64 * 8
    assert sum(record["fixed_macs"].values()) == products
    assert record["fixed_params"] == 15
    assert fixed_macs_in_words(record).startswith(f"of these MACs no unit changes {products:,}: bmm")


def test_an_approximate_walk_shows_the_error_of_a_unit() -> None:
    config = digits_config(
        "sensitivity.enabled=false", "search.evaluations=4", "budget.keep=0.9", "env.approximate=true"
    )
    space = build_space(config, digits_splits(), Mixing().eval())
    record = inspect_space(space, DENSE, 1.0)
    assert {row["name"]: row["protected"] for row in record["units"]}["stem"] is None
    for width in (80, 120):
        console = Console(width=width)
        with console.capture() as captured:
            console.print(next(iter(render_units(space, record))))
        printed = captured.get()
        assert "protected, or not exact" in printed
        assert ("read by" in printed) == (width == 120)
        assert "…" not in printed


def test_it_computes_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("scores are not printed")

    monkeypatch.setattr("prune_env.env.builders.score_channels", refuse)
    config, splits = digits_config("repair.name=least_squares"), digits_splits()
    space = build_space(config, splits, trained_digits())
    assert 0 < episode_seconds(space, splits) < 60
    with pytest.raises(AssertionError, match="not printed"):
        len(space.scores)


@pytest.mark.parametrize(("an_image", "told"), [(0.01, True), (0.0001, False)], ids=["long", "short"])
def test_a_long_episode_is_told_from_a_part_of_its_images(
    monkeypatch: pytest.MonkeyPatch, an_image: float, told: bool
) -> None:
    measured = []

    def pretend(_space: object, _splits: object, reward: ImageSet, calibration: ImageSet) -> dict[str, float]:
        measured.append((len(reward), len(calibration)))
        return {"slicing": 0.2, "recalibration": an_image * len(calibration), "forward": 2 * an_image * len(reward)}

    monkeypatch.setattr("prune_env.env.episode_time._seconds", pretend)
    splits = digits_splits()
    sizes = len(splits.reward()), len(splits.calibration())
    seconds = episode_seconds(build_space(digits_config(), splits, trained_digits()), splits)
    assert seconds == pytest.approx(0.2 + an_image * (2 * sizes[0] + sizes[1]))
    assert measured == ([(32, 32)] if told else [(32, 32), sizes])


def test_scores_reach_another_process_without_what_computes_them() -> None:
    scores = ScoresOnDemand(lambda: {"stem": np.arange(3.0)})
    sent = pickle.loads(pickle.dumps(scores))
    assert list(sent) == list(scores) == ["stem"]
    assert sent["stem"].tolist() == [0.0, 1.0, 2.0]

"""What `prune-env inspect` says of a network beside its units: what no unit changes, and what is not exact."""

import torch
from rich.console import Console
from torch import Tensor, nn
from toy import digits_config, digits_splits

from prune_env.commands.inspect_walk import fixed_macs_in_words
from prune_env.env.builders import build_problem
from prune_env.report.inspection import inspect_problem, render_units


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
    record = inspect_problem(build_problem(config, digits_splits(), Mixing().eval()))
    # The product of maps with each other; the second one, with weights of positions, goes with its channels.
    products = 64 * 64 * 8
    assert sum(record["fixed_macs"].values()) == products
    assert record["fixed_params"] == 15
    assert fixed_macs_in_words(record).startswith(f"of these MACs no unit changes {products:,}: bmm")


def test_an_approximate_walk_shows_the_error_of_a_unit() -> None:
    config = digits_config(
        "sensitivity.enabled=false", "search.evaluations=4", "budget.keep=0.9", "env.approximate=true"
    )
    problem = build_problem(config, digits_splits(), Mixing().eval())
    record = inspect_problem(problem)
    assert {row["name"]: row["protected"] for row in record["units"]}["stem"] is None
    for width in (80, 120):
        console = Console(width=width)
        with console.capture() as captured:
            console.print(next(iter(render_units(problem, record))))
        printed = captured.get()
        assert "protected, or not exact" in printed
        assert ("read by" in printed) == (width == 120)
        assert "…" not in printed

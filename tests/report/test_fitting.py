"""Tables at 80 columns: what matters is there, and no word or number is cut."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from prune_env.common.latency import Latency
from prune_env.report.fitting import FirstThatFits, plain_table
from prune_env.report.network_table import render
from prune_env.report.search_comparison import render as render_comparison
from prune_env.report.verdicts import against_dense
from prune_env.runs.networks import NetworkRow
from prune_env.runs.seed_results import SeedResult
from prune_env.runs.summaries import row_records
from prune_env.tasks import Classification, Detection


def printed(table: Any, width: int) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table)
    text = captured.get()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    return text


def rows(milliseconds: Sequence[float] = (121.1, 66.3, 64.9)) -> list[NetworkRow]:
    names, shares = ("dense", "uniform", "fine-tuned"), (1.0, 0.494, 0.499)
    return [
        NetworkRow(
            name,
            Classification(),
            0.9604 * share**0.1,
            {"accuracy": 0.9733 * share**0.1, "top5": 0.9999, "loss": 1.125},
            int(4_089_184_256 * share),
            int(25_557_032 * share),
            102_540_417,
            Latency(time / 1e3, time / 1.05e3, time / 0.95e3),
        )
        for name, share, time in zip(names, shares, milliseconds, strict=True)
    ]


def test_at_80_columns_the_table_of_networks_has_quality_costs_and_time() -> None:
    text = printed(render(rows(), "runs/x on resnet50", 32), 80)
    line = next(line for line in text.splitlines() if line.strip().startswith("fine-tuned"))
    assert line.split() == ["fine-tuned", "89.59%", "90.79%", "49.9%", "49.9%", "64.9"]
    assert "ms a batch of 32, 1 thread" in text


def test_with_more_room_it_has_the_rest() -> None:
    narrow, between, whole = (printed(render(rows(), "x", 32), width) for width in (80, 100, 120))
    for words in ("4.09G 100%", "121.1 (115.3-127.5)"):
        assert words not in narrow
        assert words in between
        assert words in whole
    assert "102.54MB" not in between
    assert "102.54MB" in whole


def test_a_detector_s_table_fits_80_columns() -> None:
    test = {"map50": 0.959, "map": 0.702, "loss": 1.125}
    some = [NetworkRow("recalibrated", Detection(), 0.96, test, 39_430_656, 160_606, 654_020, Latency(0.1, 0.1, 0.1))]
    assert "recalibrated" in printed(render(some, "runs/x/plan.json on centre_detector", 4), 80)


def test_at_80_columns_the_table_of_searches_has_the_last_best_and_the_test_set() -> None:
    outcomes = {
        name: [SeedResult(seed, np.linspace(0.5, 0.9, 230), {77: 0.9, 230: best}, 0.8, 12.0) for seed in (0, 1)]
        for name, best in (("cma_from_rules", 0.941), ("ddpg", 0.952))
    }
    text = printed(render_comparison(outcomes, "resnet56 at 50% of the MACs: mean of 2 seeds"), 80)
    assert "best after 230" in text
    assert "best after 77" not in text
    assert [line.split()[0] for line in text.splitlines() if "(" in line] == ["ddpg", "cma_from_rules"]
    assert "best after 77" in printed(render_comparison(outcomes, "x"), 120)


def test_a_column_that_wraps_keeps_its_words_whole() -> None:
    table = plain_table("")
    table.add_column("unit", no_wrap=True)
    table.add_column("why")
    table.add_row("layer4.2.conv3 with spaces", "sensitive: its_maps_have_a_long_name are low-rank " * 3)
    other = plain_table("")
    other.add_column("narrow")
    for width in (60, 70):
        text = printed(FirstThatFits(table, other), width)
        assert "layer4.2.conv3 with spaces" in text
        assert set(re.findall(r"[\w:.-]+", text)) >= {"its_maps_have_a_long_name", "low-rank"}
    assert "narrow" in printed(FirstThatFits(table, other), 40)


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        ((100.0, 60.0, 50.0), "2.00 times as fast."),
        ((100.0, 60.0, 98.0), "no faster."),
        ((100.0, 60.0, 150.0), "1.50 times slower."),
    ],
)
def test_a_pruned_network_is_told_against_the_dense_one(milliseconds: tuple[float, ...], words: str) -> None:
    found = row_records(rows(milliseconds))
    sentence = against_dense(found["fine-tuned"], found["dense"], "accuracy")
    assert sentence.startswith(
        "fine-tuned: accuracy 90.79% on the test set, 6.54 points less than the dense network's 97.33%, with 49.9% of "
        "its MACs and 49.9% of its params, "
    )
    assert sentence.endswith(words)

"""The table of networks on the console."""

from rich.console import Console

from prune_env.common.latency import Latency
from prune_env.report.network_table import render
from prune_env.runs.networks import NetworkRow
from prune_env.tasks import Detection


def test_a_detector_s_table_fits_120_columns_also_with_long_times() -> None:
    test, time = {"map50": 0.959, "map": 0.702, "loss": 1.125}, Latency(0.1211, 0.1177, 0.1236)
    costs = (39_430_656, 160_606, 654_020)
    rows = [
        NetworkRow(name, Detection(), 0.9604, test, *costs, time, Latency(0.1027, 0.1, 0.11), "before NMS")
        for name in ("dense", "recalibrated")
    ]
    console = Console(width=120)
    with console.capture() as captured:
        console.print(render(rows, "runs/x/plan.json on centre_detector", 4))
    printed = captured.get()
    assert "…" not in printed
    assert all(words in printed for words in ("before NMS", "654.02kB", "121.1 (117.7-123.6)", "39.43M 100%"))

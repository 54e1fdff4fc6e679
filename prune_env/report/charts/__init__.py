"""The charts of the pages, as Vega-Lite specifications."""

from prune_env.report.charts.networks import latencies, training
from prune_env.report.charts.numbers import lower_end, pareto_front
from prune_env.report.charts.plan import heat_map, keep_ratios
from prune_env.report.charts.search import comparison, front, rewards
from prune_env.report.charts.style import COSTS, THEME, Chart, Row, Spec, Tables

__all__ = [
    "COSTS",
    "THEME",
    "Chart",
    "Row",
    "Spec",
    "Tables",
    "comparison",
    "front",
    "heat_map",
    "keep_ratios",
    "latencies",
    "lower_end",
    "pareto_front",
    "rewards",
    "training",
]

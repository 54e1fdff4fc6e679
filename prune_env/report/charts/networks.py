"""Charts of networks: their latency, and their training."""

from collections.abc import Sequence

from prune_env.report.charts.style import Chart, Spec, colour, hint

MOST_TICKS = 8
"""Most labels on an axis of epochs."""


def latencies(count: int) -> Chart:
    """Median latency with quartiles, from the table ``networks``."""
    across: Spec = {"type": "quantitative", "title": "ms a batch", "scale": {"zero": True}}
    tooltip = [
        hint("name", "network"),
        hint("median", "median (ms)", ".3f"),
        hint("q1", "lower quartile", ".3f"),
        hint("q3", "upper quartile", ".3f"),
    ]
    spec = {
        "width": "container",
        "height": 30 * count,
        "data": {"name": "networks"},
        "encoding": {"y": {"field": "name", "type": "nominal", "sort": None, "title": None}, "tooltip": tooltip},
        "layer": [
            {
                "mark": {"type": "bar", "height": 8, "color": "var(--sky)", "cornerRadius": 3},
                "encoding": {"x": {"field": "q1", **across}, "x2": {"field": "q3"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "color": "var(--blue)", "opacity": 1},
                "encoding": {"x": {"field": "median", **across}},
            },
        ],
    }
    return Chart("latency", f"Latency of {count} networks: the median, and the middle half of the timings.", spec)


def training(key: str, title: str, fmt: str, names: Sequence[str], last: int) -> Chart:
    """A number of each epoch, from the table ``epochs``.

    Args:
        key: The number's key in the table.
        title: The title of the vertical axis.
        fmt: The number's format.
        names: The trainings.
        last: The last epoch of the longest training.
    """
    epochs = list(range(1, last + 1, -(-last // MOST_TICKS)))
    spec = {
        "width": "container",
        "height": 200,
        "data": {"name": "epochs"},
        "transform": [{"filter": f"isValid(datum.{key})"}],
        "mark": {"type": "line", "point": {"size": 30}, "strokeWidth": 2},
        "encoding": {
            "x": {
                "field": "epoch",
                "type": "quantitative",
                "title": "epoch",
                "axis": {"values": epochs, "format": "d"},
            },
            "y": {
                "field": key,
                "type": "quantitative",
                "title": title,
                "scale": {"zero": False},
                "axis": {"format": fmt},
            },
            "color": colour("training", names),
            "tooltip": [
                hint("training", "training"),
                hint("epoch", "epoch"),
                hint(key, title, fmt),
                hint("learning_rate", "learning rate", ".3g"),
            ],
        },
    }
    return Chart(f"training_{key}", f"{title.capitalize()} after each epoch.", spec)

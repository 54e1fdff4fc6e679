"""The common style of all pictures: one palette, plain axes, legends outside the data."""

from collections.abc import Iterable
from io import BytesIO

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.legend import Legend
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.typing import ColorType

from prune_env.common.text import printable

# The palette of Okabe and Ito, distinct for all common types of colour blindness.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY, PALE, PAPER = "#24292F", "#8C959F", "#E7ECF0", "#FFFFFF"

WIDTH = 9.0
"""Width of every figure in inches."""

_KINDS = {"ddpg": (BLUE, "o"), "uniform": (VERMILION, "D"), "probe": (GREY, "x"), "dense": (INK, "*")}
_OTHERS = ((GREEN, "s"), (PURPLE, "^"), (ORANGE, "v"), (SKY, "P"))
_LONGEST_NAME = 22


def new_figure(height: float) -> Figure:
    """An empty figure of the common width, ``height`` inches high."""
    return Figure(figsize=(WIDTH, height), dpi=150, layout="constrained", facecolor=PAPER)


def plain_axes(axes: Axes, horizontal: str, vertical: str) -> None:
    """Labels the axes; draws only the left and bottom line and faint horizontal grid lines."""
    axes.set_xlabel(printable(horizontal), color=INK, parse_math=False)
    axes.set_ylabel(printable(vertical), color=INK, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#AFB8C1")
    axes.tick_params(length=0, labelcolor=INK, labelsize=9)
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)


def add_title(axes: Axes, text: str) -> None:
    """Adds a title above the left end of the axes."""
    axes.set_title(printable(text), loc="left", fontsize=11, color=INK, pad=8, parse_math=False)


def add_legend(axes: Axes, order: Iterable[str] = ()) -> None:
    """Adds a one-line legend above the right end of the axes, where it covers no data.

    Args:
        axes: The axes.
        order: Labels that come first.
    """
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    names = [*(name for name in order if name in by_label), *(label for label in labels if label not in tuple(order))]
    legend = axes.legend(
        [by_label[name] for name in names],
        [printable(name) for name in names],
        loc="lower right",
        bbox_to_anchor=(1.005, 0.995),
        ncols=8,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handletextpad=0.5,
        columnspacing=1.3,
        borderaxespad=0.2,
    )
    as_text(legend)


def as_text(legend: Legend) -> None:
    """Shows a legend's names as they are: a ``$`` in a name begins no formula."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def percent() -> FuncFormatter:
    """A formatter of shares as per cent, without trailing zeros."""
    return FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}%")


def whole_numbers() -> MaxNLocator:
    """A locator of ticks at round whole numbers."""
    return MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def short_name(name: str) -> str:
    """The end of a long name, since neighbouring units differ at the end."""
    name = printable(name)
    return name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]


def labelled(count: int, most: int) -> list[int]:
    """Indices of the labelled ticks among ``count``: all, or every n-th if more than ``most`` would overlap."""
    return list(range(0, count, -(-count // most)))


def looks_of(kinds: Iterable[str]) -> dict[str, tuple[ColorType, str]]:
    """Colour and marker by kind of trial; kinds without a fixed look get one in the order of their names."""
    present = set(kinds)
    others = sorted(present - _KINDS.keys())
    return {kind: _KINDS.get(kind) or _OTHERS[others.index(kind) % len(_OTHERS)] for kind in sorted(present)}


def figure_pixels(figure: Figure) -> npt.NDArray[np.uint8]:
    """The drawn figure, uint8 [height, width, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def figure_png(figure: Figure) -> bytes:
    """The drawn figure as the bytes of a PNG file."""
    file = BytesIO()
    # Figure.savefig would draw twice, because of the layout.
    imsave(file, figure_pixels(figure), format="png", dpi=figure.dpi)
    return file.getvalue()

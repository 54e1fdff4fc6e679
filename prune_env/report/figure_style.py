"""How every picture looks: one palette, quiet axes, legends that cover no data."""

from collections.abc import Iterable
from io import BytesIO

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.typing import ColorType

# Okabe and Ito's colours, which stay apart in every common colour blindness.
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
    """Labels the axes and takes away all but two thin lines and faint horizontal rules."""
    axes.set_xlabel(horizontal, color=INK)
    axes.set_ylabel(vertical, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#AFB8C1")
    axes.tick_params(length=0, labelcolor=INK, labelsize=9)
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)


def add_title(axes: Axes, text: str) -> None:
    """A title above the left end of the axes."""
    axes.set_title(text, loc="left", fontsize=11, color=INK, pad=8)


def add_legend(axes: Axes, order: Iterable[str] = ()) -> None:
    """A legend in one line above the right end of the axes, where it covers no data.

    Args:
        axes: Where it is put.
        order: Labels that come first.
    """
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    names = [*(name for name in order if name in found), *(label for label in labels if label not in tuple(order))]
    axes.legend(
        [found[name] for name in names],
        names,
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


def percent() -> FuncFormatter:
    """Writes shares as per cent, with as many digits as they have."""
    return FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}%")


def whole_numbers() -> MaxNLocator:
    """Ticks at round whole numbers."""
    return MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def short_name(name: str) -> str:
    """The end of a long name, which is what tells neighbours apart."""
    return name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]


def labelled(count: int, most: int) -> list[int]:
    """Which of ``count`` places in a row get a label: all, or every n-th where more than ``most`` would overlap."""
    return list(range(0, count, -(-count // most)))


def looks_of(kinds: Iterable[str]) -> dict[str, tuple[ColorType, str]]:
    """Colour and marker by kind of trial; kinds without their own get one by the order of their names."""
    found = set(kinds)
    others = sorted(found - _KINDS.keys())
    return {kind: _KINDS.get(kind) or _OTHERS[others.index(kind) % len(_OTHERS)] for kind in sorted(found)}


def figure_pixels(figure: Figure) -> npt.NDArray[np.uint8]:
    """The drawn figure, uint8 [height, width, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def figure_png(figure: Figure) -> bytes:
    """The drawn figure as the bytes of a PNG file."""
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()

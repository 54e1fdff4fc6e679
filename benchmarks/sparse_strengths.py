"""Shows what a sparse training did to the stripes: the share below their filter's threshold, before and after.

Run `python -m benchmarks.sparse_strengths RUN [THRESHOLD ...]` on a run with a sparse training; it prints a Markdown
table. The thresholds are DTC's, relative to the mean strength of each layer, as in mode ``paper``.
"""

import sys
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from prune_env.granularity.stripe.skeleton import DynamicThreshold, Skeleton

THRESHOLDS = (0.1, 0.3, 0.5)


def skeletons(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The strengths [N, K, L] of each convolution with more than one kernel position, by name."""
    kernels = {name: weight for name, weight in weights.items() if weight.ndim == 4 and weight[0, 0].numel() > 1}
    return {name.removesuffix(".weight"): Skeleton(weight).strengths.detach() for name, weight in kernels.items()}


def below(strengths: Tensor, threshold: float) -> Tensor:
    """Which stripes are not above their filter's threshold, flat."""
    return ~DynamicThreshold(threshold, relative=True).staying(strengths).flatten()


def main(run: Path, thresholds: tuple[float, ...]) -> None:
    """Prints the table: a row for each stage (the first part of a layer's name), and one for all layers."""
    before, after = (skeletons(load_file(run / "sparsify" / f"{name}.safetensors")) for name in ("start", "weights"))
    stages: dict[str, list[str]] = {}
    for name in before:
        stages.setdefault(name.split(".")[0], []).append(name)
    show = Console(width=200, highlight=False, markup=False).print
    show(f"| layers | stripes |{''.join(f' below {one:g} before | after |' for one in thresholds)}")
    show(f"|---|---|{'---|---|' * len(thresholds)}")
    for stage, names in {**stages, "all": list(before)}.items():
        cells = []
        for threshold in thresholds:
            for found in (before, after):
                share = torch.cat([below(found[name], threshold) for name in names]).float().mean()
                cells.append(f"{float(share):.1%}")
        show(f"| {stage} | {sum(before[name].numel() for name in names):,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(map(float, sys.argv[2:])) or THRESHOLDS)

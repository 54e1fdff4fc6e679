"""Tables of groups: for the dry run, and for a run's report."""

import torch

from prune_env.granularity.base import TextTable
from prune_env.granularity.group.edit import Groups
from prune_env.granularity.group.grouping import Grouping
from prune_env.granularity.group.times import Times


def inspect_table(grouping: Grouping, times: Times, batch: int) -> TextTable:
    """For each convolution the time that it takes in how many groups; counts that are not allowed in brackets."""
    counts = _counts(times)
    rows = []
    for unit, step in zip(grouping.walk.free, grouping.by_step, strict=True):
        for found in step:
            cells = [_milliseconds(times.get(found.name, {}).get(count), count in found.counts) for count in counts]
            rows.append([found.name, unit.name, *cells])
    rows += [[name, reason, *[""] * len(counts)] for name, reason in grouping.whole.items()]
    words = (
        "ms that a convolution takes in how many groups, what gathers their inputs included: a batch of "
        f"{batch}, {torch.get_num_threads()} threads"
    )
    return TextTable("Groups", words, ["convolution", "decided with", *map(str, counts)], rows)


def report_table(groups: Groups, times: Times, batch: int) -> TextTable:
    """A plan's groups, beside what each convolution takes on the run's machine in how many."""
    counts = _counts(times)
    rows = []
    for name, by_count in times.items():
        planned = groups.get(name)
        cells = ["1", "all"] if planned is None else [str(planned.groups), str(planned.reads)]
        rows.append([name, *cells, *(_milliseconds(by_count.get(count)) for count in counts)])
    words = (
        "Into how many groups the plan divides each convolution and how many inputs each group reads, and the "
        f"milliseconds for {batch} images that the convolution, as wide as it is in the dense network, takes in how "
        "many groups, what gathers their inputs included: fewer MACs need not be less time."
    )
    headings = ["convolution", "groups", "inputs a group", *(f"ms in {count}" for count in counts)]
    return TextTable("Groups", words, headings, rows)


def _counts(times: Times) -> list[int]:
    return sorted({count for by_count in times.values() for count in by_count})


def _milliseconds(seconds: float | None, allowed: bool = True) -> str:
    if seconds is None:
        return "-"
    return f"{1e3 * seconds:.2f}" if allowed else f"({1e3 * seconds:.2f})"

"""Tables of groups for `prune-env inspect` and for a run's report."""

import torch

from prune_env.common.words import counted
from prune_env.granularity.base import TextTable
from prune_env.granularity.group.edit import Groups
from prune_env.granularity.group.grouping import Grouping
from prune_env.granularity.group.times import Times


def inspect_table(grouping: Grouping, times: Times, batch: int) -> TextTable:
    """The time of each convolution by group count; counts that are not allowed are in brackets."""
    counts = _counts(times)
    rows = []
    for unit, step in zip(grouping.walk.free, grouping.by_step, strict=True):
        for convolution in step:
            cells = [
                _milliseconds(times.get(convolution.name, {}).get(count), count in convolution.counts)
                for count in counts
            ]
            rows.append([convolution.name, unit.name, *cells])
    rows += [[name, reason, *[""] * len(counts)] for name, reason in grouping.whole.items()]
    words = (
        "ms of each convolution by group count, with the gathering of inputs: a batch of "
        f"{batch}, {counted(torch.get_num_threads(), 'thread')}"
    )
    return TextTable("Groups", words, ["convolution", "decided with", *map(str, counts)], rows)


def report_table(groups: Groups, times: Times, batch: int) -> TextTable:
    """A plan's groups, beside the time of each convolution by group count on the run's machine."""
    counts = _counts(times)
    rows = []
    for name, by_count in times.items():
        planned = groups.get(name)
        cells = ["1", "all"] if planned is None else [str(planned.groups), str(planned.reads)]
        rows.append([name, *cells, *(_milliseconds(by_count.get(count)) for count in counts)])
    words = (
        "The plan's group count for each convolution and the inputs that each group reads. Then the milliseconds "
        f"of the convolution for {batch} images by group count, at its dense width and with the gathering of inputs. "
        "Fewer MACs can take more time."
    )
    headings = ["convolution", "groups", "inputs a group", *(f"ms in {count}" for count in counts)]
    return TextTable("Groups", words, headings, rows)


def _counts(times: Times) -> list[int]:
    return sorted({count for by_count in times.values() for count in by_count})


def _milliseconds(seconds: float | None, allowed: bool = True) -> str:
    if seconds is None:
        return "-"
    return f"{1e3 * seconds:.2f}" if allowed else f"({1e3 * seconds:.2f})"

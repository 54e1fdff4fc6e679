"""`prune-env export`: exports a run's network to files, and compares their outputs with the network's."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from prune_env.commands.common import AsJson, Overrides, TrustRun, notice, print_json, run_command, tell, trust_of
from prune_env.commands.next_steps import print_next, with_run
from prune_env.commands.progress import phases
from prune_env.common.words import counted
from prune_env.env.fitting import repair_warning
from prune_env.plan import PruningPlan
from prune_env.runs.exporting import export_run
from prune_env.runs.networks import LATENCY_BATCH
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import settings_of
from prune_env.tasks import make_task, quality_of


class Target(StrEnum):
    """The export targets, as `prune_env.runs.exporting.TARGETS`."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"


Run = Annotated[Path, typer.Argument(help="The directory of a run with a plan.json.")]
To = Annotated[Target, typer.Option(help="The file format.")]
Name = Annotated[
    str | None, typer.Option(help="Folder of the fine-tuning within the run. [default: finetune, if it exists]")
]
Into = Annotated[Path | None, typer.Option(help="A folder that does not exist. [default: RUN/export-TO]")]
Batch = Annotated[int, typer.Option(min=2, help="Images in the batch for comparing and timing.")]


def export(
    run: Run,
    overrides: Overrides = None,
    to: To = Target.SAFETENSORS,
    name: Name = None,
    into: Into = None,
    batch: Batch = LATENCY_BATCH,
    trust: TrustRun = False,
    as_json: AsJson = False,
) -> None:
    """Exports a run's best pruned network: fine-tuned if that made it better, else recalibrated."""
    searched = RunDirectory.open(run)
    settings = settings_of(searched, [*(overrides or []), "run.device=cpu"], trust_of(trust))
    with phases("loading") as say:
        record = export_run(searched, settings, to.value, name, into, batch, say)
    if warning := repair_warning(PruningPlan.load(searched.plan), settings):
        notice(warning)
    if as_json:
        print_json(record)
        return
    files, folder = ", ".join(record["files"]), record["folder"]
    quality, metric = record["quality"], quality_of(make_task(settings.task))
    shown = f"{metric.name} {quality['value']:{metric.format}} on the {quality['images']} set"
    others = "".join(f"; {stage}: {value:{metric.format}}" for stage, value in record["passed_over"].items())
    tell(f"{files} in {folder}: the {record['weights']} network, {shown}{others}", whole=True)
    tell(f"largest difference from the network's outputs: {record['difference']:.1e} of the largest output")
    if "latency_ms" in record:
        times = ", ".join(f"{key} {value['median']:.1f}" for key, value in record["latency_ms"].items())
        tell(f"ms a batch of {batch}, {counted(record['threads'], 'thread')}, taken in turn: {times}")
    print_next(with_run(run, "export"))


if __name__ == "__main__":
    run_command(export)

"""`prune-env export`: a run's network in a form that can be shipped, compared with the network itself."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from prune_env.common.latency import measure_latency
from prune_env.data.timing import batch_to_time
from prune_env.env.loading import load_model, load_splits
from prune_env.models import load_weights, save_weights
from prune_env.plan import PruningPlan
from prune_env.report.network_table import LATENCY_BATCH
from prune_env.runs.directory import RunDirectory
from prune_env.runs.export import EXPORTERS, difference
from prune_env.runs.searching import settings_of
from scripts.common import AsJson, Overrides, console, print_json, results, run_command
from scripts.evaluate import stages
from scripts.replay import fit_plan


class Target(StrEnum):
    """What can be exported to."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"


Run = Annotated[Path, typer.Argument(help="The directory of a run with a plan.json.")]
To = Annotated[Target, typer.Option(help="The form.")]
Name = Annotated[
    str | None, typer.Option(help="The fine-tuning whose weights are taken. [default: finetune, if there is one]")
]
Into = Annotated[Path | None, typer.Option(help="A folder that does not exist. [default: RUN/export-FORM]")]
Batch = Annotated[int, typer.Option(min=2, help="Images in the batch that is compared and timed.")]


def export(
    run: Run,
    overrides: Overrides = None,
    to: To = Target.SAFETENSORS,
    name: Name = None,
    into: Into = None,
    batch: Batch = LATENCY_BATCH,
    as_json: AsJson = False,
) -> None:
    """Exports a run's pruned network: fine-tuned where it was, else recalibrated."""
    searched = RunDirectory.open(run)
    folder = into or searched.root / f"export-{to.value}"
    RunDirectory.check_free(folder, "--into")
    settings = settings_of(searched, [*(overrides or []), "run.device=cpu"])
    plan = PruningPlan.load(searched.plan)
    splits = load_splits(settings)
    with console.status("building the network and tracing it"):
        evaluator, plan = fit_plan(plan, settings, splits, load_model(settings, splits, accept=plan.apply))
        found = stages(searched, name, evaluator, plan)
        stage = "fine-tuned" if "fine-tuned" in found else "recalibrated"
        model, plan = found[stage]
        model = model.to(memory_format=torch.contiguous_format).eval()
    images = batch_to_time(splits, batch, evaluator.device)
    with console.status("exporting, comparing and timing"), RunDirectory.making(folder) as made:
        record = _written(to, model, plan, evaluator.walk.model, images, made.root)
    record = {"run": str(run), "weights": stage, "to": to.value, "folder": str(folder), **record}
    if as_json:
        print_json(record)
        return
    results.print(f"{', '.join(record['files'])} in {folder}: the {stage} network", soft_wrap=True)
    results.print(f"largest difference from the network's outputs: {record['difference']:.1e} of the largest")
    if "latency_ms" in record:
        times = ", ".join(f"{key} {value['median']:.1f}" for key, value in record["latency_ms"].items())
        results.print(f"ms a batch of {batch}, {record['threads']} threads, taken in turn: {times}")


def _written(
    to: Target, model: nn.Module, plan: PruningPlan, dense: nn.Module, images: torch.Tensor, folder: Path
) -> dict[str, Any]:
    """Writes the files, loads them again and compares."""
    plan.save(folder / "plan.json")
    if to is Target.SAFETENSORS:
        save_weights(model, folder / "weights.safetensors")
        again = PruningPlan.load(folder / "plan.json").apply(dense)
        load_weights(again, folder / "weights.safetensors")
        found: dict[str, Any] = {"difference": difference(model, again.eval(), images)}
    else:
        file, exporter = EXPORTERS[to.value]
        exported = exporter(model, images, folder / file)
        found = {"difference": difference(model, exported, images)}
        times = measure_latency({"torch": model, to.value: _Module(exported)}, images)
        found["threads"] = torch.get_num_threads()
        found["latency_ms"] = {
            key: {name: 1e3 * getattr(time, name) for name in ("median", "q1", "q3")} for key, time in times.items()
        }
    return {"files": sorted(path.name for path in folder.iterdir()), **found}


class _Module(nn.Module):
    """An exported network as a module, to be timed beside others."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self._run = [run]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The scores of images."""
        scores: torch.Tensor = self._run[0](images)
        return scores


if __name__ == "__main__":
    run_command(export)

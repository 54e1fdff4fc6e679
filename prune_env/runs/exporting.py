"""Exports a run's network to files, and compares their outputs with the network's."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_env.common.errors import ConfigError, suggest
from prune_env.common.files import atomic_write
from prune_env.common.latency import measure_latency
from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust
from prune_env.data.timing import batch_to_time
from prune_env.models import load_weights, save_weights
from prune_env.plan import PruningPlan
from prune_env.runs.evaluating import load_networks, ranked_stages
from prune_env.runs.export_formats import EXPORTERS, difference
from prune_env.runs.networks import LATENCY_BATCH
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import settings_of
from prune_env.runs.starting import OnProgress, quietly
from prune_env.tasks import Core, core_of, quality_of

SAFETENSORS = "safetensors"
TARGETS = (SAFETENSORS, *EXPORTERS)
"""Names of the export targets."""


def export_run(
    run: RunDirectory,
    settings: RunConfig | None = None,
    to: str = SAFETENSORS,
    name: str | None = None,
    into: Path | None = None,
    batch: int = LATENCY_BATCH,
    on_progress: OnProgress = quietly,
    trust: Trust = NOTHING,
) -> dict[str, Any]:
    """Exports a run's best pruned network: fine-tuned if there is a fine-tuning that made it better, else recalibrated.

    Args:
        run: The run.
        settings: The settings, with ``run.device: cpu``; None takes the run's own.
        to: One of `TARGETS`.
        name: The folder of the fine-tuning within the run; None for ``finetune``, if it exists.
        into: A folder that does not exist; None for ``export-TO`` within the run.
        batch: Images in the batch for comparing and timing, 2 or more.
        on_progress: Receives progress messages.
        trust: The code that the run's own settings may name.

    Returns:
        The files, the network with its quality, the largest difference from the network's outputs and, except for
        safetensors, the latencies.

    Raises:
        ConfigError: If the target is unknown, or the run's settings name code that is not trusted.
        ExportError: If the network cannot be exported, or the exported network has other outputs. No file stays.
        RunError: If the folder exists, or the fine-tuning does not.
    """
    if to not in TARGETS:
        raise ConfigError(f"to: there is no target {to!r}; {suggest(to, TARGETS)}.")
    folder = into or run.root / f"export-{to}"
    RunDirectory.check_free(folder, "--into")
    on_progress("building the network and tracing it")
    networks = load_networks(run, settings or settings_of(run, ["run.device=cpu"], trust), name)
    best, *others = ranked_stages(run, networks, name)
    model, plan = networks.stages[best.stage]
    model = model.to(memory_format=torch.contiguous_format).eval()
    images = batch_to_time(networks.splits, batch, networks.evaluator.device)
    on_progress("exporting, comparing and timing")
    with RunDirectory.making(folder) as made:
        core = core_of(networks.evaluator.task, model, images) if to in EXPORTERS else None
        record = _written(to, model, plan, networks.evaluator.walk.model, images, made.root, core)
    return {
        "run": str(run.root),
        "weights": best.stage,
        "quality": {"name": quality_of(networks.evaluator.task).name, "value": best.quality, "images": best.images},
        "passed_over": {other.stage: other.quality for other in others},
        "to": to,
        "folder": str(folder),
        **record,
    }


def _written(
    to: str, model: nn.Module, plan: PruningPlan, dense: nn.Module, images: Tensor, folder: Path, core: Core | None
) -> dict[str, Any]:
    """Writes the files, loads them again and compares the outputs."""
    plan.save(folder / "plan.json")
    if to == SAFETENSORS:
        save_weights(model, folder / "weights.safetensors")
        again = PruningPlan.load(folder / "plan.json").apply(dense)
        load_weights(again, folder / "weights.safetensors")
        found: dict[str, Any] = {"difference": difference(model, again.eval(), images)}
    else:
        file, exporter = EXPORTERS[to]
        part = model if core is None else core.module
        exported = exporter(part, images, folder / file, ("scores",) if core is None else core.outputs)
        found = {"difference": difference(part, exported, images)}
        if core is not None:
            found |= _decoded(model, core, images, folder)
        times = measure_latency({"torch": part, to: _Module(exported)}, images)
        found["threads"] = torch.get_num_threads()
        found["latency_ms"] = {
            key: {name: 1e3 * getattr(time, name) for name in ("median", "q1", "q3")} for key, time in times.items()
        }
    return {"files": sorted(path.name for path in folder.iterdir()), **found}


def _decoded(model: nn.Module, core: Core, images: Tensor, folder: Path) -> dict[str, Any]:
    """Writes what decodes the exported part's outputs; compares the part's decoded outputs with the whole network's.

    The part before its export is decoded: the exported one differs by rounding, which exchanges decisions of nearly
    equal scores, and such lists cannot be compared place by place.
    """
    for name, text in core.files.items():
        atomic_write(folder / name, text.encode())
    return {
        "part": core.title,
        "decoded_difference": difference(model, lambda given: core.decode(core.module(given)), images),
    }


class _Module(nn.Module):
    """An exported network as a module, so that `measure_latency` can time it."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self._run = [run]

    def forward(self, images: Tensor) -> Tensor:
        """The scores of images."""
        scores: Tensor = self._run[0](images)
        return scores

"""Walks many networks of torchvision and timm, and prints a row for each.

    python -m benchmarks.zoo [NAME ...] [--peer] [--json]

A row: the processor's seconds of the walk on one thread, the free units of all, the share of the multiply-adds that can
go, and whether a random plan is exact: outputs to 1e-4 of the dense network with zeroed channels (in float32, or in
float64 where the network amplifies rounding), multiply-adds and parameters to the integer. With --peer, Torch-Pruning
1.6.1 cuts the same network in the same run: its seconds, whether it can cut it, and whether what it cuts computes what
the dense network does with the channels of its own choice zeroed.
Weights are random. Images are 128 pixels wide where the network allows it. A network runs in a process of its own, so
that one that does not end is stopped.
"""

import argparse
import copy
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
import yaml
from torch import Tensor, nn

from prune_env import LayerWalk
from prune_env.common.layers import Transposed, channels_of, held_at, is_layer, is_standard, tensor_axis
from prune_env.surgery.channels import kept_channels
from prune_env.testing.counts import counted_macs, counted_params
from prune_env.walk.comparison import Removed, difference
from prune_env.walk.example import Example

ZOO = {
    kind: names.split()
    for kind, names in yaml.safe_load(Path(__file__).with_name("zoo.yaml").read_text(encoding="utf-8")).items()
}
"""The networks, by where they come from."""

FULL_SIZE = {"swin_t", "vit_b_16", "coatnet_nano_rw_224", "levit_128s", "visformer_tiny"}
"""Networks that take images of 224 pixels only."""

SMALLER = {name: {"min_size": 128, "max_size": 128} for name in ("retinanet_resnet50_fpn", "fcos_resnet50_fpn")}
"""Detectors whose transform would otherwise enlarge images to 800 pixels."""

SCALE = 2.0**20
"""More than any layer has inputs: weight tags are output + (input + 1) / SCALE, exact in double precision."""

LIMIT = 120.0
"""Seconds that a walk may take."""

PEER_LIMIT = 60
"""Seconds of the processor that Torch-Pruning may take for a network."""


def build(name: str) -> tuple[nn.Module, Any]:
    """Returns a network with random weights in eval mode, and what it is called with."""
    torch.manual_seed(0)
    images = torch.rand(1, 3, *([224 if name in FULL_SIZE else 128] * 2))
    if name in ZOO["detectors"]:
        arguments = {"weights": None, "weights_backbone": None, **SMALLER.get(name, {})}
        return torchvision.models.get_model(name, **arguments).eval(), ([images[0]],)
    if name in ZOO["segmentation"]:
        return torchvision.models.get_model(name, weights=None, weights_backbone=None).eval(), images
    if name in ZOO["torchvision"]:
        arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, weights=None, **arguments).eval(), images
    import timm

    return timm.create_model(name).eval(), images


def measure(name: str) -> dict[str, Any]:
    """Walks one network, cuts it by a random plan, and returns its row."""
    torch.set_num_threads(1)
    model, given = build(name)
    example = Example.given(given)
    with torch.no_grad():
        example.run(model)
    start = time.process_time()
    walk = LayerWalk.trace(model, given, seconds=LIMIT)
    return {
        "network": name,
        "seconds": time.process_time() - start,
        "free": len(walk.free),
        "units": len(walk.units),
        "reach": walk.reach(),
        "exact": exactness(walk, example),
        "fixed_macs": sum(walk.cost_model.fixed_macs.values()) / walk.macs(),
        "reasons": sorted({unit.protected.partition(" in '")[0] for unit in walk.units if unit.protected}),
    }


def exactness(walk: LayerWalk, example: Example) -> str:
    """Says whether a random plan is exact in outputs, multiply-adds and parameters.

    A network that amplifies rounding differs from itself in float32; its outputs are compared in float64.
    """
    generator = np.random.default_rng(0)
    widths = {unit.name: int(generator.integers(1, unit.channels + 1)) for unit in walk.free}
    plan = walk.plan(widths, {unit.name: generator.random(unit.channels) for unit in walk.units})
    removed = {place: np.sort(channels) for place, channels in plan.removed_channels().items()}
    small = plan.apply(walk.model)
    if (counted_macs(small, example), counted_params(small)) != (walk.macs(widths), walk.params(widths)):
        return "NO"
    if not removed or differing_layer(walk.model, small, example, removed) is None:
        return "yes"
    dense, small = copy.deepcopy(walk.model).double(), small.double()
    same = differing_layer(dense, small, example.floats(Tensor.double), removed) is None
    return "in float64" if same else "NO"


def differing_layer(dense: nn.Module, small: nn.Module, example: Example, removed: Removed) -> str | None:
    """Returns the first thing that a cut network computes otherwise than the dense one with zeroed channels."""
    return difference(dense, small, kept_channels(dense, removed), example, removed, decides=True)


def cut_by_peer(name: str) -> dict[str, Any]:
    """Cuts half of the channels of one network with Torch-Pruning, and judges the result."""
    import torch_pruning

    model, given = build(name)
    example = Example.given(given)
    tagged = with_places_for_weights(model)
    start = time.process_time()
    try:
        pruner = torch_pruning.pruner.MagnitudePruner(
            tagged,
            example.floats(Tensor.double).args if len(example.args) > 1 else example.floats(Tensor.double).args[0],
            importance=torch_pruning.importance.RandomImportance(),
            pruning_ratio=0.5,
            ignored_layers=output_layers(tagged),
        )
        pruner.step()
    except Exception as error:  # whatever Torch-Pruning raises
        return {"peer": f"{type(error).__name__}", "peer_seconds": time.process_time() - start}
    seconds = time.process_time() - start
    try:
        small, removed = with_weights(tagged, model)
        if not removed:
            return {"peer": "cuts nothing", "peer_seconds": seconds}
        reason = differing_layer(model, small, example, removed)
    except Exception as error:  # whatever the cut network raises
        reason = f"{type(error).__name__}: {error}"
    if reason is None:
        return {"peer": "right", "peer_seconds": seconds}
    return {"peer": "does not run" if "does not run" in reason else "wrong", "peer_seconds": seconds, "why": reason}


def output_layers(model: nn.Module) -> list[nn.Module]:
    """The last linear layer or convolution, which a user of Torch-Pruning leaves out by hand."""
    return [module for module in model.modules() if is_layer(module)][-1:]


def with_places_for_weights(model: nn.Module) -> nn.Module:
    """Returns a double-precision copy in which every weight says where it stands: output + (input + 1) / SCALE."""
    tagged = copy.deepcopy(model).double()
    for module in tagged.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if is_layer(module) and tensor.ndim > 1:
                first, second = (torch.arange(size, dtype=torch.float64) for size in tensor.shape[:2])
                tags = first[:, None] + (second + 1) / SCALE
                tensor.data = tags.reshape(*tags.shape, *[1] * (tensor.ndim - 2)).expand_as(tensor).clone()
            elif tensor.is_floating_point() and (axis := tensor_axis(tensor)) is not None:
                shape = [1] * tensor.ndim
                shape[axis] = -1
                tensor.data = torch.arange(tensor.numel(), dtype=torch.float64).reshape(shape)
    return tagged


def with_weights(tagged: nn.Module, dense: nn.Module) -> tuple[nn.Module, dict[tuple[str, str], Any]]:
    """Puts the dense network's weights at the places that a cut, tagged network says; also returns what was cut."""
    small = copy.deepcopy(tagged).float()
    removed: dict[tuple[str, str], Any] = {}
    for name, module in tagged.named_modules():
        real, target = dense.get_submodule(name), small.get_submodule(name)
        own = {**module._parameters, **module._buffers}
        for key, tags in own.items():
            source = {**real._parameters, **real._buffers}.get(key)
            if tags is None or source is None or not tags.is_floating_point():
                continue
            values = source.detach()
            if is_layer(module) and tags.ndim > 1:
                flat = tags.reshape(*tags.shape[:2], -1)[..., 0]
                rows, columns = flat.floor().long(), ((flat - flat.floor()) * SCALE).round().long() - 1
                values = values[rows, columns]
                removed |= places_cut(name, module, real, rows, columns)
            elif tensor_axis(source) is not None:
                values = values.index_select(tensor_axis(source) or 0, tags.reshape(-1).long())
                if source.numel() != tags.numel() and is_standard(real):
                    removed[name, "out"] = np.setdiff1d(np.arange(source.numel()), tags.reshape(-1).long().numpy())
            held_at(target, key).data = values.clone()  # type: ignore[union-attr]
    return small, removed


def places_cut(
    name: str, module: nn.Module, real: nn.Module, rows: Tensor, columns: Tensor
) -> dict[tuple[str, str], Any]:
    """Returns the channels that a layer lost, by side; a layer with groups reads its slots group by group."""
    outs, groups = channels_of(real, "out"), int(getattr(real, "groups", 1))
    read = columns if groups == 1 else columns + rows // (outs // groups) * (channels_of(real, "in") // groups)
    kept = {"out": np.unique(rows.numpy()), "in": np.unique(read.numpy())}
    if isinstance(module, Transposed):
        kept = {"out": kept["in"], "in": kept["out"]}
    cut = {side: np.setdiff1d(np.arange(channels_of(real, side)), own) for side, own in kept.items()}
    return {(name, side): gone for side, gone in cut.items() if len(gone)}


def rows_of_all(names: list[str], peer: bool) -> Iterator[dict[str, Any]]:
    """Measures each network in a process of its own."""
    for name in names:
        command = [sys.executable, "-m", "benchmarks.zoo", "--one", name, *(["--peer"] if peer else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        stopped = done.returncode == -signal.SIGXCPU
        if not lines:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            yield {"network": name, "error": "does not end" if stopped else said[-1][:200]}
        elif stopped:
            yield json.loads(lines[-1]) | {"peer": f"over {PEER_LIMIT} s"}
        else:
            yield json.loads(lines[-1])


def stop_after(seconds: int) -> None:
    """Lets the system stop this process after so many more seconds of the processor, however busy the machine is."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds, hard))


def printed(row: dict[str, Any]) -> str:
    """Returns a row of the table in Markdown."""
    if "error" in row:
        return f"| {row['network']} | {row['error']} | | | | | |"
    peer = f"{row['peer']}, {row['peer_seconds']:.1f} s" if "peer_seconds" in row else row.get("peer", "")
    return (
        f"| {row['network']} | {row['seconds']:.2f} | {row['free']} of {row['units']} | {row['reach']:.1%} | "
        f"{row['exact']} | {row['fixed_macs']:.1%} | {peer} |"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[name for names in ZOO.values() for name in names])
    parser.add_argument("--peer", action="store_true", help="cut each network with Torch-Pruning, too")
    parser.add_argument("--json", action="store_true", help="print one object a line")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        stop_after(2 * int(LIMIT))  # for the walk, the building of the network and the check of a plan
        row = measure(given.one)
        print(json.dumps(row), flush=True)
        if given.peer:
            stop_after(PEER_LIMIT)
            print(json.dumps(row | cut_by_peer(given.one)), flush=True)
        return
    print("| network | seconds | free units | MACs that can go | exact | MACs that no unit changes | Torch-Pruning |")
    print("|---|---|---|---|---|---|---|")
    for row in rows_of_all(given.names, given.peer):
        print(json.dumps(row) if given.json else printed(row), flush=True)


if __name__ == "__main__":
    main()

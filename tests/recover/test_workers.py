"""Several processes train as one process does with all of their batches together."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from practice import CPU
from pruned import pruned_run
from safetensors import safe_open
from torch import Tensor, nn
from toy import ToyResNet, image_set

from prune_env.commands.finetune import finetune
from prune_env.recover import Workers
from prune_env.recover.workers import SharedNorm, synchronise_norms
from prune_env.runs.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(
    [
        "prune_env.commands.train",
        "prune_env.commands.finetune",
        "accelerate",
        "sklearn.datasets",
        "matplotlib.backends.backend_agg",
    ]
)
PROCESSES = 2
GENTLE = ["finetune.learning_rate=0.0005", "finetune.epochs=2"]
"""At higher rates, rounding grows from step to step until the losses differ."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished search."""
    return pruned_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(run: RunDirectory) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    command = [*launch, "-m", "prune_env.commands.finetune", str(run.root), *GENTLE, "--name", "two", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    finetune(run.root, GENTLE, name="one")
    one = json.loads((run.root / "one" / "summary.json").read_text())
    assert len(one["epochs"]) == 2
    for epoch, other in zip(one["epochs"], two["epochs"], strict=True):
        assert other["loss"] == pytest.approx(epoch["loss"], rel=1e-5)
        assert other["accuracy"] == pytest.approx(epoch["accuracy"], abs=0.02)
    with safe_open(run.root / "two" / "checkpoint.safetensors", "pt") as file:
        assert json.loads(file.metadata()["record"])["facts"]["processes"] == PROCESSES
        names = set(file.keys())
    with safe_open(run.root / "one" / "checkpoint.safetensors", "pt") as file:
        assert set(file.keys()) == names
    assert len(list((run.root / "two" / "tensorboard").iterdir())) == 1


def whole_batch() -> Tensor:
    # Far from zero, where a variance by the difference of squares would be wrong.
    return 100.0 + image_set(10, colours=6).images


def some_norm(momentum: float | None, affine: bool) -> nn.BatchNorm2d:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(6, momentum=momentum, affine=affine)
    if affine:
        with torch.no_grad():
            norm.weight.uniform_(0.5, 2.0)
            norm.bias.normal_()
    return norm


def passes_of(norm: nn.Module, images: Tensor, share: slice) -> dict[str, Tensor]:
    """Two passes in training and one in eval mode: outputs, gradients and statistics."""
    found: dict[str, Tensor] = {}
    for step in range(2):
        norm.zero_grad()
        given = ((1.0 + step) * images)[share].requires_grad_()
        output = norm(given)
        (output.sin() * torch.arange(images.numel()).view_as(images)[share].cos()).sum().backward()
        assert given.grad is not None
        found |= {f"output{step}": output.detach(), f"gradient{step}": given.grad}
    with torch.no_grad():
        found["eval"] = norm.eval()(images[share])
    norm.train()
    found |= {name: tensor.clone() for name, tensor in norm.named_buffers()}
    found |= {f"{name}.grad": tensor.grad for name, tensor in norm.named_parameters() if tensor.grad is not None}
    return found


def one_process(rank: int, folder: str, kinds: list[tuple[float | None, bool]]) -> None:
    """Writes the results of one process's batch norms for its share into a file."""
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    for number, kind in enumerate(kinds):
        net = nn.Sequential(some_norm(*kind))
        synchronise_norms(net)
        assert isinstance(net[0], SharedNorm)
        torch.save(passes_of(net[0], whole_batch(), slice(rank, None, PROCESSES)), f"{folder}/{number}.{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_batch_norms_take_their_statistics_over_all_processes(tmp_path: Path) -> None:
    kinds: list[tuple[float | None, bool]] = [(0.1, True), (None, True), (0.3, False)]
    arguments: list[tuple[Any, ...]] = [(rank, str(tmp_path), kinds) for rank in range(PROCESSES)]
    processes = [CHILDREN.Process(target=one_process, args=given, daemon=True) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    for number, kind in enumerate(kinds):
        whole = passes_of(some_norm(*kind), whole_batch(), slice(None))
        shares = [torch.load(tmp_path / f"{number}.{rank}") for rank in range(PROCESSES)]
        for name, expected in whole.items():
            for rank, share in enumerate(shares):
                if name.endswith(".grad"):  # of the process's own share: the wrapper adds up all processes
                    continue
                rows = slice(rank, None, PROCESSES) if expected.dim() == 4 else slice(None)
                wanted = expected[rows] if expected.dim() else expected
                torch.testing.assert_close(share[name], wanted, rtol=1e-3, atol=1e-4)
        for name in (name for name in whole if name.endswith(".grad")):
            torch.testing.assert_close(sum(share[name] for share in shares), whole[name], rtol=1e-3, atol=1e-3)


def test_shared_norms_keep_the_weights_their_names_and_the_order_of_the_modules() -> None:
    model = ToyResNet(4)
    names = [name for name, _ in model.named_modules()]
    before = list(model.named_parameters())
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = model.eval()(image_set(4).images)
    synchronise_norms(model)
    assert [name for name, _ in model.named_modules()] == names
    assert isinstance(model.stem_bn, SharedNorm)
    assert all(one is other for (_, one), (_, other) in zip(before, model.named_parameters(), strict=True))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model.eval()(image_set(4).images), expected)


def test_one_process_by_itself_is_first_and_agrees_with_itself() -> None:
    workers = Workers(CPU)
    model, value = nn.Linear(2, 1), torch.tensor(3.0)
    assert workers.first
    assert workers.wrapped(model) is model
    assert workers.mean(value) is value
    assert workers.agree("word") == "word"
    assert "RANK" not in os.environ

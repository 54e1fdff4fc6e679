"""The table of formats: one decorated function for each file that the library reads."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from box_trees import coco_tree, voc_tree
from PIL import Image
from practice import CPU, batches_of, network, settings_of, trainer_of
from safetensors.numpy import load as load_arrays
from safetensors.torch import save
from torch import nn
from toy import TASK, digits_config, image_set, toy_problem, toy_resnet, toy_walk
from zoo import chain, small_images

from fuzzing.harness import FORMATS as FORMATS
from fuzzing.harness import Case, fuzzed
from fuzzing.mutation import JSON, LINES, PNG, SAFETENSORS, WORDS, YAML, ZIP, Form, without_digests
from prune_env import LayerWalk, PruningPlan, RunConfig
from prune_env.budget.latency_model import LatencyModel, LayerLatency
from prune_env.common.records import to_file
from prune_env.common.tensor_records import to_tensor_file
from prune_env.config.granularity import GRANULARITIES
from prune_env.criteria import ScoringContext, load_scores, save_scores, score_channels
from prune_env.data import load_source
from prune_env.data.boxes import check_box_targets
from prune_env.data.splits import SplitsRecord
from prune_env.env import PruningEnv
from prune_env.evaluation import execution_memory
from prune_env.evaluation.execution import ExecutionChoice, ExecutionSettings
from prune_env.granularity import make_granularity
from prune_env.models import load_weights, weights_bytes
from prune_env.recover import Epoch, Teacher
from prune_env.recover.checkpoint import read_checkpoint, to_checkpoint
from prune_env.report.page import render_page
from prune_env.report.reading import read_run
from prune_env.runs.files import read_run_file
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.searching import SearchRun, search_into
from prune_env.runs.starting import measurements_of, remembered_by
from prune_env.runs.training_folder import TrainingFolder
from prune_env.search.policy import load_policy, policy_of, save_policy


def both(data: bytes, form: Form) -> list[tuple[bytes, Form | None]]:
    """A file of this release, and as an earlier one wrote it: mutants of the second get past the digest."""
    return [(data, form), (without_digests(data, form), form)]


def made(save: Any, path: Path) -> bytes:
    """The bytes that a writer of the library writes."""
    save(path)
    return path.read_bytes()


@fuzzed("plan", share=3.0)
def plans(folder: Path) -> Case:
    """Plans of whole channels and of groups: the network must be the one that the kept channels describe."""
    known = LayerWalk.trace(chain(), small_images()).plan({"0": 5, "3": 4})
    grouped = plan_of_groups()
    networks = [(chain(), known, small_images(2)), (toy_resnet(), grouped, image_set(2).images)]
    place = folder / "plan.json"

    def read() -> tuple[PruningPlan, nn.Module, Any]:
        plan = PruningPlan.load(place)
        nearest = max(networks, key=lambda network: len(plan.fingerprint.keys() & network[1].fingerprint.keys()))
        return plan, plan.apply(nearest[0]), nearest

    def check(given: tuple[PruningPlan, nn.Module, Any]) -> None:
        plan, network, (dense, known, batch) = given
        kept = {unit.members[0].module: unit.kept for unit in plan.units}
        units = [
            unit.model_copy(update={"kept": kept.get(unit.members[0].module, list(range(unit.channels)))})
            for unit in known.units
        ]
        expected = known.model_copy(update={"units": units, "edits": plan.edits}).apply(dense)
        with torch.no_grad():
            ours, theirs = network.eval()(batch), expected.eval()(batch)
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
            raise AssertionError("a network that the kept channels do not describe")

    return Case([(made(known.save, place), JSON), (made(grouped.save, place), JSON)], place, read, check)


def plan_of_groups() -> PruningPlan:
    """A plan with an edit: the middle convolution of `toy_resnet` in two groups."""
    settings = GRANULARITIES.find("group").Settings(name="group")
    problem = toy_problem(granularity=settings)
    env = PruningEnv(problem=problem)
    env.reset(seed=0)
    finished, info = False, {}
    while not finished:
        _, _, finished, _, info = env.step(np.full(env.action_space.shape, 0.9, dtype=np.float32))
    plan: PruningPlan = info["trial"].plan
    return plan


@fuzzed("policy")
def policies(folder: Path) -> Case:
    """Policies: whatever is accepted gives a finite action within [-1, 1] for every observation."""
    problem = toy_problem()
    env = PruningEnv(problem=problem)
    inputs, numbers = env.observation_space.shape[0], env.action_space.shape[0]
    torch.manual_seed(0)
    actor = nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, numbers), nn.Tanh())
    place = folder / "policy.safetensors"
    observations = np.random.default_rng(0).uniform(-1, 1, (8, inputs)).astype(np.float32)

    def check(policy: Any) -> None:
        for observation in [*observations, np.ones(inputs, np.float32), -np.ones(inputs, np.float32)]:
            action = policy.act(observation)
            if not (np.isfinite(action).all() and np.abs(action).max() <= 1):
                raise AssertionError("an action that is not in [-1, 1]")

    seed = made(lambda path: save_policy(policy_of(actor, env), path), place)
    return Case(both(seed, SAFETENSORS), place, lambda: load_policy(place), check)


@fuzzed("config", share=2.0)
def configs(folder: Path) -> Case:
    """Settings: what is accepted is written and read again as the same settings."""
    place, again = folder / "config.yaml", folder / "again.yaml"

    def check(config: RunConfig) -> None:
        again.write_text(config.dump_yaml())
        if RunConfig.load(again).resolved() != config.resolved():
            raise AssertionError("settings that are written as others")

    seeds = [digits_config().dump_yaml(), Path("configs/cifar10_resnet56.yaml").read_text()]
    return Case([(seed.encode(), YAML) for seed in seeds], place, lambda: RunConfig.load(place), check)


def _weights(place: Path, seed: bytes, form: Any) -> Case:
    def read() -> nn.Module:
        model = toy_resnet(seed=1)
        load_weights(model, place)
        return model

    def check(model: nn.Module) -> None:
        if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
            raise AssertionError("weights that are not finite")

    return Case([(seed, form)], place, read, check)


@fuzzed("weights")
def weights(folder: Path) -> Case:
    """Weights as safetensors: exactly what the file says, in the network's number type."""
    place = folder / "weights.safetensors"
    case = _weights(place, weights_bytes(toy_resnet()), SAFETENSORS)

    def check(model: nn.Module) -> None:
        case.check(model)
        held = load_arrays(place.read_bytes())
        state = model.state_dict()
        for name, values in held.items():
            own = state.get(name)
            if own is None or not np.array_equal(own.numpy(), values.astype(own.numpy().dtype)):
                raise AssertionError(f"other values than the file has under {name!r}")

    # Files of other programs have no digest, so their mutants get past it.
    return Case([*case.seeds, (save(toy_resnet().state_dict()), SAFETENSORS)], place, case.read, check)


@fuzzed("checkpoint.pth")
def pickled(folder: Path) -> Case:
    """Weights of torch.save: nothing but tensors."""
    file = BytesIO()
    torch.save({"model": toy_resnet().state_dict(), "epoch": 3}, file)
    return _weights(folder / "weights.pth", file.getvalue(), ZIP)


@fuzzed("scores")
def scores(folder: Path) -> Case:
    """A run's scores: used as they were written, or found again."""
    context, place = ScoringContext(toy_walk(), image_set(8)), folder / "scores.safetensors"
    own = score_channels("l1", context)
    seed = made(lambda path: save_scores("l1", context, own, path), place)

    def check(found: Mapping[str, Any] | None) -> None:
        if found is not None and any(not np.array_equal(found[name], values) for name, values in own.items()):
            raise AssertionError("other scores than the criterion gives")

    return Case([(seed, SAFETENSORS)], place, lambda: load_scores("l1", context, place), check)


@fuzzed("old scores", share=0.5)
def old_scores(folder: Path) -> Case:
    """A run's scores without a digest: finite, one for each channel."""
    case, walk = scores(folder), toy_walk()

    def check(found: Mapping[str, Any] | None) -> None:
        for unit in walk.units if found is not None else ():
            assert found is not None
            if found[unit.name].shape != (unit.channels,) or not np.isfinite(found[unit.name]).all():
                raise AssertionError("scores that are not one finite number for each channel")

    return Case(
        [(without_digests(data, SAFETENSORS), SAFETENSORS) for data, _ in case.seeds], case.place, case.read, check
    )


@fuzzed("checkpoint", share=0.5)
def checkpoints(folder: Path) -> Case:
    """The checkpoint of a training: it goes on from the state that was written, or not at all."""
    place, facts = folder / "checkpoint.safetensors", {"seed": 3, "weights": "ab"}
    settings = settings_of(average=0.3)
    trainer = trainer_of(settings)
    epoch = trainer.run_epoch()
    state = trainer.state()

    def read() -> tuple[Any, list[Epoch]]:
        held, epochs, _ = read_checkpoint(place, facts, TASK)
        resumed = trainer_of(settings)
        resumed.resume(held, len(epochs))
        return resumed, epochs

    def check(given: tuple[Any, list[Epoch]]) -> None:
        resumed, epochs = given
        if epochs != [epoch]:
            raise AssertionError("other epochs than were written")
        if any(not torch.equal(tensor, state[name]) for name, tensor in resumed.state().items()):
            raise AssertionError("another state than was written")

    return Case([(to_checkpoint(trainer, [epoch], facts), SAFETENSORS)], place, read, check)


@fuzzed("old checkpoint", share=0.5)
def old_checkpoints(folder: Path) -> Case:
    """A checkpoint without a digest: numbers may be others, but a training goes on from it or not at all."""
    case = checkpoints(folder)

    def check(given: tuple[Any, list[Epoch]]) -> None:
        if any(not np.isfinite(epoch.loss) for epoch in given[1]):
            raise AssertionError("a loss that is not finite")

    return Case(
        [(without_digests(data, SAFETENSORS), SAFETENSORS) for data, _ in case.seeds], case.place, case.read, check
    )


@fuzzed("answers", share=0.5)
def answers(folder: Path) -> Case:
    """A teacher's answers for an epoch: those that were written, or refused."""
    settings = settings_of(augment="none", distillation=0.5)
    batches, execution = batches_of(settings), ExecutionSettings.for_training()
    teacher = Teacher(network(5), folder)
    teacher.prepare(CPU, execution)

    def told() -> list[torch.Tensor]:
        lesson = teacher.lesson(1, batches, execution)
        return [lesson.outputs(step, batch) for step, batch in enumerate(batches.epoch(1), 1)]

    known = told()
    (place,) = folder.iterdir()

    def check(found: list[torch.Tensor]) -> None:
        if any(not torch.equal(ours, theirs) for ours, theirs in zip(found, known, strict=True)):
            raise AssertionError("other answers than the teacher's")

    return Case([(place.read_bytes(), SAFETENSORS)], place, told, check)


@fuzzed("right images", share=0.5)
def right_images(folder: Path) -> Case:
    """Which test images a network gets right: as they were written, or refused."""
    training, known = TrainingFolder(folder), torch.arange(8) % 3 == 0
    training.splits.write_bytes(
        to_file(SplitsRecord(source="x", reward=[1], calibration=[2], test=list(range(8)), train_images=9))
    )
    training.right.write_bytes(to_tensor_file({}, {"fine-tuned": known}))

    def check(found: torch.Tensor | None) -> None:
        if found is not None and not torch.equal(found, known):
            raise AssertionError("other images than were written")

    seed = training.right.read_bytes()
    return Case([(seed, SAFETENSORS)], training.right, lambda: training.read_right("fine-tuned"), check)


@fuzzed("execution")
def executions(folder: Path) -> Case:
    """Execution settings in the user's cache: those that were measured, or they are measured again."""
    options: dict[str, tuple[Any, ...]] = {"layout": ("channels_last", "contiguous"), "dtype": ("float32",)}
    options |= {"folded": (True, False), "batch": (64, 32), "threads": (1, 2)}
    known = ExecutionChoice(ExecutionSettings(batch=64, threads=1), "measured", agreement=0.5)

    def cached(call: Any, *given: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(folder))
            return call(*given)

    cached(execution_memory.remember, {}, known)
    (place,) = folder.rglob("*.json")

    def check(choice: ExecutionChoice | None) -> None:
        if choice is None:
            return
        execution = choice.execution
        whole = (execution.batch, execution.threads)
        if not all(type(one) is int or one is None for one in whole) or type(execution.folded) is not bool:
            raise AssertionError(f"settings of other types: {asdict(execution)}")
        if choice.agreement is not None and not -1 <= choice.agreement <= 1:
            raise AssertionError(f"an agreement of {choice.agreement}")

    seeds = both(place.read_bytes(), JSON)
    return Case(seeds, place, lambda: cached(execution_memory.recall, {}, options), check)


@fuzzed("npz")
def arrays(folder: Path) -> Case:
    """Images in memory: bytes, with labels of the classes."""
    generator, place = np.random.default_rng(0), folder / "data.npz"
    parts = {
        "train_images": generator.integers(0, 256, (12, 6, 6, 3), dtype=np.uint8),
        "train_labels": np.arange(12) % 3,
        "test_images": generator.integers(0, 256, (6, 6, 6, 3), dtype=np.uint8),
        "test_labels": np.arange(6)[:, None] % 3,
    }
    plain, small = BytesIO(), BytesIO()
    np.savez(plain, **parts)
    np.savez_compressed(small, **parts)

    def check(source: Any) -> None:
        labels = np.asarray(source.targets("train"))
        images = source.load("train", np.arange(min(2, len(labels))))
        assert torch.isfinite(images).all()
        assert labels.min() >= 0
        assert labels.max() < source.classes

    seeds = [(plain.getvalue(), ZIP), (small.getvalue(), None)]
    return Case(seeds, place, lambda: load_source("npz", place), check)


@fuzzed("image")
def images(folder: Path) -> Case:
    """Image files of every kind: finite pixels of the wanted size."""
    pixels = np.random.default_rng(0).integers(0, 256, (17, 23, 3)).astype(np.uint8)
    for split in ("train", "val"):
        (folder / split / "class").mkdir(parents=True)
        Image.fromarray(pixels).save(folder / split / "class" / "image.png")
    place, seeds = folder / "train" / "class" / "image.png", []
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
        file = BytesIO()
        Image.fromarray(pixels).save(file, format=kind)
        seeds.append((file.getvalue(), PNG if kind == "PNG" else None))
    deep = BytesIO()
    Image.fromarray(257 * pixels[..., 0].astype(np.uint16)).save(deep, format="PNG")
    source = load_source("imagefolder", folder, 16)

    def check(loaded: Any) -> None:
        assert loaded.shape == (1, 3, 16, 16)
        assert torch.isfinite(loaded).all()

    return Case([*seeds, (deep.getvalue(), PNG)], place, lambda: source.load("train", np.array([0])), check)


def _boxes(source: Any) -> None:
    for split in ("train", "test"):
        check_box_targets(source.targets(split), source.classes, source.size, split)
        assert torch.isfinite(source.load(split, np.arange(1))).all()


@fuzzed("coco", share=0.5)
def coco(folder: Path) -> Case:
    """COCO's annotations: boxes that a detector can learn from."""
    place = coco_tree(folder) / "annotations" / "instances_train.json"
    return Case([(place.read_bytes(), JSON)], place, lambda: load_source("coco", folder, 32), _boxes)


@fuzzed("voc", share=0.5)
def voc(folder: Path) -> Case:
    """VOC's annotations: as for COCO."""
    objects = {"a": [("cat", (2, 3, 20, 30)), ("dog", (1, 1, 60, 40))], "b": [("dog", (5, 5, 9, 9))]}
    voc_tree(folder, {"train": ["a"], "val": ["b"]}, objects)
    place = folder / "Annotations" / "a.xml"
    return Case([(place.read_bytes(), WORDS)], place, lambda: load_source("voc", folder, 32), _boxes)


def searched(folder: Path) -> tuple[RunDirectory, SearchRun]:
    """A run of a small search of random plans."""
    run = RunDirectory.create(folder / "run")
    config = digits_config("agent.name=random", "search.evaluations=6")
    run.write_config(config)
    search = SearchRun(run, config, None, toy_problem(batch_size=24))  # type: ignore[arg-type]
    search_into(replace(search, problem=search.problem.again()))
    return run, search


@fuzzed("journal", share=0.25)
def journals(folder: Path) -> Case:
    """A search's recorded trials: a resumed search ends with the plan of the uninterrupted one, or is refused."""
    run, search = searched(folder)
    expected, lines = run.plan.read_bytes(), run.evaluations_file.read_bytes()

    def read() -> bytes:
        search_into(replace(search, problem=search.problem.again()))
        return run.plan.read_bytes()

    def check(plan: bytes) -> None:
        if plan != expected:
            raise AssertionError("another plan than that of the uninterrupted search")

    def restored() -> None:
        for path in run.root.iterdir():
            path.unlink()

    return Case(both(lines, LINES), run.evaluations_file, read, check, restored)


def finished(folder: Path) -> RunDirectory:
    """A finished run of a toy network, with every file that the report reads."""
    run, search = searched(folder)
    rows = [
        {
            "name": name,
            "reward_accuracy": 0.5,
            "test_accuracy": 0.4,
            "macs": 1000,
            "params": 100,
            "latency_ms": {"median": 2.0, "q1": 1.0, "q3": 3.0},
        }
        for name in ("dense", "uniform", "random")
    ]
    summary = {
        "model": "toy",
        "search": "random",
        "budget": {"metric": "macs", "keep": 0.8},
        "rows": rows,
        "threads": 1,
        "device": "cpu",
        "batch_size": 32,
        "episodes": 4,
        "evaluations": 5,
        "seconds": 2.0,
        "seconds_per_evaluation": 0.4,
        "command": "prune-env train",
    }
    layer = {"layer": "mid", "unit": "mid", "height": 4, "width": 4, "low_rank_share": 0.5, "mean_rank": 0.5}
    ranks = {
        "layers": [{**layer, "histogram": [1] * 10}],
        "sensitive": {"mid": "sensitive"},
        "rank_threshold": 0.5,
        "layer_threshold": 0.5,
    }
    run.write_json(run.summary, summary)
    run.write_json(run.sensitivity, ranks)
    run.write_json(run.problem, search.problem.as_record())
    return run


def _reported(name: str, form: Any) -> Any:
    def make(folder: Path) -> Case:
        run = finished(folder)
        place = run.root / name

        def check(page: str) -> None:
            assert "</html>" in page
            assert "\x1b" not in page

        seeds = [(place.read_bytes(), form)] if form is YAML else both(place.read_bytes(), form)
        return Case(seeds, place, lambda: render_page(read_run(run)), check)

    return make


REPORTED = {
    "summary.json": JSON,
    "problem.json": JSON,
    "sensitivity.json": JSON,
    "evaluations.jsonl": LINES,
    "config.yaml": YAML,
}
"""Files that a report reads, with their forms."""

for file, form in REPORTED.items():
    fuzzed(f"report: {file.partition('.')[0]}", share=0.5)(_reported(file, form))


@fuzzed("splits", share=0.5)
def splits(folder: Path) -> Case:
    """The images of a run's sets: as they were drawn, or refused."""
    run = RunDirectory.create(folder / "run")
    run.write_record(run.splits, SplitsRecord(source="x", reward=[3, 1], calibration=[2], test=[0, 1], train_images=9))
    return Case(both(run.splits.read_bytes(), JSON), run.splits, lambda: read_run_file(run.splits))


@fuzzed("latency")
def latencies(folder: Path) -> Case:
    """A run's formula of latency: finite seconds for every width."""
    walk, run = toy_walk(), RunDirectory.create(folder / "run")
    layer = LayerLatency(constant=1e-3, inputs=1e-5, outputs=1e-5, products=1e-7)
    layers = dict.fromkeys(("stem", "down", "up", "project", "mid", "out", "fc"), layer)
    known = LatencyModel(layers=layers, constant=1e-3, values=1e-9, batch=32, threads=1, error=0.05)
    run.write_record(run.latency, known)

    def read() -> LatencyModel:
        model = remembered_by(run, digits_config()).latency
        assert model is not None
        model.refuse_unfit(walk)
        return model

    def check(model: LatencyModel) -> None:
        assert np.isfinite(model.seconds(walk, walk.width_list()))
        assert model.cost_form(walk).cost(np.array([unit.channels for unit in walk.free])) > 0

    seeds = both(run.latency.read_bytes(), JSON)
    return Case(seeds, run.latency, read, check)


def _measured(granularity: str, measured: Any) -> Any:
    def make(folder: Path) -> Case:
        run, plan = RunDirectory.create(folder / "run"), toy_walk().plan({})
        settings = digits_config(f"granularity.name={granularity}")
        place = run.root / f"{granularity}s.json"
        run.write_json(place, measured)

        def read() -> Any:
            return make_granularity(settings.granularity).restore(measurements_of(run, settings)).tables(32, plan)

        return Case(both(place.read_bytes(), JSON), place, read)

    return make


MEASURED: Mapping[str, Any] = {
    "group": {"times": {"mid": {"1": 0.2, "2": 0.1}}},
    "stripe": {"stripes": {"stem": 9}, "whole": {"fc": "no convolution"}},
}
"""What granularities measure, as a run records it."""

for granularity, measured in MEASURED.items():
    fuzzed(f"{granularity}s", share=0.5)(_measured(granularity, measured))

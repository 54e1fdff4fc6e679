import os
import pickle
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prune_env.common.errors import WeightsError
from prune_env.models import build_model, load_weights, save_weights


class Marker:
    """Unpickled, it makes a folder: proof that a file's code was run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("digits_resnet", 10, in_channels=1)


def same(first: nn.Module, second: nn.Module) -> bool:
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_saved_weights_load_again(tmp_path: Path) -> None:
    save_weights(network(0), tmp_path / "new" / "net.safetensors")
    other = network(1)
    load_weights(other, tmp_path / "new" / "net.safetensors")
    assert same(network(0), other)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["net.safetensors"]


def test_failed_save_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(network(0), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WeightsError, match="cannot be written: disk full"):
        save_weights(network(1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_network_with_tied_parameters_can_be_saved(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    save_weights(model, tmp_path / "tied.safetensors")
    load_weights(model, tmp_path / "tied.safetensors")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dict_may_be_wrapped_and_prefixed(tmp_path: Path, wrapped: bool, prefix: str) -> None:
    state: dict[str, object] = {prefix + key: value for key, value in network(0).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "net.pth")
    other = network(1)
    load_weights(other, tmp_path / "net.pth")
    assert same(network(0), other)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
@pytest.mark.parametrize("child", ["module", "_orig_mod", "module_list", "layer"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_wrapper_s_prefix_is_removed_only_where_the_network_s_own_names_lack_it(
    tmp_path: Path, prefix: str, child: str, suffix: str
) -> None:
    def build(seed: int) -> nn.Module:
        model = nn.Module()
        model.add_module(child, network(seed))
        return model

    state = {prefix + key: value for key, value in build(0).state_dict().items()}
    path = tmp_path / f"net.{suffix}"
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    other = build(1)
    load_weights(other, path)
    assert same(build(0), other)


def test_a_child_named_module_within_a_child_named_module_is_told_from_a_wrapper(tmp_path: Path) -> None:
    def build() -> nn.Module:
        inner, model = nn.Linear(2, 2), nn.Sequential()
        inner.add_module("module", nn.Linear(2, 2))
        model.add_module("module", inner)
        return model

    given = build()
    torch.save({f"module.{key}": value for key, value in given.state_dict().items()}, tmp_path / "net.pth")
    other = build()
    load_weights(other, tmp_path / "net.pth")
    assert same(given, other)


def test_file_without_batch_counters_loads(tmp_path: Path) -> None:
    state = {k: v for k, v in network(0).state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "net.safetensors")
    load_weights(network(1), tmp_path / "net.safetensors")


def test_missing_file_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors does not exist; .*model\.weights=PATH"):
        load_weights(network(0), tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="is a folder, not a file"):
        load_weights(network(0), tmp_path)


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_pickle_is_refused_and_not_executed(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"weights.{suffix}"
    hostile = {"conv1.weight": Marker(tmp_path / "executed")}
    if zipped:
        torch.save(hostile, path)
    else:
        path.write_bytes(pickle.dumps(hostile))
    with pytest.raises(WeightsError, match=r"was refused: .*nothing else is ever unpickled"):
        load_weights(network(0), path)
    assert not (tmp_path / "executed").exists()


def test_the_hostile_pickle_would_execute_if_it_were_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Marker(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"net.{suffix}"
    if suffix == "pth":
        torch.save(network(0).state_dict(), path)
    else:
        save_weights(network(0), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    model = network(1)
    with pytest.raises(WeightsError, match="was refused: it is truncated, damaged"):
        load_weights(model, path)
    assert same(model, network(1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "it holds no state dict"),
        ({}, "it holds no state dict"),
        ({"conv1.weight": 3}, "its entry 'conv1.weight' is not a plain tensor"),
        ({"conv1.weight": torch.zeros(2, device="meta")}, "'conv1.weight' is not a plain tensor"),
        ({7: torch.zeros(2)}, "its entry 7 is not a plain tensor"),
    ],
)
def test_file_that_is_no_state_dict_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=message):
        load_weights(network(0), tmp_path / "net.pth")


def changed(state: dict[str, torch.Tensor], change: str) -> dict[str, torch.Tensor]:
    if change == "shape":
        # Two differ; the first of them in the network's order must be named, whatever the file's order.
        state["linear.weight"] = torch.zeros(10, 32)
        state["layer2.0.conv1.weight"] = torch.zeros(30, 16, 3, 3)
        return dict(reversed(state.items()))
    if change == "missing":
        return {key: value for key, value in state.items() if not key.startswith("layer3.1.bn2")}
    if change == "type":
        state["bn1.weight"] = torch.ones(16, dtype=torch.int64)
    if change == "extra":
        state["head.weight"] = torch.zeros(1)
    if change == "nan":
        state["layer1.0.conv2.weight"][0, 0, 0, 0] = float("nan")
    if change == "inf":
        state["bn1.running_var"][3] = float("inf")
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "shape",
            r"module 'layer2\.0\.conv1', 'weight' has shape \(30, 16, 3, 3\) in the file, "
            r"the network needs \(32, 16, 3, 3\)",
        ),
        ("missing", r"module 'layer3\.1\.bn2', 'weight' is missing from the file \(.*needs shape \(64,\)\)"),
        ("type", r"module 'bn1', 'weight' holds torch\.int64 in the file, the network needs torch\.float32"),
        ("extra", r"the network has no parameter or buffer 'head\.weight'"),
        ("nan", r"'layer1\.0\.conv2\.weight' holds values that are not finite"),
        ("inf", r"'bn1\.running_var' holds values that are not finite"),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, change: str, message: str, suffix: str) -> None:
    path = tmp_path / f"net.{suffix}"
    state = changed(network(0).state_dict(), change)
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    model = network(1)
    with pytest.raises(WeightsError, match=message):
        load_weights(model, path)
    assert same(model, network(1))


def test_weights_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        WeightsError, match=r"weights file .*net\.safetensors cannot be written: (Not a dir|File exists)"
    ):
        save_weights(network(0), tmp_path / "file" / "net.safetensors")


@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model", "net", "params", "the_only_one"])
def test_a_checkpoint_s_entry_with_the_weights_is_found(tmp_path: Path, entry: str) -> None:
    optimizer = torch.optim.SGD(network(0).parameters(), 0.1, momentum=0.9).state_dict()
    others = {"epoch": 3, "best": {"accuracy": torch.tensor(0.5)}, "empty": {}}
    torch.save({"optimizer": optimizer, entry: network(0).state_dict(), **others}, tmp_path / "net.pth")
    other = network(1)
    load_weights(other, tmp_path / "net.pth")
    assert same(network(0), other)


def test_settings_under_a_usual_name_are_passed_over(tmp_path: Path) -> None:
    torch.save({"model": {"depth": 20}, "weights": network(0).state_dict()}, tmp_path / "net.pth")
    other = network(1)
    load_weights(other, tmp_path / "net.pth")
    assert same(network(0), other)


def test_a_checkpoint_of_two_networks_names_its_entries(tmp_path: Path) -> None:
    torch.save({"teacher": network(0).state_dict(), "student": network(1).state_dict()}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"entries 'teacher', 'student', .* save that entry alone"):
        load_weights(network(0), tmp_path / "net.pth")


def test_an_average_of_weights_is_loaded(tmp_path: Path) -> None:
    torch.save(torch.optim.swa_utils.AveragedModel(network(0)).state_dict(), tmp_path / "net.pth")
    other = network(1)
    load_weights(other, tmp_path / "net.pth")
    assert same(network(0), other)


def test_half_precision_is_loaded_and_double_precision_only_where_it_fits(tmp_path: Path) -> None:
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in network(0).state_dict().items()
    }
    torch.save(state, tmp_path / "half.pth")
    load_weights(network(1), tmp_path / "half.pth")
    state["conv1.weight"] = torch.full_like(state["conv1.weight"], 1e300, dtype=torch.float64)
    torch.save(state, tmp_path / "double.pth")
    with pytest.raises(WeightsError, match=r"'conv1\.weight' holds values that are too large for torch\.float32"):
        load_weights(network(1), tmp_path / "double.pth")


def strange(kind: str, shape: torch.Size) -> torch.Tensor:
    if kind == "quantised":
        return torch.quantize_per_tensor(torch.zeros(shape), 0.1, 0, torch.qint8)
    if kind == "complex":
        return torch.zeros(shape, dtype=torch.complex64)
    if kind == "sparse":
        return torch.zeros(shape).to_sparse()
    return torch.zeros(shape, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)


@pytest.mark.parametrize("kind", ["quantised", "complex", "sparse", "float4"])
def test_strange_kinds_of_numbers_are_refused(tmp_path: Path, kind: str) -> None:
    state = network(0).state_dict()
    state["conv1.weight"] = strange(kind, state["conv1.weight"].shape)
    torch.save(state, tmp_path / "net.pth")
    model = network(1)
    with pytest.raises(WeightsError, match=r"net\.pth "):
        load_weights(model, tmp_path / "net.pth")
    assert same(model, network(1))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "stored.pth")
    with (
        zipfile.ZipFile(tmp_path / "stored.pth") as stored,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb,
    ):
        for member in stored.namelist():
            with bomb.open(member, "w", force_zip64=True) as file:
                file.write(stored.read(member) if "data/" not in member else bytes(20_000_000))
    begun = time.process_time()
    with pytest.raises(WeightsError, match=r"bomb\.pth was refused: its part '.*' is compressed"):
        load_weights(network(0), tmp_path / "bomb.pth")
    assert time.process_time() - begun < 1


def test_a_zip_file_whose_parts_cannot_be_listed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("\N{LATIN SMALL LETTER E WITH ACUTE}/data.pkl", b"")
    path.write_bytes(path.read_bytes().replace(b"\xc3\xa9", b"\xf3\xc3"))
    with pytest.raises(WeightsError, match=r"odd\.pth was refused: its list of parts is damaged"):
        load_weights(network(0), path)


def test_weights_that_were_changed_are_told(tmp_path: Path) -> None:
    model, file = nn.Linear(3, 2), tmp_path / "weights.safetensors"
    save_weights(model, file)
    load_weights(nn.Linear(3, 2), file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights\.safetensors was damaged or changed: its tensors have not"):
        load_weights(nn.Linear(3, 2), file)
    # Files of other programs have no digest.
    save_file(model.state_dict(), file)
    load_weights(nn.Linear(3, 2), file)

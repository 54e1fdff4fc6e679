from pathlib import Path

import numpy as np
import pytest
import torch

from prune_env.common.errors import DataError
from prune_env.data import ArraySource, LabelledArrays, load_source
from prune_env.data.registry import SOURCES, register_source

CIFAR_MEAN, CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(autouse=True)
def no_data_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNE_ENV_DATA", raising=False)


def npz_arrays(train: int = 40, test: int = 20, shape: tuple[int, ...] = (32, 32, 3)) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "train_images": generator.integers(0, 256, (train, *shape), dtype=np.uint8),
        "train_labels": np.arange(train, dtype=np.uint8) % 10,
        "test_images": generator.integers(0, 256, (test, *shape), dtype=np.uint8),
        "test_labels": np.arange(test, dtype=np.uint8) % 10,
    }


def test_digits_are_split_alike_every_time() -> None:
    first, second = load_source("digits"), load_source("digits")
    assert (first.name, first.classes, first.channels, first.size) == ("digits", 10, 1, (8, 8))
    assert (len(first.targets("train")), len(first.targets("test"))) == (1347, 450)
    everything = np.arange(450)
    assert torch.equal(first.load("test", everything), second.load("test", everything))
    assert np.ptp(np.bincount(first.targets("test"))) <= 3  # stratified: the classes have 174 to 183 images


def test_digits_are_normalised() -> None:
    images = load_source("digits").load("train", np.arange(1347))
    assert images.shape == (1347, 1, 8, 8)
    assert images.dtype == torch.float32
    assert abs(float(images.mean())) < 0.01
    assert abs(float(images.std()) - 1) < 0.01


@pytest.mark.parametrize("form", ["file", "folder", "variable"])
def test_cifar10_is_read_from_npz(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = npz_arrays()
    np.savez(tmp_path / "cifar10.npz", **arrays)
    if form == "variable":
        monkeypatch.setenv("PRUNE_ENV_DATA", str(tmp_path))
        source = load_source("cifar10")
    else:
        source = load_source("cifar10", tmp_path / "cifar10.npz" if form == "file" else tmp_path)
    assert (source.classes, source.channels, source.size) == (10, 3, (32, 32))
    chosen = np.array([7, 3, 3])
    scaled = arrays["test_images"][chosen].transpose(0, 3, 1, 2) / 255
    expected = (scaled - np.reshape(CIFAR_MEAN, (3, 1, 1))) / np.reshape(CIFAR_STD, (3, 1, 1))
    np.testing.assert_allclose(source.load("test", chosen).numpy(), expected, atol=1e-5)
    assert source.targets("test")[chosen].tolist() == [7, 3, 3]
    assert source.targets("test").dtype == np.int64


@pytest.mark.parametrize("test", ["test", "val"])
def test_npz_takes_val_where_there_is_no_test(tmp_path: Path, test: str) -> None:
    arrays = npz_arrays(12, 5, (9, 9))
    held_out = {f"{test}_{kind}": arrays.pop(f"test_{kind}") for kind in ("images", "labels")}
    arrays["train_labels"] = arrays["train_labels"].reshape(-1, 1)
    np.savez_compressed(tmp_path / "my.npz", **arrays, **held_out)
    source = load_source("npz", tmp_path / "my.npz")
    assert (source.classes, source.channels, source.size) == (10, 1, (9, 9))
    assert len(source.targets("test")) == 5
    assert source.targets("train").shape == (12,)
    images = source.load("train", np.arange(12))
    assert images.shape == (12, 1, 9, 9)
    assert -1 <= float(images.min()) < float(images.max()) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.array([{"an": "object"}] * 40, dtype=object)}, "objects are never unpickled"),
        ({"train_images": np.zeros((40, 4, 4))}, r"must be uint8 .* given float64 \(40, 4, 4\)"),
        ({"train_images": np.zeros((40, 4), np.uint8)}, r"must be uint8 .* given uint8 \(40, 4\)"),
        ({"test_images": np.zeros((20, 4, 4, 3), np.uint8)}, "they must be the same"),
        ({"train_labels": np.zeros(39, np.int64)}, r"one for each of the 40 images, given int64 \(39,\)"),
        ({"train_labels": np.zeros((40, 2), np.int64)}, r"given int64 \(40, 2\)"),
        ({"train_labels": np.zeros(40)}, r"labels must be integers.* given float64"),
        ({"train_labels": np.full(40, -1)}, r"labels run from -1 to -1"),
        ({"train_labels": np.full(40, 3 * 10**18)}, r"labels run up to 3000000000000000000; allowed are 0 to 99999"),
        ({"test_labels": np.full(20, 10)}, r"labels run from 10 to 10; allowed are 0\.\.9"),
        ({"test_labels": None}, r"'test_labels' is missing; .*the file has \["),
    ],
)
def test_npz_with_wrong_arrays_is_refused(tmp_path: Path, change: dict[str, np.ndarray | None], message: str) -> None:
    arrays = {key: value for key, value in {**npz_arrays(), **change}.items() if value is not None}
    np.savez(tmp_path / "my.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_source("npz", tmp_path / "my.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x04K\x01."])
def test_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "my.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"my\.npz was refused: it is damaged"):
        load_source("npz", tmp_path / "my.npz")


def test_truncated_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", **npz_arrays())
    (tmp_path / "my.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"my\.npz was refused: it is damaged"):
        load_source("npz", tmp_path / "my.npz")


def test_npz_of_another_data_set_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "gray.npz", **npz_arrays(shape=(28, 28)))
    with pytest.raises(DataError, match="'cifar10': images have 1 channels instead of 3"):
        load_source("cifar10", tmp_path / "gray.npz")
    assert load_source("fashionmnist", tmp_path / "gray.npz").size == (28, 28)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashionmnist", "npz", "imagefolder", "imagenet"])
def test_missing_path_says_what_is_allowed_and_how_to_give_it(name: str) -> None:
    with pytest.raises(DataError, match=rf"'{name}' needs .*data\.path=.* variable PRUNE_ENV_DATA"):
        load_source(name)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashionmnist", "npz", "imagefolder"])
def test_path_where_nothing_is_names_the_place(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"'{name}' was looked for at .*nowhere, which does not exist; allowed"):
        load_source(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashionmnist", "npz"])
def test_folder_without_the_data_set_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"which does not hold it; allowed: an \.npz file .*PRUNE_ENV_DATA"):
        load_source(name, tmp_path)


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_torchvision_files_are_checked_before_they_are_unpickled(tmp_path: Path, name: str, folder: str) -> None:
    (tmp_path / folder).mkdir()
    for file in ("data_batch_1", "train", "meta", "batches.meta"):
        (tmp_path / folder / file).write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(DataError, match=f"{name} in .* is damaged or incomplete .*corrupted"):
        load_source(name, tmp_path)


def test_torchvision_fashionmnist_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 3), ("t10k", 2)):
        images = np.full((count, 28, 28), count, np.uint8)
        sizes = b"".join(size.to_bytes(4, "big") for size in images.shape)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + images.tobytes())
        labels = count.to_bytes(4, "big") + bytes(range(count))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + labels)
    source = load_source("fashionmnist", tmp_path)
    assert source.targets("train").tolist() == [0, 1, 2]
    expected = torch.full((1, 1, 28, 28), (2 / 255 - 0.2860) / 0.3530)
    torch.testing.assert_close(source.load("test", np.array([1])), expected)


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(DataError, match=r"^data\.name: there is no data set 'cifar'; did you mean 'cifar10"):
        load_source("cifar")
    assert {"digits", "cifar10", "imagenet", "npz"} <= set(SOURCES)


def test_image_size_that_an_array_source_does_not_have_is_refused() -> None:
    assert load_source("digits", image_size=8).size == (8, 8)
    assert load_source("digits", image_size=(8, 8)).size == (8, 8)
    with pytest.raises(DataError, match=r"data\.image_size=32: the images of 'digits' are 8x8"):
        load_source("digits", image_size=32)
    with pytest.raises(DataError, match=r"data\.image_size=\(8, 9\): the images of 'digits' are 8x8"):
        load_source("digits", image_size=(8, 9))
    with pytest.raises(DataError, match=r"data\.image_size: \[224, 160\] given, but 'imagefolder' crops"):
        load_source("imagefolder", image_size=(224, 160))


def test_users_own_source_can_be_registered() -> None:
    arrays = LabelledArrays.from_arrays(np.zeros((4, 2, 2), np.uint8), np.arange(4) % 2, "mine")

    def mine(_path: Path | None, _image_size: int | None) -> ArraySource:
        return ArraySource("mine", 2, arrays, arrays, (0.5,), (0.5,))

    with SOURCES.restored():
        register_source("mine")(mine)
        assert float(load_source("mine").load("train", np.array([0])).max()) == -1
        with pytest.raises(ValueError, match="registered already"):
            register_source("mine")(mine)
    assert "mine" not in SOURCES


OWN_SOURCES = """
import numpy as np
from prune_env.common.errors import DataError
from prune_env.data import ArraySource, LabelledArrays
def stripes(path, image_size):
    images = np.full((4, image_size or 2, 2), 255, np.uint8)
    arrays = LabelledArrays.from_arrays(images, np.arange(4) % 2, "stripes")
    return ArraySource(str(path), 2, arrays, arrays, (0.5,), (0.5,))
def broken(path, image_size): raise KeyError("frames")
def refused(path, image_size): raise DataError("the frames are missing")
def number(path, image_size): return 3
"""


@pytest.fixture
def own_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_sources_of_a_test.py").write_text(OWN_SOURCES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PRUNE_ENV_DATA", raising=False)


@pytest.mark.usefixtures("own_sources")
def test_users_own_source_is_named_by_its_module(tmp_path: Path) -> None:
    source = load_source("own_sources_of_a_test:stripes", tmp_path)
    assert (source.name, source.size) == (str(tmp_path), (2, 2))
    assert float(source.load("train", np.array([0])).min()) == 1
    assert load_source("own_sources_of_a_test:stripes").name == "None"


@pytest.mark.usefixtures("own_sources")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", r"own_sources_of_a_test:broken': the call with the path .* raised KeyError: 'frames'"),
        ("refused", "^the frames are missing$"),
        ("number", r"returned int, which lacks name, classes, .*; it must return a prune_env\.data\.ImageSource"),
        ("missing", "'missing' does not exist in module"),
    ],
)
def test_users_own_source_that_gives_no_images_is_refused(name: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_source(f"own_sources_of_a_test:{name}")

"""The configuration files that come with the release."""

from pathlib import Path

import pytest

from prune_env import RunConfig
from prune_env.common.errors import ConfigError
from prune_env.config.protection import RESIDUAL_STREAMS
from prune_env.config.shipped import shipped_configs, summary
from prune_env.models import DETECTORS, build_detector, build_model, known_models

FILES = sorted((Path(__file__).parents[2] / "configs").iterdir())


def test_the_release_has_configs_for_digits_cifar_and_imagenet() -> None:
    assert {"digits.yaml", "cifar10_resnet56.yaml", "imagenet_resnet50.yaml"} <= {path.name for path in FILES}
    assert {path.suffix for path in FILES} == {".yaml"}


def test_a_shipped_config_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(shipped_configs()) == {path.stem for path in FILES}
    assert RunConfig.load("digits") == RunConfig.load(FILES[0].with_name("digits.yaml"))
    Path("digits").mkdir()
    assert RunConfig.load("digits").model.name == "digits_resnet"
    for missing in ("configs/digits.yaml", "digit"):
        with pytest.raises(ConfigError, match=f"'{missing}' does not exist; did you mean 'digits'?"):
            RunConfig.load(missing)
    Path("system_c_stripes").write_text("model: {name: own}\ndata: {name: digits}")
    assert RunConfig.load("system_c_stripes").model.name == "own"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_says_what_it_is_for_in_a_line(path: Path) -> None:
    assert 20 < len(summary(path)) < 200
    assert not summary(path).endswith(".")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_loads_without_the_variables_it_names(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNE_ENV_DATA", raising=False)
    monkeypatch.delenv("PRUNE_ENV_WEIGHTS", raising=False)
    config = RunConfig.load(path)
    assert config.model.name in (DETECTORS if config.task.name == "detection" else known_models())
    places = [text for text in (config.data.path, config.model.weights) if text is not None]
    assert not [text for text in places if "$" in str(text) or Path(text).is_absolute()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_takes_its_folders_from_the_variables(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_ENV_DATA", "/some/data")
    monkeypatch.setenv("PRUNE_ENV_WEIGHTS", "/some/weights")
    config = RunConfig.load(path)
    assert config.data.path is None or Path(config.data.path).is_relative_to("/some/data")
    assert config.model.weights in (None, "pretrained") or Path(config.model.weights).is_relative_to("/some/weights")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_module_that_a_config_protects_is_in_its_network(path: Path) -> None:
    config = RunConfig.load(path)
    if config.task.name == "detection":
        model = build_detector(config.model.name, 10, 1, None, {})
    else:
        model = build_model(config.model.name, 10)
    names = {name for name, _ in model.named_modules()}
    assert set(config.env.protect) - {RESIDUAL_STREAMS} <= names


@pytest.mark.parametrize("path", [path for path in FILES if "resnet" in path.stem or "system" in path.stem])
def test_the_configs_of_cifar_resnets_protect_the_streams_of_their_stages(path: Path) -> None:
    config = RunConfig.load(path)
    # Stripes go without their channels, so the streams need no protection from them.
    if config.model.name.startswith("cifar_resnet") and config.granularity.name != "stripe":
        assert set(config.env.protect) == {RESIDUAL_STREAMS}

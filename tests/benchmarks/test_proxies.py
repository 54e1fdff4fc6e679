"""The audit of proxies: correlations, and plans that are measured once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import digits_file, image_set, toy_resnet

import benchmarks.proxies as proxies_module
from benchmarks.proxies import correlations, main, mixed, perturbed, records_of, table_of
from prune_env.common.errors import RunError
from prune_env.data import Batch

SETTINGS = (
    "data.reward_images=60",
    "data.calibration_images=40",
    "data.test_images=100",
    "sensitivity.enabled=false",
    "sensitivity.probe_keep=null",
    "criterion.name=l1",
    "agent.name=random",
    "search.evaluations=6",
    "execution.batch=60",
    "execution.folded=true",
    "execution.dtype=float32",
    "execution.layout=contiguous",
    "execution.threads=1",
    "finetune.epochs=1",
    "finetune.batch_size=128",
)


def row(number: int, accuracy: float, loss: float, tuned: float) -> dict[str, Any]:
    proxies = {"accuracy": accuracy, "loss": loss}
    return {
        "number": number,
        "group": ("random", "search")[number % 2],
        "proxies": dict.fromkeys(("none", "least_squares"), proxies),
        "tuned": tuned,
    }


def test_a_correlation_is_over_all_plans_and_within_the_half_that_is_better_at_the_end() -> None:
    # The accuracy tells good plans from bad ones, and is wrong among the good ones; the loss is the other way round.
    rows = [row(i, accuracy=i if i < 4 else 11 - i, loss=-i if i >= 4 else i - 9, tuned=i / 10) for i in range(8)]
    whole, half = correlations(rows, "accuracy", "none")
    assert whole.value is not None
    assert whole.value > 0.5
    assert half.value == pytest.approx(-1.0)
    assert correlations(rows, "loss", "none")[1].value == pytest.approx(1.0)


def test_the_table_has_each_proxy_with_and_without_least_squares() -> None:
    table = table_of([row(i, i, i, i / 10) for i in range(6)])
    assert (table.row_count, len(table.columns)) == (2, 5)


def test_noise_on_the_weights_is_in_proportion_to_them_and_follows_the_seed() -> None:
    model = toy_resnet()
    one, again, other = (perturbed(model, seed) for seed in (0, 0, 1))
    for name, weight in model.named_parameters():
        first, second, third = (network.get_parameter(name) for network in (one, again, other))
        assert torch.equal(first, second)
        if weight.dim() > 1:
            assert not torch.equal(first, third)
            spread = (first - weight).square().mean() / weight.square().mean()
            assert 0.02**2 < spread.item() < 0.1**2
        else:
            assert torch.equal(first, weight)


def test_mixed_images_are_the_means_of_neighbours() -> None:
    batch = Batch(*vars(image_set(3)).values())
    found = mixed(batch).images
    for place, (one, other) in enumerate([(0, 2), (1, 0), (2, 1)]):
        assert torch.allclose(found[place], (batch.images[one] + batch.images[other]) / 2)


@pytest.mark.slow
def test_a_plan_is_measured_once_in_whatever_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies_module, "SHORT", (1, 2))
    config, root = str(digits_file(tmp_path, *SETTINGS)), str(tmp_path / "audit")
    main([config, root, "part=1/2"], count=2)
    assert [record["number"] for record in records_of(Path(root))] == [0, 2]
    main([config, root], count=2)
    rows = sorted(records_of(Path(root)), key=lambda record: record["number"])
    assert [(record["number"], record["group"]) for record in rows] == [
        (0, "random"),
        (1, "random"),
        (2, "search"),
        (3, "search"),
    ]
    for record in rows:
        for proxies in record["proxies"].values():
            assert len(proxies) == 6 + 2 * 2
            assert np.isfinite(list(proxies.values())).all()
        assert record["proxies"]["none"]["params"] == record["proxies"]["least_squares"]["params"]
        assert record["proxies"]["none"]["divergence"] > record["proxies"]["least_squares"]["divergence"] > 0
    before = [path.read_bytes() for path in sorted(Path(root).glob("*.jsonl"))]
    capsys.readouterr()
    main([config, root], count=2)
    assert [path.read_bytes() for path in sorted(Path(root).glob("*.jsonl"))] == before
    assert "better half" in capsys.readouterr().out
    with pytest.raises(RunError, match="was started with other finetune"):
        main([config, root, "finetune.epochs=2"], count=2)
    assert json.loads(before[0].splitlines()[0])["number"] == 1

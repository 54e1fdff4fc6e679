"""Scores on disk are reused for the same criterion, network, images and seed, and for nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save
from toy import image_set, toy_resnet, toy_walk

from prune_env.common.errors import RunError
from prune_env.criteria import ScoringContext, load_scores, save_scores, score_channels


@pytest.fixture
def context() -> ScoringContext:
    return ScoringContext(toy_walk(), image_set(8))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "scores.safetensors"


@pytest.mark.parametrize("name", ["l1", "taylor", "random"])
def test_scores_come_back_bit_by_bit(context: ScoringContext, place: Path, name: str) -> None:
    scores = score_channels(name, context)
    save_scores(name, context, scores, place)
    known = load_scores(name, ScoringContext(toy_walk(), image_set(8)), place)
    assert known is not None
    assert {unit: values.tolist() for unit, values in known.items()} == {
        unit: values.tolist() for unit, values in scores.items()
    }


def test_scores_of_another_criterion_are_not_used(context: ScoringContext, place: Path) -> None:
    save_scores("l1", context, score_channels("l1", context), place)
    assert load_scores("l2", context, place) is None


def test_scores_of_other_weights_are_not_used(context: ScoringContext, place: Path) -> None:
    save_scores("l1", context, score_channels("l1", context), place)
    model = toy_resnet()
    with torch.no_grad():
        model.stem.weight[0, 0, 0, 0] += 1e-6
    assert load_scores("l1", ScoringContext(toy_walk(model)), place) is None


def test_scores_of_other_images_or_labels_are_not_used_where_these_count(context: ScoringContext, place: Path) -> None:
    save_scores("taylor", context, score_channels("taylor", context), place)
    assert load_scores("taylor", replace(context, data=image_set(8, seed=1)), place) is None
    other = image_set(8)
    other.targets[0] = (other.targets[0] + 1) % 4
    assert load_scores("taylor", replace(context, data=other), place) is None


def test_scores_that_do_not_depend_on_images_are_used_with_any_images(context: ScoringContext, place: Path) -> None:
    save_scores("l1", context, score_channels("l1", context), place)
    assert load_scores("l1", replace(context, data=None), place) is not None


def test_scores_of_another_seed_are_not_used_where_the_seed_counts(context: ScoringContext, place: Path) -> None:
    for name, same in (("random", False), ("l1", True)):
        save_scores(name, context, score_channels(name, context), place)
        assert (load_scores(name, replace(context, seed=1), place) is not None) == same


@pytest.mark.parametrize("damage", ["empty", "torn", "text"])
def test_a_damaged_file_of_scores_is_refused_by_its_name(context: ScoringContext, place: Path, damage: str) -> None:
    save_scores("l1", context, score_channels("l1", context), place)
    place.write_bytes({"empty": b"", "torn": place.read_bytes()[:-7], "text": b"hello"}[damage])
    with pytest.raises(RunError, match=rf"'{place}' cannot be read: .*Remove the file; the run then scores"):
        load_scores("l1", context, place)


def test_without_a_file_there_are_no_scores(context: ScoringContext, place: Path) -> None:
    assert load_scores("l1", context, place) is None


def negated(place: Path) -> dict[str, str]:
    """Negates all scores of a file; returns its header."""
    with safe_open(place, "np") as file:
        header = file.metadata()
    place.write_bytes(save({unit: -values for unit, values in load_file(place).items()}, header))
    return header


def test_changed_scores_are_refused(context: ScoringContext, place: Path) -> None:
    save_scores("l1", context, score_channels("l1", context), place)
    negated(place)
    with pytest.raises(RunError, match=r"scores\.safetensors' is damaged or was changed: digest is"):
        load_scores("l1", context, place)


def test_scores_of_an_earlier_release_have_no_digest_and_are_used(context: ScoringContext, place: Path) -> None:
    scores = score_channels("l1", context)
    save_scores("l1", context, scores, place)
    facts = json.loads(negated(place)["record"])["facts"]
    place.write_bytes(save(dict(scores), {"facts": facts}))
    known = load_scores("l1", context, place)
    assert known is not None
    assert {unit: values.tolist() for unit, values in known.items()} == {u: v.tolist() for u, v in scores.items()}


def test_scores_that_are_not_finite_are_not_used(context: ScoringContext, place: Path) -> None:
    scores = dict(score_channels("l1", context))
    scores["stem"] = np.full_like(scores["stem"], np.nan)
    save_scores("l1", context, scores, place)
    assert load_scores("l1", context, place) is None


def test_scores_that_cannot_be_written_are_an_error_in_words(context: ScoringContext, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write"):
        save_scores("l1", context, score_channels("l1", context), tmp_path / "missing" / "scores.safetensors")

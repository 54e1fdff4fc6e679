import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn

from prune_env.common.errors import WeightsError
from prune_env.env.observation import FEATURES
from prune_env.search.policy import Policy, load_policy, save_policy

COUNT = len(FEATURES)


def _policy(seed=0):
    torch.manual_seed(seed)
    actor = nn.Sequential(nn.Linear(COUNT, 8), nn.ReLU(), nn.Linear(8, 1), nn.Tanh())
    return Policy(actor, "share", "channel")


def _metadata(**changes):
    about = {"version": 1, "action": "share", "features": FEATURES} | changes
    return {"prune_env.policy": json.dumps(about)}


def _tensors(**changes):
    tensors = {
        "0.weight": torch.ones(8, COUNT),
        "0.bias": torch.zeros(8),
        "1.weight": torch.ones(1, 8),
        "1.bias": torch.zeros(1),
    }
    return {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}


def test_a_saved_policy_acts_the_same_when_loaded(tmp_path):
    policy = _policy()
    save_policy(policy, tmp_path / "policy.safetensors")
    loaded = load_policy(tmp_path / "policy.safetensors")
    observation = np.linspace(-1, 1, COUNT, dtype=np.float32)
    assert np.array_equal(policy.act(observation), loaded.act(observation))
    assert not np.array_equal(_policy(1).act(observation), loaded.act(observation))
    assert (loaded.action, loaded.features) == ("share", FEATURES)


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_in_place_of_a_policy_is_refused_and_never_run(tmp_path):
    path = tmp_path / "policy.safetensors"
    path.write_bytes(pickle.dumps(_Bomb(tmp_path / "exploded")))
    with pytest.raises(WeightsError, match="cannot be read"):
        load_policy(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"\x00" * 64, "cannot be read"),
        (save(_tensors(), _metadata())[:-9], "cannot be read"),
        (save(_tensors()), "it is a policy of version 'none'"),
        (save(_tensors(), _metadata(version=7)), "of version 7; this release reads version 1"),
        (save(_tensors(), _metadata(features=["depth"])), "another observation"),
        (save(_tensors(), _metadata(action=3)), "action: given 3; must be a valid string"),
        (save(_tensors(), {"prune_env.policy": "{"}), "is damaged"),
        (save(_tensors(), _metadata(more=1)), "more: given 1; unknown field"),
        (save(_tensors(), _metadata(action="jump")), "1 numbers as an action 'jump', which no granularity takes"),
        (save(_tensors(), _metadata(bound=["tanh"])), r"bound: given \['tanh'\]; must be 'tanh' or 'clip'"),
        (
            save(_tensors(), _metadata(limits={"env.min_keep": "a tenth"})),
            "min_keep: given 'a tenth'; must be a valid num",
        ),
        (save(_tensors(), _metadata(limits={"env.min_keep": float("nan")})), "min_keep: given nan; must be a finite"),
        (save(_tensors(), _metadata(limits={"env.min_keep": 0})), "min_keep: given 0; must be greater than 0"),
        (
            save(_tensors(), _metadata(limits={"env.max_groups": True})),
            "max_groups: given True; must be a valid number",
        ),
        (save(_tensors(), _metadata(limits=[0.1])), r"limits: given \[0\.1\]; must be"),
        (save(_tensors(**{"0.weight": torch.ones(8, 3)}), _metadata()), "layer 0 of the policy is missing or does not"),
        (save(_tensors(**{"1.bias": None}), _metadata()), "policy"),
        (save(_tensors(**{"1.weight": torch.full((1, 8), torch.nan)}), _metadata()), "layer 1 .* not finite"),
        (
            save(_tensors(**{"1.weight": torch.full((1, 8), 1e200, dtype=torch.float64)}), _metadata()),
            "layer 1 .* not finite",
        ),
        (
            save(_tensors(**{"1.weight": torch.ones(3, 8), "1.bias": torch.zeros(3)}), _metadata()),
            "3 numbers .* which no granularity takes",
        ),
        (save(_tensors(**{"0.bias": torch.zeros(8, 1)}), _metadata()), r"layer 0 .* a bias of shape \[8, 1\]; a layer"),
        (save(_tensors(**{"0.bias": torch.zeros(())}), _metadata()), r"layer 0 .* a bias of shape \[\]; a layer needs"),
        (
            save(_tensors(**{"1.bias": torch.zeros(2)}), _metadata()),
            r"layer 1 .* shape \[1, 8\] and a bias of .* \[2\]",
        ),
        (
            save(_tensors(**{"0.weight": torch.ones(8 * COUNT)}), _metadata()),
            "layer 0 of the policy is missing or does",
        ),
        (save(_tensors(**{"0.weight": torch.ones(())}), _metadata()), "layer 0 of the policy is missing or does not"),
        (
            save(_tensors(**{"1.weight": torch.ones(1, 8, dtype=torch.complex64)}), _metadata()),
            "layer 1 .* holds complex64 weights .* must be floating-point",
        ),
        (
            save(_tensors(**{"0.weight": torch.ones(8, COUNT, dtype=torch.int64)}), _metadata()),
            "layer 0 .* holds int64 weights .* must be floating-point",
        ),
        (
            save(_tensors(**{"0.bias": torch.zeros(8, dtype=torch.bool)}), _metadata()),
            "layer 0 .* a bias of bool; both must be floating-point",
        ),
        (
            save(
                _tensors(
                    **{"0.weight": torch.ones(0, COUNT), "0.bias": torch.zeros(0), "1.weight": torch.ones(1, 0)},
                ),
                _metadata(),
            ),
            "layer 0 .* a layer needs one neuron or more",
        ),
    ],
)
def test_a_damaged_or_foreign_policy_is_refused_in_words(tmp_path, data, message):
    path = tmp_path / "policy.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        load_policy(path)


def test_a_policy_whose_weights_were_changed_is_refused(tmp_path):
    path = tmp_path / "policy.safetensors"
    save_policy(_policy(), path)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    path.write_bytes(save({name: -tensor for name, tensor in load_file(path).items()}, header))
    with pytest.raises(WeightsError, match="is damaged or was changed: digest is"):
        load_policy(path)


def test_a_policy_of_an_earlier_release_has_no_digest_and_is_read(tmp_path):
    path = tmp_path / "policy.safetensors"
    path.write_bytes(save(_tensors(), _metadata()))
    assert load_policy(path).granularity == "channel"


def test_a_policy_whose_weights_are_too_large_for_an_action_is_refused(tmp_path):
    path = tmp_path / "policy.safetensors"
    huge = {"0.weight": torch.full((8, COUNT), 3e38), "1.weight": torch.tensor([[3e38, -3e38] * 4])}
    path.write_bytes(save(_tensors(**huge), _metadata()))
    with pytest.raises(WeightsError, match="action is not a finite number: its weights are too large"):
        load_policy(path).act(np.ones(COUNT, dtype=np.float32))


def test_a_missing_policy_is_told_by_its_path(tmp_path):
    with pytest.raises(WeightsError, match=r"no policy at .*nowhere\.safetensors"):
        load_policy(tmp_path / "nowhere.safetensors")

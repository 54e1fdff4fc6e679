import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
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
    with pytest.raises(WeightsError, match="is not a policy"):
        load_policy(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a policy"),
        (b"\x00" * 64, "is not a policy"),
        (save(_tensors(), _metadata())[:-9], "is not a policy"),
        (save(_tensors()), "of version none"),
        (save(_tensors(), _metadata(version=7)), "of version 7; this release reads version 1"),
        (save(_tensors(), _metadata(features=["depth"])), "another observation"),
        (save(_tensors(), _metadata(action=3)), "another kind of action"),
        (save(_tensors(), {"prune_env.policy": "{"}), "is not a policy"),
        (save(_tensors(), _metadata(action="jump")), "1 numbers as an action 'jump', which no granularity takes"),
        (save(_tensors(), _metadata(bound=["tanh"])), "bounds its actions by"),
        (save(_tensors(), _metadata(limits={"env.min_keep": "a tenth"})), "not settings with numbers"),
        (save(_tensors(), _metadata(limits={"env.min_keep": float("nan")})), "not settings with numbers"),
        (save(_tensors(), _metadata(limits={"env.min_keep": 0})), "not settings with numbers"),
        (save(_tensors(), _metadata(limits={"env.max_groups": True})), "not settings with numbers"),
        (save(_tensors(), _metadata(limits=[0.1])), "not settings with numbers"),
        (save(_tensors(**{"0.weight": torch.ones(8, 3)}), _metadata()), "layer 0 of the policy is missing or does not"),
        (save(_tensors(**{"1.bias": None}), _metadata()), "policy"),
        (save(_tensors(**{"1.weight": torch.full((1, 8), torch.nan)}), _metadata()), "layer 1 .* not finite"),
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


def test_a_missing_policy_is_told_by_its_path(tmp_path):
    with pytest.raises(WeightsError, match=r"no policy at .*nowhere\.safetensors"):
        load_policy(tmp_path / "nowhere.safetensors")

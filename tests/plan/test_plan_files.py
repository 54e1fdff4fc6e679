"""Plan files are data: other files are refused with a message, and a plan appears whole or not at all."""

import contextlib
import errno
import json
import os
import pickle
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from zoo import chain, small_images

from prune_env import LayerWalk, PruningPlan
from prune_env.common.errors import PlanError
from prune_env.common.layers import channels_of

WALK = LayerWalk.trace(chain(), small_images())
PLAN = WALK.plan({"0": 5, "3": 4})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plan.json"


def document() -> dict[str, Any]:
    """A valid plan of version 2 as plain data, to be spoiled."""
    return {**json.loads(PLAN.model_dump_json()), "version": 2}


def refused(path: Path, content: bytes | str, message: str) -> None:
    """Checks that loading raises the message with the file's name and leaves the folder unchanged."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(PlanError, match=message) as caught:
        PruningPlan.load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 25
    assert len(str(caught.value)) < 2000
    assert "Value error" not in str(caught.value)  # pydantic's word for a message of ours
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def spoiled(*keys: str | int, value: Any) -> str:
    plan = document()
    *parents, key = keys
    place: Any = plan
    for parent in parents:
        place = place[parent]
    place[key] = value
    return json.dumps(plan)


def test_a_plan_of_version_2_loads_and_is_saved_with_a_digest(path: Path) -> None:
    path.write_text(json.dumps(document()))
    plan = PruningPlan.load(path)
    assert plan == PLAN
    plan.save(path)
    saved = json.loads(path.read_text())
    assert (saved["version"], saved["digest"]) == (3, PLAN.digest)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a batch norm is missing": lambda plan: plan["units"][1]["members"].pop(1),
    "a reader is missing": lambda plan: plan["units"][0]["members"].pop(),
    "a reader is mirrored": lambda plan: plan["units"][0]["members"][-1].update(index=[[7 - i] for i in range(8)]),
    "a rule is written as its map": lambda plan: plan["units"][0]["members"][0].update(index=[[i] for i in range(8)]),
    "a unit is missing": lambda plan: plan["units"].pop(0),
    "units are exchanged": lambda plan: plan["units"].reverse(),
    "a name": lambda plan: plan["units"][0].update(name="1"),
    "a protection is lifted": lambda plan: plan["units"][2].pop("protected"),
    "a protection is made up": lambda plan: plan["units"][2].update(protected="why not"),
    "the digest": lambda plan: plan.update(digest="0" * 32),
    "the digest is gone": lambda plan: plan.pop("digest"),
    "the digest is a number": lambda plan: plan.update(digest=3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_units_or_members_is_refused_by_the_digest(path: Path, change: str) -> None:
    PLAN.save(path)
    plan = json.loads(path.read_text())
    CHANGES[change](plan)
    refused(path, json.dumps(plan), r"is damaged or was changed: digest is .*make a new plan")


def test_a_digest_does_not_make_a_plan_of_version_2_more_than_it_is(path: Path) -> None:
    refused(path, json.dumps({**document(), "digest": PLAN.digest}), "digest: unknown field")


def test_what_stands_twice_is_refused(path: Path) -> None:
    text = PLAN.to_json().decode()
    refused(path, text.replace('"kept"', '"kept": [0], "kept"', 1), "the key 'kept' stands twice in one object")
    plan = document()
    plan["units"][1]["name"] = plan["units"][0]["name"]
    refused(path, json.dumps(plan), "units: two units are named")


def test_the_time_of_a_large_plan_grows_with_its_units(path: Path) -> None:
    plan = document()
    small = {**plan["units"][0], "kept": [0], "members": plan["units"][0]["members"][:1]}
    plan["units"] = [{**small, "name": f"unit {number}"} for number in range(20_000)]
    path.write_text(json.dumps(plan))
    begun = time.process_time()
    assert len(PruningPlan.load(path).units) == 20_000
    assert time.process_time() - begun < 4


def test_kept_channels_may_be_changed_by_hand(path: Path) -> None:
    PLAN.save(path)
    plan = json.loads(path.read_text())
    plan["units"][0]["kept"] = [0, 7]
    path.write_text(json.dumps(plan))
    assert PruningPlan.load(path).apply(chain())[0].out_channels == 2


def test_a_plan_that_cuts_a_protected_unit_is_refused_with_the_reason(path: Path) -> None:
    plan = document()
    (number,) = [number for number, unit in enumerate(plan["units"]) if unit["protected"]]
    reason = plan["units"][number]["protected"]
    message = rf"unit '7' is protected \({reason}\) and keeps 2 of its 5 channels; a protected unit keeps all"
    refused(path, spoiled("units", number, "kept", value=[0, 1]), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (spoiled("units", 0, "kept", value=[0, 1, 1, 2]), "unit '0' keeps channel 1 more than once"),
        (spoiled("units", 0, "kept", value=[0, 8]), "unit '0' keeps channel 8; allowed are 0 to 7"),
        (spoiled("units", 0, "kept", value=[-1, 0]), "unit '0' keeps channel -1; allowed are 0 to 7"),
        (spoiled("units", 0, "kept", value=[2, 1]), "unit '0': kept channels must be in ascending order"),
        (spoiled("units", 0, "kept", value=[]), r"units\.0\.kept: .*at least 1"),
        (spoiled("units", 0, "kept", value=[0.5]), r"units\.0\.kept\.0: .*integer"),
        (spoiled("units", 0, "kept", value=["0"]), r"units\.0\.kept\.0: .*integer"),
        (spoiled("units", 0, "kept", value=[True]), r"units\.0\.kept\.0: .*integer"),
        (spoiled("units", 0, "kept", value={}), r"units\.0\.kept: .*list"),
        (spoiled("units", 0, "channels", value=0), r"units\.0\.channels: .*greater than or equal to 1"),
        (spoiled("units", 0, "channels", value="8"), r"units\.0\.channels: .*integer"),
        (spoiled("units", 0, "members", value=[]), r"units\.0\.members: .*at least 1"),
        (
            spoiled("units", 0, "members", 0, "side", value="out.x"),
            r"units\.0\.members\.0\.side: .*should match pattern",
        ),
        (spoiled("units", 0, "members", 0, "start", value=-1), r"members\.0\.start: .*greater than or equal to 0"),
        (spoiled("units", 0, "members", 0, "repeat", value=0), r"members\.0\.repeat: .*greater than or equal to 1"),
        (spoiled("units", 0, "members", 0, "index", value=[[0]]), "unit '0', member '0': index must have 8 equal rows"),
        (spoiled("units", 0, "members", 0, "index", value=[[0]] * 7 + [[0, 1]]), "index must have 8 equal rows"),
        (spoiled("units", 0, "members", 0, "index", value=[[]] * 8), "index must have 8 equal rows"),
        (spoiled("units", 0, "wdth", value=3), r"units\.0\.wdth: unknown field"),
        (spoiled("unitz", value=[]), "unitz: unknown field"),
        (spoiled("units", value=None), "units: .*list"),
        (spoiled("fingerprint", value=["0"]), "fingerprint: .*dict"),
        (spoiled("fingerprint", "0", value=3), r"fingerprint\.0: .*string"),
        (spoiled("groups", value={"0": 2}), "groups: unknown field"),
        (spoiled("budget", value={"metric": "flops", "keep": 0.5, "achieved": 0.5}), r"budget\.metric: .*'macs'"),
        (spoiled("budget", value={"metric": "macs", "keep": 1.5, "achieved": 0.5}), r"budget\.keep: .*less than"),
        (spoiled("budget", value={"metric": "macs", "keep": float("nan"), "achieved": 0.5}), r"budget\.keep: "),
        (spoiled("costs", "macs", value=1.5), r"costs\.macs: .*integer"),
        (spoiled("costs", "macs", value=-5), r"costs\.macs: .*greater than or equal to 1"),
        (spoiled("costs", "dense_macs", value=0), r"costs\.dense_macs: .*greater than or equal to 1"),
        (spoiled("costs", "params", value=0), r"costs\.params: .*greater than or equal to 1"),
        (spoiled("costs", "dense_macs", value=10**400), r"costs\.dense_macs: .*less than or equal to 46"),
        (spoiled("units", 0, "channels", value=10**400), r"units\.0\.channels: .*less than or equal to 46116860184273"),
        (spoiled("units", 0, "members", 0, "step", value=10**400), r"members\.0\.step: .*less than or equal to 46"),
        (spoiled("costs", "macs", value=10**9), r"costs: .*macs is 1000000000; allowed are 1 to dense_macs, which is"),
        (spoiled("costs", "params", value=10**9), r"costs: .*params is 1000000000; allowed are 1 to dense_params"),
        (spoiled("fingerprint", "x" * 100_000, value=3), r"fingerprint\.x+\.\.\.: .*"),
        (spoiled("provenance", value={"seed": []}), r"provenance\.seed"),
        (spoiled("edits", value={"grope": {}}), "edits: there is no kind of edit 'grope'; did you mean 'group'"),
        (
            spoiled("edits", value={"group": {"0": {"inputs": [[0]], "filters": [[0], [1]]}}}),
            "edits: group, layer '0': inputs are given for 1 groups and filters for 2",
        ),
        (
            spoiled("edits", value={"group": {"0": {"inputs": [[0.5]], "filters": [[0]]}}}),
            r"edits: group, layer '0': inputs\.0\.0: given 0\.5; must be a valid integer",
        ),
    ],
    ids=lambda value: value[-40:] if len(value) < 80 else "",
)
def test_a_spoiled_plan_is_refused_with_the_field(path: Path, content: str, message: str) -> None:
    refused(path, content, f"is not a valid plan:\n.*{message}")


@pytest.mark.parametrize("key", ["units", "costs", "fingerprint"])
def test_a_plan_that_lacks_a_field_is_refused_with_its_name(path: Path, key: str) -> None:
    plan = document()
    del plan[key]
    refused(path, json.dumps(plan), f"is not a valid plan:\n  {key}: Field required")


@pytest.mark.parametrize("version", [0, 4, 99, "1", None, True, 1.0, [1], {"a": 1}])
def test_an_unknown_version_is_refused_with_the_one_that_is_read(path: Path, version: Any) -> None:
    message = rf"is a plan of version {re.escape(repr(version))}; this release reads versions 1 to 3\. Use the release"
    refused(path, spoiled("version", value=version), message)


def test_a_version_of_any_length_is_quoted_in_short(path: Path) -> None:
    refused(path, spoiled("version", value="9" * 100_000), r"is a plan of version '9+\.\.\.; this release reads")


@pytest.mark.parametrize("content", ["[]", "3", "null", '"plan"', "{}", '{"units": []}'])
def test_what_is_no_plan_object_is_refused(path: Path, content: str) -> None:
    refused(path, content, "is not a plan: a plan is a JSON object with a field 'version'")


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\x00" * 64,
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"version": ' + b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"version": ' + b"9" * 5_000 + b"}",
        b"PK\x03\x04" + b"\x00" * 100,
        '{"version": 1}'.encode("utf-16"),
    ],
    ids=lambda content: f"{content[:12]!r} of {len(content)}",
)
def test_what_is_no_json_is_refused(path: Path, content: bytes) -> None:
    refused(path, content, "is not a plan: it cannot be read as JSON")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_never_opened(path: Path, tmp_path: Path, protocol: int) -> None:
    mark = tmp_path.parent / f"{tmp_path.name}-unpickled"
    refused(path, pickle.dumps(Hostile(mark), protocol), "is not a plan: it cannot be read as JSON")
    assert not mark.exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_truncated_plan_is_refused(path: Path, share: float) -> None:
    PLAN.save(path)
    content = path.read_bytes().rstrip()
    refused(path, content[: int(share * (len(content) - 1))], "is not a plan: it cannot be read as JSON")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("version"), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_the_bytes_only_a_plan_error_is_raised(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(PlanError):
        PruningPlan.load(path)


@pytest.mark.parametrize("key", ["units", "costs", "budget", "provenance", "fingerprint", "groups", "version"])
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    )
)
def test_whatever_stands_in_a_field_it_loads_or_is_a_plan_error(path: Path, key: str, value: Any) -> None:
    path.write_text(spoiled(key, value=value))
    with contextlib.suppress(PlanError):
        assert isinstance(PruningPlan.load(path), PruningPlan)


def leaves(value: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The places of all values in a document, outer ones too."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, one in inner for found in leaves(one, (*place, key)))]


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), sealed=st.booleans())
def test_a_mutated_plan_is_refused_or_gives_the_network_that_it_describes(
    path: Path, data: st.DataObject, sealed: bool
) -> None:
    """Never another one; also where the mutation takes the digest away."""
    PLAN.save(path)
    plan = json.loads(path.read_text())
    units = plan["units"]
    place = data.draw(st.sampled_from(leaves(units)[1:]))
    *parents, key = place
    parent: Any = units
    for step in parents:
        parent = parent[step]
    if data.draw(st.booleans()):
        del parent[key]
    else:
        parent[key] = data.draw(st.none() | st.booleans() | st.integers(-1, 9) | st.sampled_from(["in", "out", "3"]))
    if not sealed:
        del plan["digest"]
        plan["version"] = 2
    path.write_text(json.dumps(plan))
    try:
        loaded = PruningPlan.load(path)
        small = loaded.apply(WALK.model)
    except PlanError:
        return
    dense, cut = dict(WALK.model.named_modules()), dict(small.named_modules())
    removed = loaded.removed_channels()
    for name, module in dense.items():
        if isinstance(module, nn.Conv2d | nn.Linear):
            rows, columns = (
                np.setdiff1d(np.arange(channels_of(module, side)), removed.get((name, side), []))
                for side in ("out", "in")
            )
            assert torch.equal(cut[name].weight, module.weight[rows][:, columns]), name
    if sealed:
        assert [unit.members for unit in loaded.units] == [unit.members for unit in PLAN.units]
        assert small(small_images()).shape == WALK.model(small_images()).shape


def test_a_missing_plan_is_refused_with_where_plans_are(tmp_path: Path) -> None:
    with pytest.raises(
        PlanError, match=r"There is no plan at .*nowhere\.json\. A run writes its plan to RUN/plan\.json"
    ):
        PruningPlan.load(tmp_path / "nowhere.json")


def test_a_folder_in_place_of_a_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="is not a plan: it cannot be read"):
        PruningPlan.load(tmp_path)


def test_a_plan_of_a_million_kept_channels_is_refused_at_once(path: Path) -> None:
    start = time.perf_counter()
    refused(path, spoiled("units", 0, "kept", value=list(range(1_000_000))), "keeps channel 8; allowed are 0 to 7")
    assert time.perf_counter() - start < 10


def test_a_plan_of_a_trillion_channels_is_refused_without_making_them(path: Path) -> None:
    path.write_text(spoiled("units", 0, "channels", value=10**12))
    with pytest.raises(PlanError, match=r"Unit '0' of the plan occupies channels of '0' \(out\) outside its 8"):
        PruningPlan.load(path).apply(chain())


class TestSavingIsAtomic:
    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_a_full_disk_leaves_the_earlier_plan_and_nothing_else(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        PLAN.save(path)
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full_disk)
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                WALK.plan({"0": 1}).save(path)
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]

    def test_a_full_disk_leaves_no_plan_where_there_was_none(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full_disk)
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                PLAN.save(path)
        assert list(path.parent.iterdir()) == []

    def test_a_new_plan_replaces_the_earlier_one_whole(self, path: Path) -> None:
        PLAN.save(path)
        WALK.plan({"0": 1}).save(str(path))
        assert PruningPlan.load(path) == WALK.plan({"0": 1})
        assert list(path.parent.iterdir()) == [path]

    def test_bytes_are_on_the_disk_before_the_name_is(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        steps = []
        for step in ("fsync", "replace"):
            call = getattr(os, step)
            monkeypatch.setattr(os, step, lambda *given, step=step, call=call: (steps.append(step), call(*given))[1])
        PLAN.save(path)
        assert steps == ["fsync", "replace"]


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

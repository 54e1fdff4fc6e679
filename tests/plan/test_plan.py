"""PruningPlan: plans are made from a walk, saved, loaded and compared; a plan that does not fit is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from zoo import body, build, chain, conv, imprint, random_plan, small_images, traced

from prune_env import LayerWalk, PruningPlan
from prune_env.common.errors import PlanError, PlanMismatchError
from prune_env.common.fingerprint import fingerprint, first_difference
from prune_env.common.text import shorten
from prune_env.plan import PlannedBudget, PlannedMember

WALK = LayerWalk.trace(chain(), small_images())


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    widths=st.fixed_dictionaries({}, optional={"0": st.integers(1, 8), "3": st.integers(1, 6)}),
    seed=st.integers(0, 99),
    budget=st.none() | st.floats(0.01, 1).map(lambda keep: PlannedBudget(metric="macs", keep=keep, achieved=keep)),
    provenance=st.dictionaries(
        st.text(max_size=5), st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    ),
)
def test_a_saved_plan_loads_equal(
    tmp_path: Path, widths: dict[str, int], seed: int, budget: PlannedBudget | None, provenance: dict
) -> None:
    scores = {unit.name: np.random.default_rng(seed).random(unit.channels) for unit in WALK.units}
    plan = WALK.plan(widths, scores, budget, provenance)
    plan.save(tmp_path / "plan.json")
    loaded = PruningPlan.load(tmp_path / "plan.json")
    assert loaded == plan
    assert loaded.widths == {"0": 8, "3": 6, "7": 5, **widths}
    assert loaded.kept == plan.kept
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "plan.json").read_bytes()


@pytest.mark.parametrize("name", ["squeezenet1_1", "regnet_y_400mf", "shufflenet_v2_x1_0"])
def test_the_plan_of_a_real_network_loads_equal(tmp_path: Path, name: str) -> None:
    plan = random_plan(traced(name).walk, seed=1)
    plan.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == plan


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_index_map_survives_its_short_form(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    if data.draw(st.booleans()):
        start, step, stride = (data.draw(st.integers(0, 9)) for _ in range(3))
        index = start + step * np.arange(rows)[:, None] + stride * np.arange(columns)[None, :]
    else:
        places = data.draw(st.permutations(range(rows * columns)))
        index = np.array(places, dtype=np.int64).reshape(rows, columns)
    member = PlannedMember.from_index("module", "in", index.astype(np.int64))
    assert np.array_equal(member.channels(rows), index)


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf"])
def test_the_file_has_one_line_for_each_member_and_says_its_version(tmp_path: Path, name: str) -> None:
    plan = random_plan(traced(name).walk, seed=1)
    plan.save(tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text()
    assert json.loads(text)["version"] == 3
    assert text.startswith('{\n "version": 3,\n "digest": "')
    lines = [line for line in text.splitlines() if '"module":' in line]
    assert len(lines) == sum(len(unit.members) for unit in plan.units)
    for line in lines:
        record, end = json.JSONDecoder().raw_decode(line.strip())
        assert {"module", "side"} <= set(record)
        assert not line.strip()[end:].strip("]},")
    assert len(text.splitlines()) < 4 * len(lines) + 2 * len(plan.fingerprint)


def test_maps_with_a_rule_are_written_without_their_index(tmp_path: Path) -> None:
    random_plan(traced("resnet18").walk, seed=1).save(tmp_path / "plan.json")
    assert '"index"' not in (tmp_path / "plan.json").read_text()


def test_diff_names_the_units_whose_widths_differ() -> None:
    wide, narrow = WALK.plan({"0": 6}), WALK.plan({"0": 3, "3": 6})
    assert wide.diff(narrow) == {"0": (6, 3)}
    assert narrow.diff(wide) == {"0": (3, 6)}
    assert wide.diff(wide) == {}


def test_diff_takes_a_missing_unit_for_width_zero() -> None:
    other = LayerWalk.trace(body(lambda _, x: x), small_images()).plan({})
    assert WALK.plan({"0": 6}).diff(other) == {"0": (6, 0), "3": (6, 0), "7": (5, 0)}


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        WALK.plan({}).costs.macs = 0


def small_net(**changes: nn.Module) -> nn.Module:
    parts = {"l": conv(8, 5), "n": nn.BatchNorm2d(5), "r": conv(5, 8)} | changes
    return body(lambda net, x: net.r(net.n(net.l(x))), **parts)


class TestAnotherNetworkIsRefused:
    PLAN = LayerWalk.trace(small_net(), small_images()).plan({"a": 3, "l": 2})

    @pytest.mark.parametrize(
        ("changes", "difference"),
        [
            ({"l": nn.Linear(8, 5)}, r"'l' is Conv2d 8->5 3x3 groups=1 bias in the plan and Linear 8->5 bias"),
            ({"l": conv(8, 6)}, r"'l' is Conv2d 8->5 3x3 groups=1 bias in the plan and Conv2d 8->6 3x3"),
            ({"l": conv(8, 5, 1)}, r"'l' is Conv2d 8->5 3x3 .* and Conv2d 8->5 1x1 groups=1 bias in the network"),
            ({"l": conv(8, 5, bias=False)}, r"'l' is .* groups=1 bias in the plan and Conv2d 8->5 3x3 groups=1 in "),
            ({"r": conv(5, 8, groups=1), "n": nn.Identity()}, r"'n' is BatchNorm2d .* in the plan and Identity in"),
            ({"n": nn.BatchNorm2d(7)}, r"'n' is BatchNorm2d weight\[5\].* and BatchNorm2d weight\[7\]"),
            ({"l": nn.ReLU(), "r": nn.ReLU()}, r"'l' is Conv2d 8->5 .* and ReLU in the network"),
            ({"extra": conv(8, 8)}, r"'extra' is Conv2d 8->8 3x3 groups=1 bias in the network and unknown to the plan"),
        ],
    )
    def test_with_the_first_module_that_differs(self, changes: dict[str, nn.Module], difference: str) -> None:
        with pytest.raises(
            PlanMismatchError, match="made for another network. First module that differs: " + difference
        ):
            self.PLAN.apply(small_net(**changes))

    def test_with_the_first_module_that_is_missing(self) -> None:
        shorter = small_net()
        del shorter.n
        with pytest.raises(PlanMismatchError, match=r"differs: 'n' is BatchNorm2d .* and missing in the network"):
            self.PLAN.apply(shorter)

    def test_with_the_first_block_that_is_too_many(self) -> None:
        plan = traced("cifar_resnet20").walk.plan({})
        with pytest.raises(PlanMismatchError, match=r"differs: 'layer1\.3' is BasicBlock in the network and unknown"):
            plan.apply(traced("cifar_resnet56").model)

    def test_with_the_first_block_that_is_missing(self) -> None:
        plan = traced("cifar_resnet56").walk.plan({})
        with pytest.raises(PlanMismatchError, match=r"differs: 'layer1\.3' is BasicBlock in the plan and missing"):
            plan.apply(traced("cifar_resnet20").model)

    def test_also_where_the_plan_cuts_nothing(self) -> None:
        with pytest.raises(PlanMismatchError):
            WALK.plan({}).apply(small_net())

    def test_also_where_it_is_the_cut_network_itself(self) -> None:
        plan = WALK.plan({"0": 4})
        with pytest.raises(PlanMismatchError, match=r"differs: '0' is Conv2d 3->8 .* and Conv2d 3->4"):
            plan.apply(plan.apply(WALK.model))

    def test_and_left_as_it_is(self) -> None:
        other = small_net(l=conv(8, 6))
        before = imprint(other)
        with pytest.raises(PlanMismatchError):
            self.PLAN.apply(other)
        assert imprint(other) == before

    def test_in_a_short_line_however_long_the_description_in_the_plan_is(self) -> None:
        hostile = self.PLAN.model_copy(update={"fingerprint": {**self.PLAN.fingerprint, "l": "Conv2d\n" * 15_000}})
        with pytest.raises(
            PlanMismatchError, match=r"'l' is Conv2d Conv2d .*\.\.\. in the plan and Conv2d 8->5"
        ) as caught:
            hostile.apply(small_net())
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)

    def test_but_other_weights_of_the_same_network_are_taken(self) -> None:
        plan = traced("resnet18").walk.plan({"layer1.0.conv1": 10})
        assert plan.apply(build("resnet18", seed=5)).layer1[0].conv1.out_channels == 10


def test_the_order_of_differences_is_the_networks_order() -> None:
    plan, found = {"a": "1", "b": "2", "c": "3"}, {"a": "1", "x": "0", "b": "2", "c": "9"}
    assert first_difference(plan, found) == "'x' is 0 in the network and unknown to the plan"
    assert first_difference(plan, {"a": "1", "c": "9"}) == "'b' is 2 in the plan and missing in the network"
    assert first_difference(plan, dict(plan)) is None


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("a" * 120, "a" * 120),
        ("a" * 121, "a" * 117 + "..."),
        ("a\n  b", "a b"),
        (" " * 1000, "..."),
        ("", ""),
    ],
    ids=["fits", "too long", "lines", "blank", "empty"],
)
def test_a_text_is_shortened_to_one_line(text: str, short: str) -> None:
    assert shorten(text) == short


def test_a_fingerprint_reads_every_module_once_in_order() -> None:
    model = traced("mobilenet_v2").model
    assert list(fingerprint(model)) == [name for name, _ in model.named_modules() if name]


def without_digest(folder: Path, document: dict[str, Any]) -> PruningPlan:
    """The plan of a document, read as a file of version 2."""
    document.pop("digest", None)
    (folder / "plan.json").write_text(json.dumps({**document, "version": 2}))
    return PruningPlan.load(folder / "plan.json")


class TestATamperedMember:
    """The file passes the schema and has no digest, as those of version 2, but its units do not fit the network."""

    @staticmethod
    def load(tmp_path: Path, change: dict, unit: int = 0, member: int = -1) -> PruningPlan:
        WALK.plan({"0": 5, "3": 4}).save(tmp_path / "plan.json")
        document = json.loads((tmp_path / "plan.json").read_text())
        document["units"][unit]["members"][member].update(change)
        return without_digest(tmp_path, document)

    @pytest.mark.parametrize(
        "change",
        [
            {"start": 1},
            {"start": 8},
            {"step": 2},
            {"repeat": 2},
            {"repeat": 10**12},
            {"start": 2**62},
            {"stride": 2**62, "repeat": 2},
            {"index": [[0], [1], [2], [3], [4], [5], [6], [8]]},
            {"index": [[-1], [1], [2], [3], [4], [5], [6], [7]]},
            {"index": [[0], [1], [2], [3], [4], [5], [6], [10**30]]},
            {"module": "no such module"},
            {"module": "x" * 100_000},
            {"module": "2"},
            {"module": ""},
        ],
        ids=lambda change: str(change)[:80],
    )
    def test_outside_its_module_is_refused(self, tmp_path: Path, change: dict) -> None:
        plan = self.load(tmp_path, change)
        with pytest.raises(
            PlanError, match=r"Unit '0' of the plan occupies channels of '.* \(in\) outside its"
        ) as caught:
            plan.apply(chain())
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize("change", [{"start": 10**30}, {"stride": 10**30, "repeat": 2}], ids=str)
    def test_with_a_number_that_no_array_holds_is_refused_when_it_is_read(self, tmp_path: Path, change: dict) -> None:
        key = next(iter(change))
        with pytest.raises(PlanError, match=rf"units\.0\.members\.\d\.{key}: must be less than or equal to"):
            self.load(tmp_path, change)

    def test_that_claims_a_channel_twice_is_refused(self, tmp_path: Path) -> None:
        plan = self.load(tmp_path, {"index": [[0], [0], [2], [3], [4], [5], [6], [7]]})
        with pytest.raises(PlanError, match=r"claims channel 0 of '3' \(in\) more than once.*make a new plan"):
            plan.apply(chain())

    def test_that_claims_another_units_channels_is_refused(self, tmp_path: Path) -> None:
        plan = self.load(tmp_path, {"module": "0", "side": "out"}, unit=1, member=0)
        with pytest.raises(PlanError, match=r"claims channel 0 of '0' \(out\) more than once"):
            plan.apply(chain())

    def test_that_cuts_groups_unequally_is_refused(self, tmp_path: Path) -> None:
        net = body(lambda net, x: net.g(x), g=conv(8, 8, groups=2))
        LayerWalk.trace(net, small_images()).plan({"a": 2}).save(tmp_path / "plan.json")
        document = json.loads((tmp_path / "plan.json").read_text())
        for member in document["units"][0]["members"]:
            member["index"] = [[0, 1], [2, 3], [4, 5], [6, 7]]
        document["units"][0]["kept"] = [0, 1, 2]
        with pytest.raises(PlanError, match=r"cuts the 2 groups of 'g' \(in\) unequally"):
            without_digest(tmp_path, document).apply(net)

    @pytest.mark.parametrize(("gone", "words"), [(0, "writes its channels"), (-1, "reads its channels")])
    def test_that_lacks_the_writer_or_the_reader_of_a_cut_unit_is_refused(
        self, tmp_path: Path, gone: int, words: str
    ) -> None:
        WALK.plan({"0": 5}).save(tmp_path / "plan.json")
        document = json.loads((tmp_path / "plan.json").read_text())
        del document["units"][0]["members"][gone]
        with pytest.raises(PlanError, match=rf"Unit '0' of the plan is cut, but no layer among its members {words}"):
            without_digest(tmp_path, document).apply(chain())

    @pytest.mark.parametrize("side", ["in", "out"])
    def test_that_cuts_one_side_of_a_depthwise_convolution_is_refused(self, tmp_path: Path, side: str) -> None:
        net = body(lambda net, x: net.d(x), d=conv(8, 8, groups=8))
        LayerWalk.trace(net, small_images()).plan({"a": 2}).save(tmp_path / "plan.json")
        document = json.loads((tmp_path / "plan.json").read_text())
        (unit,) = [unit for unit in document["units"] if len(unit["kept"]) == 2]
        unit["members"] = [one for one in unit["members"] if (one["module"], one["side"]) != ("d", side)]
        with pytest.raises(PlanError, match=r"keeps \d inputs and \d outputs of 'd', which is depthwise"):
            without_digest(tmp_path, document).apply(net)

    def test_that_a_free_unit_shares_with_a_protected_one_is_refused(self, tmp_path: Path) -> None:
        WALK.plan({"0": 5}).save(tmp_path / "plan.json")
        document = json.loads((tmp_path / "plan.json").read_text())
        protected = next(unit for unit in document["units"] if "protected" in unit)
        document["units"][0]["members"].append({"module": protected["members"][0]["module"], "side": "out"})
        document["units"][0]["channels"] = 5
        document["units"][0]["kept"] = [0, 1, 2]
        with pytest.raises(PlanError, match=r"claims channel 0 of '7' \(out\) more than once"):
            without_digest(tmp_path, document).apply(chain())

    def test_leaves_the_network_as_it_is(self, tmp_path: Path) -> None:
        plan, model = self.load(tmp_path, {"start": 1}), chain()
        before = imprint(model)
        with pytest.raises(PlanError):
            plan.apply(model)
        assert imprint(model) == before

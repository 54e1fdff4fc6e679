"""The report: it is complete, contains no scripts, and says which searches beat ddpg."""

import copy
import json
import re
import shutil
from base64 import b64decode
from html import unescape
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from toy import rows_of, toy_problem, toy_walk

from prune_env import RunConfig
from prune_env.commands.report import report
from prune_env.common.errors import PlanError, RunError
from prune_env.common.records import checked
from prune_env.plan import PruningPlan
from prune_env.report.page import verdicts, write_report
from prune_env.report.run_record import Summary, read_run
from prune_env.runs.run_directory import RunDirectory

EVIL = "<script>alert('x')</script>"
CONFIG = RunConfig.from_mapping({"model": {"name": f"toy {EVIL}"}, "data": {"name": "noise"}})


def row(name: str, reward: float, test: float | None, share: float, milliseconds: float = 3.0) -> dict:
    latency = {"median": milliseconds, "q1": milliseconds - 0.1, "q3": milliseconds + 0.1}
    macs, params = int(100_000 * share), int(5_000 * share)
    return {
        "name": name,
        "reward_accuracy": reward,
        "test_accuracy": test,
        "macs": macs,
        "params": params,
        "latency_ms": latency,
    }


SUMMARY = {
    "model": f"toy {EVIL}",
    "search": "ddpg",
    "budget": {"metric": "macs", "keep": 0.5},
    "rows": [
        row("dense", 0.934, 0.93, 1.0),
        row("uniform", 0.87, 0.861, 0.5),
        row("ddpg", 0.919, 0.909, 0.49),
    ],
    "best_reward": -0.081,
    "threads": 2,
    "device": "cpu",
    "batch_size": 32,
    "episodes": 6,
    "evaluations": 11,
    "seconds": 12.0,
    "seconds_per_evaluation": 1.25,
    "command": f"prune-env train configs/toy.yaml model.name='{EVIL}'",
}

SENSITIVITY = {
    "layers": [
        {
            "layer": f"mid{EVIL}",
            "unit": "mid",
            "height": 4,
            "width": 5,
            "low_rank_share": 0.75,
            "mean_rank": 0.31,
            "histogram": [5, 4, 3, 0, 0, 0, 0, 0, 0, 4],
        }
    ],
    "sensitive": {"mid": "sensitive: 75% of the maps of mid are low-rank (threshold 50%)"},
    "rank_threshold": 0.5,
    "layer_threshold": 0.5,
}


@pytest.fixture(scope="module")
def problem():
    return toy_problem(toy_walk(protect={"mid": f"mine {EVIL}"}), keep=0.8)


@pytest.fixture(scope="module")
def finished(problem, tmp_path_factory) -> RunDirectory:
    """A finished run as `prune-env train` leaves it, with its report; not to be changed."""
    run = RunDirectory.create(tmp_path_factory.mktemp("runs") / "run")
    run.write_config(CONFIG)
    generator = np.random.default_rng(0)
    for number, kind in enumerate(["probe", "uniform", *["ddpg"] * 6]):
        widths = problem.budget.uniform() if kind == "uniform" else generator.integers(2, problem.budget.channels + 1)
        plan = problem.plan(widths)
        run.append_evaluation(
            {
                "number": number,
                "kind": kind,
                "widths": problem.budget.names(widths),
                "reward": -0.9 + 0.1 * number,
                "accuracy": 0.1 + 0.1 * number,
                "images": None,
                "loss": 1.0,
                "macs": plan.costs.macs,
                "params": plan.costs.params,
                "cached": False,
                "seconds": 0.1,
            }
        )
    plan.save(run.plan)
    run.write_json(run.summary, SUMMARY)
    run.write_json(run.sensitivity, SENSITIVITY)
    write_report(run)
    return run


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> RunDirectory:
    """A finished run to change, without the time that drawing takes."""
    monkeypatch.setattr("prune_env.report.page.figure_png", lambda _: b"picture")
    shutil.copytree(finished.root, tmp_path / "run")
    return RunDirectory.open(tmp_path / "run")


class Reader(HTMLParser):
    """Reads a page: its tags, and the texts of its table rows."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if any(tag in self.open for tag in ("td", "th")):
            self.rows[-1][-1] += data


def read_page(run: RunDirectory) -> Reader:
    reader = Reader()
    reader.feed(run.report.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def with_rows(*rows: dict) -> dict:
    return {**copy.deepcopy(SUMMARY), "rows": list(rows)}


def summary_of(*rows: dict) -> Summary:
    renamed = [{key.replace("_accuracy", "_quality"): value for key, value in row.items()} for row in rows]
    return checked(with_rows(*renamed), Summary, "summary.json")


def page_of(run: RunDirectory, summary: dict) -> str:
    run.write_json(run.summary, summary)
    return unescape(write_report(run).read_text(encoding="utf-8"))


def test_the_report_is_a_page_and_a_picture_in_the_run(finished, run):
    picture = Image.open(finished.root / "report.png")
    assert picture.format == "PNG"
    assert picture.size == (1350, 1020)
    assert write_report(run) == run.root / "report.html"
    assert {path.name for path in run.root.iterdir()} == {path.name for path in finished.root.iterdir()}


def test_nothing_in_the_page_runs_or_is_fetched(finished):
    reader = read_page(finished)
    assert {tag for tag, _ in reader.tags} & {"script", "link", "iframe", "object", "a"} == set()
    for tag, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:image/png").startswith("data:image/png")
        assert "href" not in attributes
        assert tag != "img" or attributes["alt"]
    page = finished.report.read_text()
    assert "url(" not in page
    assert "@import" not in page
    assert "prefers-color-scheme:dark" in page
    assert '<meta name="viewport"' in page


def test_text_from_the_user_is_escaped_wherever_it_stands(run, problem):
    document = json.loads(run.plan.read_text())
    document["units"][0]["name"] = EVIL
    del document["digest"]
    run.plan.write_text(json.dumps({**document, "version": 2}))
    lines = "".join(json.dumps(line) + "\n" for line in rows_of(run))
    run.evaluations_file.write_text(lines.replace(f'"{problem.budget.units[0].name}"', json.dumps(EVIL)))
    write_report(run)
    reader = read_page(run)
    cells = [cell for line in reader.rows for cell in line]
    assert EVIL in cells
    assert f"mine {EVIL}" in cells
    assert f"mid{EVIL}" in cells
    page = run.report.read_text()
    assert "<script" not in page
    assert unescape(page).count(EVIL) >= 6


def test_every_result_row_is_there_with_its_numbers(finished):
    rows = {line[0]: line for line in read_page(finished).rows if line}
    assert rows["dense"][1:4] == ["93.40%", "93.00%", "100,000 (100.0%)"]
    assert rows["uniform"][1:4] == ["87.00%", "86.10%", "50,000 (50.0%)"]
    assert rows["ddpg"][1:] == ["91.90%", "90.90%", "49,000 (49.0%)", "2,450 (49.0%)", "3.00 (2.90 to 3.10)"]


def test_what_was_not_measured_is_said_so(run):
    agent = {**row("ddpg", 0.9, None, 0.5), "latency_ms": None}
    page = page_of(run, with_rows(row("dense", 0.934, None, 1.0), agent))
    assert page.count("not measured") == 3


def test_every_unit_of_the_plan_is_there(finished, problem):
    rows = {line[0]: line for line in read_page(finished).rows if line}
    plan = PruningPlan.load(finished.plan)
    uniform = problem.budget.names(problem.budget.uniform())
    for unit in plan.units:
        kept = len(unit.kept)
        expected = [str(unit.channels), str(kept), f"{kept / unit.channels:.0%}"]
        assert rows[unit.name][1:4] == expected
        assert rows[unit.name][5:] == [str(uniform.get(unit.name, unit.channels)), unit.protected or ""]


def test_the_evidence_for_sensitive_layers_is_there_where_there_is_any(run):
    rows = {line[0]: line for line in read_page(run).rows if line}
    assert rows[f"mid{EVIL}"][1:] == ["4 x 5", "75%", "0.31", "", "sensitive"]
    assert 'aria-label="5 4 3 0 0 0 0 0 0 4"' in run.report.read_text()
    run.sensitivity.unlink()
    assert "Evidence" not in write_report(run).read_text()


def test_the_pictures_are_in_the_page(finished):
    sources = [attributes["src"] for tag, attributes in read_page(finished).tags if tag == "img"]
    assert len(sources) == 4
    for source in sources:
        picture = Image.open(BytesIO(b64decode(source.removeprefix("data:image/png;base64,"))))
        assert picture.size[0] == 1350


def test_settings_versions_and_command_are_there(finished):
    reader = read_page(finished)
    page = unescape(finished.report.read_text())
    assert SUMMARY["command"] in page
    assert finished.config.read_text() in page
    names = [line[0] for line in reader.rows]
    assert {"python", "torch", "numpy"} <= set(names)


def test_a_beaten_uniform_plan_is_said_so(run):
    page = page_of(run, SUMMARY)
    assert "On the reward set ddpg beats uniform by 4.90 points: 91.90% against 87.00%." in page
    assert "beats ddpg" not in page


def test_a_uniform_plan_that_wins_is_said_so(run):
    rows = (row("dense", 0.934, 0.93, 1.0), row("uniform", 0.9, 0.85, 0.5), row("ddpg", 0.88, 0.86, 0.5))
    page = page_of(run, with_rows(*rows))
    assert "On the reward set uniform beats ddpg by 2.00 points: 90.00% against 88.00%." in page
    assert "On the test set ddpg beats uniform by 1.00 points: 86.00% against 85.00%." in page
    assert 'class="verdict behind"' in page


@pytest.mark.parametrize(
    ("uniform", "agent", "expected"),
    [
        (row("uniform", 0.9, None, 0.5), row("ddpg", 0.9, None, 0.5), [("as good as ddpg", False)]),
        (row("uniform", 0.8, None, 0.5, 2.0), row("ddpg", 0.9, None, 0.5, 3.0), [("beats", True), ("slower", False)]),
        (row("uniform", 0.8, None, 0.5, 3.0), row("ddpg", 0.9, None, 0.5, 2.0), [("beats", True), ("faster", True)]),
        (row("uniform", 0.8, None, 0.5, 3.0), row("ddpg", 0.9, None, 0.5, 2.9), [("beats", True)]),
    ],
    ids=["equal", "slower", "faster", "within the spread"],
)
def test_ties_and_speed_are_told(uniform, agent, expected):
    found = verdicts(summary_of(row("dense", 0.95, None, 1.0), uniform, agent))
    assert [ahead for _, ahead in found] == [ahead for _, ahead in expected]
    for (text, _), (words, _) in zip(found, expected, strict=True):
        assert words in text


def test_other_searches_are_compared_too():
    rows = (row("dense", 0.95, None, 1.0), row("random", 0.9, None, 0.5), row("ddpg", 0.8, None, 0.5))
    ((text, ahead),) = verdicts(summary_of(*rows))
    assert text.startswith("On the reward set random beats ddpg")
    assert not ahead


def test_a_run_without_episodes_or_uniform_plan_has_a_report(run):
    run.evaluations_file.unlink()
    write_report(run)
    sources = [tag for tag, _ in read_page(run).tags if tag == "img"]
    assert len(sources) == 3


def test_the_report_reads_what_the_run_left(finished, problem):
    record = read_run(finished)
    assert [one.proposed_by for one in record.tried] == ["dense", "probe", "uniform", *["ddpg"] * 6]
    assert record.uniform == problem.budget.names(problem.budget.uniform())
    assert record.history.shape == (6, len(problem.budget.units))
    assert record.free == [unit.name for unit in problem.budget.units]
    widths = rows_of(finished)[-1]["widths"]
    assert record.history[-1] == pytest.approx([widths[unit.name] / unit.channels for unit in problem.budget.units])


def test_a_plan_that_was_stopped_early_keeps_its_reward_but_has_no_accuracy(run):
    *lines, last = rows_of(run)
    raced = {**last, "images": 12}
    run.evaluations_file.write_text("".join(json.dumps(line) + "\n" for line in (*lines, raced)))
    tried = read_run(run).tried
    assert np.isnan(tried[-1].quality)
    assert tried[-1].reward == raced["reward"]
    assert tried[-1].macs_share > 0
    assert not any(np.isnan(one.quality) for one in tried[:-1])
    assert len(read_run(run).history) == 6
    write_report(run)


def test_an_unfinished_run_is_refused_in_words(run):
    run.summary.unlink()
    run.report.unlink()
    with pytest.raises(RunError, match=r"has no summary\.json.*Let the run finish"):
        write_report(run)
    assert not run.report.exists()


def test_a_run_without_a_plan_is_refused_in_words(run):
    run.plan.unlink()
    with pytest.raises(PlanError, match="There is no plan"):
        write_report(run)


LINE = {
    "kind": "ddpg",
    "widths": {"x": 1},
    "macs": 1,
    "params": 1,
    "reward": 0,
    "accuracy": 0,
    "loss": 0,
    "images": None,
    "cached": False,
    "seconds": 0,
}
"""An evaluation of another network."""


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("summary.json", "{", r"summary\.json' cannot be read"),
        ("summary.json", "[" * 100_000, r"summary\.json' cannot be read"),
        ("summary.json", "{}", r"is damaged: model: Field required"),
        (
            "summary.json",
            json.dumps({**SUMMARY, "rows": []}),
            r"is damaged: rows: given \[\]; List should have at least 1",
        ),
        ("summary.json", json.dumps({**SUMMARY, "threads": "many"}), r"is damaged: threads: given 'many'; must be"),
        ("summary.json", json.dumps({**SUMMARY, "digest": ""}), r"summary\.json' is damaged or was changed: digest"),
        ("sensitivity.json", "[]", r"sensitivity\.json' is damaged: it is not a JSON object"),
        (
            "sensitivity.json",
            json.dumps({**SENSITIVITY, "layers": 3}),
            r"sensitivity\.json' is damaged: layers: given 3",
        ),
        (
            "evaluations.jsonl",
            '{"kind": "ddpg"}\n',
            r"evaluations\.jsonl', line 1 is damaged: accuracy: Field required",
        ),
        ("evaluations.jsonl", json.dumps(LINE) + "\n", r"line 1 is damaged: widths: they are not of the network"),
        (
            "evaluations.jsonl",
            json.dumps({**LINE, "widths": {"x": float("inf")}}) + "\n",
            r"line 1 is damaged: widths\.x: given inf; must be",
        ),
        ("evaluations.jsonl", json.dumps({**LINE, "widths": 3}) + "\n", "line 1 is damaged: widths: given 3"),
    ],
)
def test_a_damaged_file_is_refused_in_words_and_the_earlier_report_stays(run, file, text, words):
    before = run.report.read_bytes()
    (run.root / file).write_text(text)
    with pytest.raises(RunError, match=words):
        write_report(run)
    assert run.report.read_bytes() == before


STRIPES = {"stripes": {"stem": 72}, "whole": {}}


@pytest.mark.parametrize(
    ("measured", "stripes", "words"),
    [
        *[
            (
                text,
                None,
                rf"stripes\.json' is damaged: stripes\.stem: given {given}; must be",
            )
            for text, given in (
                ('{"stripes": {"stem": 0}}', "0"),
                ('{"stripes": {"stem": -3}}', "-3"),
                ('{"stripes": {"stem": 9.7}}', r"9\.7"),
                ('{"stripes": {"stem": Infinity}}', "inf"),
                ('{"stripes": {"stem": true}}', "True"),
                ('{"stripes": {"stem": "x"}}', "'x'"),
            )
        ],
        ('{"stripes": [1]}', None, r"stripes\.json' is damaged: stripes: given \[1\]; must be"),
        ("[]", None, r"stripes\.json' is damaged: it is not a JSON object"),
        *[
            (
                None,
                {"stem": given},
                rf"evaluations\.jsonl', line 1 is damaged: stripes\.stem: given {words}; .* 1 to 72",
            )
            for given, words in (("3", "'3'"), (None, "None"), (0, "0"), (73, "73"), (3.5, r"3\.5"), ([], r"\[\]"))
        ],
        (None, [3], r"evaluations\.jsonl', line 1 is damaged: stripes: given \[3\]; must be a number for each layer"),
        (None, 3, r"evaluations\.jsonl', line 1 is damaged: stripes: given 3"),
        (None, 0, r"evaluations\.jsonl', line 1 is damaged: stripes: given 0"),
    ],
)
def test_damaged_stripes_are_refused_by_file_and_layer(run, measured, stripes, words):
    run.write_config(RunConfig.from_mapping({**CONFIG.model_dump(), "granularity": {"name": "stripe"}}))
    (run.root / "stripes.json").write_text(json.dumps(STRIPES))
    if measured is not None:
        (run.root / "stripes.json").write_text(measured)
    if stripes is not None:
        first, *others = rows_of(run)
        lines = [json.dumps(line) + "\n" for line in ({**first, "stripes": stripes}, *others)]
        run.evaluations_file.write_text("".join(lines))
    with pytest.raises(RunError, match=words):
        write_report(run)


def test_stripes_that_a_record_does_not_name_are_whole(run):
    run.write_config(RunConfig.from_mapping({**CONFIG.model_dump(), "granularity": {"name": "stripe"}}))
    (run.root / "stripes.json").write_text(json.dumps(STRIPES))
    assert [one["stripes"] for one in read_run(run).series] == [{"stem": 1.0}] * 6


def test_the_command_prints_the_path(run, capsys):
    report(run.root)
    assert capsys.readouterr().out.strip() == str(run.report)
    assert re.search(r"<h1>toy .* at 50% of the MACs</h1>", run.report.read_text())


def test_the_command_refuses_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match="is not a run directory"):
        report(tmp_path)

"""The report: it is complete, runs only its own scripts, and says which searches beat ddpg."""

import copy
import json
import re
import shlex
import shutil
from base64 import b64encode
from dataclasses import asdict
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from made_run import CONFIG, EVIL, IMAGES, SENSITIVITY, SHOWN, SUMMARY, made_problem, made_run, row
from PIL import Image
from safetensors.torch import save_file
from toy import rows_of

from prune_env import RunConfig
from prune_env.commands.report import report
from prune_env.common.errors import PlanError, RunError
from prune_env.common.records import checked
from prune_env.common.tensor_records import to_tensor_file
from prune_env.common.text import printable
from prune_env.plan import PruningPlan
from prune_env.recover import Epoch
from prune_env.report.page import write_report
from prune_env.report.reading import best_rewards_of, read_run
from prune_env.report.verdicts import verdicts
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.summaries import Summary
from prune_env.runs.training_folder import TrainingFolder


@pytest.fixture(scope="module")
def problem():
    return made_problem()


@pytest.fixture(scope="module")
def finished(problem, tmp_path_factory) -> RunDirectory:
    """A finished run with its report; not to be changed."""
    run = made_run(tmp_path_factory.mktemp("runs") / "run", problem)
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
        self.scripts: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "script":
            self.scripts.append("")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if any(tag in self.open for tag in ("td", "th")):
            self.rows[-1][-1] += data
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data

    @property
    def data(self) -> dict:
        """The data of the charts."""
        return json.loads(self.scripts[0])


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


def test_the_page_runs_its_own_scripts_alone_and_fetches_nothing(finished):
    reader = read_page(finished)
    policy = next(
        about["content"] for tag, about in reader.tags if about.get("http-equiv") == "Content-Security-Policy"
    )
    hashes = [b64encode(sha256(script.encode()).digest()).decode() for script in reader.scripts[1:]]
    assert policy.split("; ")[0] == "default-src 'none'"
    assert policy.split("script-src ")[1] == " ".join(f"'sha256-{one}'" for one in hashes)
    assert [about.get("type") for tag, about in reader.tags if tag == "script"] == ["application/json", None, None]
    assert {tag for tag, _ in reader.tags} & {"link", "iframe", "object", "a"} == set()
    for tag, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:image/png").startswith("data:image/png")
        assert "href" not in attributes
        assert tag != "img" or attributes["alt"]
    style = finished.report.read_text().split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme:dark" in style
    assert "@media print" in style
    assert any(about.get("name") == "viewport" for tag, about in reader.tags if tag == "meta")


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
    assert SHOWN in cells
    assert f"mine {SHOWN}" in cells
    assert f"mid{SHOWN}" in cells
    page = run.report.read_text()
    assert "<script>alert" not in page
    assert page.count("<script") == 3
    assert not set("\u202e\x07") & set(page)
    assert SHOWN in reader.data["names"]
    assert reader.data["tables"]["units"][0]["unit"] == SHOWN
    assert shlex.quote(f"model.name={SHOWN}") in unescape(page)


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
        assert rows[unit.name][5] == str(uniform.get(unit.name, unit.channels))
        assert rows[unit.name][-1] == printable(unit.protected or "")


def test_the_evidence_for_sensitive_layers_is_there_where_there_is_any(run):
    rows = {line[0]: line for line in read_page(run).rows if line}
    assert rows[f"mid{SHOWN}"][1:] == ["4 x 5", "75%", "0.31", "", "sensitive"]
    assert 'aria-label="5 4 3 0 0 0 0 0 0 4"' in run.report.read_text()
    run.sensitivity.unlink()
    assert "Evidence" not in write_report(run).read_text()


def test_the_charts_are_in_the_page_with_their_data(finished, problem):
    reader = read_page(finished)
    data, places = reader.data, {about.get("id"): about for _, about in reader.tags}
    for name in data["charts"]:
        assert places[name]["role"] == "img"
        assert places[name]["aria-label"]
    assert set(data["charts"]) == {"keep_ratios", "rewards", "front_macs", "front_params", "history", "latency"}
    records = rows_of(finished)
    plans = {plan["number"]: plan for plan in data["tables"]["plans"] if plan["by"] != "dense"}
    assert len(plans) == len(records)
    for record in records:
        assert plans[record["number"]]["quality"] == pytest.approx(record["accuracy"])
        assert plans[record["number"]]["macs"] == pytest.approx(record["macs"] / problem.walk.macs(), rel=1e-5)
        assert data["widths"][str(record["number"])] == list(record["widths"].values())
    assert data["best"] == 7
    assert [row["name"] for row in data["tables"]["networks"]] == ["dense", "uniform", "ddpg"]


def test_every_plan_tried_is_in_the_table_with_a_button(finished):
    reader = read_page(finished)
    buttons = [about["data-trial"] for tag, about in reader.tags if tag == "button" and "data-trial" in about]
    assert buttons == [str(record["number"]) for record in rows_of(finished)]
    row = next(row for row in reader.rows if row and row[0] == "7")
    assert row[1:4] == ["ddpg", "-0.3000", "80.00%"]


def test_the_best_so_far_counts_evaluations_as_a_comparison_does():
    given = [("uniform", 0.5), ("probe", 0.9), ("ddpg", 0.3), ("probe", 0.8), ("ddpg", 0.2), ("ddpg", 0.6)]
    assert best_rewards_of(given) == [0.5, 0.5, 0.3, 0.3, 0.3, 0.6]


def test_costs_and_sensitivity_of_a_unit_are_in_its_hover_text(run, problem):
    record = problem.as_record()
    run.write_json(run.problem, record)
    probes = [
        {**rows_of(run)[0], "loss": record["dense"]["loss"] + 0.25 * number}
        for number in range(len(problem.budget.units))
    ]
    others = rows_of(run)[1:]
    lines = [{**line, "number": number} for number, line in enumerate([*probes, *others])]
    run.evaluations_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report(run)
    rows = {row["unit"]: row for row in read_page(run).data["tables"]["units"]}
    for number, unit in enumerate(problem.budget.units):
        least = problem.budget.names(problem.budget.least)[unit.name]
        saved = 1 - problem.walk.macs({unit.name: least}) / problem.walk.macs()
        assert rows[unit.name]["saves_macs"] == pytest.approx(saved, rel=1e-5)
        assert rows[unit.name]["loss_rise"] == pytest.approx(0.25 * number, rel=1e-5, abs=1e-6)
    assert rows["mid"]["low_rank"] == 0.75
    assert rows["mid"]["saves_macs"] == 0


def test_a_fine_tuning_has_its_row_its_headline_and_its_curves(run):
    place = TrainingFolder(run.root / "finetune")
    place.root.mkdir()
    place.write_config(CONFIG)
    epochs = [Epoch(number, 1 / number, 0.1, 2.0, 0.0, 0.8 + 0.01 * number) for number in (1, 2, 3)]
    header = {"epochs": [asdict(epoch) for epoch in epochs], "execution": {}, "facts": {}}
    place.checkpoint.write_bytes(to_tensor_file(header, {"x": torch.zeros(1)}))
    save_file({"x": torch.zeros(1)}, place.start)
    write_report(run)
    assert f"3 of {CONFIG.finetune.epochs} epochs" in run.report.read_text()
    assert [row["quality"] for row in read_page(run).data["tables"]["epochs"]] == pytest.approx([0.81, 0.82, 0.83])
    rows = [row("dense", 0.934, 0.93, 1.0), row("recalibrated", 0.9, 0.9, 0.49), row("fine-tuned", 0.95, 0.925, 0.49)]
    place.write_json(place.summary, {"rows": rows, "seconds": 6.0})
    page = unescape(write_report(run).read_text())
    assert {line[0]: line for line in read_page(run).rows if line}["fine-tuned"][2] == "92.50%"
    assert (
        "<dt>accuracy, fine-tuned</dt><dd>92.50%</dd><dd>\N{MINUS SIGN}0.50 points against dense, test set</dd>" in page
    )


def test_settings_versions_and_command_are_there(finished):
    reader = read_page(finished)
    page = unescape(finished.report.read_text())
    told = shlex.join(["prune-env", "train", ".../toy.yaml", f"model.name={SHOWN}", "data.path=.../images"])
    assert told in page
    assert finished.config.read_text().replace(IMAGES, "'.../images'") in page
    assert "/home/me" not in page
    names = [line[0] for line in reader.rows]
    assert {"python", "torch", "numpy"} <= set(names)


def test_the_reason_of_a_protection_names_no_folder(run):
    document = json.loads(run.plan.read_text())
    next(unit for unit in document["units"] if unit.get("protected"))["protected"] = "see /home/me/mine/notes.txt"
    del document["digest"]
    run.plan.write_text(json.dumps({**document, "version": 2}))
    page = unescape(write_report(run).read_text())
    assert page.count("see .../notes.txt") == 2
    assert "/home/me" not in page


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
    assert set(read_page(run).data["charts"]) == {"keep_ratios", "latency"}


def test_the_report_reads_what_the_run_left(finished, problem):
    record = read_run(finished)
    assert [one.proposed_by for one in record.tried] == ["dense", "probe", "uniform", *["ddpg"] * 6]
    assert record.uniform == problem.budget.names(problem.budget.uniform())
    assert [trial.proposed_by for trial in record.trials].count("ddpg") == 6
    assert [unit.name for unit in record.free] == [unit.name for unit in problem.budget.units]
    widths = rows_of(finished)[-1]["widths"]
    assert record.trials[-1].widths == tuple(widths[unit.name] for unit in problem.budget.units)


def test_a_plan_that_was_stopped_early_keeps_its_reward_but_has_no_accuracy(run):
    *lines, last = rows_of(run)
    raced = {**last, "images": 12}
    run.evaluations_file.write_text("".join(json.dumps(line) + "\n" for line in (*lines, raced)))
    tried = read_run(run).tried
    assert np.isnan(tried[-1].quality)
    assert tried[-1].reward == raced["reward"]
    assert tried[-1].macs_share > 0
    assert not any(np.isnan(one.quality) for one in tried[:-1])
    write_report(run)
    assert read_page(run).data["tables"]["plans"][7]["quality"] is None


def test_a_run_that_goes_on_shows_its_state(run, problem):
    run.summary.unlink()
    run.plan.unlink()
    run.write_json(run.problem, problem.as_record())
    lines = run.evaluations_file.read_text().splitlines(keepends=True)
    run.evaluations_file.write_text("".join(lines[:5]) + lines[5][:20])
    page = unescape(write_report(run).read_text())
    assert f"4 of {CONFIG.search.evaluations} evaluations of ddpg. Reload" in page
    assert "<dt>accuracy, reward set</dt><dd>50.00%</dd>" in page
    assert set(read_page(run).data["charts"]) == {"rewards", "front_macs", "front_params", "history"}
    assert not (run.root / "report.png").exists() or run.root.joinpath("report.png").stat().st_size > 0


def test_a_run_that_has_tried_nothing_is_refused_in_words(run):
    for file in (run.summary, run.report, run.plan, run.evaluations_file):
        file.unlink()
    with pytest.raises(RunError, match=r"has no evaluations\.jsonl.*Let the search try a plan"):
        write_report(run)
    assert not run.report.exists()


def test_a_long_search_stays_under_2_mb(run):
    trials = [{**rows_of(run)[-1], "number": number} for number in range(5000)]
    for number, trial in enumerate(trials):
        trial["reward"] = -1 + number / 5000 if number == 3210 else -1 + 0.5 * number / 5000
    run.evaluations_file.write_text("".join(json.dumps(trial) + "\n" for trial in trials))
    write_report(run)
    assert run.report.stat().st_size < 2e6
    data = read_page(run).data
    assert 3210 in [plan["number"] for plan in data["tables"]["plans"]]
    assert 500 < len(data["widths"]) <= 1000
    assert "5,000 plans were tried; " in run.report.read_text()


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


WRONG_ROWS = [
    ({"latency_ms": {"median": 0.0, "q1": 1.0, "q3": 1.0}}, r"rows\.0\.latency_ms\.median: given 0\.0; must be gr"),
    ({"latency_ms": {"median": 1.0, "q1": -1.0, "q3": 1.0}}, r"rows\.0\.latency_ms\.q1: given -1\.0; must be gr"),
    ({"macs": 10**400}, r"rows\.0\.macs: given 1000.*; must be less than or equal to 4611686018427387904"),
    ({"params": 0}, r"rows\.0\.params: given 0; must be greater than or equal to 1"),
    ({"reward_accuracy": 5.0}, r"rows\.0\.reward_accuracy: given 5\.0; must be less than or equal to 1"),
    ({"test_accuracy": 1e308}, r"rows\.0\.test_accuracy: given 1e\+308; must be less than or equal to 1"),
]
"""Values that no measured network has, with the words that refuse them."""


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
        *(
            ("summary.json", json.dumps(with_rows({**row("dense", 0.9, 0.9, 1.0), **change})), words)
            for change, words in WRONG_ROWS
        ),
        (
            "summary.json",
            json.dumps(with_rows(row("dense", 0.9, 0.9, 1.0), row("dense", 0.8, 0.8, 0.5))),
            "is damaged: rows: two rows are named 'dense'",
        ),
        ("summary.json", json.dumps({**SUMMARY, "seconds": -1.0}), "is damaged: seconds: given -1.0; must be greater"),
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
        ("evaluations.jsonl", json.dumps({**LINE, "macs": 10**400}) + "\n", r"line 1 is damaged: macs: given 1000"),
        ("evaluations.jsonl", json.dumps({**LINE, "params": 10**400}) + "\n", "line 1 is damaged: params: given 1000"),
        ("problem.json", json.dumps({"dense": {"macs": 10**400, "params": 1}, "units": []}), r"dense\.macs: given 100"),
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
    assert [trial.series["stripes"] for trial in read_run(run).trials] == [{"stem": 1.0}] * 8


def test_the_command_prints_the_path(run, capsys):
    report([run.root])
    assert capsys.readouterr().out.strip() == str(run.report)
    assert re.search(r"<h1>toy .* at 50% of the MACs</h1>", run.report.read_text())


def test_the_path_of_a_page_cannot_command_the_terminal(run, capsys):
    report([run.root.rename(run.root.with_name("rn\x1b[31mX"))])
    said = capsys.readouterr()
    assert "rn\\x1b[31mX/report.html\n" in said.out
    assert "\x1b" not in said.out + said.err


def test_the_command_refuses_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match="is not a run directory"):
        report([tmp_path])

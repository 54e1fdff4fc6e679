"""Pages of several runs, and the command that writes them."""

import json

import pytest
from made_run import CONFIG, made_problem, made_run
from toy import rows_of

from prune_env import RunConfig
from prune_env.commands.report import report
from prune_env.common.errors import RunError
from prune_env.runs.run_directory import RunDirectory


@pytest.fixture
def runs(tmp_path) -> list[RunDirectory]:
    """Three runs at different budgets."""
    problem, made = made_problem(), []
    for keep in (0.7, 0.5, 0.3):
        budget = CONFIG.budget.model_copy(update={"keep": keep})
        config = CONFIG.model_copy(update={"budget": budget, "seed": int(10 * keep)})
        made.append(made_run(tmp_path / "digits" / f"keep-{keep}", problem, config))
    return made


def data_of(page: str) -> dict:
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_several_runs_share_a_front(runs, capsys):
    report([run.root for run in runs])
    page = runs[0].root.parent / "report.html"
    assert capsys.readouterr().out.strip() == str(page)
    tables = data_of(page.read_text())["tables"]
    own = {by: [row for row in tables["fronts"] if row["by"] == by and row["cost"] == "macs"] for by in _labels(runs)}
    every = [row for row in tables["fronts"] if row["by"] == "all runs" and row["cost"] == "macs"]
    assert all(own.values())
    points = [row for rows in own.values() for row in rows]
    for point in points:
        at_most = [row["quality"] for row in every if row["macs"] <= point["macs"]]
        assert max(at_most) >= point["quality"]
    assert all(f'href="{run.root.name}/report.html"' in page.read_text() for run in runs)


def _labels(runs: list[RunDirectory]) -> list[str]:
    return [run.root.name for run in runs]


def test_the_page_of_several_runs_never_replaces_that_of_a_run(runs, tmp_path):
    inner = made_run(runs[0].root / "other", made_problem())
    with pytest.raises(RunError, match="is the page of a run"):
        report([inner.root, made_run(runs[0].root / "third", made_problem()).root])
    report([inner.root, runs[1].root], to=tmp_path / "page.html")
    assert (tmp_path / "page.html").is_file()


def test_runs_of_different_tasks_are_refused(runs):
    config = RunConfig.from_mapping({**CONFIG.model_dump(), "task": {"name": "detection"}})
    runs[0].write_config(config)
    lines = "".join(json.dumps(line) + "\n" for line in rows_of(runs[0]))
    runs[0].evaluations_file.write_text(lines.replace('"accuracy"', '"map50"'))
    summary = json.dumps(runs[0].read_json(runs[0].summary))
    runs[0].summary.write_text(summary.replace("_accuracy", "_map50"))
    with pytest.raises(RunError, match=r"different qualities.*map50.*Give runs of one task"):
        report([run.root for run in runs])


def test_a_comparison_has_a_page_before_it_ends(tmp_path, capsys):
    problem = made_problem()
    done = made_run(tmp_path / "compared" / "seed-0" / "ddpg", problem)
    going = made_run(tmp_path / "compared" / "seed-1" / "ddpg", problem)
    going.summary.unlink()
    report([tmp_path / "compared"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "compared" / "compare.html")
    page = (tmp_path / "compared" / "compare.html").read_text()
    assert "1 of 2 runs that have started are finished, with 2 seeds." in page
    bands = data_of(page)["tables"]["bands"]
    assert len(bands) == CONFIG.search.evaluations
    assert bands[-1]["mean"] == pytest.approx(rows_of(done)[-1]["accuracy"])


def test_a_report_shows_the_rivals_of_its_comparison(tmp_path):
    problem = made_problem()
    run = made_run(tmp_path / "seed-0" / "ddpg", problem)
    agent = CONFIG.agent.model_copy(update={"name": "random"})
    made_run(tmp_path / "seed-0" / "random", problem, CONFIG.model_copy(update={"agent": agent}), plans=3)
    report([run.root])
    curves = data_of(run.report.read_text())["tables"]["curves"]
    assert [row["best"] for row in curves if row["by"] == "random"][-1] == pytest.approx(-0.3)
    assert {row["by"] for row in curves} == {"ddpg", "random"}

"""TensorBoard's log, read back with TensorBoard's own reader."""

import time
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import nn
from toy import digits_splits, image_set, toy_problem, toy_walk

from prune_env import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.report import board as board_module
from prune_env.report.board import BoardListener
from prune_env.report.figures import quality_against_macs
from prune_env.report.hyperparameters import hyperparameters, log_result
from prune_env.runs.finishing import FinishedSearch
from prune_env.runs.networks import NetworkRow
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.searching import SearchRun
from prune_env.search.episode import Episode, SearchResult
from prune_env.search.loop import train_agent
from prune_env.tasks import make_task

CONFIG = RunConfig.from_mapping(
    {
        "model": {"name": "toy"},
        "data": {"name": "noise", "path": "/somewhere"},
        "env": {"protect": {"fc": "mine"}},
        "agent": {"warmup_episodes": 2, "hidden": [8, 8], "batch_size": 8, "updates_per_step": 0.5},
        "search": {"evaluations": 30},
    }
)


def read(folder) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def text(log: EventAccumulator, tag: str) -> str:
    (event,) = log.Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def curve(log: EventAccumulator, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in log.Scalars(tag)}


def heard(problem: PruningProblem, count: int, start: int = 0, **scalars: float) -> list[Episode]:
    """Episodes of random plans."""
    generator = np.random.default_rng(start)
    episodes: list[Episode] = []
    for number in range(start, start + count):
        trial = problem.attempt(generator.integers(problem.budget.least, problem.budget.channels + 1), "ddpg")
        best = max([trial, *(episode.best for episode in episodes[-1:])], key=lambda one: one.reward)
        episodes.append(Episode(number, count, trial, best, {"train/sigma": 0.5, **scalars}, seconds=0.1 * number))
    return episodes


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A small search of 26 episodes after 4 probes: its episodes, its problem and the folder of its log."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("search") / "tensorboard"
    problem = toy_problem(probe_keep=0.25)
    episodes: list[Episode] = []
    with BoardListener(folder, problem, CONFIG) as board:
        train_agent(problem, CONFIG, (lambda episode, _: episodes.append(episode), board))
    return episodes, problem, folder


@pytest.fixture(scope="module")
def log(searched):
    return read(searched[2])


def test_every_episode_has_its_reward_accuracy_and_costs(searched, log):
    episodes, problem, _ = searched
    assert len(episodes) == 26
    for tag, value in {
        "rollout/reward": lambda episode: episode.trial.reward,
        "rollout/best_reward": lambda episode: episode.best.reward,
        "rollout/accuracy": lambda episode: episode.trial.outcome.accuracy,
        "share/macs": lambda episode: episode.trial.outcome.macs / problem.walk.macs(),
        "share/params": lambda episode: episode.trial.outcome.params / problem.walk.params(),
    }.items():
        expected = {episode.trial.number: value(episode) for episode in episodes}
        assert curve(log, tag) == pytest.approx(expected, rel=1e-6)


def test_exploration_and_losses_begin_after_the_warm_up(searched, log):
    episodes, _, _ = searched
    for tag in ("train/sigma", "train/actor_loss", "train/critic_loss"):
        expected = {one.trial.number: one.scalars[tag] for one in episodes if tag in one.scalars}
        assert curve(log, tag) == pytest.approx(expected, rel=1e-6)
        assert 0 < len(expected) < 26


def test_every_free_unit_has_its_keep_ratio(searched, log):
    episodes, problem, _ = searched
    tags = {tag for tag in log.Tags()["scalars"] if tag.startswith("units/")}
    assert tags == {f"units/keep_ratio/{unit.name}" for unit in problem.budget.units}
    for unit in problem.budget.units:
        expected = {one.trial.number: one.trial.plan.widths[unit.name] / unit.channels for one in episodes}
        assert curve(log, f"units/keep_ratio/{unit.name}") == pytest.approx(expected, rel=1e-6)


def test_pictures_come_every_25_episodes_and_at_the_end(log):
    assert set(log.Tags()["images"]) == {"units/keep_ratio", "share/accuracy_against_macs"}
    for tag in log.Tags()["images"]:
        events = log.Images(tag)
        assert [event.step for event in events] == [28, 29]
        for event in events:
            image = Image.open(BytesIO(event.encoded_image_string))
            assert image.size == (event.width, event.height)
            assert np.asarray(image).std() > 5


def test_the_settings_are_shown_as_they_are(log):
    html = markdown_to_safe_html(text(log, "settings"))
    assert html.startswith("<pre><code>")
    assert html.endswith("</code></pre>")
    for line in CONFIG.dump_yaml().splitlines():
        assert line in html


def test_the_units_are_a_table_with_their_reasons(searched, log):
    html = markdown_to_safe_html(text(log, "units"))
    assert html.count("<tr>") == 1 + len(searched[1].walk.units)
    assert "its channels are the network's output" in html


def test_a_reason_cannot_break_the_table_or_the_page(tmp_path):
    walk = toy_walk(protect={"mid": "a | b\n<script>alert(1)</script>"})
    with BoardListener(tmp_path, toy_problem(walk, keep=0.7), CONFIG):
        pass
    html = markdown_to_safe_html(text(read(tmp_path), "units"))
    assert html.count("<td>") + html.count("<td ") == 3 * len(walk.units)
    assert "a | b" in html
    assert "<script>" not in html


def test_the_custom_scalars_show_curves_that_exist(log):
    (layout,) = log.Tensors("custom_scalars__config__")
    shown = Layout.FromString(layout.tensor_proto.string_val[0])
    tags = [tag for category in shown.category for chart in category.chart for tag in chart.multiline.tag]
    assert tags
    assert set(tags) <= set(log.Tags()["scalars"])


def test_hyperparameters_are_the_settings_that_tell_runs_apart():
    found = hyperparameters(CONFIG)
    assert found == {
        "model.name": "toy",
        "agent.name": "ddpg",
        "agent.warmup_episodes": 2,
        "agent.hidden": "8 8",
        "agent.batch_size": 8,
        "agent.updates_per_step": 0.5,
        "budget.metric": "macs",
        "budget.keep": 0.5,
        "criterion.name": "consumer_error",
        "seed": 0,
        "search.evaluations": 30,
    }


def test_the_result_stands_in_the_log_itself(tmp_path):
    problem = toy_problem()
    run = RunDirectory.create(tmp_path / "run")
    search = SearchRun(run, CONFIG, digits_splits(), problem)
    trial = problem.attempt(problem.budget.uniform(), "ddpg")
    row = NetworkRow("ddpg", make_task(), 0.9, {"accuracy": 0.75, "loss": 1.0}, 1, 1, 1, None)
    log_result(FinishedSearch(search, trial, SearchResult(trial, None, 30, 1.0), [row], {"evaluations": 31}))
    assert [path.name.split(".")[0] for path in run.tensorboard.iterdir()] == ["events"]
    log = read(run.tensorboard)
    found = log.PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(found["_hparams_/session_start_info"]).session_start_info
    assert set(start.hparams) == set(hyperparameters(CONFIG))
    experiment = HParamsPluginData.FromString(found["_hparams_/experiment"]).experiment
    assert {info.name.tag for info in experiment.metric_infos} == {"rollout/best_reward", "test/accuracy"}
    assert curve(log, "test/accuracy") == pytest.approx({30: 0.75})


@pytest.fixture
def scattered(monkeypatch):
    """Who proposed each point of the scatter plots, one list per plot."""
    plots = []

    def noted(points, *others):
        plots.append([point.proposed_by for point in points])
        return quality_against_macs(points, *others)

    monkeypatch.setattr("prune_env.report.board.quality_against_macs", noted)
    return plots


def test_probes_are_plotted_and_the_problem_is_left_alone_afterwards(searched, scattered, tmp_path):
    _, problem, _ = searched
    assert problem.listeners == []
    board = BoardListener(tmp_path, problem, CONFIG)
    problem.attempt(problem.budget.uniform(), "uniform")
    for number in range(2):
        board(heard(problem, 1, start=number)[0], None)
    board.close()
    board.close()
    assert scattered == [["dense", "uniform", "ddpg", "ddpg"]]
    assert problem.listeners == []


def test_an_episode_whose_trial_was_not_heard_is_plotted_too(scattered, tmp_path):
    problem = toy_problem()
    episodes = heard(problem, 2)
    with BoardListener(tmp_path, problem, CONFIG) as board:
        for episode in episodes:
            board(episode, None)
    assert scattered == [["dense", "ddpg", "ddpg"]]


def test_a_search_that_failed_leaves_a_readable_log(tmp_path):
    problem = toy_problem()
    (episode,) = heard(problem, 1)

    def search() -> None:
        with BoardListener(tmp_path, problem, CONFIG) as board:
            board(episode, None)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        search()
    log = read(tmp_path)
    assert list(curve(log, "rollout/reward")) == [0]
    assert list(curve(log, "train/sigma")) == [0]
    assert [event.step for event in log.Images("units/keep_ratio")] == [0]


def test_a_log_without_episodes_holds_the_texts_alone(tmp_path):
    with BoardListener(tmp_path, toy_problem(), CONFIG):
        pass
    log = read(tmp_path)
    assert log.Tags()["images"] == []
    assert {"settings/text_summary", "units/text_summary"} < set(log.Tags()["tensors"])


def test_a_search_that_goes_on_keeps_its_episode_numbers(tmp_path):
    problem = toy_problem()
    with BoardListener(tmp_path, problem, CONFIG) as board:
        for episode in heard(problem, 3, start=40):
            board(episode, None)
    log = read(tmp_path)
    assert list(curve(log, "rollout/reward")) == [0, 1, 2]
    assert [event.step for event in log.Images("units/keep_ratio")] == [2]


@pytest.mark.parametrize(("rest", "steps"), [(0.0, [1, 3, 4]), (1e9, [1, 4])])
def test_pictures_rest_after_they_were_drawn(tmp_path, monkeypatch, rest, steps):
    monkeypatch.setattr(board_module, "EPISODES_PER_PICTURE", 2)
    monkeypatch.setattr(board_module, "REST", rest)
    problem = toy_problem()
    with BoardListener(tmp_path, problem, CONFIG) as board:
        for episode in heard(problem, 5):
            board(episode, None)
    assert [event.step for event in read(tmp_path).Images("units/keep_ratio")] == steps


@pytest.mark.slow
def test_writing_an_episode_of_60_units_takes_under_5_ms(tmp_path):
    torch.manual_seed(0)
    convs = [nn.Conv2d(2, 4, 1), *(nn.Conv2d(4, 4, 1) for _ in range(60))]
    model = nn.Sequential(*(layer for conv in convs for layer in (conv, nn.ReLU()))).append(nn.Flatten()).eval()
    walk = toy_walk(model.append(nn.Linear(4 * 64, 4)))
    problem = toy_problem(walk, reward_set=image_set(2), calibration=image_set(2))
    assert len(problem.budget.units) >= 60
    (episode,) = heard(problem, 1)
    with BoardListener(tmp_path, problem, CONFIG) as board:
        medians = []
        for _ in range(5):  # the quietest of several tries, because other programs may keep the machine busy
            seconds = []
            for _ in range(20):
                started = time.perf_counter()
                board(episode, None)
                seconds.append(time.perf_counter() - started)
                time.sleep(0.005)  # the writer's own thread needs a moment, as it has between real episodes
            medians.append(np.median(seconds))
    assert min(medians) < 5e-3

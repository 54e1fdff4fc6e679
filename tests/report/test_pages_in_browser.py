"""The pages in a real browser: no errors, no requests, nothing cut at 390 pixels, and everything by keyboard."""

import json
import shutil
from collections.abc import Iterator

import pytest
from made_run import CONFIG, SHOWN, made_problem, made_run

from prune_env.report.page import write_report
from prune_env.report.runs_page import write_comparison_page, write_runs

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium of this machine."""
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser is installed; install one of {', '.join(BROWSERS)}")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict:
    """The three kinds of pages, by name: of a run, of a comparison, and of runs side by side."""
    folder, problem = tmp_path_factory.mktemp("pages"), made_problem()
    runs = []
    for seed in (0, 1):
        for name in ("random", "ddpg"):
            agent = CONFIG.agent.model_copy(update={"name": name})
            config = CONFIG.model_copy(update={"agent": agent, "seed": seed})
            runs.append(made_run(folder / f"seed-{seed}" / name, problem, config, plans=40))
            runs[-1].write_json(runs[-1].problem, problem.as_record())
    return {
        "report": write_report(runs[1]),
        "compare": write_comparison_page(folder),
        "runs": write_runs(runs[:2], folder / "side by side.html"),
    }


@pytest.fixture
def opened(browser, pages):
    """Opens a page; at the end of the test there must be no message, no error and no request."""
    said: list[str] = []
    contexts = []

    def see(name: str, width: int = 1280, scheme: str = "light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda asked: said.append(asked.url) if not asked.url.startswith(("file:", "data:")) else 0)
        page.goto(pages[name].as_uri())
        page.wait_for_selector("html[data-drawn]")
        return page

    yield see
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize("name", ["report", "compare", "runs"])
def test_every_chart_is_drawn_and_nothing_is_wider_than_the_screen(opened, name):
    for width in (1280, 390):
        page = opened(name, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        charts = page.evaluate("JSON.parse(document.getElementById('data').textContent).charts")
        assert charts
        for chart in charts:
            marks = page.locator(f"#{chart} svg .mark-symbol path, #{chart} svg path[d], #{chart} canvas")
            assert marks.count() > 0, chart
            assert page.locator(f"#{chart}").bounding_box()["height"] > 60, chart


def test_a_click_on_a_row_or_a_point_shows_a_plan_and_its_difference_to_the_best(opened):
    page = opened("report")
    plan = page.locator("#plan")
    assert "Plan 41, proposed by ddpg" in plan.inner_text()
    assert "This is the best plan so far." in plan.inner_text()
    page.get_by_role("button", name="7", exact=True).click()
    assert "Plan 7, proposed by ddpg" in plan.inner_text()
    assert "of 3 free units differ from the best plan, number 41" in plan.inner_text()
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    rows = [row.split("\t") for row in plan.locator("tbody").inner_text().splitlines()]
    shown = {row[0]: (int(row[2]), int(row[3])) for row in rows}
    assert shown == dict(zip(data["names"], zip(data["widths"]["7"], data["widths"]["41"], strict=True), strict=True))
    points = page.locator("#front_macs .mark-symbol path")
    points.nth(12).click(force=True)
    assert "Plan 7," not in plan.inner_text()


def test_tables_are_sorted_and_plans_are_picked_by_keyboard(opened):
    page = opened("report")
    heading = page.get_by_role("button", name="reward", exact=True)
    heading.focus()
    page.keyboard.press("Enter")
    first = page.locator("table.sortable tbody tr").first
    assert first.locator("button").inner_text() == "41"
    page.keyboard.press("Enter")
    assert first.locator("button").inner_text() == "0"
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("reward")
    first.locator("button").focus()
    page.keyboard.press("Enter")
    assert "Plan 0, proposed by probe" in page.locator("#plan").inner_text()


def test_hostile_names_are_texts_everywhere(opened):
    page = opened("report")
    page.locator("#keep_ratios svg .layer_1_marks path").first.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    hint = page.locator("#vg-tooltip-element").inner_text()
    assert hint.splitlines()[0].split("\t") == ["unit", "stem"]
    assert "null" not in hint
    assert SHOWN in page.locator("h1").inner_text()
    assert page.evaluate("document.scripts.length") == 3


def test_a_dark_screen_gets_a_dark_page_and_paper_a_light_one(opened):
    page = opened("report", scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    label = "getComputedStyle(document.querySelector('#rewards svg .role-axis-label text')).fill"
    dark, ink = page.evaluate(colour), page.evaluate(label)
    assert sum(json.loads(dark.replace("rgb(", "[").replace(")", "]"))) < 100
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(colour) == "rgb(255, 255, 255)"
    assert page.evaluate(label) != ink


def test_the_comparison_leads_to_the_reports_of_its_runs(opened):
    page = opened("compare")
    links = page.locator("a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert sorted(links) == [f"seed-{seed}/{name}/report.html" for seed in (0, 1) for name in ("ddpg", "random")]
    assert "4 of 4 runs that have started are finished, with 2 seeds." in page.locator("body").inner_text()

"""The page as an instrument, in a browser: what is left, what it costs, which films, and the command, against pandas."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from patience import until
from playwright.sync_api import Browser, Page
from synthetic_runs import (
    CONDITIONS,
    EVIL,
    OBJECTIVES,
    film_grey,
    rung_run,
    within,
    write_word_maps,
)
from worked_pages import (
    command,
    drag,
    greys,
    is_tinted,
    left,
    looks,
    on_screen,
    opened,
    rule_limits,
    set_number,
    settled,
)

from analysis.front.pareto import pareto_mask
from analysis.front.picks import pick_trial
from analysis.report import write_report
from analysis.report.words import number
from analysis.run_folder import RunFolder

pytestmark = pytest.mark.slow
STRICT = {"min": "<=", "max": ">="}
NAMES = [objective.name for objective in OBJECTIVES]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = rung_run(tmp_path_factory.mktemp("runs") / "first run")
    write_word_maps(folder / "baseline.png", [1])
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def trials(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "trials.parquet")


@pytest.fixture(scope="module")
def held_page(browser: Browser, run: Path) -> Page:
    return opened(browser, run)


@pytest.fixture
def page(held_page: Page) -> Page:
    """The run's page as it opens."""
    held_page.click("#reset")
    held_page.evaluate("document.activeElement.blur()")
    yield held_page
    assert held_page.errors == []


def check(page: Page, trials: pd.DataFrame, limits: list[tuple[str, str, float]]) -> None:
    """Table, films, best values and count are those that pandas finds."""
    rows = within(trials, limits)
    assert sorted(left(page)) == sorted(rows["trial_id"])
    gallery = page.eval_on_selector_all("#gallery figure", "all => all.map(one => one.dataset.key.split(':')[1])")
    assert set(gallery) <= set(rows["trial_id"]) and len(gallery) == min(8, len(rows))
    for objective in OBJECTIVES if len(rows) else ():
        best = rows[objective.name].min() if objective.direction == "min" else rows[objective.name].max()
        assert page.inner_text(f"[data-best={objective.name}]") == number(best.item())
    assert page.inner_text("#left").startswith(f"{len(rows)} of {len(within(trials, []))} ")


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_a_limit_leaves_what_pandas_leaves(page: Page, trials: pd.DataFrame, objective) -> None:
    check(page, trials, [])
    for share in (0.2, 0.6, 0.9):
        value = float(trials[objective.name].quantile(share))
        set_number(page, objective.name, value)
        check(page, trials, [(objective.name, STRICT[objective.direction], value)])
    page.click("#reset")
    check(page, trials, [])


def test_limits_of_several_objectives_hold_together_down_to_none(page: Page, trials: pd.DataFrame) -> None:
    set_number(page, "trainable_parameters", 100_000)
    set_number(page, "epoch_s", 4.7)
    limits = [("trainable_parameters", "<=", 1e5), ("epoch_s", "<=", 4.7)]
    check(page, trials, limits)
    assert 0 < len(left(page)) < len(within(trials, limits[:1]))
    set_number(page, "fid_mini", 0.001)
    assert left(page) == [] and "No trial is left" in page.inner_text("#chosen")
    assert page.inner_text("[data-objective=fid_mini] .best") == "nothing is left"


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_each_step_of_a_slider_by_keyboard_leaves_out_the_worst(page: Page, trials: pd.DataFrame, objective) -> None:
    page.focus(f"#limit-{objective.name}")
    stricter = "ArrowLeft" if objective.direction == "min" else "ArrowRight"
    values = np.sort(within(trials, [])[objective.name].unique())
    for step in range(1, min(4, len(values))):
        page.keyboard.press(stricter)
        value = float(page.input_value(f"#limit-{objective.name}-number"))
        assert (
            len(set(within(trials, [(objective.name, STRICT[objective.direction], value)])[objective.name]))
            == len(values) - step
        )
        check(page, trials, [(objective.name, STRICT[objective.direction], value)])


@pytest.mark.parametrize("axis", range(4))
def test_a_brush_over_an_axis_leaves_the_lines_that_pass_it(page: Page, trials: pd.DataFrame, axis: int) -> None:
    page.locator("#parallel").scroll_into_view_if_needed()
    lines = {name: corners[axis] for name, corners in on_screen(page, "#parallel").items()}
    assert len(lines) == len(within(trials, []))
    across, low = next(iter(lines.values()))[0], sorted({y for _, y in lines.values()})
    top, bottom = low[0] - 4, (low[len(low) // 2 - 1] + low[len(low) // 2]) / 2
    drag(page, (across, top), (across + 5, bottom))
    assert sorted(left(page)) == sorted(name for name, (_, y) in lines.items() if top <= y <= bottom)
    limits = rule_limits(page)
    assert {name for name, _, _ in limits} == {NAMES[axis]}
    check(page, trials, limits)
    page.mouse.click(across, (top + bottom) / 2)  # a click on the axis takes the limit back
    check(page, trials, [])


@pytest.mark.parametrize("panel", [0, 4])
def test_a_box_in_a_plot_limits_both_objectives(page: Page, trials: pd.DataFrame, panel: int) -> None:
    place = page.locator("#scatter .chart").nth(panel)
    place.scroll_into_view_if_needed()
    points = {name: at[0] for name, at in on_screen(page, f"#scatter .chart:nth-child({panel + 1})").items()}
    assert len(points) == len(within(trials, []))
    x, y = (sorted(at[way] for at in points.values()) for way in (0, 1))
    start, end = (x[1] - 4, y[1] - 4), (x[-2] + 4, y[-2] + 4)
    drag(page, start, end)
    inside = [name for name, at in points.items() if all(start[way] <= at[way] <= end[way] for way in (0, 1))]
    assert sorted(left(page)) == sorted(inside) and 0 < len(inside) < len(points)
    limits = rule_limits(page)
    assert len(limits) == 4 and {name for name, _, _ in limits} == set((place.get_attribute("data-pair") or "").split())
    check(page, trials, limits)


def test_plots_show_what_is_left_after_each_change_and_at_last_what_they_did_at_first(
    page: Page, trials: pd.DataFrame
) -> None:
    places = ["#parallel", "#scatter .chart:nth-child(1)", "#scatter .chart:nth-child(6)"]
    before, every = [looks(page, place) for place in places], set(within(trials, [])["trial_id"])
    for value in (1e5, 3e4, 1e6):
        set_number(page, "trainable_parameters", value)
        faded = every - set(within(trials, [("trainable_parameters", "<=", value)])["trial_id"])
        assert 0 < len(faded) < len(every)
        for place in places:
            assert {name for name, look in looks(page, place).items() if look[0] == "var(--faded)"} == faded
    page.click("#reset")
    assert [looks(page, place) for place in places] == before


def test_where_a_word_acts_lies_over_the_films_of_what_was_mapped(page: Page, trials: pd.DataFrame) -> None:
    assert page.inner_text("#acting-note") == ""
    page.select_option("#word", label="the finding of each row")
    settled(page)
    assert "Not mapped: " in page.inner_text("#acting-note")
    page.focus("#compared button >> nth=0")
    page.keyboard.press("Enter")
    for pressed, share in (("", None), ("ArrowDown", "25 %")):
        if pressed:
            page.keyboard.press(pressed)
        grey, film = film_grey(len(trials) + 1, 1 if pressed else 0, 0), page.locator("#large-films svg").nth(2)
        for across, acts in ((0.25, share is not None), (0.75, False)):
            until(lambda across=across, acts=acts, film=film, grey=grey: is_tinted(film, across, grey) is acts)
        said = page.inner_text("#large-films figcaption >> nth=2")
        assert (f"0 to {share} of the attention" if share else "does not have the word") in said
    assert page.locator("#large-films mask").count() == 1  # the base alone is mapped
    page.keyboard.press("Escape")
    page.select_option("#word", "Chest")
    settled(page)
    assert page.locator("#compared figure >> nth=2").locator("mask svg").count() == 24
    page.select_option("#word", "")


def test_the_commands_name_the_chosen_trial_and_the_same_by_rule(page: Page, run: Path, trials: pd.DataFrame) -> None:
    opened = RunFolder.open(run)
    assert (
        command(page)["--pick"] == f"trial:{opened.front.knee.trial_id}" and command(page, "rule")["--pick"] == "knee"
    )
    assert command(page)["--run"] == str(run)
    for limits in ([("trainable_parameters", 1e5)], [("epoch_s", 8.0), ("vendi_mini", 2.5)]):
        page.click("#reset")
        for name, value in limits:
            set_number(page, name, value)
        chosen = command(page)["--pick"].removeprefix("trial:")
        assert pick_trial(opened, command(page, "rule")["--pick"]) == chosen == left(page)[0]
    other = left(page)[-1]
    page.click(f"#trials tr[data-key='0:{other}']")
    assert command(page)["--pick"] == f"trial:{other}" and page.locator("#rule").count() == 0
    page.select_option("#format", "peft")
    assert command(page)["--format"] == "peft"


def test_the_formats_are_those_of_the_exports(page: Page) -> None:
    table = Path(__file__).resolve().parents[3] / "trainables/exports/__init__.py"
    formats = page.eval_on_selector_all("#format option", "all => all.map(one => one.value)")
    assert sorted(formats) == sorted(re.findall(r'^    "(\w+)": \w+\(\),$', table.read_text(), re.MULTILINE))


def test_strategies_and_standing_filter(page: Page, run: Path, trials: pd.DataFrame) -> None:
    page.uncheck("#strategies label:has-text('unet') input")
    done = within(trials, [])
    assert sorted(left(page)) == sorted(done[done["strategy"] != "unet"]["trial_id"])
    page.check("#strategies label:has-text('unet') input")
    page.select_option("#show", "front")
    front = RunFolder.open(run).front
    assert sorted(left(page)) == sorted(point.trial_id for point in front.points)
    page.select_option("#show", "near")
    assert sorted(left(page)) == sorted(point.trial_id for point in (*front.points, *front.near))
    page.select_option("#show", "all")
    assert sorted(left(page)) == sorted(trials["trial_id"])
    stopped = page.inner_text("#trials tr[data-key='0:00003']")
    assert "stopped at rung 1" in stopped and "early" in stopped
    assert page.is_disabled("#trials tr[data-key='0:00003'] input")


def test_a_condition_takes_its_own_values_front_and_films(page: Page, trials: pd.DataFrame) -> None:
    name = CONDITIONS[2]
    page.select_option("#condition", name)
    page.wait_for_selector("#compared.strips")
    done = within(trials, []).set_index("trial_id")
    columns = [f"fid_mini/{name}", *NAMES[1:]]
    front = done.index[pareto_mask(done[columns].to_numpy(), [objective.direction for objective in OBJECTIVES])]
    assert f"{len(front)} of them on the front for {name}" in page.inner_text("#left")
    assert page.inner_text("[data-best=fid_mini]") == number(done[columns[0]].min().item())
    page.select_option("#show", "front")
    assert sorted(left(page)) == sorted(front)


def test_films_in_large_are_the_same_place_of_both_trials_and_the_real_ones(page: Page, trials: pd.DataFrame) -> None:
    chosen, other = left(page)[0], left(page)[3]
    page.click(f"#trials tr[data-key='0:{chosen}']")
    page.select_option("#film-right", f"0:{other}")
    settled(page)
    page.focus("#compared button >> nth=0")
    page.keyboard.press("Enter")
    for pressed, condition, column in (("", 0, 0), ("ArrowDown", 1, 0), ("ArrowRight", 1, 1)):
        if pressed:
            page.keyboard.press(pressed)
        expected = [film_grey(place, condition, column) for place in (int(chosen), len(trials), int(other))]
        films = [page.locator("#large-films svg").nth(place) for place in range(3)]
        until(lambda films=films, expected=expected: greys(films) == pytest.approx(expected, abs=3))
        assert f"{CONDITIONS[condition]}, film {column + 1} of 4" in page.inner_text("#large-note")
    page.keyboard.press("Escape")
    assert not page.is_visible("#large")


def test_what_is_left_is_saved_as_csv(page: Page, trials: pd.DataFrame, tmp_path: Path) -> None:
    set_number(page, "trainable_parameters", 100_000)
    with page.expect_download() as download:
        page.click("#csv")
    download.value.save_as(tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial_id"] for row in rows] == left(page)
    known = trials.set_index("trial_id")
    for row in rows:
        assert float(row["fid_mini"]) == pytest.approx(known.loc[row["trial_id"], "fid_mini"], rel=1e-12)


def test_headings_sort(page: Page, trials: pd.DataFrame) -> None:
    for name, ascending in (("epoch_s", True), ("epoch_s", False), ("vendi_mini", False)):
        page.click(f"th[data-column={name}] button")
        assert left(page) == list(within(trials, []).sort_values(name, ascending=ascending)["trial_id"])
    assert page.get_attribute("th[data-column=vendi_mini]", "aria-sort") == "descending"


def test_every_control_is_reached_and_worked_by_keyboard_alone(page: Page) -> None:
    wanted = page.evaluate(
        "() => [...document.querySelectorAll('.instrument :is(button, select, input, [tabindex])')]"
        ".filter(one => !one.disabled && one.offsetParent && one.type !== 'radio' && !one.closest('dialog')).length"
    )
    reached = set()
    for _ in range(wanted + 30):
        page.keyboard.press("Tab")
        place = page.evaluate(
            "() => { const all = [...document.querySelectorAll('.instrument :is(button, select, input, [tabindex])')];"
            "const one = document.activeElement; return one.type === 'radio' ? 'radio' : all.indexOf(one); }"
        )
        reached.add(place)
    assert "radio" in reached and len(reached - {-1, "radio"}) == wanted
    page.focus("#trials input[type=radio]:checked")
    before = command(page)["--pick"]
    page.keyboard.press("ArrowDown")
    assert command(page)["--pick"] != before
    assert page.evaluate("document.activeElement.value") == "0:" + command(page)["--pick"].removeprefix("trial:")
    page.focus("#strategies input")
    page.keyboard.press("Space")
    settled(page)
    assert "bitfit" not in page.inner_text("#trials")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Browser, run: Path, scheme: str) -> None:
    page = opened(browser, run, color_scheme=scheme)
    set_number(page, "trainable_parameters", 100_000)
    for act in (lambda: None, lambda: page.click("#compared button >> nth=0"))[: 1 + (scheme == "light")]:
        act()
        violations = Axe().run(page).response["violations"]
        assert [
            (violation["id"], violation["nodes"][0]["html"][:200])
            for violation in violations
            if violation["impact"] in ("serious", "critical")
        ] == []
    page.close()


def test_a_narrow_page_does_not_scroll_sideways(browser: Browser, run: Path) -> None:
    page = opened(browser, run, width=400)
    for act in (
        lambda: None,
        lambda: set_number(page, "trainable_parameters", 1e5),
        lambda: page.select_option("#condition", "Edema"),
    ):
        act()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.errors == []
    page.close()


def test_without_javascript_the_page_says_everything_still(browser: Browser, run: Path, trials: pd.DataFrame) -> None:
    page = opened(browser, run, java_script_enabled=False)
    assert page.is_hidden("#instrument")
    for heading in ("Trade-offs", "Pareto front", "Samples", "All trials", "Take one with you"):
        assert page.is_visible(f"h2:has-text('{heading}')")
    rows = page.locator(".still:has(h2:text('All trials')) tbody tr")
    assert rows.count() == len(trials) and all(row.is_visible() for row in rows.all())
    page.close()


def test_with_javascript_nothing_is_said_twice(page: Page) -> None:
    assert not any(section.is_visible() for section in page.locator(".still").all())
    assert page.is_visible("#went #history-trials svg") and page.is_visible("#curves svg")
    assert EVIL not in page.content()

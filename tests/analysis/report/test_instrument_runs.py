"""The page of runs that are not as most: without pictures, still going, several at once, of values below zero."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser
from synthetic_runs import OBJECTIVES, quick_report, rung_run, synthetic_run, synthetic_trials, within
from worked_pages import command, drag, left, on_screen, opened, settled

from analysis.front.pareto import pareto_mask

pytestmark = pytest.mark.slow
NAMES = [objective.name for objective in OBJECTIVES]


def test_a_run_without_pictures_and_one_that_still_goes(browser: Browser, tmp_path: Path) -> None:
    run = synthetic_run(tmp_path / "bare", synthetic_trials(6))
    for path in [*run.glob("*.png"), *run.glob("trials/*/*.png")]:
        path.unlink()
    quick_report(run)
    page = opened(browser, run)
    assert "This run has no pictures yet." in page.inner_text("#films") and len(left(page)) == 4
    going = synthetic_run(tmp_path / "going", synthetic_trials(4).assign(status="running"))
    (going / "results.parquet").unlink()
    quick_report(going)
    page.goto((going / "report.html").as_uri())
    assert page.is_hidden("#instrument") and page.is_visible("h2:has-text('All trials')")
    assert page.errors == []
    page.close()


def test_several_runs_of_the_same_data_on_one_page(browser: Browser, tmp_path: Path) -> None:
    run, other = rung_run(tmp_path / "first run"), rung_run(tmp_path / "other", seed=5)
    quick_report(run, [other])
    page = opened(browser, run)
    tables = [pd.read_parquet(folder / "trials.parquet").assign(run=place) for place, folder in enumerate((run, other))]
    done = within(pd.concat(tables, ignore_index=True), [])
    keys = done["run"].astype(str) + ":" + done["trial_id"]
    front = keys[pareto_mask(done[NAMES].to_numpy(), [objective.direction for objective in OBJECTIVES])]
    page.select_option("#show", "front")
    settled(page)
    left = page.eval_on_selector_all("#trials tbody tr", "rows => rows.map(row => row.dataset.key)")
    assert sorted(left) == sorted(front) and {key[0] for key in left} == {"0", "1"}
    page.uncheck("#runs label:has-text('first run') input")
    assert command(page)["--run"] == str(other)
    assert page.errors == []
    page.close()


def test_a_brush_to_the_end_of_an_axis_of_values_below_zero_leaves_that_end_open(
    browser: Browser, tmp_path: Path
) -> None:
    trials = synthetic_trials(6)
    trials["vendi_mini"] -= 100
    folder = synthetic_run(tmp_path / "run", trials)
    quick_report(folder)
    page = opened(browser, folder)
    page.locator("#parallel").scroll_into_view_if_needed()
    corners = [at[NAMES.index("vendi_mini")] for at in on_screen(page, "#parallel").values()]
    across, heights = corners[0][0], [y for _, y in corners]
    drag(page, (across, (min(heights) + max(heights)) / 2), (across + 5, max(heights) + 60))
    limits = page.locator("[data-objective=vendi_mini]")
    assert (
        limits.locator("input[type=number]").input_value() == ""
        and "at most -" in limits.locator(".other").inner_text()
    )
    page.close()

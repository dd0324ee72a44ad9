"""The front as a table: one content on the page, in the terminal and in Markdown."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest

from analysis.front.objectives import base_values
from analysis.front.pareto import Front, FrontPoint, Objective
from analysis.report.front_table import base_row, front_rows, markdown_table, terminal_table
from analysis.report.tables import front_table
from analysis.report.words import percent
from analysis.terminal import new_console

FRONT = Front(
    objectives=(Objective("fid_mini", "min"), Objective("vendi_mini", "max")),
    points=(
        FrontPoint(
            trial_id="a1",
            strategy="lora",
            values={"fid_mini": 3.25, "vendi_mini": 2.0},
            params={"lora/rank": 4, "lr": 0.00123},
            knee=True,
        ),
        FrontPoint(
            trial_id="b2", strategy="[bold]", values={"fid_mini": 5.0, "vendi_mini": 4123.5}, params={}, knee=False
        ),
    ),
)
CELLS = [["a1", "lora", "rank 4, lr 0.00123", "3.25", "2"], ["b2", "[bold]", "", "5", "4124"]]
BASE = ["base", "none", "the model before any adaptation", "55.4", "–"]
BASELINE = {"fid_mini": 55.4}


def test_rows_are_the_points_in_words_and_the_base_has_a_dash_where_it_has_no_score() -> None:
    rows = [*front_rows(FRONT), base_row(FRONT, BASELINE)]
    assert [[row.trial_id, row.strategy, row.hyperparameters, *row.values] for row in rows] == [*CELLS, BASE]
    assert [row.mark for row in rows] == ["knee", "", ""]


def test_markdown_has_a_row_a_point() -> None:
    assert markdown_table(FRONT).splitlines() == [
        "| trial | strategy | hyperparameters | fid_mini ↓ | vendi_mini ↑ |",
        "| --- | --- | --- | --- | --- |",
        "| a1 (knee) | lora | rank 4, lr 0.00123 | 3.25 | 2 |",
        "| b2 | [bold] |  | 5 | 4124 |",
    ]


def test_the_terminal_shows_the_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    new_console().print(terminal_table(FRONT, BASELINE, "Pareto front: 2"))
    shown = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in shown.splitlines() if "│" in line]
    assert lines == [["a1 (knee)", *CELLS[0][1:]], CELLS[1], BASE]
    assert "fid_mini ↓" in shown and "vendi_mini ↑" in shown


def test_the_page_shows_the_same_cells() -> None:
    page = front_table(FRONT, BASELINE)
    rows = [
        [unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall("<td[^>]*>(.*?)</td>", row)]
        for row in re.findall("<tr[^>]*>(.*?)</tr>", page.partition("<tbody>")[2])
    ]
    assert rows == [[*CELLS[0], "knee"], [*CELLS[1], ""], [*BASE, ""]]


def test_without_scores_of_the_base_there_is_no_row_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    new_console().print(terminal_table(FRONT, {}, "Pareto front: 2"))
    assert "adaptation" not in capsys.readouterr().out + front_table(FRONT, {})


UNSURE = replace(
    FRONT,
    points=(
        replace(FRONT.points[0], probability=0.964, errors={"fid_mini": 0.1234}),
        replace(FRONT.points[1], probability=0.4),
    ),
    near=(replace(FRONT.points[1], trial_id="c3", probability=0.08),),
    probabilities={"a1": 0.964, "b2": 0.4, "c3": 0.08, "d4": 0.001},
    base={"fid_mini": 55.4, "vendi_mini": 1.5},
)


def test_a_front_that_knows_how_sure_it_is_says_so_and_shows_what_is_beaten_within_noise() -> None:
    assert markdown_table(UNSURE).splitlines()[0].endswith("| vendi_mini ↑ | on the front |")
    assert [
        line.split(" | ")[0] + " | " + line.split(" | ")[-1] for line in markdown_table(UNSURE).splitlines()[2:]
    ] == [
        "| a1 (knee) | 96 % |",
        "| b2 | 40 % |",
        "| c3 (within noise) | 8 % |",
    ]
    assert front_rows(UNSURE)[0].values == ("3.25 ± 0.12", "2")
    page = front_table(UNSURE, BASELINE)
    assert '<span class="tag within-noise">within noise</span>' in page and '<th class="n">on the front</th>' in page
    assert base_row(UNSURE, BASELINE).values == ("55.4", "1.5")


def test_the_base_costs_nothing_where_it_is_a_point() -> None:
    objectives = (Objective("fid_mini", "min"), Objective("trainable_parameters", "min"))
    base = base_values(BASELINE, objectives)
    assert base_row(Front(objectives=objectives, points=(), base=base), BASELINE).values == ("55.4", "0")


@pytest.mark.parametrize(("share", "words"), [(None, ""), (0.004, "< 1 %"), (0.5, "50 %"), (0.996, "> 99 %")])
def test_a_probability_in_words(share: float | None, words: str) -> None:
    assert percent(share) == words

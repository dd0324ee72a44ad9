"""The front as a table: one content on the page, in the terminal and in Markdown."""

from __future__ import annotations

import re
from html import unescape

import pytest

from analysis.front.pareto import Front, FrontPoint, Objective
from analysis.report.front_table import base_row, front_rows, markdown_table, terminal_table
from analysis.report.tables import front_table
from analysis.terminal import new_console

FRONT = Front(
    objectives=(Objective("fid_mini", "min"), Objective("vendi_mini", "max")),
    points=(
        FrontPoint(
            trial_id="a1", strategy="lora", values={"fid_mini": 3.25, "vendi_mini": 2.0},
            params={"lora/rank": 4, "lr": 0.00123}, knee=True,
        ),
        FrontPoint(trial_id="b2", strategy="[bold]", values={"fid_mini": 5.0, "vendi_mini": 4123.5}, params={}, knee=False),
    ),
)  # fmt: skip
CELLS = [["a1", "lora", "rank 4, lr 0.00123", "3.25", "2"], ["b2", "[bold]", "", "5", "4,124"]]
BASE = ["base", "none", "the model before any adaptation", "55.4", "–"]
BASELINE = {"fid_mini": 55.4}


def test_rows_are_the_points_in_words_and_the_base_has_a_dash_where_it_has_no_score() -> None:
    rows = [*front_rows(FRONT), base_row(BASELINE, FRONT.objectives)]
    assert [[row.trial_id, row.strategy, row.hyperparameters, *row.values] for row in rows] == [*CELLS, BASE]
    assert [row.knee for row in rows] == [True, False, False]


def test_markdown_has_a_row_a_point() -> None:
    assert markdown_table(FRONT).splitlines() == [
        "| trial | strategy | hyperparameters | fid_mini ↓ | vendi_mini ↑ |",
        "| --- | --- | --- | --- | --- |",
        "| a1 (knee) | lora | rank 4, lr 0.00123 | 3.25 | 2 |",
        "| b2 | [bold] |  | 5 | 4,124 |",
    ]


def test_the_terminal_shows_the_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    new_console().print(terminal_table(FRONT, BASELINE, "Pareto front: 2"))
    shown = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in shown.splitlines() if "│" in line]
    assert lines == [["a1 (knee)", *CELLS[0][1:]], CELLS[1], BASE]
    assert "fid_mini ↓" in shown and "vendi_mini ↑" in shown


def test_the_page_shows_the_same_cells() -> None:
    page = front_table(FRONT, BASELINE)
    rows = [[unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall("<td[^>]*>(.*?)</td>", row)]
            for row in re.findall("<tr[^>]*>(.*?)</tr>", page.partition("<tbody>")[2])]  # fmt: skip
    assert rows == [[*CELLS[0], "knee"], [*CELLS[1], ""], [*BASE, ""]]


def test_without_scores_of_the_base_there_is_no_row_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    new_console().print(terminal_table(FRONT, {}, "Pareto front: 2"))
    assert "adaptation" not in capsys.readouterr().out + front_table(FRONT, {})

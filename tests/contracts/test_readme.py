"""README names all that the tables hold, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import pytest

from analysis.metrics import METRICS
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.stopping_rules import TRIAL_SCHEDULERS
from trainables.datasets import SOURCES
from trainables.exports import EXPORTS
from trainables.strategies import COMBINATIONS, STRATEGIES

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def first_cells(head: str) -> list[str]:
    """Names in backticks in the first column of the table below a row that begins so, from top to bottom."""
    rows = README.partition(f"\n| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("name | trains", [*STRATEGIES, *COMBINATIONS]),
        ("source", SOURCES),
        ("`--format`", EXPORTS),
        ("`search.sampler`", SEARCH_SAMPLERS),
        ("`search.scheduler`", TRIAL_SCHEDULERS),
    ],
)
def test_its_tables_have_a_row_for_each_name(head: str, names: Collection[str]) -> None:
    rows = set(first_cells(head))
    lacking, unknown = set(names) - rows - set(COMBINATIONS), rows - set(names)
    assert not lacking and not unknown, (
        f"README's table `| {head} |` lacks {sorted(lacking)}, and has unknown {sorted(unknown)}."
    )


def test_its_strategies_stand_in_the_order_of_the_code() -> None:
    assert [name for name in first_cells("name | trains") if name in STRATEGIES] == [*STRATEGIES]


def test_evaluation_has_a_word_on_each_metric() -> None:
    section = README.partition("\n## Evaluation\n")[2].partition("\n### ")[0]
    lacking = [name for name in METRICS if not re.search(rf"`{name}_(<extractor>)?`", section)]
    assert not lacking, f"README must say under Evaluation what `NAME_` measures, but says nothing of {lacking}."

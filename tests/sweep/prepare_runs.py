"""`python -m sweep.prepare` run on small collections, from the outside."""

from __future__ import annotations

from pathlib import Path

import typer
from film_folders import HEADER, film_rows, write_table
from typer.testing import CliRunner, Result

from sweep.prepare import main
from trainables.datasets.base import SPLITS
from trainables.datasets.store import PreparedDataset

app = typer.Typer()
app.command()(main)


def prepare(root: Path, *options: str) -> Result:
    arguments = ("nih_cxr14", "--root", str(root), "--to", str(root.parent / "prepared"), *options)
    return CliRunner().invoke(app, arguments)


def prepared(root: Path, *options: str) -> tuple[PreparedDataset, str]:
    """The data set, and what was said of it; both ways in which that is said must agree."""
    result = prepare(root, *options)
    assert result.exit_code == 0, result.output
    data = PreparedDataset.open(root.parent / "prepared")
    flat = " ".join(result.output.split())
    assert all(" ".join(sentence.split()) in flat for sentence in data.said)
    return data, "\n".join(data.said)


def refused(root: Path, *options: str) -> str:
    result = prepare(root, *options)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output and not (root.parent / "prepared").exists()
    return " ".join(result.stderr.split())


def changed(root: Path, change: dict[int, dict[str, str]]) -> Path:
    """The usual table with some cells of some rows changed; row 0 stands on line 2."""
    rows = film_rows()
    for number, cells in change.items():
        for column, value in cells.items():
            rows[number][HEADER.index(column)] = value
    return write_table(root, rows)


def all_of(data: PreparedDataset, column: str) -> dict[str, object]:
    """A field of every film by its id."""
    splits = [data.split(name) for name in SPLITS]
    return {i: value for split in splits for i, value in zip(split.image_ids, getattr(split, column), strict=True)}


def counts(data: PreparedDataset) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for findings in all_of(data, "conditions").values():
        assert isinstance(findings, tuple)
        for finding in findings:
            numbers[finding] = numbers.get(finding, 0) + 1
    return numbers

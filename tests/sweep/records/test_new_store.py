"""New stores of sweeps: each as MLflow makes it, though it makes one for all."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from sweep.records.tracking.store import Place

pytestmark = pytest.mark.slow


def content(store: Path) -> dict[str, list[Any]]:
    """The tables' rows, and under "" what the tables are: MLflow writes their constraints in an order of chance."""
    with closing(sqlite3.connect(store)) as connection:

        def rows(command: str) -> list[Any]:
            return connection.execute(command).fetchall()

        names = [name for (name,) in rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        tables = [
            (
                name,
                rows(f"PRAGMA table_info('{name}')"),
                sorted(row[2:] for row in rows(f"PRAGMA foreign_key_list('{name}')")),
            )
            for name in names
        ]
        indices = sorted(rows("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))
        return {"": [tables, indices]} | {name: rows(f'SELECT * FROM "{name}"') for name in names}


def test_a_store_is_as_mlflow_makes_it_and_the_next_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "made here").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "made here"))
    MlflowClient(f"sqlite:///{tmp_path / 'own.db'}").search_experiments()
    theirs = content(tmp_path / "own.db")
    Place(out=tmp_path / "first").client().search_experiments()
    ours = content(tmp_path / "first" / "mlflow.db")
    assert (
        len(theirs["experiments"]) == len(ours["experiments"]) == 1
    )  # MLflow's, in which the time of its making stands
    assert {**ours, "experiments": []} == {**theirs, "experiments": []}
    (kept,) = (tmp_path / "cache" / "radiograph-sweep").iterdir()
    assert b"made here" not in kept.read_bytes() and not list((tmp_path / "made here").iterdir())
    with closing(sqlite3.connect(kept)) as connection, connection:
        connection.execute("CREATE TABLE mark (number INTEGER)")
    client = Place(out=tmp_path / "second").client()
    assert "mark" in content(tmp_path / "second" / "mlflow.db")
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    client.create_run("0")
    Place(out=tmp_path / "second").client()
    assert len(content(tmp_path / "second" / "mlflow.db")["runs"]) == 1  # one that is there stays


def test_where_nothing_can_be_kept_there_is_a_store_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (experiment,) = Place(out=tmp_path / "run").client().search_experiments()
    assert experiment.name == "Default"

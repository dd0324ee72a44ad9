"""MLflow, which nothing outside this folder imports: runs in the run directory or on a server, and the pages that show them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from analysis.run_folder import MLFLOW_STORE
from sweep.records.tracking import store
from sweep.records.tracking.listener import TrackingListener
from sweep.records.tracking.store import Place, place_of, quieten
from sweep.records.tracking.tracker import Tracker
from sweep.records.tracking.views import Links, links_of, settle

__all__ = [
    "Links",
    "Place",
    "Tracker",
    "TrackingError",
    "TrackingListener",
    "close_broken",
    "links_of",
    "place_of",
    "quieten",
    "settle",
]


class TrackingError(RuntimeError):
    """MLflow refused some of the records."""


def close_broken(out: Path) -> None:
    """Close the runs of a sweep whose process has died: the parent as failed, trials that have not ended as killed.

    Args:
        out: run directory.

    Raises:
        TrackingError: the store cannot be written.
    """
    store.quieten()  # before MLflow is imported
    from mlflow.exceptions import MlflowException

    try:
        store.close_broken(place_of(out))
    except (MlflowException, OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"`{MLFLOW_STORE}` must take the end of its runs, but got {error!r}. Resuming opens them."
        ) from error

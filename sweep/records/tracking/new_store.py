"""A new MLflow store in a file: a copy of an empty one, which is made once for a version of MLflow and kept in the user's cache.

MLflow makes its tables by all changes of its history, one after the other: 3 s of a core, and 10 s of an ordinary disk, for
which everything that a sweep has to record would wait.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from analysis.files import user_cache, whole_file


def store_uri(file: Path) -> str:
    """MLflow's address of a store in a file. By its plain scheme MLflow would make a folder of a name that is escaped."""
    path = str(file.resolve())
    escaped = quote(path)
    return f"sqlite:///{path}" if escaped == path else f"sqlite+pysqlite:///{escaped}"


def make_store(file: Path) -> None:
    """Put an empty store where no file is.

    Raises:
        OSError: the file cannot be written.
    """
    if not file.exists():
        empty = _empty()
        with whole_file(file) as opened:
            opened.write(empty)


def _empty() -> bytes:
    """The kept one; without a folder that can be written the next process makes its own."""
    try:
        return _kept().read_bytes()
    except (OSError, RuntimeError):  # there is none yet, or no home folder to have it in
        empty = _made()
    with suppress(OSError, RuntimeError), whole_file(_kept()) as opened:
        opened.write(empty)
    return empty


def _kept() -> Path:
    return user_cache() / f"mlflow-{version('mlflow')}.db"


def _made() -> bytes:
    from mlflow import MlflowClient  # takes seconds

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "empty.db"
        MlflowClient(store_uri(file)).search_experiments()
        with closing(sqlite3.connect(file)) as connection:
            with connection:  # every store gets MLflow's own experiment, which names a folder, when it is opened
                connection.execute("DELETE FROM experiments")
            connection.execute("VACUUM")
            return connection.serialize()

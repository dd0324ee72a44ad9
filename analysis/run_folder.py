"""The one reader of a run directory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analysis.front.objectives import BASE, column_direction
from analysis.front.pareto import Direction, Front
from analysis.front.statuses import COMPLETED, with_status
from analysis.studies.rank_history import RANKS, RankHistory, read_ranks

CONFIG: Final = "config.json"
PROVENANCE: Final = "provenance.json"
EVENTS: Final = "events.log"
TRIALS: Final = "trials.parquet"
RESULTS: Final = "results.parquet"
PARETO: Final = "pareto.json"
BASELINE: Final = "baseline.json"
EARLIER: Final = "earlier.json"
READERS: Final = "reader_study.json"
REPORT: Final = "report.html"
COMPARED: Final = "compared.json"
COURSE: Final = "course.json"
FRONT_PLOT: Final = "pareto.png"
BASELINE_SHEET: Final = "baseline.png"
REFERENCE_SHEET: Final = "reference.png"
SAMPLES_SHEET: Final = "samples.png"
MLFLOW_STORE: Final = "mlflow.db"
STUDY_STORE: Final = "study.db"
CACHE: Final = "cache"
"""Names of a run's files, and of the folder that all trials share; samples lie in their trial's folder."""
WORD_MAPS_KEY: Final = "word_maps"
"""Key of the text in a picture of word maps that holds their layout, as JSON."""


def resamples_beside(samples: Path) -> Path:
    """Where the values on resampled films and patients lie, beside the sheet of samples of a trial or of the base."""
    return samples.with_name(f"{samples.stem}-resamples.parquet")


def word_maps_beside(samples: Path) -> Path:
    """Where the maps of what the prompts' words moved lie, beside the sheet of samples of a trial or of the base."""
    return samples.with_name(f"{samples.stem}-words.png")


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A finished or interrupted sweep on disk.

    Attributes:
        folder: the run directory that was read.
        trials: one row a trial, and one an adapter that was cut out of a trial's.
        results: one row a report of a trial; empty where none was written.
        front: the trials that neither another trial nor the base dominates.
        config: the configuration, with every default filled in.
        baseline: the un-adapted base model's scores by their names; empty where they were not taken.
    """

    folder: Path
    trials: pd.DataFrame
    results: pd.DataFrame = field(default_factory=pd.DataFrame)
    front: Front
    config: Mapping[str, Any]
    baseline: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> RunFolder:
        """Read a run directory.

        Raises:
            FileNotFoundError: the folder or one of its files is missing.
            ValueError: a file is damaged.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"`--run` must be a run directory, but got {str(folder)!r}. Check the path.")
        results, baseline = folder / RESULTS, folder / BASELINE
        opened = cls(
            folder=folder,
            trials=_read_table(_existing(folder / TRIALS)),
            results=_read_table(results) if results.exists() else pd.DataFrame(),
            front=Front.read(_existing(folder / PARETO)),
            config=_read_json(_existing(folder / CONFIG)),
            baseline=_read_json(baseline) if baseline.exists() else {},
        )
        named = [opened.trials[name].dropna() for name in ("trial_id", "cut_of") if name in opened.trials]
        require_names(
            [
                *(trial_id for column in named for trial_id in column),
                *(point.trial_id for point in opened.front.points),
            ],
            "Somebody has changed the tables: `python -m sweep.run --resume` makes them anew from the event log.",
        )
        return opened

    @property
    def num_cuts(self) -> int:
        """How many rows of `trials` are smaller adapters out of another row's training."""
        return int(self.trials["cut_of"].notna().sum()) if "cut_of" in self.trials else 0

    def completed(self) -> pd.DataFrame:
        """The trials that ran to their end."""
        return with_status(self.trials, COMPLETED)

    def adapter(self, trial_id: str) -> Path:
        """The adapter folder that a trial exported."""
        return self.folder / "trials" / trial_id / "adapter"

    def direction(self, column: str) -> Direction | None:
        """Which way of a column of the trials is better, or none where it is neither objective, metric nor cost."""
        directions = {objective.name: objective.direction for objective in self.front.objectives}
        return directions.get(column) or column_direction(column)

    def directed(self) -> list[str]:
        """The columns of the trials of which one can pick the best."""
        return [str(name) for name in self.trials.columns if self.direction(str(name)) is not None]

    def compared(self) -> list[Path]:
        """The other runs that its report was last asked to show, those that are still there."""
        path = self.folder / COMPARED
        paths = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        return [other for folder in paths if (other := Path(folder)).is_dir()]

    def data_fingerprint(self) -> str | None:
        """Of the data set that the sweep began with; None where nothing tells."""
        path = self.folder / PROVENANCE
        return _read_json(path).get("data_fingerprint") if path.is_file() else None

    def earlier(self) -> list[str]:
        """What became of each earlier sweep that the search was told of, in a sentence.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.folder / EARLIER
        return [str(sentence) for sentence in _read_json(path).get("sweeps", ())] if path.is_file() else []

    def picture(self, name: str) -> Path | None:
        """A picture of the run, if it is there."""
        path = self.folder / name
        return path if path.is_file() else None

    def samples(self, trial_id: str) -> Path | None:
        """The sample grid of a trial, if it is there."""
        return self.picture(f"trials/{trial_id}/{SAMPLES_SHEET}")

    def resamples(self) -> Mapping[str, pd.DataFrame]:
        """See `read_resamples`."""
        return read_resamples(self.folder, self.trials["trial_id"].astype(str))

    def ranks(self, trial_id: str) -> RankHistory | None:
        """How the ranks of a trial's layers changed, if they did.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.folder / "trials" / trial_id / RANKS
        return read_ranks(path) if path.is_file() else None


def read_resamples(folder: Path, trial_ids: Iterable[str]) -> dict[str, pd.DataFrame]:
    """What objectives might as well have been, one row a resample, by trial and under `BASE` of the un-adapted base.

    Args:
        folder: a run directory.
        trial_ids: trials; those that were not resampled are left out.

    Raises:
        ValueError: a file is damaged.
    """
    paths = {BASE: resamples_beside(folder / BASELINE_SHEET)}
    paths |= {name: resamples_beside(folder / "trials" / name / SAMPLES_SHEET) for name in trial_ids}
    return {name: _read_table(path) for name, path in paths.items() if path.is_file()}


def require_names(trial_ids: Iterable[object], remedy: str) -> None:
    """Refuse identities of trials that would lead elsewhere as names of folders.

    Args:
        trial_ids: as they were read.
        remedy: a sentence for who reads the refusal.

    Raises:
        ValueError: one would.
    """
    for trial_id in trial_ids:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", str(trial_id)):
            raise ValueError(
                f"`trial_id` must be letters, digits, `_`, `.` and `-`, but got {str(trial_id)!r}. {remedy}"
            )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(
            f"`--run` must be the directory of a finished run, but got {str(path.parent)!r}, which has no {path.name}. "
            "Give the directory that `python -m sweep.run` printed."
        )
    return path


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"`{path.name}` must be a Parquet table, but got: {error}. Restore the file.") from error


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"`{path.name}` must be JSON, but got: {error}. Restore the file.") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"`{path.name}` must hold keys and values, but got a {type(content).__name__}. Restore the file."
        )
    return content

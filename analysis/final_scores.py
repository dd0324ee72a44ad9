"""What a final evaluation left on disk: one `scores.json` a finalist."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVALUATION = "evaluation"
"""Folder of a run directory that holds everything of its final evaluation."""
SCORES_FILE = "scores.json"
FORMAT = 3
SERIES = "series"
"""Key of the number of the series that a finalist was evaluated in. A new series begins where what numbers depend on
changes."""
MEASUREMENT = ("data", "conditions", "sampling", "extractor", "settings")
"""Keys of all that numbers depend on beside the model."""
DONE = "completed"
STUDY_FAILED = "failed"
"""How a study of a finalist ended; of trials that failed tell `analysis.front.statuses`."""
BASE = "base"
"""Stands for the un-adapted base model where a trial's id does for others."""


def read_scores(path: Path) -> dict[str, Any] | None:
    """A finalist's scores, or None where there is no such file.

    Raises:
        ValueError: the file is damaged, or of another format.
    """
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"`{SCORES_FILE}` must be JSON, but got {error} in {str(path)!r}. Remove it and evaluate again."
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        came = repr(record.get("format")) if isinstance(record, dict) else f"a {type(record).__name__}"
        raise ValueError(
            f"`{SCORES_FILE}` must have format {FORMAT}, but got {came} in {str(path)!r}. Remove it and evaluate again."
        )
    if not isinstance(record.get("studies"), dict) or not isinstance(record.get(SERIES), int):
        raise ValueError(
            f"`{SCORES_FILE}` must hold `studies` and `{SERIES}`, but got {sorted(record)} in {str(path)!r}. "
            "Remove it and evaluate again."
        )
    return record


def values_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of all completed studies of a finalist by name."""
    completed = [study for study in record["studies"].values() if study["status"] == DONE]
    return {name: value for study in completed for name, value in study["values"].items()}


@dataclass(frozen=True, kw_only=True)
class FinalScores:
    """A finalist's scores, to be shown.

    Attributes:
        folder: where they and the pictures lie.
        record: everything that `scores.json` holds.
        values: the numbers of completed studies by name.
    """

    folder: Path
    record: Mapping[str, Any]
    values: Mapping[str, float]

    @property
    def trial_id(self) -> str:
        """Its trial, or `base`."""
        return str(self.record["trial_id"])

    @property
    def strategy(self) -> str:
        """Name of its strategy."""
        return str(self.record["strategy"])

    @property
    def conditions_of_measurement(self) -> tuple[Any, ...]:
        """All that numbers depend on beside the model; those of two finalists compare where these are equal."""
        return _measurement(self.record)

    @property
    def series(self) -> int:
        """The number of its series."""
        return int(self.record[SERIES])

    @property
    def num_seeds(self) -> int:
        """Trainings behind its seeds' intervals; 1 where it was trained once."""
        return len(self.record.get("seeds", {}).get("seeds", [0]))

    def value(self, name: str) -> float | None:
        """A number: the mean over trainings where there are several, else that of the trial, else nothing."""
        over_seeds = self.record.get("seeds", {}).get("values", {}).get(name)
        return self.values.get(name) if over_seeds is None else over_seeds["mean"]

    def interval(self, name: str) -> tuple[float, float] | None:
        """Its 95 % interval, where there is one: over trainings where there are several, else over films."""
        over_seeds = self.record.get("seeds", {}).get("values", {}).get(name)
        key, slash, rest = name.partition("/")
        if over_seeds is None:
            low, high = (self.values.get(f"{key}_{end}{slash}{rest}") for end in ("low", "high"))
        else:
            low, high = over_seeds["low"], over_seeds["high"]
        return None if low is None or high is None else (low, high)

    def failures(self) -> dict[str, str]:
        """Why studies failed, by study."""
        return {
            name: study["error"] for name, study in self.record["studies"].items() if study["status"] == STUDY_FAILED
        }

    def picture(self, name: str) -> Path | None:
        """A picture of the finalist, if it is there."""
        path = self.folder / name
        return path if path.is_file() else None


@dataclass(frozen=True, kw_only=True)
class Comparable:
    """Finalists whose numbers may stand in one table.

    Attributes:
        finalists: those evaluated as the last series was, the base model first; none where nothing was evaluated.
        left_out: trials evaluated otherwise: on other data, with other settings, or by another extractor.
    """

    finalists: tuple[FinalScores, ...]
    left_out: tuple[str, ...]

    @property
    def note(self) -> str:
        """Who is left out and what to do about it; empty where nobody is."""
        if not self.left_out:
            return ""
        return (
            f"Left out, for it was evaluated under other settings: {', '.join(self.left_out)}. "
            "Evaluate it again with `python -m sweep.evaluate --run DIR --pick trial:ID`."
        )


def read_finalists(run: Path) -> Comparable:
    """The scores in a run directory that compare with those of the last series.

    Raises:
        ValueError: a file is damaged.
    """
    evaluated = _read_all(run)
    alike = [
        finalist
        for finalist in evaluated
        if finalist.conditions_of_measurement == _last(evaluated).conditions_of_measurement
    ]
    return Comparable(
        finalists=tuple(sorted(alike, key=lambda finalist: (finalist.trial_id != BASE, finalist.trial_id))),
        left_out=tuple(sorted(finalist.trial_id for finalist in evaluated if finalist not in alike)),
    )


def series_of(run: Path, record: Mapping[str, Any]) -> int:
    """The number of the series that a finalist belongs to which is evaluated next.

    The order is kept in the files and not taken from when they were written, so that a copied run reads the same.

    Args:
        run: its directory.
        record: what is known of the finalist; the keys of `MEASUREMENT` count.

    Returns:
        The last series' number, or the next one where that was measured otherwise; 1 where nothing was evaluated.

    Raises:
        ValueError: a file is damaged.
    """
    evaluated = _read_all(run)
    if not evaluated:
        return 1
    last = _last(evaluated)
    return last.series + (last.conditions_of_measurement != _measurement(record))


def _read_all(run: Path) -> list[FinalScores]:
    files = sorted((run / EVALUATION).glob(f"*/{SCORES_FILE}"))
    records = {path.parent: read_scores(path) for path in files}
    return [FinalScores(folder=k, record=v, values=values_of(v)) for k, v in records.items() if v is not None]


def _last(finalists: Sequence[FinalScores]) -> FinalScores:
    return max(finalists, key=lambda finalist: finalist.series)


def _measurement(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in MEASUREMENT)

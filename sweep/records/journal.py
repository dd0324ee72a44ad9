"""What a sweep leaves on disk as it goes, so that a crash loses nothing that was finished."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.files import whole_file
from analysis.front.pareto import Front, Objective
from analysis.run_folder import BASELINE, CONFIG, EVENTS, PARETO, PROVENANCE, RESULTS, TRIALS
from sweep.config import ConfigError, SweepConfig
from sweep.records.events import BaselineScored, Cut, Ended, Event, EventLog, Reported, Started
from sweep.records.tables import Tables
from sweep.trials.ends import UNFINISHED, TrialEnd, TrialListener


class Journal(TrialListener):
    """Writes a run directory; a listener to the sweep's trials.

    Every event goes to `events.jsonl` at once. The tables follow from the events alone; they are written anew, whole or
    not at all, when a trial ends.
    """

    def __init__(self, out: Path, objectives: Sequence[Objective], log: EventLog) -> None:
        """See `Journal.create`."""
        self.out = out
        self.tables = Tables(objectives)
        self._log = log

    @classmethod
    def create(cls, out: Path, config: SweepConfig, provenance: Mapping[str, Any]) -> Journal:
        """Begin a run directory.

        Args:
            out: Folder, made where it is missing.
            config: Resolved configuration, kept as `config.json`.
            provenance: What `collect_provenance` gives, kept as `provenance.json`.

        Raises:
            ConfigError: `out` holds a run already, or is not a folder.
        """
        require_new_run(out)
        out.mkdir(parents=True, exist_ok=True)
        _write_json(out / PROVENANCE, provenance)
        _write_json(out / CONFIG, config.model_dump(mode="json"))
        return cls(out, config.reported_objectives(), EventLog.create(out / EVENTS))

    def on_start(self, trial_id: str, choice: Mapping[str, Any]) -> None:
        """Note that a trial began, and with what."""
        self._record(Started(trial_id=trial_id, choice=choice))

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Note a trial's report."""
        self._record(Reported(trial_id=trial_id, metrics=metrics))

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Note a smaller adapter of a trial's training."""
        self._record(Cut(cut_id=cut_id, trial_id=trial_id, choice=choice, metrics=metrics))

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Note how a trial ended, and write the tables."""
        self._record(Ended(trial_id=trial_id, **asdict(end)))
        self._write_tables()

    def on_baseline(self, scores: Mapping[str, float]) -> None:
        """Keep what the un-adapted base model scores."""
        self._record(BaselineScored(scores=scores))
        _write_json(self.out / BASELINE, scores)

    def finish(self) -> Front:
        """Fail trials that never ended, write the front and the final tables, and close."""
        for trial_id in self.tables.running():
            self.on_end(trial_id, UNFINISHED)
        found = self._write_tables()
        self._log.close()
        return found

    def _record(self, event: Event) -> None:
        self._log.append(event)
        event.tell(self.tables)

    def _write_tables(self) -> Front:
        found = self.tables.front()
        _write_parquet(self.out / TRIALS, self.tables.trials())
        _write_parquet(self.out / RESULTS, self.tables.results())
        found.write(self.out / PARETO)
        return found


def require_new_run(out: Path) -> None:
    """Refuse a folder that a run cannot be written to.

    Raises:
        ConfigError: `out` holds a run already, or is not a folder.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"`--out` must be a folder, but got the file {str(out)!r}. Choose another --out.")
    if (out / CONFIG).exists():
        raise ConfigError(f"`--out` must not hold a run, but got {str(out)!r}, which does. Choose another --out.")


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    with whole_file(path) as file:
        table.to_parquet(file, index=False)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    with whole_file(path) as file:
        file.write((json.dumps(_jsonable(values), indent=2, allow_nan=False) + "\n").encode())


def _jsonable(value: Any) -> Any:
    """JSON has no NaN or infinity: they become their names."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

"""What a sweep leaves on disk as it goes, so that a crash loses nothing that was finished."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analysis.files import whole_file
from analysis.front.pareto import Front, Objective
from analysis.front.statuses import COMPLETED
from analysis.run_folder import BASELINE, CONFIG, EARLIER, EVENTS, PARETO, PROVENANCE, RESULTS, TRIALS, read_resamples
from sweep.config import ConfigError, SweepConfig
from sweep.notation import flat
from sweep.records.events import (
    BaselineScored,
    Cut,
    EarlierRead,
    Ended,
    Event,
    Placed,
    Reported,
    Resumed,
    Retried,
    Started,
    parse_events,
    read_events,
    record,
    replay,
)
from sweep.records.garbage import without_collecting
from sweep.records.log import RecordLog, read_log
from sweep.records.tables import Past, Tables
from sweep.trials.earlier import EarlierSweep
from sweep.trials.ends import TrialEnd, TrialListener
from sweep.trials.full_disks import is_full
from sweep.trials.suggestions import Suggestion

MAY_CHANGE: Final = ("search.num_trials", "search.stop.", "compute.", "cache.", "tracking.")
"""Keys of the configuration that may have other values when a sweep goes on."""
EACH_OF_FIRST: Final = 100
"""After each of so many trials the tables are written; later after every second, every third and so on."""
TABLES_S: Final = 10.0
"""Seconds after which the tables are written at the next end of a trial in any case."""


class Journal(TrialListener):
    """Writes a run directory; a listener to the sweep's trials.

    Every event is on the disk, in `events.log`, before anybody else hears of it. The tables follow from the events
    alone; they are written anew, whole or not at all, when a trial ends: of many short ones, after so many that what a
    trial costs does not grow. The caller owns the folder.
    """

    def __init__(
        self,
        out: Path,
        objectives: Sequence[Objective],
        log: RecordLog,
        past: Sequence[Event] = (),
        torn_bytes: int = 0,
    ) -> None:
        """See `Journal.open`."""
        self.out, self.past = out, tuple(past)
        """`past` are the events from before this process, and what earlier sweeps know."""
        self.torn_bytes = torn_bytes
        """Bytes of the last record, where a death broke it off."""
        self.tables = Tables(objectives)
        self._log, self._written_s = log, time.monotonic()
        self._resamples: dict[str, pd.DataFrame] = {}
        with without_collecting():
            replay(past, self.tables)

    @classmethod
    def open(cls, out: Path, config: SweepConfig, provenance: Mapping[str, Any]) -> Journal:
        """Begin a run, or go on with the one that `out` holds.

        Args:
            out: folder, made where it is missing.
            config: resolved configuration, kept as `config.json`.
            provenance: what `collect_provenance` gives, kept as `provenance.json`.

        Raises:
            ConfigError: `out` holds a run of another configuration, data or base model.
            ValueError: the event log is of another version.
        """
        out.mkdir(parents=True, exist_ok=True)
        if not holds_run(out):
            _write_json(out / PROVENANCE, provenance)
            _write_json(out / CONFIG, config.model_dump(mode="json"))
            return cls(out, config.reported_objectives(), RecordLog.create(out / EVENTS))
        require_continued(out, config, provenance)
        contents = read_log(out / EVENTS)
        past, log = parse_events(contents.records), RecordLog.reopen(out / EVENTS)
        journal = cls(out, config.reported_objectives(), log, past, contents.torn_bytes)
        journal._record(Resumed(provenance=provenance))
        _write_json(out / CONFIG, config.model_dump(mode="json"))
        return journal

    def on_earlier(self, sweep: EarlierSweep) -> None:
        """Keep what an earlier sweep knows; it is of the past then."""
        event = EarlierRead.of(sweep)
        self._record(event)
        self.past = (*self.past, event)
        self._write_tables()

    def on_start(self, suggestion: Suggestion) -> None:
        """Note that a trial began, and with what."""
        self._record(Started(**suggestion.as_config()))

    def on_place(self, trial_id: str, node: str, address: str) -> None:
        """Note where a trial has a process."""
        self._record(Placed(trial_id=trial_id, node=node, address=address))

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Note a trial's report."""
        self._record(Reported(trial_id=trial_id, metrics=metrics))

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Note a smaller adapter of a trial's training."""
        self._record(Cut(cut_id=cut_id, trial_id=trial_id, choice=choice, metrics=metrics))

    def on_retry(self, trial_id: str, reason: str) -> None:
        """Note that a trial is tried again, and why."""
        self._record(Retried(trial_id=trial_id, reason=reason))

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Note how a trial ended, and write the tables."""
        self._record(Ended(trial_id=trial_id, **asdict(end)))
        ended = self.tables.num_ended()
        if ended % max(1, ended // EACH_OF_FIRST) == 0 or time.monotonic() - self._written_s > TABLES_S:
            self._write_tables()

    def on_baseline(self, scores: Mapping[str, float]) -> None:
        """Keep what the un-adapted base model scores."""
        self._record(BaselineScored(scores=scores))
        self._write_tables()

    def unfinished(self, num_trials: int) -> bool:
        """Whether something is left to do: trials that have not ended or not begun, or the base model's scores."""
        return self.tables.num_ended() < num_trials or bool(self.tables.running()) or self.tables.baseline is None

    def commit(self) -> str | None:
        """The commit of the code that last worked on the run before this process."""
        resumed = [event.provenance for event in self.past if isinstance(event, Resumed)]
        return (resumed or [_read_json(self.out / PROVENANCE)])[-1].get("git_commit")

    def losses(self) -> dict[str, int]:
        """How often each trial that the past leaves open lost its process or machine; full disks do not count."""
        retries = (event for event in self.past if isinstance(event, Retried))
        lost = Counter(event.trial_id for event in retries if not is_full(event.reason))
        return {trial_id: lost[trial_id] for trial_id in self.tables.running()}

    def finish(self) -> Front:
        """Write the front and the final tables, and close; trials that have not ended can go on another time."""
        front = self._write_tables()
        self._log.close()
        return front

    def _record(self, event: Event) -> None:
        record(self._log, event)
        event.tell(self.tables)

    def _write_tables(self) -> Front:
        new = [trial_id for trial_id in self.tables.ended() if trial_id not in self._resamples]
        self._resamples |= read_resamples(self.out, new)
        front = self.tables.front(self._resamples)
        self._written_s = time.monotonic()
        _write_parquet(self.out / TRIALS, self.tables.trials(front))
        _write_parquet(self.out / RESULTS, self.tables.results())
        front.write(self.out / PARETO)
        if self.tables.earlier:
            _write_json(self.out / EARLIER, {"sweeps": [sweep.told() for sweep in self.tables.earlier]})
        if self.tables.baseline is not None:
            _write_json(self.out / BASELINE, self.tables.baseline)
        return front


def past_of(out: Path, objectives: Sequence[Objective]) -> Past:
    """How far the sweep that a folder holds, if it does, has come; nothing is written.

    Raises:
        ConfigError: it holds the tables of a run without its events.
        ValueError: the event log is of another version.
    """
    tables = Tables(objectives)
    replay(read_events(out / EVENTS) if holds_run(out) else (), tables)
    ended, completed = tables.num_ended(), tables.num_ended(COMPLETED)
    return Past(num_ended=ended, num_completed=completed, earlier=tuple(tables.earlier))


def holds_run(out: Path) -> bool:
    """Whether a folder holds a run that can go on.

    Raises:
        ConfigError: it holds the tables of a run without its events.
    """
    if (out / TRIALS).is_file() and not (out / EVENTS).is_file():
        raise ConfigError(
            f"`run directory` must hold its {EVENTS} to go on, but got {str(out)!r}, which has {TRIALS} alone: an older "
            "version wrote it, or it was copied in part. Choose another --out, or copy the whole directory."
        )
    return (out / EVENTS).is_file()


def require_continued(out: Path, config: SweepConfig, provenance: Mapping[str, Any]) -> None:
    """Refuse to go on with a run by another configuration, or with other data or weights than it began with.

    Args:
        out: the run directory.
        config: what the sweep would go on with.
        provenance: what `collect_provenance` says of now.

    Raises:
        ConfigError: they differ; the message names the keys.
    """
    defaults, kept, now = (
        dict(flat(values))
        for values in (SweepConfig().model_dump(mode="json"), _read_json(out / CONFIG), config.model_dump(mode="json"))
    )
    before = defaults | kept  # an earlier version had fewer keys
    differing = [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(MAY_CHANGE)
    ]
    began = _read_json(out / PROVENANCE)
    differing += [
        f"{what} has changed since"
        for key, what in (("data_fingerprint", "the data set"), ("base", "the base model"))
        if began[key] != provenance[key]
    ]
    if differing:
        raise ConfigError(
            f"`run directory` must hold no run, or one of the same sweep, but got {str(out)!r}, where "
            f"{'; '.join(differing)}. Go on with --resume and the values of then, of which {', '.join(MAY_CHANGE)} may "
            "change; or start another sweep with another --out."
        )


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


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

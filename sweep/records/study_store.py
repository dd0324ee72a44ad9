"""`study.db`: the sweep as an Optuna study on disk, for optuna-dashboard, written behind the event log.

The log is the truth. When a sweep begins or goes on, the study is made anew from the log; from then on a background thread
follows. The search itself never reads it, and whatever goes wrong here, the sweep goes on.
"""

from __future__ import annotations

import math
import sqlite3
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import optuna
from optuna.distributions import json_to_distribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from analysis.front.pareto import Objective
from analysis.front.statuses import COMPLETED
from analysis.run_folder import EVENTS, STUDY_STORE
from sweep.records.events import Ended, Event, Reported, Started, parse_events
from sweep.records.log import TIME, read_log
from sweep.records.outbox import Outbox
from sweep.trials.ends import TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion

DIRECTIONS: Final = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
CLOSE_S: Final = 2.0
"""Seconds that the end of a sweep waits for the study to be written."""
LIMIT: Final = "over a limit: not tried"


@dataclass(frozen=True, slots=True)
class _Trial:
    """An Optuna trial that grows with the events of ours."""

    frozen: FrozenTrial
    reports: dict[str, Any] = field(default_factory=dict)


class StudyTrials:
    """Optuna's trials as the events of a log make them, in their order; the same events make the same trials.

    Args:
        objectives: whose values a completed trial has.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._names = [objective.name for objective in objectives]
        self._open: dict[str, _Trial] = {}
        self.all: list[FrozenTrial] = []

    def take(self, event: Event, when: datetime) -> FrozenTrial | None:
        """Add an event that happened then; gives the trial that it ended, if it ended one."""
        match event:
            case Started():
                self.all += [_new(drawn, TrialState.PRUNED, when, {"reason": LIMIT}) for drawn in event.rejected]
                named = {"trial_id": event.trial_id, "strategy": event.choice["strategy"]["name"]}
                started = _new({"params": event.params, "distributions": event.distributions}, None, when, named)
                self._open[event.trial_id] = _Trial(started)
                self.all.append(started)
            case Reported() if event.trial_id in self._open:
                self._open[event.trial_id].reports.update(event.metrics)
            case Ended() if event.trial_id in self._open:
                return self._end(event, when)
        return None

    def _end(self, event: Ended, when: datetime) -> FrozenTrial:
        trial = self._open.pop(event.trial_id)
        frozen, values = trial.frozen, [trial.reports.get(name, math.nan) for name in self._names]
        notes = {"reason": event.reason, "rung": event.rung, "epochs": trial.reports.get("epoch", -1) + 1}
        frozen.user_attrs = {**frozen.user_attrs, **{name: note for name, note in notes.items() if note is not None}}
        frozen.state = TrialState.FAIL if event.lost else TrialState.PRUNED
        if event.kind == COMPLETED:
            frozen.state, frozen.values = TrialState.COMPLETE, [float(value) for value in values]
        frozen.datetime_complete = when
        return frozen


def _new(
    drawn: Mapping[str, Any], state: TrialState | None, when: datetime, attributes: Mapping[str, Any]
) -> FrozenTrial:
    trial = create_trial(
        state=state or TrialState.RUNNING,
        params=dict(drawn["params"]),
        distributions={
            name: json_to_distribution(distribution) for name, distribution in drawn["distributions"].items()
        },
        user_attrs=dict(attributes),
    )
    trial.datetime_start, trial.datetime_complete = when, when if state else None
    return trial


def rebuild_study(out: Path, objectives: Sequence[Objective], num_records: int | None = None) -> StudyTrials:
    """Make `study.db` anew from the event log; there is the old one, or the new one, at any time.

    Args:
        out: run directory.
        objectives: of the sweep.
        num_records: how many records of the log; None: all.

    Returns:
        The trials, to which more events can be added.

    Raises:
        OSError, optuna.exceptions.StorageInternalError: it cannot be written.
    """
    records, trials = read_log(out / EVENTS).records[:num_records], StudyTrials(objectives)
    for event, record in zip(parse_events(records), records, strict=True):
        trials.take(event, _local(record[TIME]))
    partial = out / f".{STUDY_STORE}.partial"
    partial.unlink(missing_ok=True)
    storage = _open(partial)
    study_id = _study_id(storage, out, objectives, is_new=True)
    for trial in trials.all:
        storage.create_new_trial(study_id, template_trial=trial)
    storage.engine.dispose()
    _put(partial, out / STUDY_STORE)
    return trials


def _put(partial: Path, store: Path) -> None:
    """Let a store hold what another one does, in one step; in the file that is there, which a dashboard may have open."""
    try:
        if store.is_file():
            with closing(sqlite3.connect(partial)) as new, closing(sqlite3.connect(store)) as old:
                new.backup(old)
            partial.unlink()
            return
    except sqlite3.DatabaseError:  # what is there is damaged
        pass
    partial.replace(store)


def sqlite_address(path: Path) -> str:
    """A file's address for Optuna and its dashboard; letters that addresses take for something else are escaped."""
    return f"sqlite:///{quote(str(path.resolve()))}"


def _open(path: Path) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return RDBStorage(sqlite_address(path), engine_kwargs={"connect_args": {"timeout": 20}})


def _study_id(storage: BaseStorage, out: Path, objectives: Sequence[Objective], *, is_new: bool) -> int:
    name = out.resolve().name
    if not is_new:
        return storage.get_all_studies()[0]._study_id
    study = optuna.create_study(
        study_name=name, storage=storage, directions=[DIRECTIONS[objective.direction] for objective in objectives]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.name for objective in objectives])
    return study._study_id


def _local(time: str) -> datetime:
    """Optuna's times are of this machine's zone, and do not say so."""
    return datetime.fromisoformat(time).astimezone().replace(tzinfo=None)


def _now() -> datetime:
    return datetime.now()


class StudyStore(TrialListener):
    """Follows a sweep into `study.db`, in the background.

    Args:
        out: run directory.
        objectives: of the sweep.
        num_past: how many records of the log are of the past; what comes after them is heard.
    """

    def __init__(self, out: Path, objectives: Sequence[Objective], num_past: int) -> None:
        self._out, self._objectives = out, tuple(objectives)
        self._trials = StudyTrials(objectives)
        self._storage: BaseStorage | None = None
        self._study_id = -1
        self._ids: dict[str, int] = {}
        self._outbox = Outbox(lambda error: False, lambda error: None)
        self._outbox.submit(lambda: self._rebuild(num_past))

    def on_start(self, suggestion: Suggestion) -> None:
        """Add the trial as running."""
        self._hear(Started(**suggestion.as_config()))

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Keep the values for the trial's end."""
        self._hear(Reported(trial_id=trial_id, metrics=metrics))

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Say how the trial ended."""
        self._hear(Ended(trial_id=trial_id, kind=end.kind, reason=end.reason, rung=end.rung, lost=end.lost))

    def close(self) -> str | None:
        """Write what is left, for some seconds; gives what could not be written, in a sentence."""
        left = self._outbox.close(lambda: None, CLOSE_S)
        errors = self._outbox.errors
        if not left and not errors:
            return None
        why = f": {errors[0]}" if errors else ""
        return f"{STUDY_STORE} lacks trials{why}. `python -m sweep.ui` makes it anew from the event log"

    def _hear(self, event: Event) -> None:
        when = _now()
        self._outbox.submit(lambda: self._follow(event, when))

    def _rebuild(self, num_past: int) -> None:
        self._trials = rebuild_study(self._out, self._objectives, num_past)
        storage = _open(self._out / STUDY_STORE)
        self._study_id = _study_id(storage, self._out, self._objectives, is_new=False)
        for trial in storage.get_all_trials(self._study_id, deepcopy=False, states=(TrialState.RUNNING,)):
            self._ids[trial.user_attrs["trial_id"]] = trial._trial_id
        self._storage = storage

    def _follow(self, event: Event, when: datetime) -> None:
        known = len(self._trials.all)
        ended = self._trials.take(event, when)
        if self._storage is None:
            return
        self._add(self._trials.all[known:])
        if ended is not None:
            trial_id = self._ids.pop(ended.user_attrs["trial_id"])
            for name, value in ended.user_attrs.items():
                self._storage.set_trial_user_attr(trial_id, name, value)
            self._storage.set_trial_state_values(trial_id, ended.state, ended.values)

    def _add(self, trials: Iterable[FrozenTrial]) -> None:
        assert self._storage is not None
        for trial in trials:
            number = self._storage.create_new_trial(self._study_id, template_trial=trial)
            if trial.state == TrialState.RUNNING:
                self._ids[trial.user_attrs["trial_id"]] = number

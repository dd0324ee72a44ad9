"""MLflow: one parent run for the sweep, one child run for each trial.

Opening a new store takes seconds and every write takes milliseconds, of a server that is away minutes: one background
thread does all of it in the order of the calls, and trials never wait. What it has not written when the sweep ends is in
the event log, and is written when the sweep is gone on with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analysis.front.pareto import Front
from analysis.front.statuses import COMPLETED, FAILED, STOPPED, EndKind
from analysis.report.front_table import markdown_table
from analysis.run_folder import BASELINE_SHEET, MLFLOW_STORE, REFERENCE_SHEET, SAMPLES_SHEET, RunFolder
from sweep.config import SweepConfig
from sweep.records.outbox import Outbox
from sweep.records.tracking.course import Course, course_of, send_course, show_table
from sweep.records.tracking.pictures import SAMPLES, keep_pictures
from sweep.records.tracking.registry import register_knee
from sweep.records.tracking.store import (
    COMPLETED_TRIALS,
    END,
    LOCKED,
    OF_BASE,
    Place,
    Runs,
    is_passing,
    open_runs,
    runs_of,
    status_of,
)
from sweep.records.tracking.views import keep_views, links
from sweep.trials.ends import TrialEnd

RUN_STATUS: Final[Mapping[EndKind, str]] = {COMPLETED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}
"""What MLflow calls the end of a trial's run; the tag `end` says it in our words."""
LONGEST_TAG: Final = 5000
CAPTION: Final = "Pareto front; its runs are tagged `pareto = true`, its knee `knee = true`."
NOTE: Final = "mlflow.note.content"
"""Shown as the run's description in the MLflow UI, as Markdown."""
ABORT_S: Final = 3.0
"""How long the records of a sweep that is told to end may take: Slurm and Kubernetes leave little time."""
SERVER_S: Final = 30.0
"""How long a finished sweep waits for a server that takes no records."""
REFUSED_S: Final = 120.0
"""How long a record is sent that a server answers with an error, while it takes what opens the sweep's runs before each
try: as long as a database may be busy. Then it is refused, as later records wait for it."""
REFUSED_TRIES: Final = 5
"""How often it is sent at least; each try may take minutes."""


class RefusedError(RuntimeError):
    """A server takes other records, but not this one."""


class Tracker:
    """Records a sweep in the SQLite store of its run directory, or on a server, in the background."""

    def __init__(self, config: SweepConfig, place: Place, say: Callable[[str], None]) -> None:
        """See `Tracker.start`."""
        self.place = place
        self._config, self._say = config, say
        self._runs: Runs | None = None
        self._is_past, self._has_ended, self._cannot_open, self._is_watched = True, False, False, False
        self._course: Course | None = None
        self._outbox = Outbox(is_passing if place.server else lambda error: False, self._on_pause)

    @classmethod
    def start(cls, config: SweepConfig, out: Path, say: Callable[[str], None] = lambda line: None) -> Tracker:
        """Open the sweep's parent run, a new one or the one that is there; returns at once.

        Where the store holds the past already, telling it again up to `replayed` adds only what is missing.

        Args:
            config: recorded as the parent's parameters; `tracking.uri` names a server.
            out: run directory; without a server, the store is `mlflow.db` in it.
            say: told in the background of a server that is away, and that it is back.
        """
        tracker = cls(config, Place(out=out, server=config.tracking.uri), say)
        tracker._submit(lambda runs: keep_views(runs, config.reported_objectives()))
        return tracker

    def replayed(self) -> None:
        """The past has been told: from now on everything is new."""

        def forget(runs: Runs) -> None:
            runs.steps.clear()
            self._is_past = False

        self._submit(forget)

    def trial(self, trial_id: str, strategy: str, params: Mapping[str, Any], *, cut_of: str | None = None) -> None:
        """Open a child run for a trial, or for a smaller adapter of the trial `cut_of`.

        Args:
            trial_id: the trial, or the cut, that the run is of.
            strategy: name of its strategy.
            params: hyperparameters by name.
            cut_of: of a smaller adapter, the trial whose training yielded it.
        """
        started_ms, tags = _now_ms(), {"strategy": strategy} | ({} if cut_of is None else {"cut_of": cut_of})
        self._submit(lambda runs: runs.open_child(trial_id, started_ms, tags, params))

    def report(self, trial_id: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Record a trial's numbers at an epoch, in one batch; what is not a number is left out.

        Args:
            trial_id: the sweep's own name of the trial.
            epoch: 0-based; the step at which the numbers stand.
            metrics: by name.
        """
        at, numbers = (_now_ms(), epoch), {name: value for name, value in metrics.items() if name != "epoch"}

        def write(runs: Runs) -> None:
            if epoch not in runs.steps.get(trial_id, ()):
                runs.log(runs.children[trial_id], numbers, at)

        self._submit(write)

    def best(self, num_completed: int, values: Mapping[str, float]) -> None:
        """Record on the parent what the best is in each objective after so many completed trials."""
        at, metrics = (_now_ms(), num_completed), {COMPLETED_TRIALS: num_completed, **values}

        def write(runs: Runs) -> None:
            if num_completed not in runs.steps.get("", ()):
                runs.log(runs.parent, metrics, at)

        self._submit(write)

    def baseline(self, scores: Mapping[str, float]) -> None:
        """Record on the parent what the un-adapted base model scores, with its films and held-out ones."""
        at, metrics = (_now_ms(), 0), {f"{OF_BASE}{name}": value for name, value in scores.items()}
        out = self.place.out

        def write(runs: Runs) -> None:
            if OF_BASE not in runs.steps:
                runs.log(runs.parent, metrics, at)
            keep_pictures(runs, runs.parent, {"reference": out / REFERENCE_SHEET, "base": out / BASELINE_SHEET})

        self._submit(write)

    def end(self, trial_id: str, end: TrialEnd, artifacts: Sequence[Path] = ()) -> None:
        """Close a trial's run, tagged with how it ended and why, with files and folders as its artifacts.

        Args:
            trial_id: the trial, or the cut, that is over.
            end: how it ended.
            artifacts: files and folders to keep.
        """

        def write(runs: Runs) -> None:
            if trial_id in runs.ended:
                return
            run_id = runs.children[trial_id]
            runs.keep(run_id, artifacts)
            if end.kind == COMPLETED:
                keep_pictures(runs, run_id, {SAMPLES: self.place.out / "trials" / trial_id / SAMPLES_SHEET})
            for tag, value in _end_tags(end).items():
                runs.client.set_tag(run_id, tag, value)
            runs.end(trial_id, RUN_STATUS[end.kind])

        self._submit(write)

    def course(self) -> str | None:
        """Draw how the sweep went, from the tables in its run directory: hypervolume, learning curves, what mattered.

        That takes its time here, and not of what `finish` gives a server; `finish` sends it after what matters more.

        Returns:
            Why there is nothing to send, in a sentence; None where there is, and of a sweep of which nothing is to be said.
        """
        try:
            self._course = course_of(RunFolder.open(self.place.out))
        except Exception as error:  # noqa: BLE001  # a fault of a picture must not cost a sweep its end
            return f"MLflow lacks how the sweep went: {type(error).__name__}: {error}. The results are safe; --resume adds it"
        return None

    def finish(self, front: Front, artifacts: Sequence[Path] = ()) -> str | None:
        """Tag the front's runs, put its table, the course and the sweep's files on the parent, and wait for it all.

        Args:
            front: its trials are tagged `pareto=true`, its knee `knee=true` besides.
            artifacts: files such as the front's plot.

        Returns:
            What MLflow has not taken, in a sentence; None where all is written.
        """
        self._submit(lambda runs: _write_front(runs, front))
        if front.knee is not None:
            knee, preset = front.knee.trial_id, self._config.preset
            self._submit(lambda runs: register_knee(runs, knee, preset))
        if (course := self._course) is not None:
            self._submit(lambda runs: send_course(runs, course))
        return self._end("FINISHED", artifacts, self._patience_s())

    def abort(self, *, in_hurry: bool = False) -> str | None:
        """Close the parent run as failed and runs of unfinished trials as killed.

        Args:
            in_hurry: what takes longer than some seconds is left to the sweep's going on.

        Returns:
            What has not been written, in a sentence; None where all is.
        """
        return self._end("FAILED", (), ABORT_S if in_hurry else self._patience_s())

    def num_waiting(self) -> int:
        """How many writes have not been done."""
        return self._outbox.num_waiting()

    def shown_by(self) -> str:
        """What shows the runs: a command, or the page of the server that has them."""
        if self.place.server is None:
            return self.place.ui_command
        runs = self._runs
        page = "" if runs is None else links(self.place, runs.experiment_id, [runs.parent]).front
        return f"{self.place.server}/{page}"

    def _patience_s(self) -> float | None:
        return None if self.place.server is None else SERVER_S

    def _open(self) -> Runs:
        if self._runs is None:
            config, self._cannot_open = self._config.model_dump(mode="json"), self.place.server is None
            self._runs = open_runs(self.place, config, is_past=self._is_past)
            self._cannot_open = False
            self._watch(self._runs.parent)
        return self._runs

    def _watch(self, run_id: str) -> None:
        """Record the load of this machine, if asked for; MLflow's thread ends with the run, or where a server goes away."""
        if self._is_watched or not self._config.tracking.system_metrics:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=self.place.uri).start()
        self._is_watched = True

    def _on_pause(self, error: Exception | None) -> None:
        if error is None:
            self._say(f"the tracking server {self.place.server} takes records again.")
        else:
            self._say(
                f"the tracking server {self.place.server} takes no records: {_short(error)}. They are kept, and sent when "
                "it does; the sweep goes on."
            )

    def _submit(self, write: Callable[[Runs], None]) -> None:
        refused_s: list[float] = []  # when the server refused it, without a break in which it took nothing

        def run() -> None:
            if self._cannot_open:  # that error is the one to tell
                return
            try:
                write(self._open())
            except Exception as error:
                if self.place.server is None:
                    raise
                is_open, self._runs = self._runs is not None, None  # before the next try it is asked what it has taken
                if not is_open or status_of(error) in LOCKED:
                    refused_s.clear()
                else:
                    refused_s.append(time.monotonic())
                if len(refused_s) >= REFUSED_TRIES and refused_s[-1] - refused_s[0] > REFUSED_S:
                    raise RefusedError(_short(error)) from error
                raise

        self._outbox.submit(run)

    def _end(self, status: str, artifacts: Sequence[Path], patience_s: float | None) -> str | None:
        """Close what is open; a tracker that has ended keeps its end. Gives what is not written, in a sentence."""
        if self._has_ended:
            return None
        self._has_ended = True

        def close() -> None:
            if self._cannot_open:
                return
            runs = self._open()
            for trial_id in runs.children.keys() - runs.ended:
                runs.end(trial_id, "KILLED")
            runs.keep(runs.parent, artifacts)
            runs.client.set_terminated(runs.parent, status=status)

        left_out = self._outbox.close(close, patience_s)
        return self._outcome(left_out, self._outbox.errors)

    def _outcome(self, left_out: int, errors: Sequence[Exception]) -> str | None:
        if self.place.server is None and errors:
            return (
                f"`{MLFLOW_STORE}` lacks records: {errors[0]!r}. The results themselves are safe in "
                f"{str(self.place.out)!r}; where the disk was full, free it, and --resume writes what is missing"
            )
        lacking = []
        if errors:
            records = "a record" if len(errors) == 1 else f"{len(errors)} records, the first"
            lacking.append(f"the tracking server {self.place.server} refused {records}: {_short(errors[0])}")
        if left_out:
            lacking.append(f"MLflow lacks the last {left_out} records")
        return f"{' and '.join(lacking)}; they are in the event log, and --resume sends them" if lacking else None


def _short(error: Exception) -> str:
    """The last cause in a line."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return " ".join(str(error).split())[-200:]


def _end_tags(end: TrialEnd) -> dict[str, str]:
    tags = {END: end.kind, "reason": end.reason, "rung": end.rung}
    return {name: str(value)[:LONGEST_TAG] for name, value in tags.items() if value is not None}


def _write_front(runs: Runs, front: Front) -> None:
    client, parent = runs.client, runs.parent
    for run in list(runs_of(client, runs.experiment_id, runs.place.filter)):
        for tag in {"pareto", "knee"} & run.data.tags.keys():  # of the front before the sweep went on
            client.delete_tag(run.info.run_id, tag)
    for point in front.points:
        if point.trial_id not in runs.children:  # the server has refused it
            continue
        client.set_tag(runs.children[point.trial_id], "pareto", "true")
        if point.knee:
            client.set_tag(runs.children[point.trial_id], "knee", "true")
            samples = runs.place.out / "trials" / point.trial_id / SAMPLES_SHEET
            keep_pictures(runs, parent, {SAMPLES: samples})
    table = _front_frame(front)
    client.set_tag(parent, NOTE, f"{CAPTION}\n\n{markdown_table(front)}"[:LONGEST_TAG])
    show_table(runs, "pareto_table.json", table)
    client.log_text(parent, table.to_csv(index=False), "pareto_table.csv")


def _front_frame(front: Front) -> pd.DataFrame:
    """One row a point: trial, strategy, its objectives and hyperparameters, whether it is the knee, and how sure it is."""
    rows = [
        {"trial_id": point.trial_id, "strategy": point.strategy, **point.values, **point.params, "knee": point.knee}
        | ({} if point.probability is None else {"probability": point.probability})
        for point in front.points
    ]
    return pd.DataFrame(rows, columns=None if rows else ["trial_id", "strategy", "knee"])


def _now_ms() -> int:
    return int(time.time() * 1000)

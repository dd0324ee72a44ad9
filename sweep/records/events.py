"""The events of a sweep, from whose log everything else in the run directory can be rebuilt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from analysis.front.statuses import EndKind
from analysis.run_folder import require_names
from sweep.records.garbage import without_collecting
from sweep.records.log import EVENT, TIME, RecordLog, read_log
from sweep.trials.earlier import EarlierSweep
from sweep.trials.ends import TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierRead:
    """What an earlier sweep knows was read; the fields are those of `EarlierSweep`.

    Attributes:
        folder: its run directory.
        differs: in what it differs from this sweep; empty: its results are observations.
        trials: what is taken over from it, each with `choice`, `params` and `metrics`.
    """

    name: ClassVar[str] = "earlier"
    folder: str
    differs: Sequence[str]
    trials: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, sweep: EarlierSweep) -> Self:
        """The event of its having been read."""
        return cls(folder=sweep.folder, differs=list(sweep.differs), trials=list(sweep.trials))

    def tell(self, listener: TrialListener) -> None:
        """Let a listener hear of it, now or from the log."""
        listener.on_earlier(EarlierSweep(folder=self.folder, differs=self.differs, trials=self.trials))


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A trial began with what the search sampler chose; the fields are those of its `Suggestion`.

    Attributes:
        trial_id: the sweep's own name of the trial.
        number: 0-based, of the sweep's suggestions.
        choice: what the search space made of it: `strategy` with its fields, `lr`, `batch_size`.
        params: the search sampler's own values by Optuna's names.
        distributions: what each of them was drawn from, in Optuna's JSON.
        rejected: what the search sampler had drawn before and was over a limit.
    """

    name: ClassVar[str] = "start"
    trial_id: str
    number: int
    choice: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    rejected: Sequence[Mapping[str, Any]] = field(default_factory=list)

    def tell(self, listener: TrialListener) -> None:
        """Let a listener hear of it, now or from the log."""
        listener.on_start(Suggestion(**{field.name: getattr(self, field.name) for field in fields(self)}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A trial has a process, be it the first or one in which it goes on.

    Attributes:
        trial_id: the sweep's own name of the trial.
        node: Ray's id of the node where it runs.
        address: of that node.
    """

    name: ClassVar[str] = "place"
    trial_id: str
    node: str
    address: str

    def tell(self, listener: TrialListener) -> None:
        """Let a listener hear of it, now or from the log."""
        listener.on_place(self.trial_id, self.node, self.address)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reported:
    """A trial finished an epoch.

    Attributes:
        trial_id: the sweep's own name of the trial.
        metrics: what the epoch measured, by name: numbers, strings and booleans.
    """

    name: ClassVar[str] = "report"
    trial_id: str
    metrics: Mapping[str, Any]

    def tell(self, listener: TrialListener) -> None:
        """Let a listener hear of it, now or from the log."""
        listener.on_report(self.trial_id, self.metrics)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A trial's training yielded a smaller adapter too.

    Attributes:
        cut_id: the smaller adapter's own name, such as `TRIAL-rank2`.
        trial_id: the trial whose training yielded it.
        choice: as of a trial of its own: `strategy` with the cut's fields, `lr`, `batch_size`.
        metrics: its scores and the training's measurements, by name.
    """

    name: ClassVar[str] = "cut"
    cut_id: str
    trial_id: str
    choice: Mapping[str, Any]
    metrics: Mapping[str, Any]

    def tell(self, listener: TrialListener) -> None:
        """Let a listener hear of it, now or from the log."""
        listener.on_cut(self.cut_id, self.trial_id, self.choice, self.metrics)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A trial is over; the fields are those of its `TrialEnd`.

    Attributes:
        trial_id: the trial, or the smaller adapter, that is over.
        kind: `completed`, `stopped` or `failed`.
        reason: why it was stopped or failed; None of a completed trial.
        rung: 0-based number of the rung at which it was stopped; None of every other end.
        lost: it failed by no fault of its configuration.
    """

    name: ClassVar[str] = "end"
    trial_id: str
    kind: EndKind
    reason: str | None
    rung: int | None
    lost: bool = False

    def tell(self, listener: TrialListener) -> None:
        """Let a listener hear of it, now or from the log."""
        listener.on_end(self.trial_id, TrialEnd(kind=self.kind, reason=self.reason, rung=self.rung, lost=self.lost))


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineScored:
    """The un-adapted base model was scored, or could not be: then `scores` are empty.

    Attributes:
        scores: metrics of its films, by the names that results have, such as `fid_mini`.
    """

    name: ClassVar[str] = "baseline"
    scores: Mapping[str, float]

    def tell(self, listener: TrialListener) -> None:
        """Let a listener hear of it, now or from the log."""
        listener.on_baseline(self.scores)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retried:
    """A trial lost its process or machine, and is tried again; `reason` says what was lost.

    Attributes:
        trial_id: the sweep's own name of the trial.
        reason: what was lost, in words.
    """

    name: ClassVar[str] = "retry"
    trial_id: str
    reason: str

    def tell(self, listener: TrialListener) -> None:
        """Let a listener hear of it, now or from the log."""
        listener.on_retry(self.trial_id, self.reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumed:
    """The sweep went on after a break; `provenance` is what `collect_provenance` gave then.

    Attributes:
        provenance: what `collect_provenance` gave then: code, versions, machine, command.
    """

    name: ClassVar[str] = "resume"
    provenance: Mapping[str, Any]

    def tell(self, listener: TrialListener) -> None:
        """No trial is touched by it."""


Event = EarlierRead | Started | Placed | Reported | Cut | Ended | BaselineScored | Retried | Resumed
_KINDS: Final = (EarlierRead, Started, Placed, Reported, Cut, Ended, BaselineScored, Retried, Resumed)
EVENTS: Final[Mapping[str, type[Event]]] = {kind.name: kind for kind in _KINDS}
NAMES: Final = ("trial_id", "cut_id")
"""Fields that name folders of trials, in which a sweep that goes on removes checkpoints."""
CHANGED: Final = "Somebody has changed the event log: do not go on with this run."


def record(log: RecordLog, event: Event) -> None:
    """Add an event to a log; it is on the disk when this returns.

    Raises:
        OSError: it could not be written, for example because the disk is full.
    """
    log.append(event.name, asdict(event))


@without_collecting()
def parse_events(records: Iterable[Mapping[str, Any]]) -> tuple[Event, ...]:
    """The events that a log's records stand for, in their order.

    Raises:
        ValueError: a record is of no known kind, its fields are not that kind's, or a trial's name leads elsewhere than
            into the run directory.
    """
    events = []
    for number, record in enumerate(records, start=1):
        fields = {**record}
        kind, _ = fields.pop(EVENT, None), fields.pop(TIME, None)
        require_names((fields[name] for name in NAMES if name in fields), CHANGED)
        try:
            events.append(EVENTS[kind](**fields))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"`event log` must hold events that this version knows, but got {str(record)[:80]!r} as event {number}. "
                "Read the run with the version that wrote it."
            ) from error
    return tuple(events)


def replay(events: Iterable[Event], *listeners: TrialListener) -> None:
    """Let listeners hear what a log holds, in its order."""
    for event in events:
        for listener in listeners:
            event.tell(listener)


def read_events(path: Path) -> tuple[Event, ...]:
    """The events of a log of any format, as far as its records are whole.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: a later version wrote it.
    """
    return parse_events(read_log(path).records)

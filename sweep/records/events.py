"""The event log of a run: append-only, one typed record a line, from which everything else in the run can be rebuilt.

The file is JSON Lines. Its first line names the format; each further line holds one event and when it was written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, ClassVar, Final

from analysis.front.statuses import EndKind
from sweep.trials.ends import TrialEnd, TrialListener

FORMAT: Final = 1
HEAD: Final = "log"
"""Name of the first line's record."""
NOT_FINITE: Final = "$float"
"""JSON has no NaN and no infinity: such a number stands as a mapping with this one key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A trial began with what the search sampler chose."""

    name: ClassVar[str] = "start"
    trial_id: str
    choice: Mapping[str, Any]

    def tell(self, listener: TrialListener) -> None:
        """Let a listener hear of it, now or from the log."""
        listener.on_start(self.trial_id, self.choice)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reported:
    """A trial finished an epoch."""

    name: ClassVar[str] = "report"
    trial_id: str
    metrics: Mapping[str, Any]

    def tell(self, listener: TrialListener) -> None:
        """Let a listener hear of it, now or from the log."""
        listener.on_report(self.trial_id, self.metrics)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A trial's training yielded a smaller adapter too."""

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
    """A trial is over; the fields are those of its `TrialEnd`."""

    name: ClassVar[str] = "end"
    trial_id: str
    kind: EndKind
    reason: str | None
    rung: int | None

    def tell(self, listener: TrialListener) -> None:
        """Let a listener hear of it, now or from the log."""
        listener.on_end(self.trial_id, TrialEnd(kind=self.kind, reason=self.reason, rung=self.rung))


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineScored:
    """The un-adapted base model was scored, or could not be: then `scores` are empty."""

    name: ClassVar[str] = "baseline"
    scores: Mapping[str, float]

    def tell(self, listener: TrialListener) -> None:
        """Let a listener hear of it, now or from the log."""
        listener.on_baseline(self.scores)


Event = Started | Reported | Cut | Ended | BaselineScored
EVENTS: Final[Mapping[str, type[Event]]] = {kind.name: kind for kind in (Started, Reported, Cut, Ended, BaselineScored)}


class EventLog:
    """Appends to the event log of a run; each event is handed to the operating system before `append` returns."""

    def __init__(self, file: IO[str]) -> None:
        """See `EventLog.create`."""
        self._file = file

    @classmethod
    def create(cls, path: Path) -> EventLog:
        """Begin a log.

        Raises:
            FileExistsError: there is one already.
        """
        log = cls(path.open("x", encoding="utf-8"))
        log._write(HEAD, {"format": FORMAT})
        return log

    def append(self, event: Event) -> None:
        """Add an event at the end.

        Raises:
            OSError: it could not be written, for example because the disk is full.
        """
        self._write(event.name, asdict(event))

    def close(self) -> None:
        """Nothing more will come."""
        self._file.close()

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        record = {"event": name, "time": datetime.now(UTC).isoformat(), **_as_json(values)}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()


def read_events(path: Path) -> Iterator[Event]:
    """The events of a log, in their order.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: the log is of another format, or a line is damaged.
    """
    with path.open(encoding="utf-8") as lines:
        _require_format(next(lines, ""))
        for number, line in enumerate(lines, start=2):
            yield _parse(line, number)


def _require_format(line: str) -> None:
    held = line and json.loads(line, object_hook=_from_json).get("format")
    if held != FORMAT:
        raise ValueError(
            f"`format` of the event log must be {FORMAT}, but got {held!r}. Read the run with the version that wrote it."
        )


def _parse(line: str, number: int) -> Event:
    try:
        record = json.loads(line, object_hook=_from_json)
        del record["time"]
        return EVENTS[record.pop("event")](**record)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`event log` must hold one event a line, but got {line[:80]!r} in line {number}. Restore the file."
        ) from error


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    return {NOT_FINITE: str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _from_json(held: dict[str, Any]) -> Any:
    return float(held[NOT_FINITE]) if held.keys() == {NOT_FINITE} else held

"""What the records cost a trial, and how long a log takes to be read back: `python -m benchmarks.event_log`.

Trials do nothing here: the searcher suggests, the journal writes every event and the tables, and nobody trains. So what is
measured is the engine's own work in the driver, without Ray, MLflow or torch. All seconds are of the processor, so that
other programs do not count; what a record waits for its disk is measured by `benchmarks.resume`.
"""

from __future__ import annotations

import itertools
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import typer
from ray.tune.search import Searcher
from rich.console import Console
from rich.table import Table

from search_spaces import SEARCH_SPACES
from sweep.config import SearchConfig, SweepConfig
from sweep.records.events import Ended, Event, Reported, Started, read_events, record, replay
from sweep.records.garbage import without_collecting
from sweep.records.journal import Journal
from sweep.records.log import RecordLog
from sweep.records.tables import Tables
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.searcher import OptunaSearcher
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion

EPOCHS = 3
SHARE = 10
"""The first and the last of so many parts of the trials are compared."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What was measured.

    Attributes:
        records_ratio: seconds of a trial at the end over those at the start, of records alone; means, as not every trial writes the
            tables at its end.
        total_ratio: likewise with the search sampler.
        grown_mib: what the driver's memory has grown by between the end of the first tenth and the last trial.
    """

    num_trials: int
    first_records_s: float
    last_records_s: float
    records_ratio: float
    first_total_s: float
    last_total_s: float
    total_ratio: float
    grown_mib: float
    num_replayed: int
    log_mib: float
    read_s: float
    tables_s: float
    front_s: float
    study_s: float
    replay_s: float


def main(
    trials: Annotated[int, typer.Option(min=2 * SHARE, help="Trials that do nothing.")] = 1000,
    replayed: Annotated[int, typer.Option(min=1, help="Trials of the log that is read back.")] = 10_000,
    sampler: Annotated[str, typer.Option(help="Search sampler of the trials.")] = "random",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Measure both.

    Example: python -m benchmarks.event_log --trials 1000 --replayed 10000
    """
    with tempfile.TemporaryDirectory() as folder:
        cost = Cost(**measured_trials(Path(folder), trials, sampler), **measured_replay(Path(folder), replayed))
    if as_json:
        print(json.dumps(asdict(cost), indent=2))
    else:
        Console().print(table_of(cost))


def searcher_of(num_trials: int, sampler: str) -> OptunaSearcher:
    """A search over the mini space."""
    objectives = config_of(num_trials).reported_objectives()
    return OptunaSearcher(
        SEARCH_SPACES["mini"], objectives, sampler=SEARCH_SAMPLERS[sampler], num_trials=num_trials, seed=0
    )


def config_of(num_trials: int) -> SweepConfig:
    """A sweep of so many trials."""
    return SweepConfig(search=SearchConfig(num_trials=num_trials))


def report(number: int, epoch: int) -> dict[str, Any]:
    """Numbers of a trial as a real one reports them, so that some trials are on the front."""
    score = (number * 7919 % 1009) / 1009
    scores = {"fid_mini": 1 + score, "vendi_mini": 2 - score, "trainable_parameters": 100 + number % 50, "epoch_s": 1.0}
    return {"epoch": epoch, "loss": 1 / (1 + epoch), "images_per_s": 9.0, "final": epoch == EPOCHS - 1, **scores}


def measured_trials(folder: Path, num_trials: int, sampler: str) -> dict[str, Any]:
    """Run trials that do nothing, and compare the last with the first."""
    journal, searcher = Journal.open(folder / "run", config_of(num_trials), {}), searcher_of(num_trials, sampler)
    records_s, total_s, memory = list[float](), list[float](), list[int]()
    while (config := searcher.suggest("")) != Searcher.FINISHED:
        assert isinstance(config, dict)
        suggestion = Suggestion.of_config(config)
        events: list[Event] = [Started(**suggestion.as_config())]
        events += [Reported(trial_id=suggestion.trial_id, metrics=report(suggestion.number, n)) for n in range(EPOCHS)]
        events.append(Ended(trial_id=suggestion.trial_id, **asdict(TrialEnd.completed())))
        started = time.process_time()
        for event in events:
            event.tell(journal)
        records_s.append(time.process_time() - started)
        for event in events:
            event.tell(searcher)
        total_s.append(time.process_time())
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    whole_s = [after - before for before, after in itertools.pairwise(total_s)]
    part, unit = num_trials // SHARE, 2**20 if sys.platform == "darwin" else 2**10
    first, last = statistics.mean(records_s[:part]), statistics.mean(records_s[-part:])
    first_all, last_all = statistics.mean(whole_s[:part]), statistics.mean(whole_s[-part:])
    return {
        "num_trials": num_trials,
        "first_records_s": first,
        "last_records_s": last,
        "records_ratio": last / first,
        "first_total_s": first_all,
        "last_total_s": last_all,
        "total_ratio": last_all / first_all,
        "grown_mib": (memory[-1] - memory[part]) / unit,
    }


def written(path: Path, num_trials: int) -> None:
    """A log of so many trials; that each record is on the disk is not what is measured with it."""
    with patch("os.fsync"):
        log = RecordLog.create(path)
        for event in events_of(num_trials):
            record(log, event)
        log.close()


def events_of(num_trials: int) -> Iterator[Event]:
    """Whole trials by random search, one after the other."""
    searcher = searcher_of(num_trials, "random")
    for number in range(num_trials):
        suggestion = Suggestion.of_config(searcher._suggest_new(number).as_config())
        yield Started(**suggestion.as_config())
        yield from (Reported(trial_id=suggestion.trial_id, metrics=report(number, epoch)) for epoch in range(EPOCHS))
        yield Ended(trial_id=suggestion.trial_id, **asdict(TrialEnd.completed()))


def measured_replay(folder: Path, num_trials: int) -> dict[str, Any]:
    """Read a log back into tables, front and study."""
    path = folder / "events.log"
    written(path, num_trials)
    times = [time.process_time()]
    events = read_events(path)
    times.append(time.process_time())
    tables = Tables(config_of(num_trials).reported_objectives())
    with without_collecting():
        replay(events, tables)
    times.append(time.process_time())
    front = tables.front()
    times.append(time.process_time())
    rows = tables.trials(front)
    times.append(time.process_time())
    searcher = searcher_of(num_trials, "random")
    with without_collecting():
        replay(events, searcher)
    trials = searcher.study.get_trials(deepcopy=False)  # the study of a log is made when it is asked for
    times.append(time.process_time())
    if len(rows) != num_trials or not front.points or len(trials) != num_trials:
        raise RuntimeError("`replay` must give every trial back, but some are missing")
    parts = [after - before for before, after in itertools.pairwise(times)]
    read_s, told_s, front_s, rows_s, study_s = parts
    size = {"num_replayed": num_trials, "log_mib": path.stat().st_size / 2**20}
    named = {"read_s": read_s, "tables_s": told_s + rows_s, "front_s": front_s, "study_s": study_s}
    return {**size, **named, "replay_s": sum(parts)}


def table_of(cost: Cost) -> Table:
    """The numbers with their targets."""
    table = Table("what", "measured", "target")
    table.add_row(f"records of a trial, first tenth of {cost.num_trials}", f"{1000 * cost.first_records_s:.1f} ms", "")
    table.add_row("records of a trial, last tenth", f"{1000 * cost.last_records_s:.1f} ms", "")
    table.add_row("last / first", f"{cost.records_ratio:.2f}", "at most 1.2")
    table.add_row("the same with search", f"{cost.total_ratio:.2f}", "at most 1.2")
    table.add_row("memory grown since the first tenth", f"{cost.grown_mib:.0f} MiB", "")
    table.add_row(
        f"replay of {cost.num_replayed} trials ({cost.log_mib:.0f} MiB)", f"{cost.replay_s:.1f} s", "at most 5 s"
    )
    for name in ("read", "tables", "front", "study"):
        table.add_row(f"  {name}", f"{getattr(cost, f'{name}_s'):.2f} s", "")
    return table


if __name__ == "__main__":
    typer.run(main)

"""How many GPU-hours a search needs: recorded and synthetic learning curves, replayed by the engine's own code.

    python -m benchmarks.search_replay --quick --json replay.json

Of a recording, a suggestion is answered by the nearest training of its strategy that the search has not taken, and the
search is told which that was. Of a synthetic problem it is answered by the problem's formula; what is found is measured
without noise, beside a pool of quasi-random trainings. The clock is simulated; searcher, samplers and stopping decisions
are those of a sweep. Syne Tune's MOASHA is compared as well where it is installed: `benchmarks/replay/moasha.py`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import binom

from benchmarks.replay import moasha
from benchmarks.replay.problems import Problem, recorded, synthetic
from benchmarks.replay.simulator import Search, Simulator, hours_to
from sweep.config import SearchConfig
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.stopping_rules import NO_STOPS, TRIAL_SCHEDULERS

SHARES: Final = [0.9, 0.95, 0.99]
RECORDING: Final = Path(__file__).parent / "recordings" / "nih64"
DEFAULT: Final = (SearchConfig().sampler, SearchConfig().scheduler)
UNSTOPPED: Final = (("random", NO_STOPS), ("tpe", NO_STOPS))
"""Random search, and Optuna's estimators."""
SLOW: Final = ("gp",)
"""Samplers that take seconds for each suggestion: fewer seeds."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """GPU-hours of a way to search until it had a share of the pool's hypervolume.

    Attributes:
        gpu_hours: the median over seeds; None where less than half of the seeds reached the share.
        low, high: the median's interval of 95 % from order statistics; None likewise.
        num_seeds: how many searches.
        num_reached: how many of them reached the share.
        stopped: mean share of the trials that were stopped.
    """

    problem: str
    sampler: str
    scheduler: str
    workers: int
    share: float
    gpu_hours: float | None
    low: float | None
    high: float | None
    num_seeds: int
    num_reached: int
    stopped: float
    is_default: bool


def ways() -> list[tuple[str, str]]:
    """Every sampler with the default scheduler, every scheduler with the default sampler, and two without stops: random
    search, and Optuna's estimators; beside them MOASHA, which draws at random, where Syne Tune is installed."""
    sampler, scheduler = DEFAULT
    pairs = [(name, scheduler) for name in SEARCH_SAMPLERS if name != "grid"] + [
        (sampler, name) for name in TRIAL_SCHEDULERS
    ]
    published = [("random", moasha.MOASHA)] if moasha.is_installed() else []
    return list(dict.fromkeys([*pairs, *UNSTOPPED, *published]))


def replay(
    problem: Problem,
    way: tuple[str, str],
    *,
    num_workers: int,
    seeds: Sequence[int],
    shares: Sequence[float] = SHARES,
) -> Iterator[Row]:
    """Searches by one way, a row a share.

    Args:
        problem: what is searched.
        way: sampler and scheduler.
        num_workers: trials at a time.
        seeds: of the searches.
        shares: of the pool's hypervolume, in their order; a search ends at the last.
    """
    hours: list[list[float | None]] = []
    stopped = 0.0
    for seed in seeds:
        search = Search(sampler=way[0], scheduler=way[1], num_workers=num_workers, seed=seed, enough=shares[-1])
        run = Simulator(problem, search)
        run.run()
        hours.append([hours_to(run.finished, share) for share in shares])
        stopped += run.num_stopped / run.num_trials / len(seeds)
    for share, of_share in zip(shares, zip(*hours, strict=True), strict=True):
        median, low, high = median_interval([math.inf if hour is None else hour for hour in of_share])
        yield Row(
            problem=problem.name,
            sampler=way[0],
            scheduler=way[1],
            workers=num_workers,
            share=share,
            gpu_hours=median,
            low=low,
            high=high,
            num_seeds=len(seeds),
            num_reached=sum(hour is not None for hour in of_share),
            stopped=stopped,
            is_default=way == DEFAULT,
        )


def median_interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """The lower median and its interval of at least 95 % from order statistics; None for what is not finite.

    Fewer than six values have no such interval: their smallest and largest are given.
    """
    ordered = sorted(values)
    below = max(0, int(binom.ppf(0.025, len(ordered), 0.5)) - 1)
    ends = (ordered[(len(ordered) - 1) // 2], ordered[below], ordered[len(ordered) - 1 - below])
    return tuple(end if math.isfinite(end) else None for end in ends)  # type: ignore[return-value]


def main(
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A form of under a minute: one search by the default beside those without stops, to 90 %."
        ),
    ] = False,
    num_seeds: Annotated[int, typer.Option(min=1, help="Searches of each way.")] = 20,
    num_trainings: Annotated[int, typer.Option(min=8, help="Trainings of a synthetic pool.")] = 96,
    problems: Annotated[int, typer.Option(min=0, help="Members of the synthetic family.")] = 2,
    first_problem: Annotated[int, typer.Option(min=0, help="Number of the first of them.")] = 0,
    with_recording: Annotated[
        bool, typer.Option("--recorded/--synthetic-only", help="Whether a recording too.")
    ] = True,
    recording: Annotated[Path, typer.Option(help="Folder of a recording.")] = RECORDING,
    until: Annotated[
        float,
        typer.Option(min=SHARES[0], help="Share at which a search ends: 0.9, 0.95 or 0.99; others are the next below."),
    ] = SHARES[-1],
    json_: Annotated[Path | None, typer.Option("--json", help="Where the rows go.", metavar="FILE")] = None,
    only: Annotated[list[str] | None, typer.Option(help="SAMPLER+SCHEDULER; may be repeated.")] = None,
) -> None:
    """Replay searches and print the GPU-hours that each needs.

    Example: python -m benchmarks.search_replay --quick --json replay.json
    """
    console = Console()
    chosen = [(sampler, scheduler) for sampler, _, scheduler in (way.partition("+") for way in only or ())]
    if quick:
        num_seeds, num_trainings, problems = 1, min(num_trainings, 32), min(problems, 1)
        until, chosen = min(until, SHARES[0]), chosen or [DEFAULT, *UNSTOPPED]
    if not chosen and not moasha.is_installed():
        console.print(f"MOASHA is left out, as Syne Tune is not installed: {moasha.INSTALL}", highlight=False)
    shares = [share for share in SHARES if share <= until]
    rows: list[Row] = []
    members = [synthetic(first_problem + member, num_trainings) for member in range(problems)]
    for problem in [*([recorded(recording)] if with_recording else []), *members]:
        counts = Counter(training.strategy for training in problem.pool)
        console.print(f"[bold]{problem.name}[/bold]: {len(problem.pool)} trainings, {dict(counts)}", highlight=False)
        for num_workers in (2, 8):
            for way in chosen or ways():
                seeds = range(min(num_seeds, 5) if way[0] in SLOW else num_seeds)
                rows += replay(problem, way, num_workers=num_workers, seeds=seeds, shares=shares)
                if json_ is not None:
                    json_.write_text(json.dumps([asdict(row) for row in rows], indent=1))
        console.print(table([row for row in rows if row.problem == problem.name]))


def table(rows: Sequence[Row]) -> Table:
    """The rows for the eye: a line a way."""
    shares = list(dict.fromkeys(row.share for row in rows))
    shown = Table("sampler", "scheduler", "workers", *(f"hours to {share:.0%}" for share in shares), "stopped")
    for first in range(0, len(rows), len(shares)):
        group = rows[first : first + len(shares)]
        mark = " *" if group[0].is_default else ""
        shown.add_row(
            group[0].sampler + mark,
            group[0].scheduler,
            str(group[0].workers),
            *map(figure, group),
            f"{group[0].stopped:.0%}",
        )
    return shown


def figure(row: Row) -> str:
    """A median with its interval; how many seeds came so far where not all did."""

    def of(value: Any) -> str:
        return "–" if value is None else f"{value:.3f}"

    reached = "" if row.num_reached == row.num_seeds else f" ({row.num_reached}/{row.num_seeds})"
    return f"{of(row.gpu_hours)} [{of(row.low)}, {of(row.high)}]{reached}"


if __name__ == "__main__":
    typer.run(main)

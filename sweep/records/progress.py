"""What the user sees while a sweep runs: a table of its trials in a terminal, a line a start and an end in a file."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from analysis.front.objectives import COSTS
from analysis.front.statuses import COMPLETED, FAILED, STOPPED, EndKind
from analysis.studies.rung_agreement import EARLY
from sweep.trials.ends import TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion

COLOURS: Final[Mapping[EndKind, str]] = {STOPPED: "yellow", FAILED: "red", COMPLETED: "green"}
STARTING, TRAINING, AGAIN = "starting", "training", "again"
NUM_SCORES: Final = 2
"""Metrics that have a column: in 80 columns there is no room for more."""
WIDTHS: Final = (8, 14, 7, 4, 8, 7, 7, 9, 6)
"""Widths of the columns, in characters; with a space between them they take 78."""


def describe_choice(choice: Mapping[str, Any]) -> str:
    """A trial's strategy and hyperparameters in one short line."""
    strategy = dict(choice["strategy"])
    parts = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in strategy.items()
        if name != "name"
    ]
    return ", ".join([strategy["name"], *parts, f"lr {choice['lr']:.1e}", f"batch {choice['batch_size']}"])


@dataclass(slots=True)
class _Row:
    """What is known of a trial that runs."""

    trial_id: str
    strategy: str
    described: str
    state: str = STARTING
    metrics: dict[str, Any] = field(default_factory=dict)
    """The last value of each metric."""
    epoch_s: list[float] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        return int(self.metrics.get("epoch", -1)) + 1

    def hear(self, metrics: Mapping[str, Any]) -> None:
        """Take over a report."""
        self.metrics.update(metrics)
        self.state = TRAINING
        if "epoch_s" in metrics:
            self.epoch_s.append(float(metrics["epoch_s"]) + float(metrics.get("evaluation_s", 0.0)))

    def left_s(self, num_epochs: int) -> float | None:
        """Seconds until its end, by the mean of its epochs and their evaluations; None: nothing is known."""
        if not self.epoch_s:
            return None
        return (num_epochs - self.epochs) * sum(self.epoch_s) / len(self.epoch_s)


class ProgressView(TrialListener):
    """Shows the trials; use it as a context manager. What it hears before that is of the past, and is not printed.

    Args:
        num_trials: trials of the sweep.
        num_epochs: epochs of a trial.
        rungs: after how many epochs trials are compared.
        shown: objectives; a finished trial's line gives all, and the table the first metrics among them.
    """

    def __init__(
        self, console: Console, *, num_trials: int, num_epochs: int, shown: Sequence[str], rungs: Sequence[int] = ()
    ) -> None:
        self._console, self._num_trials, self._num_epochs = console, num_trials, num_epochs
        self._shown, self._rungs = tuple(shown), tuple(rungs)
        self._scores = [name for name in shown if name not in COSTS][:NUM_SCORES]
        self._started_s = time.monotonic()
        self._rows: dict[str, _Row] = {}
        self._num_ended, self._num_past = 0, 0
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=2)
        self._is_live = False

    def __enter__(self) -> Self:
        self._is_live, self._num_past = True, self._num_ended
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def on_start(self, suggestion: Suggestion) -> None:
        """Add a row for the trial."""
        trial_id, described = suggestion.trial_id, describe_choice(suggestion.choice)
        self._rows[trial_id] = _Row(trial_id, suggestion.choice["strategy"]["name"], described)
        if not self._console.is_terminal:
            self._print(f"start  {trial_id}  {escape(described)}")

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Change the trial's row."""
        self._rows[trial_id].hear(metrics)

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Print the cut's line."""
        self._print(f"cut  {cut_id}  {escape(describe_choice(choice))}: {self._figures(metrics)}")

    def on_retry(self, trial_id: str, reason: str) -> None:
        """Print what was lost."""
        row = self._rows[trial_id]
        row.state = AGAIN
        self._print(f"again  {trial_id}  {escape(row.described)}: {escape(reason)}")

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Print the trial's line and take its row away; a cut has had its line."""
        if trial_id not in self._rows:
            return
        self._num_ended += 1
        row = self._rows.pop(trial_id)
        row.state = end.kind
        if self._console.is_terminal and self._is_live:
            self._console.print(self._grid([row], has_head=False))
        if not self._console.is_terminal or end.kind == FAILED:
            self._print(
                f"[bold]{self._num_ended}/{self._num_trials}[/bold]  {trial_id}  {escape(row.described)}: "
                f"{self._outcome(row, end)}"
            )

    def _outcome(self, row: _Row, end: TrialEnd) -> str:
        if end.kind == COMPLETED:
            return self._figures(row.metrics)
        return f"[{COLOURS[end.kind]}]{end.kind}[/{COLOURS[end.kind]}] {escape(end.reason or '')}"

    def _figures(self, metrics: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {metrics[name]:.4g}" for name in self._shown if name in metrics)

    def _table(self) -> RenderableType:
        """The trials that run, and how far the sweep is."""
        elapsed_s, ended = time.monotonic() - self._started_s, self._num_ended - self._num_past
        left = f", about {_clock(elapsed_s / ended * (self._num_trials - self._num_ended))} left" if ended else ""
        summary = f"{self._num_ended} of {self._num_trials} trials after {_clock(elapsed_s)}{left}"
        return Group(self._grid(list(self._rows.values()), has_head=True), Text(summary, style="bold"))

    def _grid(self, rows: Any, *, has_head: bool) -> Table:
        names = [name.partition("_")[0].upper() for name in self._scores] + [""] * (NUM_SCORES - len(self._scores))
        heads = ("trial", "strategy", "epoch", "rung", "images/s", *names, "state", "left")
        table = Table(box=None, show_header=has_head, padding=(0, 1, 0, 0), collapse_padding=True)
        for head, width in zip(heads, WIDTHS, strict=True):
            is_text = head in ("trial", "strategy", "state")
            justify: Any = "left" if is_text else "right"
            table.add_column(head, width=width, no_wrap=True, overflow="ellipsis", justify=justify)
        for row in rows:
            table.add_row(*self._cells(row))
        return table

    def _cells(self, row: _Row) -> list[RenderableType]:
        rate, left_s = row.metrics.get("images_per_s"), row.left_s(self._num_epochs)
        scores = [_score(row.metrics, name) for name in self._scores] + [""] * (NUM_SCORES - len(self._scores))
        return [
            row.trial_id,
            Text(row.strategy),
            f"{row.epochs}/{self._num_epochs}",
            f"{sum(rung <= row.epochs for rung in self._rungs)}/{len(self._rungs)}" if self._rungs else "",
            "" if rate is None else f"{rate:.3g}",
            *scores,
            Text(row.state, style=COLOURS.get(row.state, "")),  # type: ignore[call-overload]
            "" if left_s is None or row.state in COLOURS else _clock(left_s),
        ]

    def _print(self, text: str) -> None:
        if not self._is_live:
            return
        elapsed_s = int(time.monotonic() - self._started_s)
        self._console.print(
            f"[dim]{elapsed_s // 60:3d}:{elapsed_s % 60:02d}[/dim]  {text}", soft_wrap=True, highlight=False
        )


def _score(metrics: Mapping[str, Any], name: str) -> str:
    """A metric's value; that of a rung, of fewer films and comparable to its rung's alone, with a `~`."""
    early = f"{EARLY}{name}"
    if name in metrics:
        return f"{metrics[name]:.3g}"
    return f"~{metrics[early]:.3g}" if early in metrics else ""


def _clock(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}h{minutes:02d}" if hours else f"{minutes}:{whole % 60:02d}"

"""What the user sees while a sweep runs: a line a finished trial, and bars where the output is a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from analysis.front.statuses import COMPLETED, FAILED, STOPPED, EndKind
from sweep.trials.ends import TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion

COLOURS: Final[Mapping[EndKind, str]] = {STOPPED: "yellow", FAILED: "red"}


def describe_choice(choice: Mapping[str, Any]) -> str:
    """A trial's strategy and hyperparameters in one short line."""
    strategy = dict(choice["strategy"])
    parts = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in strategy.items()
        if name != "name"
    ]
    return ", ".join([strategy["name"], *parts, f"lr {choice['lr']:.1e}", f"batch {choice['batch_size']}"])


class ProgressView(TrialListener):
    """Draws the trials; use it as a context manager. What it hears before that is of the past, and is not printed.

    Args:
        num_trials: trials of the sweep.
        num_epochs: epochs of a trial.
        shown: metrics that a finished trial's line gives, in this order.
    """

    def __init__(self, console: Console, *, num_trials: int, num_epochs: int, shown: Sequence[str]) -> None:
        self._console, self._num_trials, self._num_epochs, self._shown = console, num_trials, num_epochs, shown
        self._started_s = time.monotonic()
        self._bars: dict[str, TaskID] = {}
        self._choices: dict[str, str] = {}
        self._last: dict[str, Mapping[str, Any]] = {}
        self._num_ended = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=4,
        )
        self._all = self._progress.add_task("trials", total=num_trials, note="")
        self._is_live = False

    def __enter__(self) -> Self:
        self._is_live = True
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_start(self, suggestion: Suggestion) -> None:
        """Open a bar for the trial."""
        trial_id, chosen = suggestion.trial_id, describe_choice(suggestion.choice)
        self._choices[trial_id] = chosen
        self._bars[trial_id] = self._progress.add_task(f"  {escape(chosen)}", total=self._num_epochs, note="")
        if not self._console.is_terminal:
            self._print(f"start  {trial_id}  {escape(chosen)}")

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Move the trial's bar by an epoch."""
        self._last[trial_id] = metrics
        note = f"loss {metrics['loss']:.4f}, {metrics['images_per_s']:.0f} images/s"
        self._progress.update(self._bars[trial_id], completed=metrics["epoch"] + 1, note=note)

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Print the cut's line."""
        self._print(f"cut  {cut_id}  {escape(describe_choice(choice))}: {self._figures(metrics)}")

    def _figures(self, metrics: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {metrics[name]:.4g}" for name in self._shown if name in metrics)

    def on_retry(self, trial_id: str, reason: str) -> None:
        """Print what was lost."""
        self._print(f"again  {trial_id}  {escape(self._choices[trial_id])}: {escape(reason)}")

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Print the trial's line and take its bar away; a cut has had its line."""
        if trial_id not in self._bars:
            return
        self._num_ended += 1
        self._progress.remove_task(self._bars.pop(trial_id))
        self._progress.update(self._all, completed=self._num_ended)
        self._print(
            f"[bold]{self._num_ended}/{self._num_trials}[/bold]  {trial_id}  {escape(self._choices[trial_id])}: "
            f"{self._outcome(trial_id, end)}"
        )

    def _outcome(self, trial_id: str, end: TrialEnd) -> str:
        if end.kind == COMPLETED:
            return self._figures(self._last[trial_id])
        return f"[{COLOURS[end.kind]}]{end.kind}[/{COLOURS[end.kind]}] {escape(end.reason or '')}"

    def _print(self, text: str) -> None:
        if not self._is_live:
            return
        elapsed_s = int(time.monotonic() - self._started_s)
        self._console.print(
            f"[dim]{elapsed_s // 60:3d}:{elapsed_s % 60:02d}[/dim]  {text}", soft_wrap=True, highlight=False
        )

"""`python -m sweep.run`: run a sweep."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from ray.exceptions import RayError, RayTaskError
from rich.console import Console

from analysis.front.statuses import COMPLETED, FAILED, STOPPED
from analysis.terminal import explained, new_console, relative
from sweep.config import SweepConfig
from sweep.loading import load_config

if TYPE_CHECKING:
    from sweep.engine import Outcome


def main(
    preset: Annotated[str, typer.Option(help="A named study; demo needs no data, no GPU and no network.")] = "demo",
    config: Annotated[Path | None, typer.Option(help="YAML file over the preset.", metavar="FILE.yaml")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One value over both; may be repeated.", metavar="KEY=VALUE")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory; default runs/PRESET-DATE-TIME.")] = None,
    num_trials: Annotated[int | None, typer.Option(min=1, help="How many configurations to try.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the configuration, then stop.")] = False,
) -> None:
    """Run a sweep over fine-tuning strategies and their hyperparameters, and propose the best trade-offs.

    Example: python -m sweep.run --preset nih64 --set data.path=prepared/nih --num-trials 20
    """
    console = new_console()
    overrides = [*(set_ or []), *([f"search.num_trials={num_trials}"] if num_trials is not None else [])]
    with explained("Interrupted. What had finished is in the run directory."), ray_unwrapped():
        resolved = load_config(preset, config, overrides)
        if dry_run:
            console.print_json(json.dumps(resolved.model_dump(mode="json")))
        else:
            run(resolved, (out or default_out(preset)).expanduser().resolve(), console)


@contextmanager
def ray_unwrapped() -> Iterator[None]:
    """Raise what failed in another process as it was there, without Ray's account of where."""
    try:
        yield
    except RayTaskError as error:
        raise RuntimeError(str(error.cause)) from error
    except RayError as error:
        from sweep.trials.relay import root_message

        raise RuntimeError(root_message(str(error))) from error


def default_out(preset: str) -> Path:
    """A folder under runs/ that no earlier run has taken."""
    return Path("runs") / f"{preset}-{datetime.now():%Y%m%d-%H%M%S}"


def run(config: SweepConfig, out: Path, console: Console) -> None:
    """Run the sweep and print what it found."""
    from analysis.report.front_table import terminal_table
    from sweep.engine import run_sweep  # Ray and torch take seconds to import; wrong input is answered before

    outcome = run_sweep(config, out, console)
    console.print(terminal_table(outcome.front, outcome.baseline, _front_title(outcome)))
    if lost := {status: outcome.num(status) for status in (STOPPED, FAILED) if outcome.num(status)}:
        counts = " and ".join(f"{count} {status}" for status, count in lost.items())
        console.print(f"[yellow]Of {len(outcome.trials)} trials {counts};[/yellow] report.html says why.")
    console.print(evaluation_share(outcome, config.compute.concurrent_trials))
    shown = shlex.quote(str(relative(out)))
    console.print(
        f"\nReport   {shown}/report.html\n"
        f"Compare  {outcome.ui_command}\n"
        f"Export   python -m sweep.export --run {shown} --pick knee --format pipeline --to exported",
        soft_wrap=True,
        markup=False,
    )


def _front_title(outcome: Outcome) -> str:
    cuts = f" and {outcome.num_cuts} adapters cut from them" if outcome.num_cuts else ""
    return f"Pareto front: {len(outcome.front.points)} of {outcome.num(COMPLETED)} completed trials{cuts}"


def evaluation_share(outcome: Outcome, concurrent_trials: int) -> str:
    """How much of the sweep's wall time a trial's place was spent waiting for evaluations, in a line."""
    at_once = min(concurrent_trials, len(outcome.trials))
    share = outcome.evaluation_s / (at_once * outcome.wall_s)
    places = f", {at_once} trials at once" if at_once > 1 else ""
    return f"Trials waited {outcome.evaluation_s:.0f} s for evaluations: {share:.0%} of {outcome.wall_s:.0f} s{places}."


if __name__ == "__main__":
    typer.run(main)

"""`python -m sweep.run`: run a sweep."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from analysis.front.statuses import COMPLETED, FAILED, STOPPED
from analysis.run_folder import EVENTS
from analysis.terminal import explained, new_console, relative
from sweep.config import ConfigError, SweepConfig
from sweep.interrupts import interruptible
from sweep.loading import load_config, load_run_config
from sweep.records.guard import guarded, records_open
from sweep.records.owner import owned

if TYPE_CHECKING:
    from sweep.engine import Outcome

Rate = Annotated[
    float | None, typer.Option(min=1e-6, help="For the plan: TFLOP/s that one worker sustains.", metavar="RATE")
]

Earlier = Annotated[
    list[Path] | None,
    typer.Option(help="The directory of an earlier sweep that the search learns from; may be repeated.", metavar="RUN"),
]


def main(
    preset: Annotated[
        str | None, typer.Option(help="A named study; demo, the default, needs no data, no GPU and no network.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file over the preset.", metavar="FILE.yaml")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One value over both; may be repeated.", metavar="KEY=VALUE")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run directory; default runs/PRESET-DATE-TIME. One that holds this sweep goes on."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="A run directory whose sweep goes on, or grows by --num-trials.", metavar="DIR"),
    ] = None,
    prior: Earlier = None,
    num_trials: Annotated[int | None, typer.Option(min=1, help="How many configurations to try.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the configuration and the plan, then stop.")
    ] = False,
    tflops: Rate = None,
) -> None:
    """Run a sweep over fine-tuning strategies and their hyperparameters, and propose the best trade-offs.

    Example: python -m sweep.run --preset nih64 --set data.path=prepared/nih --num-trials 20
    """
    console = new_console()
    overrides = [*(set_ or []), *([f"search.num_trials={num_trials}"] if num_trials is not None else [])]
    folder = (resume or out or default_out(preset or "demo")).expanduser().resolve()
    with explained(lambda: how_to_go_on(folder)), interruptible(), ray_unwrapped():
        if resume is not None:
            require_alone(preset=preset, config=config, out=out, prior=prior or None)
            resolved = load_run_config(folder, overrides)
        else:
            resolved = load_config(preset or "demo", config, overrides).with_prior(prior or ())
        if dry_run:
            tell_plan(resolved, folder, console, tflops)
        else:
            with owned(folder), records_open(folder), told_how_to_go_on(folder):
                run(resolved, folder, console)


def tell_plan(config: SweepConfig, folder: Path, console: Console, tflops: float | None) -> None:
    """Print a sweep's configuration, and beside it what it will cost.

    Args:
        config: of the sweep.
        folder: its run directory, whether it is there or not.
        console: where the configuration goes to.
        tflops: that one worker sustains, in TFLOP/s, if they are known.
    """
    console.print_json(json.dumps(config.model_dump(mode="json")))
    from sweep.records.journal import past_of  # these and torch take seconds to import
    from sweep.search.forecast_words import print_plan

    print_plan(config, new_console(stderr=True), tflops, past_of(folder, config.reported_objectives()))


def how_to_go_on(out: Path) -> str:
    """How a sweep that broke off is gone on with; nothing where it had not begun."""
    if not (out / EVENTS).is_file():
        return ""
    return f"What had finished is kept. Go on with: python -m sweep.run --resume {shlex.quote(str(relative(out)))}"


@contextmanager
def told_how_to_go_on(out: Path) -> Iterator[None]:
    """Add to what breaks a sweep off how it is gone on with; input that is refused is to be mended first."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, ValueError) and (how := how_to_go_on(out)):
            error.add_note(how)
        raise


def require_alone(**others: object) -> None:
    """Refuse other options beside `--resume`, as the run directory holds what they would say.

    Raises:
        ConfigError: one was given.
    """
    given = [f"--{name}" for name, value in others.items() if value is not None]
    if given:
        raise ConfigError(
            f"`--resume` must stand without {' and '.join(given)}, but got both. The run directory holds its "
            "configuration; --num-trials and --set change what may change."
        )


@contextmanager
def ray_unwrapped() -> Iterator[None]:
    """Raise what failed in another process as it was there, without Ray's account of where."""
    try:
        yield
    except Exception as error:
        if "ray" not in sys.modules:  # what is refused before Ray is imported does not wait for it
            raise
        from ray.exceptions import RayError, RayTaskError

        if isinstance(error, RayTaskError):
            raise _with_notes_of(error, RuntimeError(str(error.cause))) from error
        if isinstance(error, RayError):
            from sweep.trials.relay import root_message

            raise _with_notes_of(error, RuntimeError(root_message(str(error)))) from error
        raise


def _with_notes_of(error: Exception, told: RuntimeError) -> RuntimeError:
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told


def default_out(preset: str) -> Path:
    """A folder under runs/ that no earlier run has taken."""
    return Path("runs") / f"{preset}-{datetime.now():%Y%m%d-%H%M%S}"


def run(config: SweepConfig, out: Path, console: Console) -> None:
    """Run the sweep and print what it found.

    A cluster is asked before all else that takes long; where a sweep goes on, when it turns out that there is work left.

    Args:
        config: what to do.
        out: the run directory, owned by this process.
        console: shows progress and results.
    """
    if not (out / EVENTS).is_file():
        from sweep.trials.cluster import find_cluster

        find_cluster(config.compute)
    from analysis.report.front_table import terminal_table
    from sweep.engine import run_sweep  # Ray and torch take seconds to import; wrong input is answered before

    outcome = run_sweep(config, out, console)
    console.print(terminal_table(outcome.front, outcome.baseline, _front_title(outcome)))
    if lost := {status: outcome.num(status) for status in (STOPPED, FAILED) if outcome.num(status)}:
        counts = " and ".join(f"{count} {status}" for status, count in lost.items())
        console.print(f"[yellow]Of {len(outcome.trials)} trials {counts};[/yellow] report.html says why.")
    if outcome.front.knee is None:
        console.print(f"[yellow]No knee is proposed:[/yellow] {outcome.front.knee_rule}.", soft_wrap=True)
    if outcome.evaluation_s:
        console.print(evaluation_share(outcome, config.compute.concurrent_trials))
    for sentence in outcome.lacking:
        console.print(f"[yellow]note[/yellow] {escape(sentence)}.", soft_wrap=True, highlight=False)
    shown = shlex.quote(str(relative(out)))
    console.print(
        f"\nReport   {shown}/report.html\n"
        f"Compare  {outcome.ui_command}\n"
        f"Browse   python -m sweep.ui --run {shown}\n"
        f"Export   python -m sweep.export --run {shown} --pick {_pick(outcome)} --format pipeline --to exported",
        soft_wrap=True,
        markup=False,
    )


def _pick(outcome: Outcome) -> str:
    """The knee, or where nothing is proposed the best in the first objective."""
    return "knee" if outcome.front.knee else f"best:{outcome.front.objectives[0].name}"


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
    guarded(lambda: typer.run(main), how_to_go_on)

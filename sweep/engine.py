"""A sweep from configuration to front: data, evaluation actors, trials, tables, pictures."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape

from analysis.front.pareto import Front
from analysis.front.statuses import COMPLETED, Status, with_status
from analysis.metrics import METRICS
from analysis.report import draw_front, write_report
from analysis.run_folder import BASELINE, BASELINE_SHEET, CACHE, FRONT_PLOT, REFERENCE_SHEET, REPORT
from analysis.terminal import relative
from search_spaces import SEARCH_SPACES
from sweep.config import ConfigError, SweepConfig
from sweep.interrupts import interruptible
from sweep.preflight import Prepared, preflight
from sweep.records.events import replay
from sweep.records.garbage import without_collecting
from sweep.records.journal import Journal
from sweep.records.pages import PageKeeper
from sweep.records.progress import ProgressView
from sweep.records.provenance import collect_provenance
from sweep.records.study_store import StudyStore
from sweep.records.tracking import Tracker, TrackingListener
from sweep.scoring.actors import ActorEvaluator, start_evaluators
from sweep.scoring.scorer import EvaluationSpec
from sweep.search.cuts import next_cut
from sweep.search.ending import Ending
from sweep.search.gain_stopping import make_stopping
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.searcher import OptunaSearcher
from sweep.search.stopping import Stopping
from sweep.trials.ends import TrialListener
from sweep.trials.latent_cache import latent_cache
from sweep.trials.leftovers import EndedCheckpoints
from sweep.trials.resources import most_workers, place
from sweep.trials.runtime import ray_runtime
from sweep.trials.scheduling import RungScheduler
from sweep.trials.tuner import SweepContext, run_trials
from sweep.trials.waiting import nodes_of_cluster, waiting_told
from trainables.trial import EvaluationError


class SweepError(RuntimeError):
    """The sweep could not give a result."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a sweep found."""

    front: Front
    """The trials that nothing dominates; empty where no trial completed or the un-adapted base beats all."""
    trials: pd.DataFrame
    """One row a trial and one a smaller adapter cut from it, as `trials.parquet` has them."""
    baseline: Mapping[str, float]
    """The un-adapted base model's scores by their names; empty where they could not be taken."""
    num_cuts: int
    """Smaller adapters that were cut out of trainings, besides the trainings' own."""
    wall_s: float
    """Seconds from the start of the search to its end."""
    evaluation_s: float
    """Seconds that trials have waited for evaluations in this process; where several waited at once, each counts."""
    ui_command: str
    """The command that shows MLflow's runs of this sweep in a browser."""
    lacking: tuple[str, ...]
    """A sentence for each part of the report and of MLflow's runs that could not be written."""

    def num(self, status: Status) -> int:
        """How many trials ended so; smaller adapters cut from them are not counted."""
        return len(with_status(self.trials, status))


def run_sweep(config: SweepConfig, out: Path, console: Console) -> Outcome:
    """Run a sweep into an empty folder, which then holds everything about it, or go on with the one that it holds.

    Args:
        config: what to do.
        out: the run directory, owned by this process and seen by every machine that takes part.
        console: where progress is shown.

    Raises:
        ConfigError: `out` holds a run of another configuration, data or base model, or is not shared, data and base
            model do not fit, a hyperparameter is unknown, an objective needs more images, or a trial finds no room.
        FileNotFoundError: the data or the extractor's weights are not there.
        SweepError: no trial completed.
    """
    started_s = time.monotonic()
    prepared = preflight(config, out, console)
    for note in prepared.notes:
        _note(console, note)
    provenance = collect_provenance(prepared.config, prepared.dataset.fingerprint, prepared.weights_hash)
    journal = Journal.open(out, prepared.config, provenance)
    _say_what_is_there(journal, provenance, console)
    for sweep in prepared.earlier:
        journal.on_earlier(sweep)
        _note(console, f"{sweep.told()}.")
    tracker = Tracker.start(prepared.config, out, partial(_note, console))
    waited_s = journal.tables.evaluation_s()
    try:
        _work(prepared, journal, tracker, console=console)
        with interruptible():
            return _conclude(journal, tracker, started_s=started_s, waited_s=waited_s)
    except BaseException as error:
        _give_up(error, journal, tracker)
        raise


def _note(console: Console, text: str) -> None:
    console.print(f"[yellow]note[/yellow] {escape(text)}", soft_wrap=True, highlight=False)


def _work(prepared: Prepared, journal: Journal, tracker: Tracker, *, console: Console) -> None:
    """Do what is left to do, after all have heard what was done."""
    config = prepared.config
    tracking = TrackingListener(tracker, prepared.out, config.reported_objectives())
    num_trials = config.search.num_trials
    ended, ending = EndedCheckpoints(_trial_context(prepared).trial_folder), _ending(prepared)
    replay(journal.past, tracking, ended, ending)
    tracker.replayed()
    if not _is_unfinished(journal, ending, num_trials):
        return
    with ray_runtime(config.compute), _following(journal, config, console) as following, interruptible():
        _search(prepared, journal, (tracking, ending, *following), console=console, ending=ending)
    if _is_unfinished(journal, ending, num_trials):
        raise SweepError(f"`sweep` must end all of its {num_trials} trials, but Ray Tune ended before it had.")
    if journal.unfinished(num_trials):
        console.print(f"[yellow]note[/yellow] The sweep ends before its {num_trials} trials: {ending.reason()}.")


@contextmanager
def _following(journal: Journal, config: SweepConfig, console: Console) -> Iterator[Sequence[TrialListener]]:
    """What is written behind the log, in the background, and not waited for: the study on disk, and the report."""
    study = StudyStore(journal.out, config.reported_objectives(), len(journal.past))
    page = PageKeeper(journal.out)
    try:
        yield study, page
    finally:
        page.close()
        if (lacking := study.close()) is not None:
            _note(console, f"{lacking}.")


def _is_unfinished(journal: Journal, ending: Ending, num_trials: int) -> bool:
    """Whether there is something left to do: a sweep that ends early only has to end what it began."""
    return journal.unfinished(journal.tables.num_ended() if ending.reason() else num_trials)


def _ending(prepared: Prepared) -> Ending:
    config = prepared.config
    return Ending(
        config.search.stop,
        config.reported_objectives(),
        strategies=prepared.strategies,
        concurrent_trials=config.compute.concurrent_trials,
        gpus_per_worker=config.compute.gpus_per_worker,
        most_workers=most_workers(config.compute),
    )


def _say_what_is_there(journal: Journal, provenance: Mapping[str, Any], console: Console) -> None:
    """Tell of a sweep that goes on how far it had come, and whether other code began it."""
    if journal.torn_bytes:
        console.print(f"[yellow]note[/yellow] a record of {journal.torn_bytes} bytes was broken off; it was set aside.")
    if not journal.past:
        return
    ended = journal.tables.num_ended()
    console.print(f"Going on in {str(relative(journal.out))!r}: {ended} trials have ended.", soft_wrap=True)
    if journal.commit() != provenance["git_commit"]:
        console.print(
            f"[yellow]note[/yellow] other code began this sweep: commit {journal.commit()}, and now "
            f"{provenance['git_commit']}; both are recorded.",
            soft_wrap=True,
        )


def _give_up(error: BaseException, journal: Journal, tracker: Tracker) -> None:
    """Close the records of a sweep that broke off, and report what there is where it was told to end.

    What goes wrong in that does not hide why it broke off: it becomes notes of that error.
    """
    is_told = isinstance(error, KeyboardInterrupt)
    try:
        journal.finish()
    except OSError as another:
        error.add_note(str(another))
    lacking = [tracker.abort(in_hurry=is_told)]
    if is_told and journal.tables.num_ended():
        lacking.append(_lacking_of(lambda: write_report(journal.out, with_importances=False), journal.out))
    for sentence in filter(None, lacking):
        error.add_note(f"{sentence}.")


def _lacking_of(draw: Callable[[], object], out: Path) -> str | None:
    """Draw what shows a sweep's results; what goes wrong, in a sentence, as the results are there whatever it is."""
    try:
        draw()
    except Exception as error:  # noqa: BLE001  # a fault of the page must not hide what was found
        return (
            f"`report` must be written, but got {type(error).__name__}: {error}. The results are safe; "
            f"python -m analysis.report --run {shlex.quote(str(relative(out)))} writes it"
        )
    return None


def _search(
    prepared: Prepared, journal: Journal, listeners: Sequence[TrialListener], *, console: Console, ending: Ending
) -> None:
    """Run the trials beside the evaluation actors, which score the un-adapted base model too, unless that is done."""
    out, room = prepared.out, place(nodes_of_cluster(), prepared.config.compute)
    prepared = _with_room(prepared, room.trials_at_once, console)
    evaluator = start_evaluators(_evaluation_spec(prepared), prepared.config.compute, room.evaluation_nodes)
    try:
        with waiting_told(lambda line: console.print(f"[yellow]note[/yellow] {escape(line)}", soft_wrap=True)):
            with console.status("starting the evaluation actors"):
                evaluator.prepare(out)
            require_shared(out)
            baseline = None if journal.tables.baseline is not None else evaluator.score_base(out)
            _run_trials(prepared, evaluator, journal=journal, listeners=listeners, console=console, ending=ending)
        if baseline is not None:
            scores = _base_scores(evaluator, baseline, out, console)
            for told in (journal, *listeners):
                told.on_baseline(scores)
    finally:
        evaluator.stop()


def _with_room(prepared: Prepared, trials_at_once: int, console: Console) -> Prepared:
    """The same with no more trials at once than there is room for."""
    config = prepared.config
    asked = config.compute.concurrent_trials
    if trials_at_once < asked:
        console.print(
            f"[yellow]note[/yellow] there is room for {trials_at_once} of compute.concurrent_trials={asked} trials at once.",
            soft_wrap=True,
        )
    compute = config.compute.model_copy(update={"concurrent_trials": trials_at_once})
    return replace(prepared, config=config.model_copy(update={"compute": compute}))


def _base_scores(evaluator: ActorEvaluator, running: Any, out: Path, console: Console) -> dict[str, float]:
    """The un-adapted base model's scores, none where they cannot be had.

    Raises:
        EvaluatorLostError: nothing is left that could score; when the sweep goes on, the base is scored.
    """
    try:
        return evaluator.base_scores(running, out)
    except EvaluationError as error:
        note = f"[yellow]note[/yellow] the un-adapted base model has no scores: {escape(str(error))}"
        console.print(note, soft_wrap=True)
        return {}


def _evaluation_spec(prepared: Prepared) -> EvaluationSpec:
    config = prepared.config
    return EvaluationSpec(
        base=config.base,
        resolution_px=config.resolution_px,
        dataset=prepared.dataset.folder,
        conditions=prepared.conditions,
        cache_folder=prepared.out / CACHE,
        seed=config.seed,
        config=config.evaluation,
        resampled=tuple(name for name in config.objectives if name in METRICS),
        fingerprint=prepared.dataset.fingerprint,
    )


def _run_trials(
    prepared: Prepared,
    evaluator: ActorEvaluator,
    *,
    journal: Journal,
    listeners: Sequence[TrialListener],
    console: Console,
    ending: Ending,
) -> None:
    config, searcher = prepared.config, _searcher(prepared, ending)
    shown = [objective.name for objective in config.reported_objectives()]
    num_trials, num_epochs = config.search.num_trials, config.training.num_epochs
    rungs = config.search.ladder(num_epochs).epochs
    view = ProgressView(console, num_trials=num_trials, num_epochs=num_epochs, shown=shown, rungs=rungs)
    stopping = stopping_of(config, searcher)
    hearing = (stopping, view, searcher)
    with without_collecting():
        replay(journal.past, *hearing)
    context = replace(_trial_context(prepared), evaluation_nodes=evaluator.nodes)
    with view:
        for trial_id, end in stopping.undone().items():  # the break came before the end was written down
            for told in (journal, *listeners, EndedCheckpoints(context.trial_folder), *hearing):
                told.on_end(trial_id, end)
        searcher.resume()
        run_trials(
            context,
            evaluator,
            searcher,
            listeners=(journal, *listeners, stopping, view),
            trial_scheduler=RungScheduler(stopping),
            losses=journal.losses(),
            tell=partial(_note, console),
        )


def stopping_of(config: SweepConfig, searcher: OptunaSearcher) -> Stopping:
    """What decides at the rungs of a sweep."""
    search, num_epochs = config.search, config.training.num_epochs
    return make_stopping(
        search.scheduler,
        searcher.plan_with,
        search.ladder(num_epochs),
        config.reported_objectives(),
        eta=search.rungs.eta,
        num_epochs=num_epochs,
    )


def _trial_context(prepared: Prepared) -> SweepContext:
    config = prepared.config
    return SweepContext(
        base=config.base,
        resolution_px=config.resolution_px,
        dataset=prepared.dataset.folder,
        out=prepared.out,
        seed=config.seed,
        objectives=tuple(objective.name for objective in config.reported_objectives()),
        training=config.training,
        compute=config.compute,
        budget=config.search.budget,
        fingerprint=prepared.dataset.fingerprint,
        rungs=config.search.ladder(config.training.num_epochs).epochs,
        latents=latent_cache(config, prepared.out),
        choose_cut=partial(next_cut, objectives=config.reported_objectives()),
    )


def _searcher(prepared: Prepared, ending: Ending) -> OptunaSearcher:
    config, search = prepared.config, prepared.config.search
    return OptunaSearcher(
        SEARCH_SPACES[search.space],
        config.reported_objectives(),
        sampler=SEARCH_SAMPLERS[search.sampler],
        num_trials=search.num_trials,
        seed=config.seed,
        strategies=prepared.strategies,
        hyperparameters=search.hyperparameters,
        excess=prepared.limits.excess,
        known=partial(prepared.limits.costs.of, operations=False),
        is_over=lambda: ending.reason() is not None,
    )


def _conclude(journal: Journal, tracker: Tracker, *, started_s: float, waited_s: float) -> Outcome:
    front, out = journal.finish(), journal.out
    rows = journal.tables.trials(front)
    trials = rows[rows["cut_of"].isna()]
    if with_status(trials, COMPLETED).empty:
        reasons = "; ".join(sorted(set(trials["reason"].dropna()))) or "no trial was started"
        raise SweepError(f"`sweep` must complete at least one trial, but got {len(trials)} without result: {reasons}")
    undrawn = [
        _lacking_of(lambda: draw_front(rows, front, out / FRONT_PLOT), out),
        _lacking_of(lambda: write_report(out), out),
        tracker.course(),
    ]
    files = [out / name for name in (REPORT, FRONT_PLOT, BASELINE, BASELINE_SHEET, REFERENCE_SHEET)]
    untold = tracker.finish(front, [file for file in files if file.is_file()])
    return Outcome(
        front=front,
        trials=trials,
        baseline=journal.tables.baseline or {},
        num_cuts=len(rows) - len(trials),
        wall_s=time.monotonic() - started_s,
        evaluation_s=journal.tables.evaluation_s() - waited_s,
        ui_command=tracker.shown_by(),
        lacking=tuple(filter(None, [*undrawn, untold])),
    )


def require_shared(out: Path) -> None:
    """Refuse a run directory in which the evaluation actors' files do not arrive.

    Raises:
        ConfigError: `reference.png`, which they have written, is not there.
    """
    if not (out / REFERENCE_SHEET).is_file():
        raise ConfigError(
            f"`--out` must be on storage that every machine of the cluster shares under the same path, but got "
            f"{str(out)!r}, where nothing of what the evaluation actors wrote arrived. Choose a shared folder for it."
        )

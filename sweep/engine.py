"""A sweep from configuration to front: data, evaluation actors, trials, tables, pictures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from analysis.features import load_extractor
from analysis.front.pareto import Front
from analysis.report import RANKS, draw_front, draw_rank_map, read_ranks, write_report
from search_spaces import ENCODERS, SEARCH_SPACES
from sweep.config import ENCODER_FIELDS, ConfigError, DataConfig, SweepConfig
from sweep.preflight import check_objectives, images_of_conditions
from sweep.records.journal import BASELINE, Journal, collect_provenance, flat_choice, own_values, require_new_run
from sweep.records.progress import ProgressView
from sweep.records.tracking import Tracker, TrackingError
from sweep.scoring.actors import ActorEvaluator, start_evaluators
from sweep.scoring.plans import conditions_to_score, require_known_conditions
from sweep.scoring.scorer import EvaluationSpec
from sweep.search.searcher import OptunaSearcher
from sweep.trials.runtime import ray_runtime
from sweep.trials.tuner import SweepContext, TrialListener, run_trials
from trainables.base_models.models import DiffusionModels, base_resolution_px, resolve_base, weights_hash
from trainables.base_models.shapes import base_on_meta
from trainables.base_models.text_encoders import load_bert
from trainables.datasets.base import SPLITS
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import CARD, PreparedDataset
from trainables.datasets.writing import write_dataset
from trainables.strategies import hyperparameters_of, make_strategy
from trainables.trial import EvaluationError

PLOT = "pareto.png"


class SweepError(RuntimeError):
    """The sweep could not give a result."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a sweep found."""

    front: Front
    trials: pd.DataFrame
    baseline: Mapping[str, float]
    num_completed: int
    num_failed: int
    num_cuts: int
    """Adapters that trainings yielded besides their own."""
    wall_s: float
    evaluation_s: float
    """What trials have waited for evaluations; of several at once, each counts."""
    ui_command: str


def open_data(config: DataConfig, folder: Path, console: Console) -> PreparedDataset:
    """The prepared data set that is named, or a phantom drawn into `folder`."""
    if config.source == "prepared" and config.path is not None:
        return PreparedDataset.open(config.path)
    if (folder / CARD).is_file():
        shutil.rmtree(folder)  # drawn for a run that was refused before it began
    source = PhantomSource(num_patients=config.num_patients, resolution_px=config.resolution_px, seed=config.seed)
    require_known_conditions(config.conditions or (), source.conditions)
    total = sum(source.num_samples(split) for split in SPLITS)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("drawing phantom films", total=total)
        return write_dataset(source, folder, on_progress=lambda count: progress.advance(bar, count))


def run_sweep(config: SweepConfig, out: Path, console: Console) -> Outcome:
    """Run a sweep into an empty folder, which then holds everything about it.

    Args:
        config: what to do.
        out: the run directory, seen by every machine that takes part.
        console: where progress is shown.

    Raises:
        ConfigError: `out` already holds a run or is not shared, data and base model do not fit, a hyperparameter is
            unknown, an objective needs more images, or GPUs are lacking.
        FileNotFoundError: the data or the extractor's weights are not there.
        SweepError: no trial completed.
    """
    started_s = time.monotonic()
    require_new_run(out)
    config = config.located()
    weights = check_base(config)
    check_strategies(config)
    load_extractor(config.evaluation.extractor, weights=config.evaluation.extractor_weights)
    if config.data.source == "phantom":
        check_resolution(config.data.resolution_px, config)
    dataset = open_data(config.data, out / "cache" / "dataset", console)
    check_resolution(dataset.resolution_px, config)
    conditions = conditions_to_score(dataset, config.evaluation.split, config.data.conditions)
    for note in check_objectives(config, images_of_conditions(dataset, conditions, config)):
        console.print(f"[yellow]note[/yellow] {note}", soft_wrap=True, highlight=False)
    spec = EvaluationSpec(
        base=config.base,
        dataset=dataset.folder,
        conditions=conditions,
        cache_folder=out / "cache",
        seed=config.seed,
        config=config.evaluation,
    )
    with ray_runtime(config.compute):
        journal = Journal.create(out, config, collect_provenance(config, dataset.fingerprint, weights))
        tracker = Tracker.start(config, out)
        try:
            baseline = _search(config, spec, out, listeners=(journal, TrackingListener(tracker, out)), console=console)
        except BaseException as error:
            _give_up(error, journal, tracker)
            raise
    journal.baseline(baseline)
    return _conclude(journal, tracker, baseline=baseline, started_s=started_s)


def _give_up(error: BaseException, journal: Journal, tracker: Tracker) -> None:
    """Close the records of a sweep that broke off; what goes wrong in that does not hide why it did."""
    for close in (journal.finish, tracker.abort):
        try:
            close()
        except (OSError, TrackingError) as another:
            error.add_note(str(another))


def _search(
    config: SweepConfig, spec: EvaluationSpec, out: Path, *, listeners: Sequence[TrialListener], console: Console
) -> dict[str, float]:
    """Run the trials beside the evaluation actors; returns the un-adapted base model's scores, none where that failed."""
    evaluator = start_evaluators(spec, config.compute)
    try:
        with console.status("starting the evaluation actors"):
            evaluator.prepare(out)
        require_shared(out)
        baseline = evaluator.score_base(out)
        _run_trials(config, spec, out, evaluator=evaluator, listeners=listeners, console=console)
        return evaluator.base_scores(baseline, out)
    except EvaluationError as error:  # of the base model; a trial's is the trial's own
        console.print(
            f"[yellow]note[/yellow] the un-adapted base model has no scores: {escape(str(error))}", soft_wrap=True
        )
        return {}
    finally:
        evaluator.stop()


def _run_trials(
    config: SweepConfig,
    spec: EvaluationSpec,
    out: Path,
    *,
    evaluator: ActorEvaluator,
    listeners: Sequence[TrialListener],
    console: Console,
) -> None:
    shown = [objective.name for objective in config.reported_objectives()]
    context = SweepContext(
        base=config.base,
        dataset=spec.dataset,
        out=out,
        seed=config.seed,
        training=config.training,
        compute=config.compute,
    )
    search = config.search
    searcher = OptunaSearcher(
        SEARCH_SPACES[search.space],
        config.reported_objectives(),
        num_trials=search.num_trials,
        seed=config.seed,
        strategies=search.strategies,
        hyperparameters=search.hyperparameters,
        sampler=search.sampler,
    )
    num_epochs = config.training.num_epochs
    with ProgressView(console, num_trials=search.num_trials, num_epochs=num_epochs, shown=shown) as view:
        run_trials(context, evaluator, searcher, num_trials=search.num_trials, listeners=(*listeners, view))
    searcher.finish()


def _conclude(journal: Journal, tracker: Tracker, *, baseline: Mapping[str, float], started_s: float) -> Outcome:
    found, out = journal.finish(), journal.out
    rows = journal.trials()
    trials = rows[rows["cut_of"].isna()]
    completed = int((trials["status"] == "completed").sum())
    if completed == 0:
        tracker.abort()
        reasons = "; ".join(sorted(set(trials["error"].dropna()))) or "no trial was started"
        raise SweepError(f"`sweep` must complete at least one trial, but got {len(trials)} failures: {reasons}")
    draw_front(rows, found.objectives, out / PLOT)
    page = write_report(out)
    files = [page, *(out / name for name in (PLOT, BASELINE, "baseline.png", "reference.png"))]
    tracker.finish(found, [file for file in files if file.is_file()])
    return Outcome(
        front=found,
        trials=trials,
        baseline=baseline,
        num_completed=completed,
        num_failed=len(trials) - completed,
        num_cuts=len(rows) - len(trials),
        wall_s=time.monotonic() - started_s,
        evaluation_s=journal.evaluation_s(),
        ui_command=tracker.ui_command(),
    )


@dataclass(frozen=True)
class TrackingListener:
    """Sends every trial's events and files to MLflow."""

    tracker: Tracker
    out: Path

    def on_start(self, trial_id: str, choice: Mapping[str, Any]) -> None:
        """Open the trial's run."""
        flat = flat_choice(choice)
        self.tracker.trial(trial_id, flat["strategy"], flat)

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Record an epoch."""
        self.tracker.report(trial_id, metrics["epoch"], own_values(metrics))

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Record a smaller adapter of the trial's training as a run of its own."""
        flat = flat_choice(choice)
        self.tracker.trial(cut_id, flat["strategy"], flat, cut_of=trial_id)
        self.tracker.report(cut_id, metrics["epoch"], own_values(metrics))
        self.tracker.complete(cut_id, self._left(cut_id))

    def _left(self, trial_id: str) -> list[Path]:
        folder = self.out / "trials" / trial_id
        return [folder / "samples.png", folder / "adapter"]

    def on_end(self, trial_id: str, error: str | None) -> None:
        """Close the trial's run, with its adapter and samples where it completed."""
        if error is None:
            self.tracker.complete(trial_id, [*self._left(trial_id), *drawn_ranks(self.out / "trials" / trial_id)])
        else:
            self.tracker.fail(trial_id, error)


def drawn_ranks(folder: Path) -> list[Path]:
    """A trial's ranks and a map of them, drawn now; nothing where no rank changed."""
    ranks, picture = folder / RANKS, folder / "ranks.png"
    if not ranks.is_file():
        return []
    draw_rank_map(read_ranks(ranks), picture)
    return [ranks, picture]


def require_shared(out: Path) -> None:
    """Refuse a run directory in which the evaluation actors' files do not arrive.

    Raises:
        ConfigError: `reference.png`, which they have written, is not there.
    """
    if not (out / "reference.png").is_file():
        raise ConfigError(
            f"`--out` must be on storage that every machine of the cluster shares under the same path, but got "
            f"{str(out)!r}, where nothing of what the evaluation actors wrote arrived. Choose a shared folder for it."
        )


def check_base(config: SweepConfig) -> str:
    """The hash of the base model's weights.

    Raises:
        ConfigError: the base model cannot be had.
    """
    try:
        return weights_hash(resolve_base(config.base))
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from error


def check_strategies(config: SweepConfig) -> None:
    """Strategies must fit the base model, and the values given to them must be theirs; seen on shapes, without weights.

    Text encoders that trials can draw are loaded as a trial does, one after the other.

    Raises:
        ConfigError: a strategy finds nothing to train, has no such hyperparameter, a value breaks its rule, or a text
            encoder cannot be had or loaded.
    """
    folder = str(resolve_base(config.base))
    for name in config.search.candidates():
        fixed = config.search.hyperparameters.get(name, {})
        try:
            drawn = [key for key in ENCODER_FIELDS if key in hyperparameters_of(name) and key not in fixed]
            for own in [{**fixed, key: encoder} for key in drawn for encoder in ENCODERS] or [fixed]:
                _check_strategy(name, own, base_on_meta(folder))
        except (ValueError, FileNotFoundError) as error:
            remedies = [
                f" The space draws the encoder; fix one that works with --set search.hyperparameters.{name}.{key}=ENCODER."
                for key in drawn
            ]
            raise ConfigError(f"`search.strategies` has {name}: {error}{''.join(remedies)}") from error


def _check_strategy(name: str, hyperparameters: Mapping[str, Any], models: DiffusionModels) -> None:
    strategy = make_strategy(name, hyperparameters)
    for key, encoder in strategy.hyperparameters().items():
        if key in ENCODER_FIELDS:
            load_bert(encoder, num_tokens=models.tokenizer.model_max_length, device=torch.device("cpu"))
    strategy.attach(models)


def check_resolution(resolution_px: int, config: SweepConfig) -> None:
    """The films must have the resolution that the base model generates.

    Raises:
        ConfigError: they have another.
    """
    wanted = base_resolution_px(config.base)
    if resolution_px != wanted:
        raise ConfigError(
            f"`data` must have films of {wanted} px for base {config.base!r}, but got {resolution_px} px. "
            f"Prepare them with `python -m sweep.prepare ... --resolution {wanted}`, or set data.resolution_px={wanted}."
        )

"""Runs the studies of finalists one by one, and keeps what is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from analysis.final_scores import BASE, DONE, EVALUATION, STUDY_FAILED, series_of
from analysis.run_folder import RunFolder
from sweep.final.bench import Finalist, Workbench
from sweep.final.results import SUMMARY, Scores, write_summary
from sweep.final.seeds import further_seeds, over_seeds, retrain, seeded, trained_alone
from sweep.final.studies import STUDIES
from sweep.final.study import StudyResult
from sweep.scoring.identity import sampling_digest
from trainables.strategies import make_strategy
from trainables.strategies.card import read_card

ATTEMPTS = 2
FAILURES = (ValueError, RuntimeError, OSError, ArithmeticError, LookupError, MemoryError)
"""What fails one study of one finalist; anything else is a fault of the program."""


def finalist_of(run: RunFolder, trial_id: str, seed: int) -> Finalist:
    """A trial as a finalist.

    Args:
        run: the run that the trial is of.
        trial_id: a completed trial, or an adapter cut from one.
        seed: the seed that it was trained with.

    Raises:
        FileNotFoundError: its adapter is not there.
    """
    card = read_card(run.adapter(trial_id))
    return Finalist(
        trial_id=trial_id,
        strategy=str(card["strategy"]),
        adapter=run.adapter(trial_id),
        seed=seed,
        trains=make_strategy(card["strategy"], card["hyperparameters"]).trains,
        folder=run.folder / EVALUATION / trial_id,
    )


def base_of(run: RunFolder, seed: int) -> Finalist:
    """The un-adapted base, whose encoders are studied for comparison."""
    folder = run.folder / EVALUATION / BASE
    return Finalist(trial_id=BASE, strategy="un-adapted", adapter=None, seed=seed, trains=(), folder=folder)


class FinalEvaluation:
    """Finalists of one run and their studies."""

    def __init__(self, bench: Workbench, console: Console, *, num_seeds: int = 1, trains_alone: bool = False) -> None:
        """Evaluate on a bench.

        Args:
            bench: the run, its data and models.
            console: where progress is shown.
            num_seeds: trainings of each finalist.
            trains_alone: whether finalists of a training of several ranks are trained at their rank alone besides.
        """
        self.bench, self.console, self.num_seeds, self.trains_alone = bench, console, num_seeds, trains_alone
        self.num_failed = 0

    def run(self, trial_ids: Sequence[str]) -> Path:
        """Study the base's encoders and every finalist; returns the table of all, `summary.parquet`.

        What an earlier call completed under the same settings is kept.

        Raises:
            FileNotFoundError: an adapter is not there.
            ValueError: finalists are to be trained at their rank alone, and all were trained so.
            OSError: results cannot be written, for example because the disk is full.
        """
        run, seed = self.bench.run, self.bench.config.seed
        summary = run.folder / EVALUATION / SUMMARY
        finalists = [finalist_of(run, trial_id, seed) for trial_id in trial_ids]
        retrained = trained_alone(self.bench, finalists) if self.trains_alone else []
        for subject in [base_of(run, seed), *finalists, *retrained]:
            if subject in retrained and self._retrain(subject, seed)["status"] != DONE:
                continue
            names = [name for name, study in STUDIES.items() if study.of(subject) and study.when(self.bench)]
            scores = self._study(subject, names)
            if subject.adapter is not None and self.num_seeds > 1:
                self._repeat(subject, scores)
            write_summary(run, summary)
        return summary

    def _study(self, subject: Finalist, names: Sequence[str]) -> Scores:
        """Run what is not done yet of these studies, and keep each as it ends."""
        identity = self._identity(subject)
        scores = Scores(subject.folder, identity, series_of(self.bench.run.folder, identity))
        for name in names:
            study = STUDIES[name]
            inputs = {"splits": study.splits, **study.inputs(self.bench)}
            if not scores.done(name, inputs):
                label = f"{subject.strategy} {subject.trial_id}, seed {subject.seed}: {study.title}"
                outcome = self._attempt(label, partial(study.run, self.bench, subject))
                scores.keep(name, {**outcome, "inputs": inputs})
        scores.write()  # its series, even if all else was known
        return scores

    def _repeat(self, finalist: Finalist, scores: Scores) -> None:
        """Train and study with further seeds; a training that fails is recorded and leaves the others."""
        names = [name for name, study in STUDIES.items() if study.per_seed]
        trainings, failures = [(finalist.seed, scores.values(names))], {}
        for seed in further_seeds(self.bench, self.num_seeds):
            outcome = self._retrain(finalist, seed)
            if outcome["status"] == DONE:
                trainings.append((seed, self._study(seeded(self.bench, finalist, seed), names).values(names)))
            else:
                failures[str(seed)] = outcome["error"]
        if len(trainings) > 1:
            scores.note("seeds", over_seeds(trainings) | {"failed": failures})

    def _retrain(self, finalist: Finalist, seed: int) -> dict[str, Any]:
        def train() -> StudyResult:
            retrain(self.bench, finalist, seed)
            return StudyResult(values={})

        return self._attempt(f"{finalist.strategy} {finalist.trial_id}: training with seed {seed}", train)

    def _attempt(self, label: str, work: Callable[[], StudyResult]) -> dict[str, Any]:
        """How a study ended, as it is recorded; one that fails is tried once more."""
        started_s, error = time.monotonic(), ""
        for _ in range(ATTEMPTS):
            try:
                with self._shown(label):
                    result = work()
            except FAILURES as failure:
                error = f"{type(failure).__name__}: {failure}"
                continue
            elapsed_s = time.monotonic() - started_s
            self.console.print(f"{elapsed_s:6.1f} s  {label}", markup=False, highlight=False, soft_wrap=True)
            return {
                "status": DONE,
                "elapsed_s": elapsed_s,
                "values": dict(result.values),
                "details": dict(result.details),
            }
        self.num_failed += 1
        self.console.print(f"[red]failed[/red]  {escape(label)}: {escape(error)}", highlight=False, soft_wrap=True)
        return {"status": STUDY_FAILED, "error": error, "attempts": ATTEMPTS}

    @contextmanager
    def _shown(self, label: str) -> Iterator[None]:
        """A bar of the films that are generated, or a spinner where the study generates none."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TextColumn("{task.fields[made]}"),
            TimeElapsedColumn(),
        )
        hidden = not self.console.is_terminal
        with Progress(*columns, console=self.console, disable=hidden, transient=True) as progress:
            bar, made = progress.add_task(escape(label), total=None, made=""), [0]

            def advance(count: int) -> None:
                made[0] += count
                progress.update(bar, made=f"{made[0]} films generated" if made[0] else "")

            self.bench.on_progress = advance
            yield

    def _identity(self, subject: Finalist) -> dict[str, Any]:
        """All that a finalist's numbers depend on; results of another identity are not mixed with these."""
        bench = self.bench
        return {
            "trial_id": subject.trial_id,
            "strategy": subject.strategy,
            "seed": subject.seed,
            "weights": bench.weights_of(subject.adapter),
            "sampling": sampling_digest(bench.evaluation, bench.numerics),
            "data": bench.dataset.fingerprint,
            "conditions": list(bench.conditions),
            "extractor": {"name": bench.extractor.name, "weights_hash": bench.extractor.weights_hash},
            "settings": bench.settings.as_record(),
        }

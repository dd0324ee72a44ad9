"""CheXGenBench's figures of a finalist: fidelity of one film a caption, what classifiers learn from such films, privacy."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from analysis.films.labelled import LabelledImages
from analysis.studies.chexgenbench import (
    ARMS,
    SIDE_PX,
    TRAINING,
    BenchmarkData,
    feature_distances,
    fidelity_row,
    inception_score,
    named,
    privacy_row,
    squash,
    utility_row,
)
from analysis.studies.classifiers import TrainingSettings
from analysis.studies.networks import ARCHITECTURES
from analysis.studies.patient_verification import NUM_FEATURES, load_verifier
from analysis.studies.subgroups import auc_by_group, kid_by_group
from sweep.final.bench import Finalist, Workbench
from sweep.final.quality import patients_of
from sweep.final.settings import BENCHMARK, SMALL_PX
from sweep.final.study import StudyResult
from sweep.scoring.plans import GenerationPlan, label_rows, plan_by_distinct_caption, repeated
from sweep.scoring.streaming import films_of_side

NUM_TRAINING_FILMS: Final = 20_000
FEWEST_FILMS: Final = 2
NUM_PRIVATE_PROMPTS, NUM_REPEATS = 2_000, 10
"""Training captions whose films are generated again, and how often."""
PROMPTS_AT_ONCE: Final = 16


def is_its_preset(bench: Workbench) -> bool:
    """Whether the run replays the benchmark: its classifiers cost too much to be trained for others."""
    return bench.config.preset == BENCHMARK


def benchmark(bench: Workbench, finalist: Finalist) -> StudyResult:
    """All parts of the benchmark, with subgroups of patients; privacy where there are weights to tell patients by."""
    parts = [_fidelity(bench, finalist), _utility(bench, finalist)]
    if bench.settings.verifier_weights is not None:
        parts.append(_privacy(bench, finalist, bench.settings.verifier_weights))
    return StudyResult(
        values={name: value for part in parts for name, value in part.values.items()},
        details={name: detail for part in parts for name, detail in part.details.items()},
    )


def _fidelity(bench: Workbench, finalist: Finalist) -> StudyResult:
    """Figures of all films and of those of each label, on the run's extractor."""
    plan, extractor = _plan(bench, "test", None), bench.extractor.name
    films = films_of_side(bench.stored_films(finalist, plan).__getitem__, np.arange(len(plan)), SIDE_PX, squash)
    generated = bench.features_of(films, "benchmark-generated")
    films = films_of_side(bench.splits["test"].images, plan.rows, SIDE_PX, squash)
    real = bench.features_of(films, "benchmark-real")
    values = {"benchmark_num_films": float(len(plan)), **named(fidelity_row(generated, real), extractor)}
    if extractor == "inception":
        values["benchmark_is_inception"] = inception_score(generated)
    table = plan.table(bench.dataset.conditions)
    for condition, shown in zip(bench.dataset.conditions, table.T, strict=True):
        if shown.sum() >= FEWEST_FILMS:
            values |= named(fidelity_row(generated[shown], real[shown]), f"{extractor}/{condition}")
    by_group = kid_by_group(
        generated, real, patients_of(bench, "test").take(plan.rows), num_resamples=bench.settings.num_resamples
    )
    return StudyResult(
        values=values | by_group.named("benchmark_kid"), details={"subgroups_of_fidelity": by_group.details()}
    )


def _utility(bench: Workbench, finalist: Finalist) -> StudyResult:
    """F1 and AUC of a classifier for each arm; labels that are uncertain or blank count as absent."""
    plan, training = _plan(bench, "train", NUM_TRAINING_FILMS), _training(bench)
    data = _films_of_classifiers(bench, finalist, plan, ARCHITECTURES[training.architecture].input_px)
    values: dict[str, float] = {}
    details: dict[str, Any] = {
        "training": {**asdict(training), "initial_weights": str(training.initial_weights)},
        "num_training_films": len(plan),
    }
    for arm in ARMS:
        bench.on_progress(0)
        scores, scored = utility_row(arm, data, training)
        values |= {f"benchmark_{name}/{arm}": value for name, value in asdict(scores).items()}
        if arm == "synthetic":
            by_group = auc_by_group([scored], patients_of(bench, "test"))
            values |= by_group.named("benchmark_auc")
            details["subgroups_of_utility"] = by_group.details()
    return StudyResult(values=values, details=details)


def _privacy(bench: Workbench, finalist: Finalist, weights: Path) -> StudyResult:
    """Whether films for training captions are of the patients whose captions these are."""
    verifier, extractor = load_verifier(weights, bench.device), bench.extractor
    once = _plan(bench, "train", NUM_PRIVATE_PROMPTS)
    films = bench.stored_films(finalist, repeated(once, NUM_REPEATS, bench.config.seed))
    likely, distances = (np.empty((len(once), NUM_REPEATS), np.float64) for _ in range(2))
    for start in range(0, len(once), PROMPTS_AT_ONCE):
        rows = once.rows[start : start + PROMPTS_AT_ONCE]
        chosen = slice(start, start + len(rows))
        real, made = bench.splits["train"].images(rows), films[start * NUM_REPEATS : chosen.stop * NUM_REPEATS]
        shape = (len(rows), NUM_REPEATS)
        described = verifier.describe(made).reshape(*shape, NUM_FEATURES)
        likely[chosen] = verifier.same_patient(verifier.describe(real), described)
        features = extractor.extract(made).reshape(*shape, extractor.dim)
        distances[chosen] = feature_distances(extractor.extract(real), features)
        bench.on_progress(0)
    return StudyResult(
        values=privacy_row(likely, distances, extractor.name),
        details={"privacy": {"weights_hash": verifier.weights_hash, "prompts": len(once), "films": NUM_REPEATS}},
    )


def _plan(bench: Workbench, split: str, most: int | None) -> GenerationPlan:
    return plan_by_distinct_caption(bench.splits[split], bench.dataset.conditions, bench.config.seed, most)


def _training(bench: Workbench) -> TrainingSettings:
    settings = bench.settings
    chosen = settings.architecture or ("small" if bench.dataset.resolution_px <= SMALL_PX else TRAINING.architecture)
    return replace(TRAINING, architecture=chosen, initial_weights=settings.initial_weights, device=str(bench.device))


def _films_of_classifiers(bench: Workbench, finalist: Finalist, plan: GenerationPlan, side_px: int) -> BenchmarkData:
    """All films that classifiers see, in their size: 20,000 of 512 px, in all arms, would take 30 GB.

    Args:
        bench: has them.
        finalist: makes those of the plan.
        plan: for the captions of training films.
        side_px: of what classifiers take.
    """
    real = _labelled(bench, "train", plan.rows, side_px)
    films = films_of_side(bench.stored_films(finalist, plan).__getitem__, np.arange(len(plan)), side_px)
    return BenchmarkData(
        real=real,
        synthetic=LabelledImages(films, real.labels, real.conditions),
        test=_labelled(bench, "test", np.arange(len(bench.splits["test"])), side_px),
    )


def _labelled(bench: Workbench, split: str, rows: NDArray[np.int64], side_px: int) -> LabelledImages:
    """Real films; what a label leaves open is absent.

    Args:
        bench: has them.
        split: their split.
        rows: int64[n], of the split.
        side_px: the size to make them.
    """
    data, names = bench.splits[split], tuple(bench.dataset.conditions)
    labels = label_rows([data.conditions[row] for row in rows], names)
    films = films_of_side(data.images, rows, side_px)
    return LabelledImages(films, labels, names, tuple(data.patient_ids[row] for row in rows))

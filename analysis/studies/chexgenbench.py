"""CheXGenBench's figures as its code defines them: fidelity on squashed films, what classifiers learn from them, privacy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.special import log_softmax

from analysis.checks import expect, finite_rows, look_up
from analysis.films.labelled import LabelledImages, check_images, require_other_patients
from analysis.metrics import (
    density_coverage,
    frechet_distance,
    kernel_distance,
    kernel_distance_by_subsets,
    precision_recall,
)
from analysis.metrics.sets import as_set
from analysis.studies.classifiers import TrainingSettings, train_classifier
from analysis.studies.decisions import MultiLabelScores, Scored, multi_label_scores

SIDE_PX: Final = 299
NUM_NEIGHBOURS: Final = 5
NUM_SUBSETS: Final = 100
NUM_SPLITS: Final = 10
VALIDATION_SHARE: Final = 0.05
SEED: Final = 42
ARMS: Final = ("original", "synthetic", "mixed", "augmented")
TRAINING: Final = TrainingSettings(
    architecture="resnet50",
    recipe="chexgenbench",
    max_epochs=20,
    patience=20,  # as many as there are epochs: it is never stopped
    batch_size=768,
    peak_lr=1e-4,
    weight_decay=1e-5,
    seed=SEED,
)
"""Its classifier; `initial_weights` are ImageNet's, which no one may ship with this project."""


def squash(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Films as its metrics see them: 299 px, whatever their shape was.

    The levels go through [0, 1] in float32 and are cut off, not rounded, which takes one from a few of them.

    Args:
        images: uint8[n, H, W] grey.

    Returns:
        uint8[n, 299, 299].
    """
    check_images(images)
    sized = [np.asarray(Image.fromarray(film).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)) for film in images]
    shares = np.stack(sized).astype(np.float32) / np.float32(255)
    levels: NDArray[np.uint8] = (shares * np.float32(255)).astype(np.uint8)
    return levels


def fidelity_row(generated: ArrayLike, real: ArrayLike) -> dict[str, float]:
    """FID, KID, precision, recall, density and coverage, all with its numbers of subsets and neighbours.

    KID's 100 subsets have as many images as the smaller set; where both sets are of one size, they are all the same.

    Args:
        generated: float[n, d] features of squashed generated films.
        real: float[m, d] features of squashed real films.

    Returns:
        By name; without the four shares where a set has no more than 5 films.

    Source:
        Dutt et al. 2025, CheXGenBench, its metrics/fid.py.
    """
    films, others = as_set(generated, "generated"), as_set(real, "real")
    fewest = min(len(films), len(others))
    if len(films) == len(others):
        kid = kernel_distance(films, others)
    else:
        kid = kernel_distance_by_subsets(
            films.rows(), others.rows(), num_subsets=NUM_SUBSETS, subset_size=fewest, seed=SEED
        ).mean
    row = {"fid": frechet_distance(films, others), "kid": kid}
    if fewest > NUM_NEIGHBOURS:
        row |= precision_recall(films, others, NUM_NEIGHBOURS)._asdict()
        row |= density_coverage(films, others, NUM_NEIGHBOURS)._asdict()
    return row


def inception_score(features: ArrayLike, *, num_splits: int = NUM_SPLITS, seed: int = SEED) -> float:
    """Its inception score: the softmax is of the 2048 pooled features, not of the network's classes.

    Args:
        features: float[n, d], n >= num_splits.
        num_splits: parts whose scores are averaged.
        seed: of the order in which films go into parts.

    Returns:
        At least 1; higher is better. It does not compare with inception scores of other sources.

    Raises:
        ValueError: there are fewer films than parts, or a feature is not finite.

    Source:
        Salimans et al. 2016, section 4; torchmetrics' InceptionScore(feature=2048), which the benchmark calls.
    """
    rows = finite_rows(features, "features")
    rule = f"`features` must be of at least {num_splits} films"
    expect(len(rows) >= num_splits, rule, len(rows), "Generate more.")
    logs: NDArray[np.float64] = log_softmax(rows[np.random.default_rng(seed).permutation(len(rows))], axis=1)
    size = -(-len(rows) // num_splits)  # torch.chunk's: the last part may be smaller, and there may be fewer parts
    return float(np.mean([_score_of(logs[start : start + size]) for start in range(0, len(logs), size)]))


def _score_of(logs: NDArray[np.float64]) -> float:
    shares = np.exp(logs)
    divergence = (shares * (logs - np.log(shares.mean(axis=0)))).sum(axis=1)
    return float(np.exp(divergence.mean()))


@dataclass(frozen=True, kw_only=True)
class BenchmarkData:
    """Films for its classifiers.

    Attributes:
        real: training films.
        synthetic: one for the caption of each of them, in the same order, with the same labels.
        test: films of other patients.

    Raises:
        ValueError: the two do not pair, conditions differ, or a training patient is tested on.
    """

    real: LabelledImages
    synthetic: LabelledImages
    test: LabelledImages

    def __post_init__(self) -> None:
        """Check that the arms can be compared."""
        pairs = self.real.labels.shape == self.synthetic.labels.shape and np.array_equal(
            self.real.labels, self.synthetic.labels
        )
        rule = "`synthetic` must have one film for each of `real`, with its labels"
        expect(pairs, rule, f"{len(self.synthetic)} for {len(self.real)}", "Generate them for the same captions.")
        rule = f"`test` must have the conditions of `real`, {list(self.real.conditions)}"
        expect(self.test.conditions == self.real.conditions, rule, list(self.test.conditions), "Label both alike.")
        require_other_patients(self.real, self.test, "test")


def training_films(arm: str, data: BenchmarkData) -> LabelledImages:
    """The films of an arm, without their patients: its validation films are drawn from all films alike.

    Args:
        arm: `original`, `synthetic`; `mixed`, in which half of the real films give way to those of the same captions; or
            `augmented`, both in full.
        data: all films.
    """
    real, synthetic = (replace(films, patients=None) for films in (data.real, data.synthetic))
    given_way = np.random.default_rng(SEED).permutation(len(real))[: len(real) // 2]
    kept = np.setdiff1d(np.arange(len(real)), given_way)
    arms = {
        "original": lambda: real,
        "synthetic": lambda: synthetic,
        "mixed": lambda: real.take(kept).joined(synthetic.take(given_way)),
        "augmented": lambda: real.joined(synthetic),
    }
    return look_up(arms, arm, "arm")()


def utility_row(
    arm: str, data: BenchmarkData, settings: TrainingSettings = TRAINING
) -> tuple[MultiLabelScores, Scored]:
    """What a classifier that was trained on an arm makes of the real test films at a threshold of 0.5.

    Args:
        arm: one of `ARMS`.
        data: all films.
        settings: how it is trained.

    Returns:
        Its scores, and what it thinks of the test films.

    Source:
        Dutt et al. 2025, CheXGenBench, its Downstream/Classification.
    """
    films = training_films(arm, data)
    order = np.random.default_rng(SEED).permutation(len(films))
    validation, train = np.split(order, [math.ceil(len(films) * VALIDATION_SHARE)])
    scored = train_classifier(films.take(train), films.take(validation), settings).score(data.test)
    return multi_label_scores(scored), scored


def privacy_row(likely: NDArray[np.floating], distances: NDArray[np.floating], extractor: str) -> dict[str, float]:
    """What films that are generated again and again for a training film's prompt have of that film.

    Of each prompt's films it takes the mean and the one that is nearest, and then the mean over prompts.

    Args:
        likely: float[p, s] in [0, 1], how likely each of s films for p prompts is of the real film's patient.
        distances: float[p, s] of `feature_distances` from the real film.
        extractor: whose features they are of.

    Returns:
        By the names that results have: `benchmark_reid_mean` and `_max`, lower is better, and of the distances `_mean` and
        `_min`, higher is better.

    Source:
        Dutt et al. 2025, CheXGenBench, its metrics/privacy_metrics.py. Its distance of pixels is left out: the code takes
        that of the last film for all, and subtracts bytes, which wrap around.
    """
    alike = likely.shape == distances.shape and likely.ndim == 2 and likely.size > 0
    rule = "`likely` and `distances` must be of the same prompts and films, [p, s]"
    expect(alike, rule, f"{likely.shape} and {distances.shape}", "Compare the same films.")
    of_patients = {"mean": likely.mean(axis=1), "max": likely.max(axis=1)}
    of_features = {"mean": distances.mean(axis=1), "min": distances.min(axis=1)}
    return {f"benchmark_reid_{name}": float(values.mean()) for name, values in of_patients.items()} | {
        f"benchmark_distance_{name}_{extractor}": float(values.mean()) for name, values in of_features.items()
    }


def feature_distances(real: NDArray[np.floating], generated: NDArray[np.floating]) -> NDArray[np.float64]:
    """Root mean squared difference of features.

    Args:
        real: float[p, d], of a film for each prompt.
        generated: float[p, s, d], of s films for each.

    Returns:
        float64[p, s].
    """
    apart = real[:, None].astype(np.float64) - generated
    distances: NDArray[np.float64] = np.sqrt(np.square(apart).mean(axis=2))
    return distances


def named(row: Mapping[str, float], suffix: str) -> dict[str, float]:
    """Figures as results name them: `benchmark_fid_rad_dino/Edema`.

    Args:
        row: figures by name.
        suffix: the extractor, and the condition where the row is of one.
    """
    return {f"benchmark_{name}_{suffix}": value for name, value in row.items()}

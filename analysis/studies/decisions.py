"""What a multi-label classifier decides, and how good that is: thresholds, AUC, accuracy, F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from analysis.checks import both_classes, expect, finite_rows, label_table, look_up, unique_names

Thresholds = Mapping[str, float]
"""For each condition the probability from which on it counts as present."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Images with what a classifier thinks of them and what is true, or was prompted.

    Attributes:
        probabilities: float[n, c] in [0, 1].
        labels: bool[n, c], what is true of each image, or was prompted.
        conditions: names of the c columns.

    Raises:
        ValueError: shapes do not match, or a probability is not one.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.bool_]
    conditions: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check everything once."""
        conditions = unique_names(self.conditions)
        probabilities = finite_rows(self.probabilities, "probabilities")
        low, high = probabilities.min(), probabilities.max()
        came = f"{low:g} to {high:g}"
        expect(low >= 0 and high <= 1, "`probabilities` must be in [0, 1]", came, "Give no logits: apply a sigmoid.")
        labels = label_table(self.labels, (len(probabilities), len(conditions)))
        expect(
            probabilities.shape == labels.shape,
            "`probabilities` must have a column a condition",
            list(probabilities.shape),
            f"There are {len(conditions)} conditions.",
        )
        for name, value in (("conditions", conditions), ("probabilities", probabilities), ("labels", labels)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.probabilities)

    def column(self, condition: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Probabilities and labels of one condition, float64[n] and bool[n]."""
        index = look_up({name: i for i, name in enumerate(self.conditions)}, condition, "condition")
        return self.probabilities[:, index], self.labels[:, index]

    def only(self, conditions: Sequence[str]) -> Self:
        """The same images with fewer conditions."""
        columns = [self.column(name) for name in unique_names(conditions)]
        probabilities, labels = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
        return type(self)(probabilities, labels, tuple(conditions))


@dataclass(frozen=True, kw_only=True)
class ConditionScores:
    """How well one condition is recognised; all in [0, 1], higher is better.

    Attributes:
        auc: area under the receiver operating characteristic; 0.5 is guessing.
        accuracy: share of correct decisions.
        balanced_accuracy: mean of sensitivity and specificity.
        f1: harmonic mean of precision and sensitivity, 0 where nothing is found.
    """

    auc: float
    accuracy: float
    balanced_accuracy: float
    f1: float


def area_under_curve(scores: ArrayLike, present: ArrayLike) -> float:
    """Chance that a random positive scores above a random negative, a tie counting half.

    Args:
        scores: real[n].
        present: bool[n], with both values.

    Returns:
        In [0, 1]; higher is better, 0.5 is guessing.

    Raises:
        ValueError: all are present or none, or a score is not finite.

    Source:
        Mann and Whitney, 1947, by mid-ranks; exact.
    """
    values = finite_rows(np.reshape(scores, (-1, 1)), "scores")[:, 0]
    positive = label_table(np.reshape(present, (-1, 1)), (len(values), 1), "present")
    both_classes(positive, ("the class",), "present")
    num_positive = int(positive.sum())
    rank_sum = float(rankdata(values)[positive[:, 0]].sum())
    pairs = num_positive * (len(values) - num_positive)
    return (rank_sum - num_positive * (num_positive + 1) / 2) / pairs


def youden_threshold(probabilities: ArrayLike, present: ArrayLike) -> float:
    """The threshold with the largest sensitivity + specificity - 1; the highest of those that are equally good.

    Args:
        probabilities: float[n].
        present: bool[n], with both values; of real validation images.

    Returns:
        Halfway between the lowest probability that counts as present and the next lower one.

    Raises:
        ValueError: all are present or none, or a probability is not finite.

    Source:
        Youden, Index for rating diagnostic tests, Cancer 1950.
    """
    values = finite_rows(np.reshape(probabilities, (-1, 1)), "probabilities")[:, 0]
    positive = label_table(np.reshape(present, (-1, 1)), (len(values), 1), "present")
    both_classes(positive, ("the class",), "present")
    candidates, inverse = np.unique(-values, return_inverse=True)  # from the highest probability down
    hits = np.cumsum(np.bincount(inverse, positive[:, 0], len(candidates)))
    false_alarms = np.cumsum(np.bincount(inverse, ~positive[:, 0], len(candidates)))
    # J times both numbers of images: whole numbers, so that equal values compare as equal.
    index = hits * false_alarms[-1] - false_alarms * hits[-1]
    best = int(np.argmax(index))
    return float(-candidates[best : best + 2].mean())


def choose_thresholds(validation: Scored) -> dict[str, float]:
    """The Youden threshold of each condition, from real validation images and never from those to be judged."""
    both_classes(validation.labels, validation.conditions, "validation")
    return {name: youden_threshold(*validation.column(name)) for name in validation.conditions}


def decide(scored: Scored, thresholds: Thresholds) -> NDArray[np.bool_]:
    """Which conditions are assigned to which images.

    Args:
        scored: n images and c conditions.
        thresholds: one for each condition.

    Returns:
        bool[n, c].

    Raises:
        ValueError: a condition has no threshold.
    """
    row = np.array([look_up(thresholds, name, "thresholds") for name in scored.conditions])
    assigned: NDArray[np.bool_] = scored.probabilities >= row
    return assigned


def score_decisions(scored: Scored, thresholds: Thresholds) -> dict[str, ConditionScores]:
    """How well each condition is recognised.

    Args:
        scored: images with true labels; each condition present on some and absent on others.
        thresholds: one for each condition, chosen on other images.

    Raises:
        ValueError: a condition has no threshold, or is on all images or none.
    """
    both_classes(scored.labels, scored.conditions, "scored")
    decisions = decide(scored, thresholds)
    return {name: _scores(*scored.column(name), decisions[:, i]) for i, name in enumerate(scored.conditions)}


def _scores(
    probabilities: NDArray[np.float64], present: NDArray[np.bool_], assigned: NDArray[np.bool_]
) -> ConditionScores:
    hits, positives, true = int((assigned & present).sum()), int(assigned.sum()), int(present.sum())
    specificity = float((~assigned[~present]).mean())
    return ConditionScores(
        auc=area_under_curve(probabilities, present),
        accuracy=float((assigned == present).mean()),
        balanced_accuracy=(hits / true + specificity) / 2,
        f1=2 * hits / (positives + true),
    )


@dataclass(frozen=True, kw_only=True)
class MultiLabelScores:
    """How well all conditions are recognised together; all in [0, 1], higher is better.

    Attributes:
        f1_micro: of all decisions in one heap: frequent conditions count more.
        f1_macro: mean of the conditions' own, 0 for one that is neither shown nor assigned.
        auc_macro: mean of the areas of the conditions that some films show and others do not.
    """

    f1_micro: float
    f1_macro: float
    auc_macro: float


def multi_label_scores(scored: Scored, threshold: float = 0.5) -> MultiLabelScores:
    """Micro and macro F1 and macro AUC, with one threshold for all conditions.

    Args:
        scored: images with true labels.
        threshold: the probability from which on a condition counts as present.

    Raises:
        ValueError: every condition is on all images or on none.
    """
    assigned, present = scored.probabilities >= threshold, scored.labels
    hits, both = (assigned & present).sum(axis=0), assigned.sum(axis=0) + present.sum(axis=0)
    mixed = [column for column, count in enumerate(present.sum(axis=0)) if 0 < count < len(scored)]
    rule = "`labels` must have a condition that some images show and others do not"
    expect(bool(mixed), rule, list(scored.conditions), "Test on more images.")
    areas = [area_under_curve(scored.probabilities[:, column], present[:, column]) for column in mixed]
    return MultiLabelScores(
        f1_micro=float(2 * hits.sum() / max(both.sum(), 1)),
        f1_macro=float(np.mean(2 * hits / np.maximum(both, 1))),
        auc_macro=float(np.mean(areas)),
    )

"""AUC, thresholds and scores: closed forms, the definitions written out, scikit-learn, and refused input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from analysis.studies.decisions import (
    Scored,
    area_under_curve,
    choose_thresholds,
    decide,
    score_decisions,
    youden_threshold,
)

ROWS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=40)


def columns(rows: list[tuple[int, bool]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities with many ties, and labels with both values."""
    scores, present = np.array([score / 9 for score, _ in rows]), np.array([flag for _, flag in rows])
    assume(present.any() and not present.all())
    return scores, present


def scored(seed: int = 0, num_images: int = 60) -> Scored:
    rng = np.random.default_rng(seed)
    labels = rng.random((num_images, 2)) < 0.4
    return Scored(np.clip(0.4 * labels + rng.random(labels.shape) * 0.6, 0, 1), labels, ("Edema", "No Finding"))


@pytest.mark.parametrize(
    ("scores", "present", "area"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.0),
        ([0.5, 0.5, 0.5], [0, 1, 1], 0.5),
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
    ],
)
def test_area_closed_forms(scores: list[float], present: list[int], area: float) -> None:
    assert area_under_curve(scores, present) == area


@pytest.mark.slow
@given(ROWS)
def test_area_is_the_share_of_ordered_pairs(rows: list[tuple[int, bool]]) -> None:
    scores, present = columns(rows)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[present] for b in scores[~present]]
    assert area_under_curve(scores, present) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert area_under_curve(scores, present) == pytest.approx(metrics.roc_auc_score(present, scores), abs=1e-12)


@pytest.mark.slow
@given(ROWS)
def test_area_knows_only_the_order(rows: list[tuple[int, bool]]) -> None:
    scores, present = columns(rows)
    assert area_under_curve(np.exp(5 * scores), present) == area_under_curve(scores, present)
    assert area_under_curve(-scores, present) == pytest.approx(1 - area_under_curve(scores, present), abs=1e-12)


@pytest.mark.slow
@given(ROWS)
def test_no_threshold_has_a_larger_youden_index(rows: list[tuple[int, bool]]) -> None:
    scores, present = columns(rows)

    def index(threshold: float) -> float:
        return float((scores[present] >= threshold).mean() - (scores[~present] >= threshold).mean())

    best = index(youden_threshold(scores, present))
    assert best >= max(index(value) for value in np.unique(scores)) - 1e-12


def test_the_threshold_lies_between_the_classes() -> None:
    assert youden_threshold([0.1, 0.2, 0.6, 0.9], [0, 0, 1, 1]) == pytest.approx(0.4)
    assert youden_threshold([0.3, 0.3, 0.3], [0, 1, 1]) == pytest.approx(0.3)


def test_scores_are_scikit_learns() -> None:
    judged, thresholds = scored(), choose_thresholds(scored(1))
    assigned = decide(judged, thresholds)
    for i, (name, scores) in enumerate(score_decisions(judged, thresholds).items()):
        truth = judged.labels[:, i]
        assert name == judged.conditions[i]
        assert scores.auc == pytest.approx(metrics.roc_auc_score(truth, judged.probabilities[:, i]))
        assert scores.accuracy == pytest.approx(metrics.accuracy_score(truth, assigned[:, i]))
        assert scores.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth, assigned[:, i]))
        assert scores.f1 == pytest.approx(metrics.f1_score(truth, assigned[:, i]))


def test_fewer_conditions_keep_their_columns() -> None:
    both = scored()
    single = both.only(["No Finding"])
    np.testing.assert_array_equal(single.probabilities[:, 0], both.column("No Finding")[0])
    assert single.conditions == ("No Finding",)
    with pytest.raises(
        ValueError,
        match=r"`condition` must be a known name, but got 'Edemas'. Did you mean 'Edema'.* Valid: Edema, No Finding",
    ):
        both.only(["Edemas"])


def test_what_is_no_score_is_refused() -> None:
    flags = np.array([[True], [False]])
    with pytest.raises(ValueError, match="`probabilities` must be finite, but got NaN or infinity in 1 of 2 rows"):
        Scored(np.array([[np.nan], [0.5]]), flags, ("Edema",))
    with pytest.raises(ValueError, match=r"`probabilities` must be in \[0, 1\], but got -3 to 4. Give no logits"):
        Scored(np.array([[-3.0], [4.0]]), flags, ("Edema",))
    with pytest.raises(ValueError, match=r"`labels` must be \[2, 1\], images by conditions, but got \[3, 1\]"):
        Scored(np.array([[0.1], [0.5]]), np.ones((3, 1), np.bool_), ("Edema",))
    with pytest.raises(ValueError, match="`probabilities` must have a column a condition"):
        Scored(np.array([[0.1, 0.2], [0.5, 0.5]]), flags, ("Edema",))
    with pytest.raises(ValueError, match="`conditions` must be names, each once"):
        Scored(np.array([[0.1, 0.2]]), np.ones((1, 2), np.bool_), ("Edema", "Edema"))
    with pytest.raises(ValueError, match="`labels` must be 0 or 1"):
        Scored(np.array([[0.1]]), np.array([[-1]]), ("Edema",))


def test_a_single_class_has_no_auc_and_no_threshold() -> None:
    with pytest.raises(ValueError, match="`present` must hold images with and without"):
        area_under_curve([0.1, 0.2], [True, True])
    alone = Scored(np.array([[0.1], [0.5]]), np.zeros((2, 1), np.bool_), ("Edema",))
    with pytest.raises(ValueError, match="`validation` must hold images with and without 'Edema', but got 0 with it"):
        choose_thresholds(alone)
    with pytest.raises(
        ValueError, match=r"`thresholds` must be a known name, but got 'Edema'. Choose one of: No Finding"
    ):
        decide(alone, {"No Finding": 0.5})

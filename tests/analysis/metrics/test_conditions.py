"""Metrics per condition."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from analysis.metrics import (
    METRICS,
    LabelledFeatures,
    ReferenceMoments,
    evaluate,
    frechet_distance,
    load_metric,
    vendi_score,
)

LABELS = [("Edema",), ("Edema", "Pneumothorax"), ("Pneumothorax",), ("Edema",)] * 5


def _features(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((20, 6)).astype(np.float32)


def test_each_condition_is_evaluated_on_its_own_images() -> None:
    generated, real = _features(0), _features(1)
    kinds = ["Edema"] * 8 + ["Pneumothorax"] * 12
    results = evaluate(
        METRICS.values(),
        LabelledFeatures(generated, kinds),
        LabelledFeatures(real, LABELS),
        extractor="mini",
        conditions=("Edema", "Pneumothorax"),
    )
    has_edema = np.array(["Edema" in label for label in LABELS])
    assert results["fid_mini"] == pytest.approx(frechet_distance(generated, real), rel=1e-12)
    assert results["fid_mini/Edema"] == pytest.approx(frechet_distance(generated[:8], real[has_edema]), rel=1e-12)
    assert results["vendi_mini/Pneumothorax"] == pytest.approx(vendi_score(generated[8:]), rel=1e-12)
    assert (results["num_generated"], results["num_reference"]) == (20, 20)
    assert (results["num_generated/Edema"], results["num_reference/Edema"]) == (8, 15)
    assert len(results) == 3 * (len(METRICS) + 2)


def test_reference_moments_are_computed_once_and_survive_pickling() -> None:
    real = LabelledFeatures(_features(1), LABELS)
    assert real.subset("Edema").derived(ReferenceMoments.of) is real.subset("Edema").derived(ReferenceMoments.of)
    copy = pickle.loads(pickle.dumps(real))
    assert np.array_equal(copy.of("Edema"), real.of("Edema"))
    assert real.counts() == {"Edema": 15, "Pneumothorax": 10}


def test_the_whole_is_summed_from_its_conditions_where_each_image_has_one() -> None:
    generated, real = _features(0), _features(1)
    kinds = ["Edema"] * 8 + ["Pneumothorax"] * 12
    ours, theirs = LabelledFeatures(generated, kinds), LabelledFeatures(real, kinds)
    results = evaluate(METRICS.values(), ours, theirs, extractor="mini")
    assert [len(part) for part in theirs.subset(None).parts] == [12, 8]
    assert theirs.subset("Edema") in theirs.subset(None).parts
    assert results["fid_mini"] == pytest.approx(frechet_distance(generated, real), rel=1e-12)
    assert results["vendi_mini"] == pytest.approx(vendi_score(generated), rel=1e-12)
    assert LabelledFeatures(real, LABELS).subset(None).parts == ()


def test_a_metric_is_left_out_where_there_are_too_few_images(caplog: pytest.LogCaptureFixture) -> None:
    kinds = ["Edema"] * 5 + ["Pneumothorax"] * 12 + ["Few of them"] * 3
    labelled = LabelledFeatures(_features(0), kinds)
    real = LabelledFeatures(_features(1), kinds)
    for _ in range(2):
        results = evaluate(
            METRICS.values(), labelled, real, extractor="mini", conditions=("Edema", "Pneumothorax", "Few of them")
        )
    names = {name.removesuffix("_mini/Few of them") for name in results if name.endswith("_mini/Few of them")}
    assert names == {name for name, metric in METRICS.items() if metric.min_images <= 3} >= {"fid", "kid", "vendi"}
    assert {"precision_mini/Edema", "recall_mini/Edema", "density_mini/Pneumothorax"} <= set(results)
    assert not {"density_mini/Edema", "coverage_mini/Edema"} & set(results)
    said = [record.getMessage() for record in caplog.records if "Few of them" in record.getMessage()]
    assert len(said) == 1
    assert "of which there are 3: " in said[0]
    assert all(words in said[0] for words in ("precision (needs 4)", "recall (needs 4)", "density (needs 6)"))


def test_a_condition_without_images_is_refused_with_the_counts() -> None:
    real = LabelledFeatures(_features(1), LABELS)
    with pytest.raises(ValueError, match=r"`Edoma` must have at least 2 images .* but got 0. Did you mean 'Edema'"):
        evaluate(METRICS.values(), real, real, extractor="mini", conditions=("Edoma",))


def test_labels_must_match_the_images() -> None:
    with pytest.raises(ValueError, match="each of 20 images, but got 19"):
        LabelledFeatures(_features(0), LABELS[:19])


def test_an_unknown_metric_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"`metric` must be a known name, but got 'vendy'. Did you mean 'vendi'.*Valid: .*fid, "
    ):
        load_metric("vendy")

"""The standard errors of a recording, on a metric whose error is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.metrics import LabelledFeatures, Metric
from benchmarks.recordings.training import standard_errors

MEANS = Metric(
    name="means",
    label="difference of means",
    direction="min",
    function=lambda generated, reference: float(generated.features.mean() - reference.features.mean()),
)
NUM_GENERATED, NUM_PATIENTS, FILMS_OF_A_PATIENT = 200, 100, 2


def drawn() -> tuple[LabelledFeatures, LabelledFeatures, list[str]]:
    """Generated films, and two equal films of each patient, both of spread 1."""
    rng = np.random.default_rng(0)
    generated, patients = rng.standard_normal((NUM_GENERATED, 1)), rng.standard_normal((NUM_PATIENTS, 1))
    films = np.repeat(patients / patients.std(), FILMS_OF_A_PATIENT, axis=0)
    names = [f"p{row}" for row in range(NUM_PATIENTS) for _ in range(FILMS_OF_A_PATIENT)]
    labels = [()] * NUM_GENERATED, [()] * len(films)
    return (
        LabelledFeatures((generated / generated.std()).astype(np.float32), labels[0]),
        LabelledFeatures(films.astype(np.float32), labels[1]),
        names,
    )


def test_a_difference_of_means_has_the_error_of_independent_films_and_patients() -> None:
    errors = standard_errors(MEANS, *drawn())
    assert errors["se_generated"] == pytest.approx((1 / NUM_GENERATED) ** 0.5, rel=0.2)
    assert errors["se"] == pytest.approx((1 / NUM_GENERATED + 1 / NUM_PATIENTS) ** 0.5, rel=0.2)


def test_what_sees_no_held_out_film_has_one_error() -> None:
    alone = replace(MEANS, sees_reference=False, function=lambda generated, _: float(generated.features.mean()))
    assert standard_errors(alone, *drawn()) == {"se": pytest.approx((1 / NUM_GENERATED) ** 0.5, rel=0.2)}

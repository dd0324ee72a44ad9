"""The linear probe: reads what is there, nothing from noise, and is not fooled by repeated prompts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.studies.probe import linear_probe

pytestmark = pytest.mark.slow

NAMES = ("Edema", "No Finding")


def embeddings(num_prompts: int = 400, gap: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Normal embeddings of 8 numbers, of which the first shifts by the gap with the first condition."""
    rng = np.random.default_rng(0)
    labels = rng.random((num_prompts, 2)) < 0.4
    rows = rng.normal(size=(num_prompts, 8))
    rows[:, 0] += gap * labels[:, 0]
    return rows, labels


def test_separable_embeddings_are_read_without_error() -> None:
    rows, labels = embeddings(gap=60)
    result = linear_probe(rows, labels, NAMES).conditions["Edema"]
    assert (result.auc, result.accuracy) == (1.0, 1.0)


def test_a_condition_that_is_not_encoded_is_guessed() -> None:
    rows, labels = embeddings(num_prompts=1500, gap=60)
    guessed = linear_probe(rows, labels, NAMES).conditions["No Finding"]
    assert guessed.auc == pytest.approx(0.5, abs=0.05)
    assert guessed.majority == pytest.approx(1 - labels[:, 1].mean())
    assert guessed.accuracy < guessed.majority + 0.03


def test_shuffled_labels_are_guessed() -> None:
    rows, labels = embeddings(num_prompts=1500, gap=60)
    result = linear_probe(rows, np.random.default_rng(1).permutation(labels), NAMES).conditions["Edema"]
    assert result.auc == pytest.approx(0.5, abs=0.05)


def test_an_overlap_gives_the_area_of_two_normals() -> None:
    rows, labels = embeddings(num_prompts=4000, gap=1.0)
    assert linear_probe(rows, labels, NAMES).conditions["Edema"].auc == pytest.approx(
        0.7602, abs=0.02
    )  # Phi(1 / sqrt 2)


def test_rotation_and_scale_of_the_embedding_do_not_matter() -> None:
    rows, labels = embeddings(gap=1.5)
    plain = linear_probe(rows, labels, NAMES).conditions["Edema"].auc
    scaled = linear_probe(rows * np.geomspace(0.01, 100, 8) + 5, labels, NAMES).conditions["Edema"].auc
    turned = linear_probe(rows[:, ::-1], labels, NAMES).conditions["Edema"].auc
    assert scaled == pytest.approx(plain, abs=1e-3)
    assert turned == pytest.approx(plain, abs=1e-3)


def test_repeated_prompts_are_not_learnt_by_heart() -> None:
    rng = np.random.default_rng(2)
    texts, labels = rng.normal(size=(60, 64)), np.arange(60)[:, None] % 2 == 0
    copies = np.repeat(np.arange(60), 10)
    by_embedding = linear_probe(texts[copies], labels[copies], ["Edema"])
    jittered = texts[copies] + 1e-9 * rng.normal(size=(600, 64))
    by_prompt = linear_probe(jittered, labels[copies], ["Edema"], prompts=[f"prompt {row}" for row in copies])
    assert by_embedding.num_prompts == by_prompt.num_prompts == 60
    for probe in (by_embedding, by_prompt):
        assert probe.conditions["Edema"].auc < 0.75
    leaked = linear_probe(jittered, labels[copies], ["Edema"])
    assert leaked.conditions["Edema"].auc > 0.99


def test_reported_numbers_are_finite_and_named() -> None:
    values = linear_probe(*embeddings(gap=2), NAMES).as_dict()
    assert values["probe_auc"] == pytest.approx((values["probe_auc/Edema"] + values["probe_auc/No Finding"]) / 2)
    assert values["probe_num_prompts"] == 400
    assert all(type(value) is float and np.isfinite(value) for value in values.values())


def test_what_cannot_be_probed_is_refused() -> None:
    rows, labels = embeddings(num_prompts=40)
    with pytest.raises(ValueError, match="`embeddings` must be finite, but got NaN or infinity in 1 of 40 rows"):
        linear_probe(np.where(np.arange(40)[:, None] == 3, np.nan, rows), labels, NAMES)
    with pytest.raises(ValueError, match=r"`labels` must be \[40, 2\]"):
        linear_probe(rows, labels[:-1], NAMES)
    alone = np.column_stack([np.arange(40) < 2, labels[:, 1]])
    with pytest.raises(ValueError, match=r"at least 5 distinct prompts with and without 'Edema'.* but got 2 with it"):
        linear_probe(rows, alone, NAMES)
    with pytest.raises(ValueError, match="`prompts` must be 40, one a row, but got 1"):
        linear_probe(rows, labels, NAMES, prompts=["a"])
    with pytest.raises(ValueError, match="`num_folds` must be at least 2, but got 1"):
        linear_probe(rows, labels, NAMES, num_folds=1)
    with pytest.raises(ValueError, match="`l2` must be above 0, but got 0"):
        linear_probe(rows, labels, NAMES, l2=0)

"""Samples of real films: whole patients, no more than allowed, the same whenever drawn, and all where all are allowed."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.films import gallery
from analysis.films.gallery import Gallery, nearest_films
from sweep.final.bench import rows_of_patients

PATIENTS = [f"p{number}" for number in np.random.default_rng(0).integers(0, 30, 100)]


@pytest.mark.parametrize("most", [10, 37, 99])
def test_a_sample_holds_whole_patients_and_no_more_films_than_allowed(most: int) -> None:
    rows = rows_of_patients(PATIENTS, most, 3)
    chosen = {PATIENTS[row] for row in rows}
    assert rows.tolist() == [row for row, patient in enumerate(PATIENTS) if patient in chosen]
    assert most - max(map(PATIENTS.count, PATIENTS)) < len(rows) <= most
    assert np.array_equal(rows, rows_of_patients(PATIENTS, most, 3))
    assert not np.array_equal(rows, rows_of_patients(PATIENTS, most, 4))


def test_all_are_taken_where_all_are_allowed() -> None:
    assert rows_of_patients(PATIENTS, 100, 3).tolist() == list(range(100))


@pytest.mark.parametrize("space", ["features", "pixels"])
@pytest.mark.parametrize("other_patients", [False, True])
def test_neighbours_do_not_depend_on_how_many_references_are_in_memory(
    space: str, other_patients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    films = random.integers(0, 256, (40, 64, 64), np.uint8)
    films[31] = films[3]  # of equals the first is the nearest
    features = random.standard_normal((40, 5)).astype(np.float32)
    features[31] = features[3]
    references = Gallery(features, films, tuple(f"r{row // 2}" for row in range(40)))
    queries = references.take(np.arange(0, 40, 3))
    whole = nearest_films(queries, references, space, other_patients=other_patients)
    monkeypatch.setattr(gallery, "REFERENCES", 7)
    parts = nearest_films(queries, references, space, other_patients=other_patients)
    np.testing.assert_array_equal(parts.rows, whole.rows)
    np.testing.assert_allclose(parts.distances, whole.distances, atol=1e-3)
    if not other_patients:
        assert parts.rows.tolist() == list(range(0, 40, 3)) and parts.distances.max() < 2e-3

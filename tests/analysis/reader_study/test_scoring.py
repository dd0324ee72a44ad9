"""Scores of readers: closed forms, a second implementation, and coverage over readers of known ability."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from analysis.reader_study.films import KINDS, as_records, chosen_films
from analysis.reader_study.scoring import CHANCE, cohen_kappa, score_answers, share_of

CONDITIONS = ("Edema", "No Finding")
LABELS = tuple((CONDITIONS[row % 2],) for row in range(80))
FILMS = chosen_films(LABELS, 60, 0)
KEY = {"study": "s-0", "trial_id": "a1", "conditions": CONDITIONS, "films": as_records(FILMS)}


def answers_of(reader: str, ability: float, seed: int) -> dict[str, Any]:
    """A reader who is right about each film with this chance, and sees what the caption names."""
    right = np.random.default_rng(seed).random(len(FILMS)) < ability
    said = [(film.kind == "real") == bool(is_right) for film, is_right in zip(FILMS, right, strict=True)]
    ratings = [
        {"id": film.id, "realism": 4 if real else 1, "findings": list(film.conditions), "seconds": 1.0}
        for film, real in zip(FILMS, said, strict=True)
    ]
    return {"format": 1, "study": "s-0", "reader": reader, "answers": ratings}


def test_films_are_half_real_spread_over_conditions_and_each_caption_is_shown_once() -> None:
    assert sorted(film.kind for film in FILMS) == ["generated"] * 30 + ["real"] * 30
    assert sorted(film.conditions for film in FILMS) == [("Edema",)] * 30 + [("No Finding",)] * 30
    assert len({film.row for film in FILMS}) == len({film.id for film in FILMS}) == 60
    assert FILMS == chosen_films(LABELS, 60, 0) != chosen_films(LABELS, 60, 1)
    for kind in KINDS:  # neither the order nor the names tell
        places = [place for place, film in enumerate(FILMS) if film.kind == kind]
        assert abs(np.mean(places) - 29.5) < 8
        assert abs(np.mean([int(film.id, 16) for film in FILMS if film.kind == kind]) / 16**6 - 0.5) < 0.2


@pytest.mark.parametrize(("num", "said"), [(3, "must be an even number"), (82, "must be at most the 80 captions")])
def test_a_number_of_films_that_cannot_be_is_named(num: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        chosen_films(LABELS, num, 0)


@pytest.mark.parametrize(("count", "num"), [(0, 10), (7, 10), (60, 60), (33, 60)])
def test_an_interval_is_wilsons(count: int, num: int) -> None:
    share, theirs = share_of(count, num), stats.binomtest(count, num).proportion_ci(method="wilson")
    assert (share.low, share.high) == pytest.approx((theirs.low, theirs.high))
    assert share.low <= share.value <= share.high


@pytest.mark.slow
@pytest.mark.parametrize("ability", [0.5, 0.7])
def test_two_hundred_readers_of_known_ability_lie_within_their_intervals_as_often_as_stated(ability: float) -> None:
    """Each interval covers with 95 %; of 200 independent ones fewer than 180, or all, would come once in a thousand."""
    answers = [answers_of(str(seed), ability, seed) for seed in range(200)]
    readers = [score_answers(KEY, [reply]).readers[str(seed)] for seed, reply in enumerate(answers)]
    assert 180 <= sum(reader.low <= ability <= reader.high for reader in readers) < 200
    if ability == CHANCE:
        assert 1 <= sum(reader.p_chance < 0.05 for reader in readers) <= 19


def test_kappa_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(200) < 0.4
    second = first ^ (rng.random(200) < 0.2)
    assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))
    assert cohen_kappa(first, first) == 1 == cohen_kappa(np.ones(5, bool), np.ones(5, bool))


def test_several_readers_have_a_mean_and_an_agreement() -> None:
    scores = score_answers(KEY, [answers_of(f"r{seed}", 0.8, seed) for seed in range(4)])
    accuracies = [share.value for share in scores.readers.values()]
    assert scores.mean is not None and scores.agreement is not None
    interval = stats.t.interval(0.95, 3, np.mean(accuracies), stats.sem(accuracies))
    assert scores.mean == pytest.approx((np.mean(accuracies), *interval))
    assert scores.agreement.low < scores.agreement.kappa < scores.agreement.high
    assert scores.agreement.kappa == pytest.approx(0.36, abs=0.2)  # (2 * 0.8 - 1) ** 2
    assert {share.num for share in scores.conditions.values()} == {30}
    kinds = scores.findings["Edema"]
    assert kinds.keys() == {"real", "generated"} and all(share.value == 1 for share in kinds.values())
    alone = score_answers(KEY, [answers_of("r", 0.8, 0)])
    assert alone.mean is None and alone.agreement is None


def test_a_condition_with_too_few_films_says_so() -> None:
    films = [
        {**film, "conditions": ["Edema", "Rare"]} if number < 3 else film for number, film in enumerate(KEY["films"])
    ]
    key = {**KEY, "conditions": (*CONDITIONS, "Rare"), "films": films}
    scores = score_answers(key, [answers_of("r", 0.8, 0)])
    assert scores.too_few == {"Rare": 3} and "Rare" not in scores.conditions


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"study": "other"}, "must be of study 's-0', but got 'other'"),
        ({"answers": []}, "must rate every film, but got 60 of 'r' without"),
    ],
)
def test_wrong_answers_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        score_answers(KEY, [answers_of("r", 0.8, 0) | change])
    with pytest.raises(ValueError, match="must be of different readers"):
        score_answers(KEY, [answers_of("r", 0.8, 0), answers_of("r", 0.8, 1)])
    with pytest.raises(ValueError, match="must have answers to score"):
        score_answers(KEY, [])

"""What readers' answers tell: accuracy against chance with intervals, by reader and condition, and agreement."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.checks import expect

CONFIDENCE = 0.95
FIRST_REAL = 3
"""From this rating on, of 1 to 4, a film was taken for real."""
CHANCE = 0.5
NUM_RESAMPLES = 500
FEWEST = 5
"""Films below which a share says nothing."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of films with its 95 % interval.

    Attributes:
        count: films that it is true of.
        num: films of which it could be true.
        low: lower end of the interval, in [0, 1].
        high: upper end of the interval, in [0, 1].
        p_chance: how likely a share so far from a half is by guessing, two-sided.
    """

    count: int
    num: int
    low: float
    high: float
    p_chance: float

    @property
    def value(self) -> float:
        """The share itself, in [0, 1]."""
        return self.count / self.num


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far readers agree beyond chance: the mean of Cohen's kappa over all pairs of readers, with its interval.

    Attributes:
        kappa: in [-1, 1]; 0 is what chance would give, 1 is perfect.
        low: lower end of the 95 % interval over resampled films.
        high: upper end of that interval.
    """

    kappa: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ReaderScores:
    """All scores of a study.

    Attributes:
        trial_id: whose generated films were shown.
        readers: accuracy of each reader in telling real from generated.
        conditions: the same on films whose caption names a condition, the readers' mean, where there are enough.
        too_few: conditions with fewer films than that, and their number.
        findings: by condition and kind, the share of such films on which readers see it.
        mean: of the readers' accuracies with the t interval over readers; none for a single reader.
        agreement: between readers on what is real; none for a single reader.
    """

    trial_id: str
    readers: Mapping[str, Share]
    conditions: Mapping[str, Share]
    too_few: Mapping[str, int]
    findings: Mapping[str, Mapping[str, Share]]
    mean: tuple[float, float, float] | None
    agreement: Agreement | None

    def as_record(self) -> dict[str, Any]:
        """The scores as JSON has them."""
        return asdict(self)


def share_of(count: int, num: int) -> Share:
    """A share with Wilson's interval.

    Args:
        count: at least 0.
        num: at least 1.

    Source: Wilson 1927; Brown, Cai and DasGupta 2001 on how often it covers. Chance: the exact binomial test.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = (count + z * z / 2) / (num + z * z)
    half = z / (num + z * z) * float(np.sqrt(count * (num - count) / num + z * z / 4))
    p_chance = float(stats.binomtest(count, num, CHANCE).pvalue)
    low, high = (0.0 if count == 0 else middle - half), (1.0 if count == num else middle + half)
    return Share(count=count, num=num, low=low, high=high, p_chance=p_chance)


def score_answers(key: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> ReaderScores:
    """The scores of all readers of a study.

    Args:
        key: what was written beside the page: `study`, `trial_id`, `conditions`, `films`.
        answers: one file a reader, as the page saved it.

    Raises:
        ValueError: there are none, two are by the same reader, or a file is of another study, is incomplete or not of this
            form.
    """
    expect(bool(answers), "`--score` must have answers to score", "none", "Put the readers' answers-*.json into --to.")
    names = [str(reply.get("reader")) for reply in answers]
    expect(len(set(names)) == len(names), "`answers` must be of different readers", names, "Keep one file of each.")
    truth = {film["id"]: film for film in key["films"]}
    for reply in answers:
        _check(reply, key["study"], truth)
    films = list(truth.values())
    real = np.array([film["kind"] == "real" for film in films])
    given = [{answer["id"]: answer for answer in reply["answers"]} for reply in answers]
    said = np.array([[by_film[film["id"]]["realism"] >= FIRST_REAL for film in films] for by_film in given])
    right = said == real
    shows = {name: np.array([name in film["conditions"] for film in films]) for name in key["conditions"]}
    seen = {
        name: np.array([[name in by_film[film["id"]]["findings"] for film in films] for by_film in given])
        for name in shows
    }
    enough = {name: has for name, has in shows.items() if has.sum() >= FEWEST}
    return ReaderScores(
        trial_id=str(key["trial_id"]),
        readers={name: share_of(int(row.sum()), len(row)) for name, row in zip(names, right, strict=True)},
        conditions={name: _over_readers(right[:, has]) for name, has in enough.items()},
        too_few={name: int(has.sum()) for name, has in shows.items() if name not in enough},
        findings={name: dict(_by_kind(seen[name], has, real)) for name, has in enough.items()},
        mean=_mean(right.mean(axis=1)) if len(answers) > 1 else None,
        agreement=_agreement(said) if len(answers) > 1 else None,
    )


def _check(reply: Mapping[str, Any], study: str, truth: Mapping[str, Any]) -> None:
    rule, remedy = f"`answers` must be of study {study!r}", "Take the files of this study's page."
    expect(reply.get("study") == study, rule, repr(reply.get("study")), remedy)
    by_film = {answer.get("id"): answer for answer in reply.get("answers", [])}
    open_ = [name for name in truth if by_film.get(name, {}).get("realism") not in (1, 2, 3, 4)]
    came = f"{len(open_)} of {reply.get('reader')!r} without"
    expect(not open_, "`answers` must rate every film", came, "Let the reader finish the page and save again.")


def _by_kind(seen: NDArray[np.bool_], has: NDArray[np.bool_], real: NDArray[np.bool_]) -> Iterator[tuple[str, Share]]:
    """Where readers see a finding that the caption names, among real and among generated films."""
    for kind, chosen in (("real", has & real), ("generated", has & ~real)):
        if chosen.any():
            yield kind, _over_readers(seen[:, chosen])


def _over_readers(holds: NDArray[np.bool_]) -> Share:
    """The share of bool[readers, films]; a film counts once, as readers who look at the same film are not independent."""
    return share_of(round(float(holds.mean(axis=0).sum())), holds.shape[1])


def _mean(accuracies: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean with the t interval over readers: for other readers of these films."""
    mean, spread = float(accuracies.mean()), float(stats.sem(accuracies))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(accuracies) - 1)) * spread
    return mean, max(mean - half, 0.0), min(mean + half, 1.0)


def cohen_kappa(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Agreement of two readers beyond chance, in [-1, 1]; 1 where both always say the same one thing.

    Source: Cohen 1960.
    """
    observed = float((first == second).mean())
    p, q = float(first.mean()), float(second.mean())
    expected = p * q + (1 - p) * (1 - q)
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)


def _agreement(said: NDArray[np.bool_]) -> Agreement:
    """bool[readers, films]; the interval is over films."""

    def mean_kappa(rows: NDArray[np.bool_]) -> float:
        return float(np.mean([cohen_kappa(reader, other) for reader, other in combinations(rows, 2)]))

    rng, num = np.random.default_rng(0), said.shape[1]
    resampled = [mean_kappa(said[:, rng.integers(0, num, num)]) for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Agreement(kappa=mean_kappa(said), low=float(low), high=float(high))


def read_json(file: Path) -> Mapping[str, Any]:
    """A key or a reader's answers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"`--to` must be a study's folder, but got {str(file.parent)!r}, which has no {file.name}."
        )
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"`{file.name}` must be JSON, but got: {error}. Save it from the page again.") from error
    expect(
        isinstance(document, dict),
        f"`{file.name}` must hold keys and values",
        type(document).__name__,
        "Save it again.",
    )
    content: Mapping[str, Any] = document
    return content

"""Copies of training films among generated ones: found, shown, and kept from being exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.checks import expect, look_up
from analysis.films.gallery import Gallery, NearestFilms, nearest_films

RULES: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "features": (("features",), False),
    "pixels": (("pixels",), False),
    "either": (("features", "pixels"), False),
    "both": (("features", "pixels"), True),
}
"""The spaces that a rule compares in, and whether a copy must be one in all of them: with `both`, pixels confirm what
features say."""
SMALLEST = 1e-6
"""Added to both distances of a ratio, so that a film that is in both sets has the ratio 1."""


class MemorisationError(RuntimeError):
    """More of the generated films are copies of training films than the user allows."""


@dataclass(frozen=True, kw_only=True)
class CopyPair:
    """A generated film with the training film that it repeats.

    Attributes:
        generated: row of the generated film.
        train: row of the training film.
        space: where they are nearest, `features` or `pixels`.
        ratio: distance to the training film over that to the nearest held-out film; 0 for an exact copy.
    """

    generated: int
    train: int
    space: str
    ratio: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Limit:
    """The score from which down a film counts as a copy of one of `near`, told by the films of `far`.

    Attributes:
        near: films that may have been copied.
        far: films of other patients.
        scales: by deciding space, the low ratio of films of `far` that counts as 1.
        threshold: a film whose score is below it counts as a copy.
    """

    near: Gallery
    far: Gallery
    scales: Mapping[str, float]
    threshold: float

    def scores(self, ratios: Mapping[str, NDArray[np.float64]], all_of_them: bool) -> NDArray[np.float64]:
        """One score a film, float64[n]: the lowest of its scaled ratios, or the highest where all spaces must agree."""
        scaled = np.stack([ratios[space] / scale for space, scale in self.scales.items()])
        combined: NDArray[np.float64] = scaled.max(axis=0) if all_of_them else scaled.min(axis=0)
        return combined


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What decides whether generated films are copies; the same for all generators trained on the same films.

    Attributes:
        deciding: the spaces that say what is a copy.
        all_of_them: whether a copy must be one in all of them.
        limit: with `near` the training films and `far` the held-out ones.
        exchanged: with `near` the held-out films and `far` training films of at most as many patients.
        max_false_alarms: share of films that are no copies and may be taken for one.
        confidence: chance that `limit` keeps to it.
    """

    deciding: tuple[str, ...]
    all_of_them: bool
    limit: Limit
    exchanged: Limit
    max_false_alarms: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class MemorisationReport:
    """Nearest-neighbour distance ratios of generated films, and which are copies.

    Attributes:
        deciding: the spaces that say what is a copy.
        ratios: space to float64[n]: distance to the nearest training film over that to the nearest held-out film. Low
            is bad; a generator that knows nothing of single films gives what real films of other patients give.
        nearest_train: space to int64[n], rows of the nearest training films.
        scores: float64[n]: the ratios in units of each space's usual low ratio, combined by the rule.
        threshold: a film whose score is below it counts as a copy.
        exchanged_share: share of the generated films that count as copies of held-out films where those take the place
            of the training films, in [0, 1]. Nobody trained on them: these are false alarms, and a share of copies
            that is not well above says nothing.
        num_train: training films that generated ones were compared with.
        num_held_out: held-out films that the threshold was calibrated on.
        max_false_alarms: share of films that are no copies and may be taken for one.
        confidence: chance that the threshold keeps to it for films that resemble real ones as held-out films do.
    """

    deciding: tuple[str, ...]
    ratios: Mapping[str, NDArray[np.float64]]
    nearest_train: Mapping[str, NDArray[np.int64]]
    scores: NDArray[np.float64]
    threshold: float
    exchanged_share: float
    num_train: int
    num_held_out: int
    max_false_alarms: float
    confidence: float

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """Which generated films are copies, bool[n]."""
        return self.scores < self.threshold

    @property
    def share(self) -> float:
        """Share of the generated films that are copies, in [0, 1]; lower is better, false alarms are in it."""
        return float(self.flagged.mean())

    @cached_property
    def copies(self) -> tuple[CopyPair, ...]:
        """The copies with the films that they repeat, the surest first."""
        rows = np.flatnonzero(self.flagged)
        return tuple(self._pair(int(row)) for row in rows[np.argsort(self.scores[rows], kind="stable")])

    def _pair(self, row: int) -> CopyPair:
        space = min(self.deciding, key=lambda name: float(self.ratios[name][row]))
        train, ratio = int(self.nearest_train[space][row]), float(self.ratios[space][row])
        return CopyPair(generated=row, train=train, space=space, ratio=ratio)

    def as_dict(self) -> dict[str, float]:
        """Finite numbers by name: `memorisation_share`, `memorisation_ratio_features`, ..., to be reported."""
        medians = {f"memorisation_ratio_{space}": float(np.median(values)) for space, values in self.ratios.items()}
        return {
            "memorisation_share": self.share,
            "memorisation_share_exchanged": self.exchanged_share,
            "memorisation_num_copies": float(self.flagged.sum()),
            "memorisation_max_false_alarms": self.max_false_alarms,
            "memorisation_confidence": self.confidence,
            "memorisation_num_generated": float(len(self.scores)),
            "memorisation_num_held_out": float(self.num_held_out),
            **medians,
        }


def calibrate(
    train: Gallery,
    held_out: Gallery,
    *,
    rule: str | None = None,
    max_false_alarms: float = 0.05,
    confidence: float = 0.95,
) -> Calibration:
    """How near real films of other patients come to training films; what comes nearer counts as a copy.

    Every held-out film is treated as if it were generated, among the held-out films of the other patients. Films of one
    patient resemble each other, so only patients are independent: each enters with the lowest score of its films, which
    bounds the share of a new patient's films below the threshold however many there are. The threshold is the highest
    of these values below which, with the given confidence, at most the allowed share of patients lies. That holds for
    films that resemble real ones as held-out films do. Generated films may be smoother, and so nearer to every film:
    the same with both sets exchanged shows how many of them are taken for copies of films that nobody trained on.

    Args:
        train: the films that the generator was trained on.
        held_out: real films of other patients, not trained on.
        rule: a key of `RULES`, which spaces decide; by default `pixels` where both have images, otherwise `features`.
            Pixels find copies that were moved a little, made noisy or brighter, which features of a classifier miss;
            they miss copies that were mirrored, turned or cropped.
        max_false_alarms: allowed share of false alarms, in (0, 1).
        confidence: chance that the calibrated threshold keeps to it, in (0, 1).

    Raises:
        ValueError: sets do not match, a patient is in both, or there are too few patients.

    Source:
        Order statistics as tolerance limits: Wilks, Annals of Mathematical Statistics, 1941.
    """
    with_images = train.images is not None and held_out.images is not None
    deciding, all_of_them = look_up(RULES, rule or ("pixels" if with_images else "features"), "rule")
    _check_sets(train, held_out)
    settings = (deciding, all_of_them, max_false_alarms)
    limit = _limit(train, held_out, settings, confidence)
    some = _of_patients(train, len(set(held_out.groups())))
    attainable = attainable_confidence(len(set(some.groups())), max_false_alarms, confidence)
    return Calibration(
        deciding=deciding,
        all_of_them=all_of_them,
        limit=limit,
        exchanged=_limit(held_out, some, settings, attainable),
        max_false_alarms=max_false_alarms,
        confidence=confidence,
    )


def find_copies(generated: Gallery, calibration: Calibration) -> MemorisationReport:
    """Which generated films are nearer to a training film than real films of other patients ever are.

    Args:
        generated: the films to judge.
        calibration: from `calibrate`.

    Raises:
        ValueError: the films are of another extractor than the calibration, or have no images and pixels decide.
    """
    limit, exchanged, deciding = calibration.limit, calibration.exchanged, calibration.deciding
    _check_widths(generated, limit.near)
    with_images = all(gallery.images is not None for gallery in (generated, limit.near, limit.far))
    spaces = ("features", "pixels") if with_images else tuple(dict.fromkeys(("features", *deciding)))
    to_train = {space: nearest_films(generated, limit.near, space) for space in spaces}
    to_held_out = {space: nearest_films(generated, limit.far, space) for space in spaces}
    to_some = {space: nearest_films(generated, exchanged.far, space) for space in deciding}
    ratios = {space: _ratio(to_train[space], to_held_out[space]) for space in spaces}
    control = exchanged.scores({s: _ratio(to_held_out[s], to_some[s]) for s in deciding}, calibration.all_of_them)
    return MemorisationReport(
        ratios=ratios,
        nearest_train={space: neighbours.rows for space, neighbours in to_train.items()},
        scores=limit.scores(ratios, calibration.all_of_them),
        deciding=deciding,
        threshold=limit.threshold,
        exchanged_share=float((control < exchanged.threshold).mean()),
        num_train=len(limit.near),
        num_held_out=len(limit.far),
        max_false_alarms=calibration.max_false_alarms,
        confidence=calibration.confidence,
    )


def _limit(near: Gallery, far: Gallery, settings: tuple[tuple[str, ...], bool, float], confidence: float) -> Limit:
    """A limit by the films of `far`, which are not compared with those of their own patient."""
    deciding, all_of_them, max_false_alarms = settings
    patients, of_each = np.unique(far.groups(), return_inverse=True)
    level = calibration_level(len(patients), max_false_alarms, confidence)
    usual = {
        space: _ratio(nearest_films(far, near, space), nearest_films(far, far, space, other_patients=True))
        for space in deciding
    }
    lowest = {space: _lowest(values, of_each) for space, values in usual.items()}
    scales = {space: max(float(np.quantile(values, max_false_alarms)), SMALLEST) for space, values in lowest.items()}
    unlimited = Limit(near=near, far=far, scales=scales, threshold=0)
    scores = _lowest(unlimited.scores(usual, all_of_them), of_each)
    return replace(unlimited, threshold=float(np.quantile(scores, level, method="inverted_cdf")))


def _lowest(values: NDArray[np.float64], of_each: NDArray[np.int64]) -> NDArray[np.float64]:
    """The lowest value of each patient, where `of_each` numbers the patient of each value."""
    lowest = np.full(of_each.max() + 1, np.inf)
    np.minimum.at(lowest, of_each, values)
    return lowest


def _of_patients(films: Gallery, most: int) -> Gallery:
    """The films of at most so many patients, the same whenever drawn."""
    patients = np.random.default_rng(0).permutation(np.unique(films.groups()))[:most]
    return films.take(np.flatnonzero(np.isin(films.groups(), patients)))


def calibration_level(num_patients: int, max_false_alarms: float, confidence: float) -> float:
    """The highest quantile of calibration scores that surely has at most the allowed share of all scores below it.

    Args:
        num_patients: independent values behind the quantile.
        max_false_alarms: the share, in (0, 1).
        confidence: chance that it holds, in (0, 1).

    Returns:
        k / n, k >= 1, in (0, max_false_alarms]: the share below the k-th smallest of n follows Beta(k, n - k + 1).

    Raises:
        ValueError: even the smallest value is not sure enough.

    Source:
        Wilks, Annals of Mathematical Statistics, 1941.
    """
    for name, value in (("max_false_alarms", max_false_alarms), ("confidence", confidence)):
        expect(0 < value < 1, f"`{name}` must be in (0, 1)", value, "Use for example 0.05 and 0.95.")
    ranks = np.arange(1, num_patients + 1)
    sure = ranks[stats.binom.sf(ranks - 1, num_patients, max_false_alarms) >= confidence]
    needed = max(2, int(np.ceil(np.log1p(-confidence) / np.log1p(-max_false_alarms))))
    rule = f"`held_out` must be of at least {needed} patients for {max_false_alarms:g} false alarms"
    expect(
        len(sure) > 0 and num_patients > 1,
        rule,
        num_patients,
        f"Add patients, or lower `confidence`, now {confidence:g}.",
    )
    return float(sure[-1] / num_patients)


def attainable_confidence(num_patients: int, max_false_alarms: float, wanted: float = 0.95) -> float:
    """The confidence that so many held-out patients allow for a calibrated threshold, at most what is wanted.

    Args:
        num_patients: held-out patients, at least 2.
        max_false_alarms: allowed share of false alarms, in (0, 1).
        wanted: confidence where there are patients enough, in (0, 1).

    Returns:
        In (0, wanted]: the chance that the lowest of so many scores lies within the allowed share.

    Source:
        Wilks, Annals of Mathematical Statistics, 1941.
    """
    lowest = 1 - (1 - max_false_alarms) ** num_patients
    return min(wanted, lowest * (1 - SMALLEST))  # a little less, so that rounding does not refuse it


def gate_share(share: float, limit: float, *, num_copies: int, num_films: int) -> None:
    """Let an adapter pass whose generated films hold few enough copies.

    Args:
        share: of the films that count as copies, in [0, 1].
        limit: allowed share, in [0, 1]; below the false-alarm rate even an innocent generator may fail.
        num_copies: for the message.
        num_films: films that the adapter generated, likewise.

    Raises:
        MemorisationError: the share is above the limit.
        ValueError: the limit is not in [0, 1].
    """
    expect(0 <= limit <= 1, "`limit` must be in [0, 1]", limit, "It is a share of the generated films.")
    if share > limit:
        raise MemorisationError(
            f"`memorisation share` must be at most {limit:g}, but got {share:.4g}: {num_copies} of "
            f"{num_films} generated films repeat training films. Look at the pairs, train fewer steps or on "
            "more films, remove repeated training films, or raise the limit."
        )


def _check_sets(train: Gallery, held_out: Gallery) -> None:
    _check_widths(held_out, train)
    shared = sorted(set(train.patients or ()) & set(held_out.patients or ()))
    rule = "`held_out` must be of other patients than the training films"
    expect(not shared, rule, f"{len(shared)} shared, such as {shared[:3]}", "Split by patient.")
    num_patients = len(set(train.groups()))
    expect(num_patients > 1, "`train` must be of at least 2 patients", num_patients, "Add patients.")


def _check_widths(films: Gallery, train: Gallery) -> None:
    widths = [gallery.features.shape[1] for gallery in (films, train)]
    rule = "`features` must be of one extractor"
    expect(len(set(widths)) == 1, rule, f"{widths} columns", "Extract all sets alike.")


def _ratio(near: NearestFilms, far: NearestFilms) -> NDArray[np.float64]:
    """Distances to the one over those to the other, float64[n]."""
    return (near.distances + SMALLEST) / (far.distances + SMALLEST)

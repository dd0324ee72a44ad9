"""Copies of training films among generated ones: found, shown, and kept from being exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import stats

from analysis.checks import expect
from analysis.films import check_images
from analysis.gallery import Gallery, nearest
from analysis.names import look_up

RULES: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "features": (("features",), False),
    "pixels": (("pixels",), False),
    "either": (("features", "pixels"), False),
    "both": (("features", "pixels"), True),
}
"""Spaces that are compared, and whether a copy must be one in all of them: `both` confirms in pixels what features say."""
SMALLEST = 1e-6
"""Added to both distances of a ratio, so that a film that is in both sets has the ratio 1."""
GAP_PX = 4
LABEL_PX = 14


class MemorisationError(RuntimeError):
    """More of the generated films are copies of training films than the user allows."""


@dataclass(frozen=True, kw_only=True)
class CopyPair:
    """A generated film with the training film that it repeats.

    Args:
        generated: row of the generated film.
        train: row of the training film.
        space: where they are nearest, `features` or `pixels`.
        ratio: distance to the training film over that to the nearest held-out film; 0 for an exact copy.
    """

    generated: int
    train: int
    space: str
    ratio: float


@dataclass(frozen=True, kw_only=True)
class MemorisationReport:
    """Nearest-neighbour distance ratios of generated films, and which are copies.

    Args:
        deciding: the spaces that say what is a copy.
        ratios: space to float64[n]: distance to the nearest training film over that to the nearest held-out film. Low
            is bad; a generator that knows nothing of single films gives what real films of other patients give.
        nearest_train: space to int64[n], rows of the nearest training films.
        scores: float64[n]: the ratios in units of each space's usual low ratio, combined by the rule.
        threshold: a film whose score is below it counts as a copy.
        num_train: training films.
        num_held_out: held-out films that the threshold was calibrated on.
        max_false_alarms: share of films that are no copies and may be taken for one.
    """

    deciding: tuple[str, ...]
    ratios: Mapping[str, NDArray[np.float64]]
    nearest_train: Mapping[str, NDArray[np.int64]]
    scores: NDArray[np.float64]
    threshold: float
    num_train: int
    num_held_out: int
    max_false_alarms: float

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
            "memorisation_num_copies": float(self.flagged.sum()),
            "memorisation_max_false_alarms": self.max_false_alarms,
            "memorisation_num_generated": float(len(self.scores)),
            "memorisation_num_held_out": float(self.num_held_out),
            **medians,
        }


def find_copies(
    generated: Gallery,
    train: Gallery,
    held_out: Gallery,
    *,
    rule: str | None = None,
    max_false_alarms: float = 0.05,
    confidence: float = 0.95,
) -> MemorisationReport:
    """Which generated films are nearer to a training film than real films of other patients ever are.

    Every held-out film is treated as if it were generated, among the held-out films of the other patients. The
    threshold is the highest of their scores below which, with the given confidence, at most the allowed share of films
    that are no copies lies. Films of one patient resemble each other, so patients and not films say how sure that is.

    Args:
        generated: the films to judge.
        train: the films that the generator was trained on.
        held_out: real films of other patients, not trained on.
        rule: a key of `RULES`, which spaces decide; by default `pixels` where all have images, otherwise `features`.
            Pixels find copies that were moved a little, made noisy or brighter, which features of a classifier miss;
            they miss copies that were mirrored, turned or cropped.
        max_false_alarms: allowed share of false alarms, in (0, 1).
        confidence: chance that the calibrated threshold keeps to it, in (0, 1).

    Raises:
        ValueError: sets do not match, a patient is in both real sets, or there are too few held-out films.

    Source:
        Order statistics as tolerance limits: Wilks, Annals of Mathematical Statistics, 1941.
    """
    galleries = (generated, train, held_out)
    with_images = all(gallery.images is not None for gallery in galleries)
    deciding, all_of_them = look_up(RULES, rule or ("pixels" if with_images else "features"), "rule")
    spaces = ("features", "pixels") if with_images else ("features", *deciding)
    _check_sets(generated, train, held_out)
    level = calibration_level(len(set(held_out.groups())), max_false_alarms, confidence)
    usual = {space: _ratios(held_out, train, held_out, space)[0] for space in deciding}
    found = {space: _ratios(generated, train, held_out, space) for space in spaces}
    ratios = {space: values for space, (values, _) in found.items()}
    scales = {space: max(float(np.quantile(values, max_false_alarms)), SMALLEST) for space, values in usual.items()}
    return MemorisationReport(
        ratios=ratios,
        nearest_train={space: rows for space, (_, rows) in found.items()},
        scores=_combined({space: ratios[space] for space in deciding}, scales, all_of_them),
        deciding=deciding,
        threshold=float(np.quantile(_combined(usual, scales, all_of_them), level, method="inverted_cdf")),
        num_train=len(train),
        num_held_out=len(held_out),
        max_false_alarms=max_false_alarms,
    )


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


def gate(report: MemorisationReport, limit: float) -> None:
    """Let an adapter pass whose generated films hold few enough copies.

    Args:
        report: of films that the adapter generated.
        limit: allowed share of copies, in [0, 1]; below the false-alarm rate even an innocent generator may fail.

    Raises:
        MemorisationError: the share is above the limit.
        ValueError: the limit is not in [0, 1].
    """
    gate_share(report.share, limit, num_copies=len(report.copies), num_films=len(report.scores))


def gate_share(share: float, limit: float, *, num_copies: int, num_films: int) -> None:
    """The same for a share that was reported before: `num_copies` of `num_films` generated films.

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


def pairs_sheet(
    generated: NDArray[np.uint8],
    train: NDArray[np.uint8],
    copies: Sequence[CopyPair],
    *,
    max_pairs: int = 16,
    side_px: int = 128,
) -> Image.Image:
    """Copies beside what they repeat, a pair a row: generated on the left, the training film on the right.

    Args:
        generated: uint8[n, H, W].
        train: uint8[m, H, W].
        copies: at least one pair of rows.
        max_pairs: how many are shown, from the first.
        side_px: of each film on the sheet.

    Raises:
        ValueError: there are no pairs, or an array holds no films.
    """
    expect(len(copies) > 0 and max_pairs > 0, "`copies` must hold a pair to show", len(copies), "Nothing was copied.")
    shown, row_px = copies[:max_pairs], side_px + LABEL_PX + GAP_PX
    page = Image.new("RGB", (2 * side_px + 3 * GAP_PX, len(shown) * row_px + GAP_PX), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default()
    for number, pair in enumerate(shown):
        top = GAP_PX + number * row_px
        label = f"generated {pair.generated} | train {pair.train} | {pair.space} {pair.ratio:.2f}"
        pen.text((GAP_PX, top), label, fill="black", font=font)
        films = (check_images(generated)[pair.generated], check_images(train)[pair.train])
        for column, film in enumerate(films):
            tile = Image.fromarray(film).convert("RGB").resize((side_px, side_px), Image.Resampling.BICUBIC)
            page.paste(tile, (GAP_PX + column * (side_px + GAP_PX), top + LABEL_PX))
    return page


def _check_sets(generated: Gallery, train: Gallery, held_out: Gallery) -> None:
    widths = [gallery.features.shape[1] for gallery in (generated, train, held_out)]
    rule = "`features` must be of one extractor"
    expect(len(set(widths)) == 1, rule, f"{widths} columns", "Extract all three sets alike.")
    shared = sorted(set(train.patients or ()) & set(held_out.patients or ()))
    rule = "`held_out` must be of other patients than the training films"
    expect(not shared, rule, f"{len(shared)} shared, such as {shared[:3]}", "Split by patient.")


def _ratios(
    films: Gallery, train: Gallery, held_out: Gallery, space: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance ratios, and rows of the nearest training films; a held-out film is not compared with its patient."""
    to_train = nearest(films, train, space)
    to_held_out = nearest(films, held_out, space, other_patients=films is held_out)
    return (to_train.distances + SMALLEST) / (to_held_out.distances + SMALLEST), to_train.rows


def _combined(
    ratios: Mapping[str, NDArray[np.float64]], scales: Mapping[str, float], all_of_them: bool
) -> NDArray[np.float64]:
    """One score a film: the lowest of its scaled ratios, or the highest where all spaces must agree."""
    scaled = np.stack([values / scales[space] for space, values in ratios.items()])
    combined: NDArray[np.float64] = scaled.max(axis=0) if all_of_them else scaled.min(axis=0)
    return combined

"""What an autoencoder keeps of a radiograph: visibility of marked regions, and a classifier's decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from analysis.checks import expect
from analysis.films.labelled import check_images
from analysis.studies.decisions import Scored, Thresholds, decide, score_decisions

ROUNDING_NOISE = 12**-0.5
"""Deviation that rounding to whole grey levels gives: no background is quieter."""
RING_SHARE = 1 / 16
"""Width of the background around a region, as a share of the film's side."""


@dataclass(frozen=True, eq=False)
class Mark:
    """A marked region of a film.

    Attributes:
        film: row of the film.
        condition: what is seen there.
        mask: bool[H, W], true in the region.
    """

    film: int
    condition: str
    mask: NDArray[np.bool_]

    @classmethod
    def of_box(cls, film: int, condition: str, box: tuple[float, float, float, float], side_px: int) -> Mark:
        """Mark a box of left, top, width and height in pixels, as the NIH list has them, on a film of this side.

        Args:
            film: row of the film.
            condition: what is seen there.
            box: left, top, width and height, in pixels.
            side_px: side of the film.

        Raises:
            ValueError: no pixel's centre lies in the box.
        """
        left, top, width, height = box
        centres = np.arange(side_px) + 0.5
        rows = (centres >= top) & (centres < top + height)
        columns = (centres >= left) & (centres < left + width)
        mask = rows[:, None] & columns[None, :]
        remedy = "Scale it like the film."
        expect(bool(mask.any()), f"`box` must hold a pixel of a film of {side_px} px", box, remedy)
        return cls(film, condition, mask)


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """How well the marked regions of a condition stand out, on average.

    Attributes:
        num_marks: how many regions the means are of.
        cnr_before: contrast-to-noise ratio on the original films, at least 0; higher is better.
        cnr_after: on the reconstructed ones; negative where a bright region has turned dark, or a dark one bright.
        cnr_kept: the latter over the former; 1 is unchanged, above 1 where noise went and contrast stayed.
        contrast_kept: contrast in grey levels after over before; 1 is unchanged.
    """

    num_marks: int
    cnr_before: float
    cnr_after: float
    cnr_kept: float
    contrast_kept: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a classifier makes of one condition before and after reconstruction.

    Attributes:
        num_films: how many films were decided twice.
        agreement: share of equal decisions, in [0, 1]; higher is better.
        auc_before: area under the curve on the original films.
        auc_after: on the reconstructed ones.
        auc_change: the latter minus the former, in [-1, 1]; 0 is unchanged.
        probability_change: mean absolute change of the probability, in [0, 1]; lower is better.
    """

    num_films: int
    agreement: float
    auc_before: float
    auc_after: float
    auc_change: float
    probability_change: float


def region_contrast(film: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[float, float]:
    """How a region stands out from the ring around it.

    Args:
        film: uint8[H, W].
        mask: bool[H, W], with some pixels in it and some around it.

    Returns:
        Mean grey level of the region minus that of the ring, in [-255, 255]; and the deviation of the ring, at least
        that of rounding. Their ratio is the contrast-to-noise ratio.

    Raises:
        ValueError: sizes differ, the region is empty, or nothing of the film lies around it.

    Source:
        Contrast-to-noise ratio with the local background's deviation as noise: Bushberg et al., The Essential Physics
        of Medical Imaging.
    """
    came = f"{mask.dtype}{list(mask.shape)}"
    expect(
        mask.dtype == np.bool_ and mask.shape == film.shape, f"`mask` must be bool{list(film.shape)}", came, "Fit it."
    )
    width = max(2, round(film.shape[0] * RING_SHARE))
    # The pixels next to the region are blurred with it and belong to neither.
    ring = ndimage.binary_dilation(mask, iterations=width + 1) & ~ndimage.binary_dilation(mask)
    came = f"{int(mask.sum())} in the region and {int(ring.sum())} around it"
    expect(bool(mask.any() and ring.any()), "`mask` must leave pixels in and around the region", came, "Mark less.")
    levels, around = film[mask].astype(np.float64), film[ring].astype(np.float64)
    return float(levels.mean() - around.mean()), max(float(around.std()), ROUNDING_NOISE)


def region_visibility(
    before: NDArray[np.uint8], after: NDArray[np.uint8], marks: Sequence[Mark]
) -> dict[str, Visibility]:
    """Contrast-to-noise ratio of marked regions before and after reconstruction, by condition.

    Args:
        before: uint8[n, H, W], the original films.
        after: uint8[n, H, W], the same reconstructed.
        marks: at least one region.

    Raises:
        ValueError: shapes differ, there is no mark, one is not on a film, or the originals show no contrast at all.
    """
    rule = f"`after` must be {list(check_images(before).shape)} like `before`"
    expect(check_images(after).shape == before.shape, rule, list(after.shape), "Reconstruct the same films.")
    expect(len(marks) > 0, "`marks` must hold at least one region", "none", "Give boxes or masks.")
    for mark in marks:
        rule = f"`film` of a mark must be a row in 0..{len(before) - 1}"
        expect(0 <= mark.film < len(before), rule, mark.film, "Number the marks like the films.")
    names = dict.fromkeys(mark.condition for mark in marks)
    return {name: _visibility(before, after, [mark for mark in marks if mark.condition == name]) for name in names}


def _visibility(before: NDArray[np.uint8], after: NDArray[np.uint8], marks: Sequence[Mark]) -> Visibility:
    original = np.array([region_contrast(before[mark.film], mark.mask) for mark in marks])
    restored = np.array([region_contrast(after[mark.film], mark.mask) for mark in marks])
    contrast, sign = np.abs(original[:, 0]), np.sign(original[:, 0])
    rule = f"`marks` of {marks[0].condition!r} must show some contrast on the original films"
    expect(bool(contrast.any()), rule, "none", "Check that masks and films belong together.")
    cnr_before, cnr_after = contrast / original[:, 1], sign * restored[:, 0] / restored[:, 1]
    return Visibility(
        num_marks=len(marks),
        cnr_before=float(cnr_before.mean()),
        cnr_after=float(cnr_after.mean()),
        cnr_kept=float(cnr_after.mean() / cnr_before.mean()),
        contrast_kept=float((sign * restored[:, 0]).mean() / contrast.mean()),
    )


def classifier_agreement(before: Scored, after: Scored, thresholds: Thresholds) -> dict[str, Agreement]:
    """What a classifier makes of films before and after reconstruction, by condition.

    Args:
        before: the original films, scored.
        after: the same films in the same order, reconstructed and scored by the same classifier.
        thresholds: from `choose_thresholds` on other films.

    Raises:
        ValueError: the two are not of the same films and conditions, a condition has no threshold, or is on all films
            or none.
    """
    same = before.conditions == after.conditions and np.array_equal(before.labels, after.labels)
    rule = "`after` must have the conditions and labels of `before`"
    expect(same, rule, f"{len(after)} films of {list(after.conditions)}", "Score the same films in the same order.")
    scores, changed = score_decisions(before, thresholds), score_decisions(after, thresholds)
    equal = (decide(before, thresholds) == decide(after, thresholds)).mean(axis=0)
    shift = np.abs(before.probabilities - after.probabilities).mean(axis=0)
    return {
        name: Agreement(
            num_films=len(before),
            agreement=float(equal[i]),
            auc_before=scores[name].auc,
            auc_after=changed[name].auc,
            auc_change=changed[name].auc - scores[name].auc,
            probability_change=float(shift[i]),
        )
        for i, name in enumerate(before.conditions)
    }


def as_values(results: Mapping[str, Visibility] | Mapping[str, Agreement]) -> dict[str, float]:
    """Finite numbers by name, `vae_agreement/Edema`, ..., with the mean of the conditions as `vae_agreement`.

    Args:
        results: by condition, from one of the two functions above; at least one.
    """
    rows = {name: asdict(result) for name, result in results.items()}
    values = {f"vae_{key}/{name}": float(value) for name, row in rows.items() for key, value in row.items()}
    keys = [key for key in next(iter(rows.values())) if not key.startswith("num_")]
    return {f"vae_{key}": float(np.mean([row[key] for row in rows.values()])) for key in keys} | values

"""Image-prompt alignment: do generated images show what their prompts asked for, in the eyes of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.checks import both_classes, expect
from analysis.decisions import Scored, Thresholds, area_under_curve, decide
from analysis.names import look_up


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Shares of some images, each in [0, 1]; higher is better.

    Args:
        num_images: how many images.
        aligned: share of them to which all their prompted conditions are assigned.
        exact: share to which those and no others are.
    """

    num_images: int
    aligned: float
    exact: float


@dataclass(frozen=True, kw_only=True)
class ConditionAlignment:
    """Alignment of the images whose prompts name one condition, alone or among others.

    Args:
        generated: of the generated images.
        recall: share of them to which this condition is assigned, whatever else their prompts name.
        real: the same shares of real images with the condition: what a perfect generator would reach.
        real_recall: share of real images with the condition to which it is assigned.
        classifier_auc: of the classifier on real images, in [0, 1]; near 0.5 the shares mean nothing.
        threshold: probability from which on the condition is assigned.
    """

    generated: Shares
    recall: float
    real: Shares
    real_recall: float
    classifier_auc: float
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Alignment over all images and for each condition.

    Args:
        generated: shares of all generated images.
        real: of all real images.
        conditions: by name.
    """

    generated: Shares
    real: Shares
    conditions: Mapping[str, ConditionAlignment]

    def as_dict(self) -> dict[str, float]:
        """Finite numbers by name, `alignment`, `alignment/Edema`, `classifier_auc/Edema`, ..., to be reported."""
        values = {"alignment": self.generated.aligned, "alignment_exact": self.generated.exact}
        values |= {"alignment_real": self.real.aligned, "num_aligned": float(self.generated.num_images)}
        for name, result in self.conditions.items():
            values |= {f"{key}/{name}": value for key, value in _columns(result).items()}
        return values


def _columns(result: ConditionAlignment) -> dict[str, float]:
    return {
        "alignment": result.generated.aligned,
        "alignment_exact": result.generated.exact,
        "alignment_recall": result.recall,
        "alignment_real": result.real.aligned,
        "classifier_auc": result.classifier_auc,
        "num_aligned": float(result.generated.num_images),
    }


def image_prompt_alignment(generated: Scored, real: Scored, thresholds: Thresholds) -> Alignment:
    """Share of generated images to which a classifier assigns the conditions of their prompts.

    Args:
        generated: probabilities of generated images, with what their prompts ask for as labels.
        real: probabilities and true labels of real images that neither trained the classifier nor chose the thresholds.
        thresholds: by condition, from `choose_thresholds` on real validation images.

    Returns:
        Shares in [0, 1]; higher is better, and those of the real images are the level to compare with.

    Raises:
        ValueError: conditions differ, a prompt names none, a condition is never prompted, a condition is on all real
            images or none, or a condition has no threshold.
    """
    rule = f"`generated` must be scored for the conditions of `real`, {list(real.conditions)}"
    expect(generated.conditions == real.conditions, rule, list(generated.conditions), "Use `Scored.only` on both.")
    both_classes(real.labels, real.conditions, "real")
    _check_prompts(generated)
    found, real_found = decide(generated, thresholds), decide(real, thresholds)
    return Alignment(
        generated=_shares(found, generated.labels),
        real=_shares(real_found, real.labels),
        conditions={
            name: _of_condition(i, (generated, found), (real, real_found), look_up(thresholds, name, "thresholds"))
            for i, name in enumerate(generated.conditions)
        },
    )


def _check_prompts(generated: Scored) -> None:
    empty = np.flatnonzero(~generated.labels.any(axis=1))
    came = f"{len(empty)} that name none, first {empty[:1].tolist()}"
    expect(not len(empty), "`generated` must have a condition in each prompt", came, "Leave these images out.")
    for name, count in zip(generated.conditions, generated.labels.sum(axis=0).tolist(), strict=True):
        remedy = "Generate images of it, or leave it out with `Scored.only`."
        expect(count > 0, f"`generated` must hold images prompted with {name!r}", "none", remedy)


def _of_condition(
    index: int,
    generated: tuple[Scored, NDArray[np.bool_]],
    real: tuple[Scored, NDArray[np.bool_]],
    threshold: float,
) -> ConditionAlignment:
    """Alignment of the images that are prompted with one condition, beside that of real images that have it."""
    (scored, found), (real_scored, real_found) = generated, real
    asked, true = scored.labels[:, index], real_scored.labels[:, index]
    return ConditionAlignment(
        generated=_shares(found[asked], scored.labels[asked]),
        recall=float(found[asked, index].mean()),
        real=_shares(real_found[true], real_scored.labels[true]),
        real_recall=float(real_found[true, index].mean()),
        classifier_auc=area_under_curve(real_scored.probabilities[:, index], true),
        threshold=threshold,
    )


def _shares(found: NDArray[np.bool_], asked: NDArray[np.bool_]) -> Shares:
    return Shares(
        num_images=len(found),
        aligned=float((found | ~asked).all(axis=1).mean()),
        exact=float((found == asked).all(axis=1).mean()),
    )

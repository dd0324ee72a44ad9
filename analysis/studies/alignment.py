"""Image-prompt alignment: do generated images show what their prompts asked for, in the eyes of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.checks import both_classes, expect, look_up
from analysis.studies.decisions import Scored, Thresholds, area_under_curve, decide


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Shares of some images, each in [0, 1]; higher is better.

    Attributes:
        num_images: how many images the shares are of.
        aligned: share of them to which all their prompted conditions are assigned.
        exact: share to which those and no others are.
    """

    num_images: int
    aligned: float
    exact: float


@dataclass(frozen=True, kw_only=True)
class ConditionAlignment:
    """Alignment of the images whose prompts name one condition, alone or among others.

    Attributes:
        generated: of the generated images.
        recall: share of them to which this condition is assigned, whatever else their prompts name.
        real: the same shares of real images with the condition, weighted like the prompts: what a perfect generator
            would reach.
        real_recall: share of real images with the condition to which it is assigned, weighted likewise.
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

    Attributes:
        generated: shares of all generated images.
        real: shares of the real images with a condition, weighted like the prompts.
        conditions: alignment of each condition's images, by its name.
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
        Shares in [0, 1]; higher is better, and those of the real images are the level to compare with: each combination
        of conditions counts as often as prompts ask for it. Images without a condition, with which any answer would
        agree, count nothing; where no image shows a prompted combination, all with a condition count alike.

    Raises:
        ValueError: conditions differ, a prompt names none, a condition is never prompted, a condition is on all real
            images or none, or a condition has no threshold.
    """
    rule = f"`generated` must be scored for the conditions of `real`, {list(real.conditions)}"
    expect(generated.conditions == real.conditions, rule, list(generated.conditions), "Use `Scored.only` on both.")
    both_classes(real.labels, real.conditions, "real")
    _check_prompts(generated)
    assigned, real_assigned = decide(generated, thresholds), decide(real, thresholds)
    weights, shown = _prompted_weights(real.labels, generated.labels), real.labels.any(axis=1)
    return Alignment(
        generated=_shares(assigned, generated.labels, np.ones(len(generated))),
        real=_shares(real_assigned[shown], real.labels[shown], weights[shown]),
        conditions={
            name: _of_condition(
                i, (generated, assigned), (real, real_assigned, weights), look_up(thresholds, name, "thresholds")
            )
            for i, name in enumerate(generated.conditions)
        },
    )


def _prompted_weights(labels: NDArray[np.bool_], prompted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How often each image's combination of conditions is prompted, over how many images show it."""
    every = np.concatenate([labels, prompted])
    kinds, of_each = np.unique(every, axis=0, return_inverse=True)
    shown, asked = of_each.reshape(-1)[: len(labels)], of_each.reshape(-1)[len(labels) :]
    counts = [np.bincount(rows, minlength=len(kinds)) for rows in (shown, asked)]
    weights: NDArray[np.float64] = counts[1][shown] / counts[0][shown]
    return weights


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
    real: tuple[Scored, NDArray[np.bool_], NDArray[np.float64]],
    threshold: float,
) -> ConditionAlignment:
    """Alignment of the images that are prompted with one condition, beside that of real images that have it."""
    (scored, assigned), (real_scored, real_assigned, weights) = generated, real
    asked, true = np.flatnonzero(scored.labels[:, index]), np.flatnonzero(real_scored.labels[:, index])
    return ConditionAlignment(
        generated=_shares(assigned[asked], scored.labels[asked], np.ones(len(asked))),
        recall=float(assigned[asked, index].mean()),
        real=_shares(real_assigned[true], real_scored.labels[true], weights[true]),
        real_recall=_weighted(real_assigned[true, index], weights[true]),
        classifier_auc=area_under_curve(real_scored.probabilities[:, index], real_scored.labels[:, index]),
        threshold=threshold,
    )


def _shares(assigned: NDArray[np.bool_], asked: NDArray[np.bool_], weights: NDArray[np.float64]) -> Shares:
    aligned, exact = (assigned | ~asked).all(axis=1), (assigned == asked).all(axis=1)
    return Shares(num_images=len(assigned), aligned=_weighted(aligned, weights), exact=_weighted(exact, weights))


def _weighted(holds: ArrayLike, weights: NDArray[np.float64]) -> float:
    """Share of the weight where it holds; of the images where there is no weight."""
    return float(np.average(np.asarray(holds), weights=weights if weights.any() else None))

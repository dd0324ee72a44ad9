"""How much of an evaluation a trial gets during its training, and under which names it is reported."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from analysis.metrics import METRICS, LabelledFeatures, Metric, evaluate, standard_error
from analysis.studies.rung_agreement import EARLY, STANDARD_ERROR
from sweep.config import ConfigError, EvaluationConfig, SweepConfig

LEAST_IMAGES: Final = 2
FEWEST_FOR_ERRORS: Final = 4
NUM_HALVES: Final = 50
"""Halves of the generated images from which a standard error is made; it is then itself uncertain by a tenth."""


def at_rung(config: EvaluationConfig, share_done: float) -> EvaluationConfig:
    """The evaluation of a trial that has done a share of its training: fewer images and steps, all at the end.

    Both grow by doublings, so that what one rung generates is among what the next one does.

    Args:
        config: the last evaluation's.
        share_done: above 0, at most 1.

    Raises:
        ValueError: the share is out of its range.
    """
    if not 0 < share_done <= 1:
        raise ValueError(
            f"`share_done` must be above 0 and at most 1, but got {share_done}. Give epochs done / all epochs."
        )
    doubling = math.ldexp(1.0, math.frexp(share_done)[1] - 1)  # the largest power of two that is not above it
    images, steps = max(doubling, config.early_images_share), max(doubling, config.early_steps_share)
    return config.model_copy(
        update={
            "images_per_condition": max(LEAST_IMAGES, math.ceil(images * config.images_per_condition)),
            "num_steps": math.ceil(steps * config.num_steps),
        }
    )


def earlier_image_counts(config: EvaluationConfig, images_per_condition: int) -> Iterator[int]:
    """How many images per condition earlier rungs than that of `images_per_condition` have, most first."""
    doubling, last = 1.0, images_per_condition
    while doubling > config.early_images_share:
        doubling /= 2
        count = at_rung(config, doubling).images_per_condition
        if count < last:
            last = count
            yield count


def early_scores(
    generated: LabelledFeatures, reference: LabelledFeatures, *, extractor: str, num_steps: int
) -> dict[str, float]:
    """Metrics of an evaluation at a rung, with their standard errors, under names of their own.

    Many metrics depend on the number of images: they compare trials at one rung, which all have as many, and with no
    other rung and not with the last evaluation.

    Args:
        generated: features and conditions of generated images.
        reference: the same of as many held-out films.
        extractor: name of what made the features.
        num_steps: of the sampling.

    Returns:
        `early_kid_mini`, `early_fid_mini`, ..., each with `early_kid_mini_se` over other generated images where there are
        four or more of them, `early_num_generated`, `early_num_reference`, `early_num_steps`.

    Raises:
        ValueError: features are invalid or do not match.
    """
    fitting = [metric for metric in METRICS.values() if metric.fits(len(generated), len(reference))]
    scores = evaluate(fitting, generated, reference, extractor=extractor) | {"num_steps": num_steps}
    errors = {
        f"{metric.reported_name(extractor)}{STANDARD_ERROR}": _error(metric, generated, reference)
        for metric in fitting
        if _has_error(metric, len(generated))
    }
    return {f"{EARLY}{name}": value for name, value in (scores | errors).items()}


def _has_error(metric: Metric, num_generated: int) -> bool:
    """Whether halves of so many images give the error of a metric."""
    half = num_generated // 2
    return num_generated >= FEWEST_FOR_ERRORS and metric.spread is not None and metric.fits(half, half)


def _error(metric: Metric, generated: LabelledFeatures, reference: LabelledFeatures) -> float:
    """A metric's standard error over other generated images, the held-out films kept."""
    real = reference.subset(None)
    return standard_error(
        lambda images: metric.fn(images, real),
        generated.features,
        relative=metric.spread == "relative",
        num_resamples=NUM_HALVES,
    )


def require_measured_at_rungs(config: SweepConfig, num_images: Mapping[str, int]) -> None:
    """Refuse an objective by which the trial scheduler could not compare trials at a rung.

    Args:
        config: names the objectives and the rungs.
        num_images: that the last evaluation generates for each condition.

    Raises:
        ConfigError: one needs more images than a rung has of all conditions together.
    """
    num_epochs = config.training.num_epochs
    for epochs in config.search.ladder(num_epochs).epochs:
        few = at_rung(config.evaluation, epochs / num_epochs).images_per_condition
        total = sum(min(few, count) for count in num_images.values())
        for name in config.objectives:
            if name in METRICS and not METRICS[name].fits(total, total):
                raise ConfigError(
                    f"`objectives` must be measurable at every rung, but got {name!r}, which needs "
                    f"{METRICS[name].min_images} images, with {total} after epoch {epochs}: at most {few} for each of "
                    f"{len(num_images)} conditions. Raise evaluation.early_images_share or search.rungs.first, or set "
                    "search.scheduler=none."
                )

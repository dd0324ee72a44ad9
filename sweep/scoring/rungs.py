"""How much of an evaluation a trial gets during its training, and under which names it is reported."""

from __future__ import annotations

import math
from collections.abc import Iterator

from analysis.metrics import METRICS, LabelledFeatures, evaluate
from analysis.studies.rung_agreement import EARLY
from sweep.config import EvaluationConfig

LEAST_IMAGES = 2


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
    """Metrics of an evaluation with fewer images or steps than the last, under names of their own.

    Only metrics that do not depend on the number of images are taken: the others would look like the last evaluation's.

    Args:
        generated: features and conditions of generated images.
        reference: the same of as many held-out films.
        extractor: name of what made the features.
        num_steps: of the sampling.

    Returns:
        `early_kid_mini`, `early_num_generated`, `early_num_reference`, `early_num_steps`.

    Raises:
        ValueError: features are invalid or do not match.
    """
    unbiased = [metric for metric in METRICS.values() if metric.unbiased]
    scores = evaluate(unbiased, generated, reference, extractor=extractor) | {"num_steps": num_steps}
    return {f"{EARLY}{name}": value for name, value in scores.items()}

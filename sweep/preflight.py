"""Whether a sweep's objectives can be measured with the images that it will generate, answered before it starts."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.metrics import METRICS, Metric
from sweep.config import ConfigError, SweepConfig
from trainables.datasets.store import PreparedDataset


def images_of_conditions(dataset: PreparedDataset, conditions: tuple[str, ...], config: SweepConfig) -> dict[str, int]:
    """How many images the last evaluation generates for each condition: no more than held-out films show it."""
    held_out = dataset.split(config.evaluation.split)
    most = config.evaluation.images_per_condition
    return {condition: min(most, len(held_out.indices_with(condition))) for condition in conditions}


def check_objectives(config: SweepConfig, num_images: Mapping[str, int]) -> list[str]:
    """Refuse objectives that every trial would lack at its end.

    Args:
        config: names the objectives.
        num_images: generated for each condition.

    Returns:
        A note for each objective that will be missing for some of the conditions only.

    Raises:
        ConfigError: an objective needs more images than there are of all conditions together.
    """
    total, metrics = sum(num_images.values()), [METRICS[name] for name in config.objectives if name in METRICS]
    for metric in metrics:
        if not metric.fits(total, total):
            raise ConfigError(
                f"`objectives` must be measurable, but got {metric.name!r}, which needs {metric.min_images} images, "
                f"with {total} of all conditions together ({dict(num_images)}). Raise evaluation.images_per_condition, "
                "prepare more held-out films, or choose other objectives."
            )
    return [note for metric in metrics if (note := _missing(metric, num_images))]


def _missing(metric: Metric, num_images: Mapping[str, int]) -> str:
    few = [f"{condition} ({count})" for condition, count in num_images.items() if not metric.fits(count, count)]
    return f"{metric.name} needs {metric.min_images} images and will be missing for {', '.join(few)}" if few else ""

"""Metrics: functions of generated and reference features, in this order. A new one: a file and a table line."""

from __future__ import annotations

import math

from analysis.checks import look_up
from analysis.metrics.base import Metric
from analysis.metrics.conditions import LabelledFeatures, evaluate
from analysis.metrics.embeddings import clip_score
from analysis.metrics.extrapolation import extrapolated_frechet_distance
from analysis.metrics.frechet import frechet_distance, frechet_terms
from analysis.metrics.intervals import bootstrap_interval, standard_error
from analysis.metrics.kernel import kernel_distance, kernel_distance_by_subsets
from analysis.metrics.measurement import Measurement, measurements
from analysis.metrics.moments import ReferenceMoments
from analysis.metrics.ms_ssim import ms_ssim, ms_ssim_diversity
from analysis.metrics.neighbours import (
    DENSITY_NEIGHBOURS,
    PRECISION_NEIGHBOURS,
    coverage,
    density,
    density_coverage,
    precision,
    precision_recall,
    recall,
)
from analysis.metrics.paired import psnr, rmse, ssim
from analysis.metrics.sets import FeatureSet
from analysis.metrics.vendi import vendi_score, vendi_score_of_batches


def _vendi(generated: FeatureSet, reference: FeatureSet) -> float:
    return vendi_score(generated)


SHARE = (0.0, 1.0)
_TABLE = (
    Metric(name="fid", label="FID", direction="min", function=frechet_distance, bounds=(0, math.inf)),
    Metric(name="kid", label="KID", direction="min", function=kernel_distance, unbiased=True),
    Metric(
        name="vendi",
        label="Vendi score",
        direction="max",
        function=_vendi,
        bounds=(1, math.inf),
        sees_reference=False,
        spread="relative",
    ),
    Metric(
        name="precision",
        label="precision",
        direction="max",
        function=precision,
        min_images=PRECISION_NEIGHBOURS + 1,
        bounds=SHARE,
    ),
    Metric(
        name="recall",
        label="recall",
        direction="max",
        function=recall,
        min_images=PRECISION_NEIGHBOURS + 1,
        bounds=SHARE,
    ),
    Metric(
        name="density",
        label="density",
        direction="max",
        function=density,
        min_images=DENSITY_NEIGHBOURS + 1,
        bounds=(0, math.inf),
        spread=None,
    ),
    Metric(
        name="coverage",
        label="coverage",
        direction="max",
        function=coverage,
        min_images=DENSITY_NEIGHBOURS + 1,
        bounds=SHARE,
        spread=None,
    ),
)
METRICS = {metric.name: metric for metric in _TABLE}


def load_metric(name: str) -> Metric:
    """The metric of that name; an unknown name is answered with the valid ones."""
    return look_up(METRICS, name, "metric")


__all__ = [
    "METRICS",
    "FeatureSet",
    "LabelledFeatures",
    "Measurement",
    "Metric",
    "ReferenceMoments",
    "bootstrap_interval",
    "clip_score",
    "density_coverage",
    "evaluate",
    "extrapolated_frechet_distance",
    "frechet_distance",
    "frechet_terms",
    "kernel_distance",
    "kernel_distance_by_subsets",
    "load_metric",
    "measurements",
    "ms_ssim",
    "ms_ssim_diversity",
    "precision_recall",
    "psnr",
    "rmse",
    "ssim",
    "standard_error",
    "vendi_score",
    "vendi_score_of_batches",
]

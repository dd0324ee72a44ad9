"""Metrics: functions of generated and reference features, in this order. A new one: a file and a table line."""

from __future__ import annotations

from numpy.typing import ArrayLike

from analysis.metrics.base import Metric, Reference
from analysis.metrics.conditions import LabelledFeatures, evaluate
from analysis.metrics.frechet import ReferenceMoments, frechet_distance
from analysis.metrics.vendi import vendi_score
from analysis.names import look_up


def _fid(generated: ArrayLike, reference: Reference) -> float:
    return frechet_distance(generated, reference.moments)


def _vendi(generated: ArrayLike, reference: Reference) -> float:
    return vendi_score(generated)


METRICS = {
    "fid": Metric(name="fid", direction="min", function=_fid),
    "vendi": Metric(name="vendi", direction="max", function=_vendi),
}


def load_metric(name: str) -> Metric:
    """The metric of that name; an unknown name is answered with the valid ones."""
    return look_up(METRICS, name, "metric")


__all__ = [
    "METRICS",
    "LabelledFeatures",
    "Metric",
    "Reference",
    "ReferenceMoments",
    "evaluate",
    "frechet_distance",
    "load_metric",
    "vendi_score",
]

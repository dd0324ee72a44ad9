"""Sweeps that are ready to begin, for tests of what their parts are told."""

from __future__ import annotations

from pathlib import Path

from sweep.config import SweepConfig
from sweep.preflight import Prepared, limits_of
from trainables.base_models.models import resolve_base
from trainables.datasets.store import PreparedDataset


def prepared_sweep(config: SweepConfig, dataset: PreparedDataset, out: Path) -> Prepared:
    """A sweep as `preflight` leaves it, without the checks.

    Args:
        config: of a sweep on the mini base.
        dataset: its films.
        out: its run directory.
    """
    return Prepared(
        config=config,
        out=out,
        weights_hash="",
        dataset=dataset,
        conditions=dataset.conditions,
        strategies=config.search.candidates(),
        limits=limits_of(config, dataset.conditions, str(resolve_base("mini"))),
        notes=(),
    )

"""Finalists trained again with further seeds, and what that says of their figures."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.features import split_metric
from analysis.metrics import METRICS
from analysis.studies.utility import CLASSIFIER_SCORES, t_interval
from sweep.final.bench import Finalist, Workbench
from sweep.trials.latent_cache import latent_cache
from trainables.strategies.card import read_card
from trainables.trial import TrialSpec, cut_name, fine_tune

MIN_SEEDS = 3
"""The fewest trainings from which an interval is made."""
SHARES = {
    *("alignment", "alignment_exact", "alignment_recall", "ms_ssim"),
    *(f"utility_{score}" for score in CLASSIFIER_SCORES),
}
"""Names of results that lie in [0, 1], depend on the training, and are none of `METRICS`."""


@dataclass(frozen=True)
class _Unscored:
    """The evaluator of a training whose adapter is scored afterwards."""

    def evaluate(self, adapter: Path, share_done: float = 1.0) -> Mapping[str, float]:
        """Nothing yet."""
        return {}


def seeded(bench: Workbench, finalist: Finalist, seed: int) -> Finalist:
    """The same finalist as another training seed gives it; a cut comes out of its whole trial's training.

    Args:
        bench: the run, its data and models.
        finalist: a trial with its adapter.
        seed: another training seed.
    """
    folder = finalist.folder / f"seed-{seed}"
    whole = whole_trial(bench, finalist)
    label = finalist.trial_id.removeprefix(f"{whole}-")
    trained = folder if whole == finalist.trial_id else folder.with_name(cut_name(folder.name, label))
    return replace(finalist, adapter=trained / "adapter", seed=seed, folder=folder)


def retrain(bench: Workbench, finalist: Finalist, seed: int) -> None:
    """Train the finalist from the base with another seed, unless its adapter is there already.

    Args:
        bench: the run, its data and models.
        finalist: a trial with its adapter.
        seed: the training seed.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    adapter, spec = seeded(bench, finalist, seed).adapter, trial_spec(bench, finalist, seed)
    if adapter is None or not adapter.is_dir():
        spec.folder.mkdir(parents=True, exist_ok=True)
        fine_tune(spec, _Unscored(), lambda report: bench.on_progress(0))


def trial_spec(bench: Workbench, finalist: Finalist, seed: int) -> TrialSpec:
    """The training of the finalist's trial with another seed, evaluated at its end only.

    Args:
        bench: the run, its data and models.
        finalist: a trial with its adapter.
        seed: the training seed.
    """
    card = read_card(bench.run.adapter(whole_trial(bench, finalist)))
    row = _row(bench, finalist)
    return TrialSpec(
        base=bench.config.base,
        dataset=bench.dataset.folder,
        fingerprint=bench.dataset.fingerprint,
        folder=finalist.folder / f"seed-{seed}",
        cache_folder=latent_cache(bench.config, bench.run.folder),
        strategy={"name": card["strategy"], **card["hyperparameters"]},
        lr=float(row["param/lr"]),
        batch_size=int(row["param/batch_size"]),
        seed=seed,
        budget=bench.config.search.budget,
        training=bench.config.training.model_copy(update={"evaluate_every_epochs": None}),
        compiler=bench.config.compute.compiler,
    )


def whole_trial(bench: Workbench, finalist: Finalist) -> str:
    """The trial that a finalist was trained in: its own, or that of which it is a cut."""
    parent = _row(bench, finalist).get("cut_of")
    return parent if isinstance(parent, str) else finalist.trial_id


def _row(bench: Workbench, finalist: Finalist) -> dict[Hashable, Any]:
    trials = bench.run.trials
    return trials[trials["trial_id"].astype(str) == finalist.trial_id].to_dict("records")[0]


def further_seeds(bench: Workbench, num_seeds: int) -> list[int]:
    """The seeds beside the run's own."""
    return [(bench.config.seed + number) % 2**32 for number in range(1, num_seeds)]


def over_seeds(trainings: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, Any]:
    """Mean and 95 % interval over trainings, of every number that all of them have and that depends on the training.

    The interval is cut to what the number can be. Two trainings have none: Student's is then 13 standard errors wide to
    either side.

    Args:
        trainings: at least two; the seed of each, and its numbers by name.
    """
    shared = set.intersection(*(set(values) for _, values in trainings))
    by_name = {name: [values[name] for _, values in trainings] for name in trainings[0][1] if name in shared}
    summaries = {
        name: _summary(name, values)
        for name, values in by_name.items()
        if len(set(values)) > 1 and not _is_an_end(name, by_name)
    }
    return {"seeds": [seed for seed, _ in trainings], "confidence": 0.95, "values": summaries}


def _summary(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """The mean and the ends of its interval, which are None where there are too few values."""
    interval = t_interval(values)
    if len(values) < MIN_SEEDS:
        return {"mean": interval.mean, "low": None, "high": None}
    smallest, largest = bounds_of(name)
    return {"mean": interval.mean, "low": max(interval.low, smallest), "high": min(interval.high, largest)}


def bounds_of(name: str) -> tuple[float, float]:
    """The smallest and largest value of a number by its name in the results, `fid_mini/Edema` or `alignment`."""
    key = name.partition("/")[0]
    metric = split_metric(key)[0]
    if metric in METRICS:
        return METRICS[metric].bounds
    return (0.0, 1.0) if key in SHARES else (-math.inf, math.inf)


def _is_an_end(name: str, names: Collection[str]) -> bool:
    """Whether a number is an end of another one's interval, as `fid_mini_low/Edema` is of `fid_mini/Edema`."""
    key, slash, rest = name.partition("/")
    return any(key.endswith(end) and f"{key.removesuffix(end)}{slash}{rest}" in names for end in ("_low", "_high"))

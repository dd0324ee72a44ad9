"""Finalists trained again, with further seeds or at their rank alone, and what that says of their figures."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from analysis.features import split_metric
from analysis.metrics import METRICS
from analysis.studies.utility import CLASSIFIER_SCORES, t_interval
from sweep.final.bench import Finalist, Workbench
from sweep.trials.latent_cache import latent_cache
from trainables.cuts import cut_name
from trainables.keeping import kept_until_it_ends
from trainables.naming import expect
from trainables.strategies import STRATEGIES, hyperparameters_of, parts_of
from trainables.strategies.card import read_card
from trainables.strategies.cuttable import CuttableStrategy
from trainables.strategies.lora import LoRA
from trainables.trial import TrialSpec, fine_tune

MIN_SEEDS = 3
"""The fewest trainings from which an interval is made."""
SHARES = {
    *("alignment", "alignment_exact", "alignment_recall", "ms_ssim"),
    *(f"utility_{score}" for score in CLASSIFIER_SCORES),
}
"""Names of results that lie in [0, 1], depend on the training, and are none of `METRICS`."""
ALONE: Final = "-alone"
"""Ends the name of a finalist that is trained at its rank alone; without it, it is that of the adapter to compare with."""


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


def trained_alone(bench: Workbench, finalists: Sequence[Finalist]) -> list[Finalist]:
    """Those whose training gave several ranks, as LoRA gives them trained at their rank only; they have no adapter yet.

    Args:
        bench: the run, its data and models.
        finalists: trials, and cuts of such.

    Raises:
        ValueError: no finalist is of such a training.
    """
    cards = {finalist.trial_id: read_card(bench.run.adapter(finalist.trial_id)) for finalist in finalists}
    nested = [finalist for finalist in finalists if _cuttable(cards[finalist.trial_id]["strategy"])]
    many = [name for name, strategy in STRATEGIES.items() if issubclass(strategy, CuttableStrategy)]
    rule = f"`--retrain` must be of a finalist whose training gave several ranks, of {' or '.join(many)}"
    came = ", ".join(f"{name} of {card['strategy']}" for name, card in cards.items())
    expect(bool(nested), rule, came, "Pick another, or leave it out; further trainings of any finalist are --seeds N.")
    return [_trained_alone(bench, finalist, cards[finalist.trial_id]) for finalist in nested]


def _trained_alone(bench: Workbench, finalist: Finalist, card: Mapping[str, Any]) -> Finalist:
    name = f"{finalist.trial_id}{ALONE}"
    subject = replace(finalist, trial_id=name, strategy=_alone(card)["name"], folder=finalist.folder.with_name(name))
    return replace(subject, adapter=seeded(bench, subject, finalist.seed).adapter)


def _cuttable(strategy: str) -> list[str]:
    return [part for part in parts_of(strategy) if issubclass(STRATEGIES[part], CuttableStrategy)]


def _alone(card: Mapping[str, Any]) -> dict[str, Any]:
    """A card's strategy with LoRA in place of what trains several ranks: at this rank, with the same scale and targets."""
    alone = dict.fromkeys(_cuttable(card["strategy"]), LoRA.name)
    name = "+".join(alone.get(part, part) for part in parts_of(card["strategy"]))
    renamed = {}
    for key, value in card["hyperparameters"].items():
        part, dot, field = key.rpartition(".")
        renamed[f"{alone.get(part, part)}{dot}{field}"] = value
    return {"name": name, **{key: renamed[key] for key in renamed if key in hyperparameters_of(name)}}


def retrain(bench: Workbench, finalist: Finalist, seed: int) -> None:
    """Train the finalist from the base with another seed, unless its adapter is there already.

    A checkpoint stays only where another call may go on from it: the process was ended, or something was lacking.

    Args:
        bench: the run, its data and models.
        finalist: a trial with its adapter.
        seed: the training seed.

    Raises:
        DivergedError: the loss became NaN or infinite.
        NotEnoughMemoryError, OSError: memory, or room on the disk, was lacking.
    """
    adapter, spec = seeded(bench, finalist, seed).adapter, trial_spec(bench, finalist, seed)
    with kept_until_it_ends(spec.folder):
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
    is_alone = finalist.trial_id.endswith(ALONE)
    origin = finalist.trial_id.removesuffix(ALONE) if is_alone else whole_trial(bench, finalist)
    card, row = read_card(bench.run.adapter(origin)), _row(bench, finalist)
    return TrialSpec(
        base=bench.config.base,
        resolution_px=bench.config.resolution_px,
        dataset=bench.dataset.folder,
        fingerprint=bench.dataset.fingerprint,
        folder=finalist.folder / f"seed-{seed}",
        cache_folder=latent_cache(bench.config, bench.run.folder),
        strategy=_alone(card) if is_alone else {"name": card["strategy"], **card["hyperparameters"]},
        lr=float(row["param/lr"]),
        batch_size=int(row["param/batch_size"]),
        seed=seed,
        budget=bench.config.search.budget,
        training=bench.config.training.model_copy(update={"evaluate_every_epochs": None}),
        compiler=bench.config.compute.compiler,
    )


def whole_trial(bench: Workbench, finalist: Finalist) -> str:
    """The trial that a finalist was trained in: its own, or that of which it is a cut."""
    if finalist.trial_id.endswith(ALONE):
        return finalist.trial_id
    parent = _row(bench, finalist).get("cut_of")
    return parent if isinstance(parent, str) else finalist.trial_id


def _row(bench: Workbench, finalist: Finalist) -> dict[Hashable, Any]:
    trials, name = bench.run.trials, finalist.trial_id.removesuffix(ALONE)
    return trials[trials["trial_id"].astype(str) == name].to_dict("records")[0]


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

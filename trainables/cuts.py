"""Smaller adapters out of a trial's training: which of them are scored, and what the trial reports of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.base_models.models import DiffusionModels
from trainables.layer_ranks import rank_metrics
from trainables.strategies.base import Strategy

if TYPE_CHECKING:
    from trainables.trial import TrialSpec

CUTS = "cuts"
"""Key of the final report that has, by label, the `strategy` and the metrics of each smaller adapter that was scored."""
Score = Callable[[Path], dict[str, float]]
Metrics = Mapping[str, Any]
CutChoice = Callable[[Mapping[Path, Metrics], Mapping[str, Metrics]], str | None]
"""Says which cut is worth scoring next, None where no other is; given to the trial by whoever starts it.

It is told the reports of what was scored, the whole adapter first, by the folder that has the adapter and its samples; and by
the labels of the others, the smallest first, what is known of them beforehand. Told the same, it chooses the same.
"""


def one_by_one(scored: Mapping[Path, Metrics], left: Mapping[str, Metrics]) -> str | None:
    """Choose the smallest of the others, until all are scored."""
    return next(iter(left), None)


def cut_name(trial: str, label: str) -> str:
    """The id of a trial's cut, and the name of the folder with its adapter and samples beside the trial's."""
    return f"{trial}-{label}"


def cut_choice(choice: Mapping[str, Any], strategy: Strategy, cut: Strategy) -> dict[str, Any]:
    """What the search sampler chose for a trial's strategy, with the figures that are a cut's own.

    Args:
        choice: the search's: `name` and hyperparameters.
        strategy: the whole one.
        cut: the smaller one out of its training.
    """
    whole = strategy.hyperparameters()
    changes = {name: value for name, value in cut.hyperparameters().items() if value != whole[name]}
    figures = {name: value for name, value in changes.items() if isinstance(value, int | float | str)}
    return {name: value for name, value in choice.items() if name not in changes} | figures


def score_cuts(
    models: DiffusionModels,
    strategy: Strategy,
    spec: TrialSpec,
    *,
    score: Score,
    choose: CutChoice,
    metrics: Metrics,
    scores: Metrics,
) -> dict[str, Metrics]:
    """Export and score cuts until no other is worth it; all of them where the user named them.

    Args:
        models: trained.
        strategy: the whole one.
        spec: of the trial.
        score: evaluates an adapter's folder.
        choose: says which is the next.
        metrics: what the training reports, the same for its cuts but for their sizes.
        scores: of the whole adapter.

    Returns:
        What each cut that was scored is and what it scores, by label, the smallest first.
    """
    choose, cuts = one_by_one if strategy.names_its_cuts else choose, strategy.cuts()
    left = {label: {**metrics, **_known(models, strategy, spec, cut)} for label, cut in cuts.items()}
    scored, reports = {spec.folder: {**metrics, **scores}}, dict[str, Metrics]()
    while (label := choose(scored, left)) is not None:
        folder = spec.folder.with_name(cut_name(spec.folder.name, label))
        scored[folder] = {**left.pop(label), **export_and_score(models, cuts[label], folder, score)}
        reports[label] = scored[folder]
    for label in cuts.keys() - reports.keys():  # an earlier attempt of the trial may have chosen it
        shutil.rmtree(spec.folder.with_name(cut_name(spec.folder.name, label)), ignore_errors=True)
    return {label: reports[label] for label in cuts if label in reports}


def _known(models: DiffusionModels, strategy: Strategy, spec: TrialSpec, cut: Strategy) -> dict[str, Any]:
    """What a cut is, whatever it scores."""
    return {
        "strategy": cut_choice(spec.strategy, strategy, cut),
        "trainable_parameters": cut.num_parameters(models),
        **rank_metrics(cut.ranks(models)),
    }


def export_and_score(models: DiffusionModels, strategy: Strategy, folder: Path, score: Score) -> dict[str, float]:
    """Leave an adapter in a folder, whole or not at all, and score it.

    Args:
        models: trained.
        strategy: the whole one, or a cut.
        folder: where the adapter is left as `adapter`.
        score: evaluates the adapter's folder.
    """
    partial, adapter = folder / "adapter.partial", folder / "adapter"
    shutil.rmtree(partial, ignore_errors=True)
    strategy.export(models, partial)
    shutil.rmtree(adapter, ignore_errors=True)
    partial.rename(adapter)
    return score(adapter)

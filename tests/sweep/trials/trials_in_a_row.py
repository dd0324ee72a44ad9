"""Trials as tests have them: configurations in a row, what a listener heard of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from sweep.config import ComputeConfig
from sweep.trials.ends import TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion
from sweep.trials.tuner import SweepContext
from trainables.base_models.models import load_base
from trainables.datasets.store import PreparedDataset
from trainables.settings import TrainingConfig
from trainables.strategies import load_adapter

BITFIT = {"strategy": {"name": "bitfit"}, "lr": 1e-3, "batch_size": 9}
DIVERGING = {**BITFIT, "lr": 1e30}
DYLORA = {
    "strategy": {"name": "dylora", "rank": 4, "alpha": 8, "evaluated_ranks": [3, 1]},
    "lr": 1e-3,
    "batch_size": 9,
}
LORA = {"strategy": {"name": "lora", "rank": 2, "alpha": 4}, "lr": 1e-3, "batch_size": 9}


class Choices(Searcher, TrialListener):  # type: ignore[misc]
    """A searcher that suggests what it is given, and once more what was lost."""

    def __init__(self, *choices: dict[str, Any]) -> None:
        super().__init__()
        given = [Suggestion(trial_id=f"trial{n}", number=n, choice=choice) for n, choice in enumerate(choices)]
        self._open = {suggestion.trial_id: suggestion.as_config() for suggestion in given}
        self._waiting = deque(self._open.values())

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._waiting:
            return self._waiting.popleft()
        return None if self._open else str(Searcher.FINISHED)

    def on_retry(self, trial_id: str, reason: str) -> None:
        self._waiting.append(self._open[trial_id])

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        self._open.pop(trial_id, None)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing is learnt."""


@dataclass
class Events(TrialListener):
    """A listener that remembers."""

    starts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    places: list[tuple[str, str]] = field(default_factory=list)
    reports: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    cuts: list[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]] = field(default_factory=list)
    retries: list[tuple[str, str]] = field(default_factory=list)
    ends: dict[str, TrialEnd] = field(default_factory=dict)
    cut_ends: dict[str, TrialEnd] = field(default_factory=dict)

    def on_start(self, suggestion: Suggestion) -> None:
        self.starts[suggestion.trial_id] = suggestion.choice

    def on_place(self, trial_id: str, node: str, address: str) -> None:
        self.places.append((trial_id, node))

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        self.reports.append((trial_id, dict(metrics)))

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        assert trial_id not in self.ends
        self.cuts.append((cut_id, trial_id, choice, metrics))

    def on_retry(self, trial_id: str, reason: str) -> None:
        self.retries.append((trial_id, reason))

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        (self.ends if trial_id in self.starts else self.cut_ends)[trial_id] = end


def context(dataset: PreparedDataset, out: Path, *, workers: Any = 1, **training: Any) -> SweepContext:
    settings = TrainingConfig(**{"num_epochs": 2, "warmup_fraction": 0.0, "mixed_precision": "no", **training})
    compute = ComputeConfig(workers_per_trial=workers, evaluation_cpus=0.5)
    return SweepContext(
        base="mini", dataset=dataset.folder, out=out, seed=7, objectives=(), training=settings, compute=compute
    )


def assert_ranks_are_exported(events: Events, out: Path, trial_id: str, ranks: tuple[int, ...]) -> None:
    """Of a trial whose strategy is DYLORA, or the same without its own ranks."""
    reports = [metrics for name, metrics in events.reports if name == trial_id]
    final = reports[-1]
    assert events.ends[trial_id] == TrialEnd.completed()
    assert events.cut_ends == {f"{trial_id}-rank{rank}": TrialEnd.completed() for rank in ranks}
    assert [metrics["epoch"] for metrics in reports] == [0, 1]
    assert [cut[:2] for cut in events.cuts] == [(f"{trial_id}-rank{rank}", trial_id) for rank in ranks]
    for rank, (cut_id, _, choice, metrics) in zip(ranks, events.cuts, strict=True):
        assert choice == {**DYLORA, "strategy": {"name": "dylora", "rank": rank, "alpha": 8}}
        assert metrics["size"] == metrics["trainable_parameters"] == final["size"] * rank / 4
        assert [metrics[name] for name in ("epoch", "loss", "epoch_s")] == [
            final[name] for name in ("epoch", "loss", "epoch_s")
        ]
        models = load_base("mini")
        strategy = load_adapter(models, out / "trials" / cut_id / "adapter")
        assert strategy.hyperparameters()["rank"] == rank

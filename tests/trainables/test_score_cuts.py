"""Which smaller adapters of a trial's training are scored and exported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from trainables.cuts import CUTS, CutChoice, cut_choice
from trainables.datasets.store import PreparedDataset
from trainables.settings import TrainingConfig
from trainables.strategies import make_strategy
from trainables.strategies.card import read_card
from trainables.trial import TrialSpec, fine_tune

pytestmark = pytest.mark.slow
NESTED = {"name": "nested_lora", "rank": 8, "alpha": 16.0}


class _KilledError(BaseException):
    """The process's end."""


class _Ranks:
    """An evaluator that gives an adapter's rank, until the process dies in an evaluation."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.dies_at, self.ranks = dies_at, list[int]()

    def evaluate(self, adapter: Path, share_done: float) -> dict[str, float]:
        self.ranks.append(read_card(adapter)["hyperparameters"]["rank"])
        if len(self.ranks) == self.dies_at:
            raise _KilledError
        return {"rank_none": float(self.ranks[-1])}


class _Tells:
    """Chooses what it was given, in a row, and keeps what it was told."""

    def __init__(self, *labels: str) -> None:
        self._labels, self.told = iter(labels), list[tuple[dict[Path, Any], dict[str, Any]]]()

    def __call__(self, scored: Mapping[Path, Any], left: Mapping[str, Any]) -> str | None:
        self.told.append((dict(scored), dict(left)))
        return next(self._labels, None)


def _spec(dataset: PreparedDataset, out: Path, **fields: Any) -> TrialSpec:
    return TrialSpec(
        base="mini",
        dataset=dataset.folder,
        folder=out / "trial",
        cache_folder=dataset.folder.with_name("cache"),
        strategy={**NESTED, **fields},
        lr=1e-3,
        batch_size=32,
        seed=3,
        training=TrainingConfig(num_epochs=1, mixed_precision="no", checkpoint_every_s=0),
    )


def _trained(spec: TrialSpec, evaluator: _Ranks, choose: CutChoice | None = None) -> dict[str, Any]:
    """The final report."""
    reports: list[dict[str, Any]] = []
    chooser = () if choose is None else (choose,)
    fine_tune(spec, evaluator, reports.append, *chooser)
    return reports[-1]


def _folders(spec: TrialSpec) -> set[str]:
    return {folder.name for folder in spec.folder.parent.iterdir()}


def test_the_chosen_cuts_are_scored_and_exported_and_the_others_leave_nothing(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    spec, evaluator, choose = _spec(dataset, tmp_path), _Ranks(), _Tells("rank4", "rank1")
    report = _trained(spec, evaluator, choose)
    assert evaluator.ranks == [8, 4, 1]
    assert list(report[CUTS]) == ["rank1", "rank4"]
    assert _folders(spec) == {"trial", "trial-rank1", "trial-rank4"}
    for label, cut in report[CUTS].items():
        rank = int(label.removeprefix("rank"))
        assert cut["strategy"] == {"name": "nested_lora", "rank": rank, "alpha": 2.0 * rank}
        assert cut["rank_none"] == cut["max_rank"] == rank and cut["epoch_s"] == report["epoch_s"]
        assert cut["trainable_parameters"] == report["trainable_parameters"] * rank / 8
        assert read_card(tmp_path / f"trial-{label}" / "adapter")["hyperparameters"]["rank"] == rank


def test_who_chooses_is_told_what_is_scored_and_what_is_known_of_the_others(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    spec, choose = _spec(dataset, tmp_path), _Tells("rank2")
    report = _trained(spec, _Ranks(), choose)
    (first, others), (then, rest) = choose.told
    whole = {name: value for name, value in report.items() if name not in (CUTS, "final")}
    assert first == {spec.folder: whole}
    assert then == first | {tmp_path / "trial-rank2": report[CUTS]["rank2"]}
    assert list(others) == ["rank1", "rank2", "rank4"] and list(rest) == ["rank1", "rank4"]
    for label, costs in others.items():
        assert costs["trainable_parameters"] == whole["trainable_parameters"] * int(label.removeprefix("rank")) / 8
        assert costs["epoch_s"] == whole["epoch_s"] and "rank_none" not in costs


def test_ranks_that_the_user_named_are_all_scored_whoever_chooses(dataset: PreparedDataset, tmp_path: Path) -> None:
    evaluator = _Ranks()
    _trained(_spec(dataset, tmp_path, evaluated_ranks=[2, 3]), evaluator, _Tells())
    assert evaluator.ranks == [8, 2, 3]


def test_where_nobody_chooses_all_are_scored(dataset: PreparedDataset, tmp_path: Path) -> None:
    spec, evaluator = _spec(dataset, tmp_path), _Ranks()
    _trained(spec, evaluator)
    assert evaluator.ranks == [8, 1, 2, 4]
    assert _folders(spec) == {"trial", "trial-rank1", "trial-rank2", "trial-rank4"}


def test_a_trial_that_died_among_its_cuts_chooses_the_same_again(dataset: PreparedDataset, tmp_path: Path) -> None:
    def until_two(scored: Mapping[Path, Any], left: Mapping[str, Any]) -> str | None:
        return next(iter(left), None) if list(scored.values())[-1]["rank_none"] != 2 else None

    whole = _trained(_spec(dataset, tmp_path / "whole"), _Ranks(), until_two)
    killed, evaluator = _spec(dataset, tmp_path / "killed"), _Ranks()
    with pytest.raises(_KilledError):
        _trained(killed, _Ranks(dies_at=3), until_two)
    again = _trained(killed, evaluator, until_two)
    assert evaluator.ranks == [8, 1, 2] and list(again[CUTS]) == list(whole[CUTS]) == ["rank1", "rank2"]
    assert _folders(killed) == {"trial", "trial-rank1", "trial-rank2"}
    weights = "trial-rank2/adapter/adapter.safetensors"
    assert (tmp_path / "killed" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"name": "dylora", "rank": 4, "frozen": True}, {"name": "dylora", "rank": 2, "frozen": True}),
        ({"name": "dylora", "evaluated_ranks": [2]}, {"name": "dylora", "rank": 2}),
        (
            {"name": "dylora+text_encoder", "dylora.rank": 4, "text_encoder.lr_ratio": 0.3},
            {"name": "dylora+text_encoder", "dylora.rank": 2, "text_encoder.lr_ratio": 0.3},
        ),
    ],
)
def test_a_cut_was_chosen_as_its_trial_but_for_what_is_its_own(
    chosen: dict[str, object], expected: dict[str, object]
) -> None:
    fields = {name: value for name, value in chosen.items() if name != "name"}
    strategy = make_strategy(str(chosen["name"]), fields)
    assert cut_choice(chosen, strategy, strategy.cuts()["rank2"]) == expected

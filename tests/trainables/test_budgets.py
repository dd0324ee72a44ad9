"""Budgets: where epochs end, that trials of different batch sizes get the same, and that all else stays as it was."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from trainables.accelerators import new_accelerator
from trainables.base_models.models import DiffusionModels
from trainables.batches import BatchPlan
from trainables.budgets import WAYS, Budget, Course
from trainables.checkpoints import Checkpoint
from trainables.datasets.store import PreparedDataset
from trainables.epochs import EpochReport
from trainables.feeding import BatchFeeder
from trainables.resuming import restore_weights
from trainables.settings import TrainingConfig
from trainables.strategies import make_strategy
from trainables.strategies.base import trained_parameters
from trainables.training import FineTuning


def plan_of(budget: Budget, **settings: Any) -> BatchPlan:
    return BatchPlan(**{"num_images": 11, "batch_size": 4, "seed": 3, "most_images": budget.images} | settings)


@pytest.mark.parametrize(
    ("budget", "num_epochs", "ends"),
    [  # passes of 4, 4 and 3 images; steps are of a second and a half
        (Budget(), 3, [3, 6, 9]),
        (Budget(steps=10), 4, [3, 5, 8, 10]),
        (Budget(images=20), 2, [3, 6]),  # after 11 and, cut from 22, 20 images
        (Budget(images=33), 3, [3, 6, 9]),
        (Budget(seconds=9), 3, [2, 4, 6]),
        (Budget(seconds=8), 2, [3, 6]),  # a step that has begun is finished
    ],
)
def test_an_epoch_ends_when_its_part_of_the_budget_is_spent(budget: Budget, num_epochs: int, ends: list[int]) -> None:
    course = Course(budget=budget, num_epochs=num_epochs, plan=plan_of(budget))
    steps = range(1, 20)
    seen_values = [
        next(step for step in steps if course.is_spent(epoch, step, 1.5 * step)) for epoch in range(num_epochs)
    ]
    assert seen_values == ends and course.num_steps == (None if budget.seconds else ends[-1])
    assert course.share_done(ends[-1], 1.5 * ends[-1]) == 1.0 and course.share_done(0, 0.0) == 0.0
    assert 0 < course.share_done(1, 1.5) < course.share_done(2, 3.0) < 1


def test_every_way_is_in_the_table_and_none_beside_another() -> None:
    assert set(WAYS) == {"epochs", *Budget.model_fields}
    assert [Budget(**{name: 9}).way for name in Budget.model_fields] == list(
        Budget.model_fields
    ) and Budget().way == "epochs"
    with pytest.raises(ValidationError, match="must be given in one way, but got steps and images"):
        Budget(steps=1, images=2)
    assert Budget(images=20_000).told(9) == "20,000 images in 9 parts," and Budget().told(9) == "9 epochs"


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("num_images", [7, 11, 20, 26])
def test_all_batch_sizes_see_the_same_images(num_images: int, num_workers: int) -> None:
    def seen(batch_size: int) -> list[int]:
        plan = plan_of(Budget(images=num_images), batch_size=batch_size, num_workers=num_workers)
        seen_values: list[int] = []
        for epoch in range(4):
            for shares in zip(*(plan.epoch(epoch, worker) for worker in range(num_workers)), strict=True):
                seen_values += [int(row) for share in shares if share.weight for row in share.indices]
        return seen_values

    every = seen(4)
    assert len(every) == num_images and every == seen(5) == seen(3) == seen(11)


@pytest.mark.parametrize("batch_size", [1, 4, 11, 12])
def test_images_after_steps_are_those_of_the_batches(batch_size: int) -> None:
    for budget in (Budget(), Budget(images=26)):
        plan = plan_of(budget, batch_size=batch_size)
        sizes = [len(share.indices) for epoch in range(4) for share in plan.epoch(epoch, 0)]
        assert [plan.images_after(step) for step in range(len(sizes) + 1)] == [0, *itertools.accumulate(sizes)]
        assert plan.steps_for(26) == next(
            step for step in range(99) if plan_of(Budget(), batch_size=batch_size).images_after(step) >= 26
        )


def tuning_of(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path, budget: Budget, **settings: Any
) -> FineTuning:
    config = TrainingConfig(**{"num_epochs": 2, "lr_schedule": "linear"} | settings)
    strategy, models = make_strategy("bitfit", {}), base.fresh()
    strategy.attach(models)
    feeder = BatchFeeder(
        models=models,
        data=dataset.split("train"),
        data_key="phantom-train",
        trained=strategy.trains,
        cache_folder=cache,
        caption_dropout=config.caption_dropout,
    )
    options: dict[str, Any] = {"accelerator": new_accelerator("no"), "budget": budget, "lr": 1e-3}
    plan = plan_of(budget, num_images=5, batch_size=2)
    return FineTuning(models, strategy, feeder=feeder, plan=plan, config=config, **options)


def reports_of(tuning: FineTuning) -> list[EpochReport]:
    reports: list[EpochReport] = []
    tuning.run(reports.append)
    return reports


def weights(tuning: FineTuning) -> list[Tensor]:
    return [parameter.detach() for _, parameter in trained_parameters(tuning.models)]


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
def test_a_budget_that_is_worth_as_many_epochs_gives_the_same_weights_to_the_bit(
    base: DiffusionModels, dataset: PreparedDataset, shared_cache: Path
) -> None:
    plain = tuning_of(base, dataset, shared_cache, Budget())
    expected = reports_of(plain)
    for budget in (Budget(images=10), Budget(steps=6)):
        tuning = tuning_of(base, dataset, shared_cache, budget)
        assert [report.loss for report in reports_of(tuning)] == [report.loss for report in expected]
        assert all(torch.equal(item, other) for item, other in zip(weights(tuning), weights(plain), strict=True))


@pytest.mark.slow
def test_a_training_within_passes_goes_on_from_where_it_was(
    base: DiffusionModels, dataset: PreparedDataset, shared_cache: Path
) -> None:
    """Seven steps in two parts, of passes of three steps: the first ends in the second pass."""
    whole, first, second = (tuning_of(base, dataset, shared_cache, Budget(steps=7)) for _ in range(3))
    reports = reports_of(whole)
    first._epoch(0)
    kept: Checkpoint = first.checkpoint()
    assert (first.step, kept.facts["next_epoch"]) == (4, 1)
    restore_weights(second.models, second.strategy, kept)
    second.resume(kept)
    assert [report.loss for report in reports_of(second)] == [reports[1].loss]
    assert second.step == whole.step == 7
    assert all(torch.equal(item, other) for item, other in zip(weights(second), weights(whole), strict=True))


@pytest.mark.slow
def test_by_the_clock_training_ends_with_the_step_in_which_time_is_up(
    base: DiffusionModels, dataset: PreparedDataset, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock on which a forward pass takes a second and all else nothing; the learning rate is a step behind it."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    tuning = tuning_of(base, dataset, shared_cache, Budget(seconds=7), warmup_fraction=0.0)
    tuning.models.unet.register_forward_pre_hook(lambda *_: now.__setitem__(0, now[0] + 1.0))
    reports = reports_of(tuning)
    assert [report.epoch_s for report in reports] == [4.0, 3.0] and tuning.spent_s == 7.0
    assert [report.images_per_s for report in reports] == [7 / 4, (12 - 7) / 3]
    np.testing.assert_allclose([report.lr for report in reports], [1e-3 * (1 - 2 / 7), 1e-3 * (1 - 5 / 7)])

"""Every image once an epoch, however many workers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.batches import BatchPlan, Share, micro_batches

plans = st.builds(
    BatchPlan,
    num_images=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    num_workers=st.integers(1, 5),
    seed=st.integers(0, 9),
)


@given(plans, st.integers(0, 3))
def test_workers_together_see_every_image_exactly_once(plan: BatchPlan, epoch: int) -> None:
    seen = [
        index
        for worker in range(plan.num_workers)
        for share in plan.epoch(epoch, worker)
        if share.weight
        for index in share.indices
    ]
    assert sorted(seen) == list(range(plan.num_images))


@given(plans)
def test_all_workers_take_the_same_number_of_steps(plan: BatchPlan) -> None:
    steps = {sum(1 for _ in plan.epoch(0, worker)) for worker in range(plan.num_workers)}
    assert steps == {plan.steps_per_epoch}


@pytest.mark.slow
@given(plans)
def test_weighted_means_of_workers_average_to_the_mean_of_the_batch(plan: BatchPlan) -> None:
    losses = np.random.default_rng(1).random(plan.num_images)
    alone = BatchPlan(num_images=plan.num_images, batch_size=plan.batch_size, seed=plan.seed)
    for step, whole in enumerate(alone.epoch(2, 0)):
        shares = [list(plan.epoch(2, worker))[step] for worker in range(plan.num_workers)]
        mean = np.mean([share.weight * losses[share.indices].mean() for share in shares])
        np.testing.assert_allclose(mean, losses[whole.indices].mean())


def test_epochs_are_shuffled_differently_and_repeatably() -> None:
    plan = BatchPlan(num_images=50, batch_size=50)
    first, second = (next(plan.epoch(epoch, 0)).indices for epoch in (0, 1))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, next(plan.epoch(0, 0)).indices)


@given(st.integers(1, 30), st.integers(1, 40))
def test_micro_batches_are_of_the_size_and_their_weighted_means_add_up_to_the_shares(count: int, size: int) -> None:
    share, losses = Share(np.random.default_rng(0).permutation(count), 0.7), np.random.default_rng(1).random(count)
    parts = micro_batches(share, size)
    pieces = [share.indices[part] for part, _ in parts]
    np.testing.assert_array_equal(np.concatenate(pieces), share.indices)
    assert [len(piece) for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
    total = sum(weight * losses[piece].mean() for piece, (_, weight) in zip(pieces, parts, strict=True))
    np.testing.assert_allclose(total, 0.7 * losses.mean())

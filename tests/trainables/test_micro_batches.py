"""Micro-batches: the largest that fits is found, and losses do not tell which it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables import micro_batches
from trainables.accelerators import new_accelerator
from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import DiffusionModels
from trainables.batches import BatchPlan
from trainables.datasets.store import PreparedDataset
from trainables.epochs import EpochReport
from trainables.feeding import BatchFeeder
from trainables.micro_batches import MicroBatch, NotEnoughMemoryError, distinct_sizes, micro_batch_for
from trainables.settings import TrainingConfig
from trainables.strategies import STRATEGIES, make_strategy
from trainables.strategies.base import Strategy
from trainables.training import FineTuning

OWN = {
    "selora": {"interval": 1, "threshold": 1.0},
    "adalora": {"initial_share": 0.0, "final_share": 0.3},
    "adalora+text_encoder": {"adalora.initial_share": 0.0, "adalora.final_share": 0.3},
}
"""Hyperparameters with which a strategy does what it is for in a few steps."""
WITH_STEPS = ("adalora", "dylora", "nested_lora", "selora", "adalora+text_encoder")
"""Strategies that begin and end steps in ways of their own, alone and in a combination; the others begin none."""


def _after_steps(search: MicroBatch, limit: int, num_steps: int = 12) -> list[int]:
    """The sizes that a device with room for `limit` images fails at."""
    failed = []
    for _ in range(num_steps):
        while search.size > limit:
            failed.append(search.size)
            search.failed()
        search.fitted(10**6)
    return failed


@given(st.integers(1, 300), st.data())
def test_the_largest_size_that_fits_is_found_in_few_attempts(num_images: int, data: st.DataObject) -> None:
    limit, sizes = data.draw(st.integers(1, num_images)), distinct_sizes(num_images)
    search = MicroBatch(sizes)
    failed = _after_steps(search, limit)
    assert search.is_settled and search.size == max(size for size in sizes if size <= limit)
    assert len(failed) == len(set(failed)) <= 2 * len(sizes).bit_length()


@given(st.integers(2, 300), st.data())
def test_a_size_that_fitted_once_is_given_up_where_it_does_no_more(num_images: int, data: st.DataObject) -> None:
    before = data.draw(st.integers(2, num_images))
    now = data.draw(st.integers(1, before - 1))
    search = MicroBatch(distinct_sizes(num_images))
    _after_steps(search, before)
    _after_steps(search, now)
    assert search.is_settled and search.size == max(size for size in distinct_sizes(num_images) if size <= now)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=2, max_size=4), st.booleans())
def test_what_another_search_found_serves_one_of_the_same_sizes_and_harms_none(
    trainings: list[tuple[int, int]], is_written: bool
) -> None:
    """Of any number of images a worker, and with any room: what is settled in the end is the largest, or one larger than before."""
    progress: dict[str, Any] | None = None
    for num_images, room in trainings:
        sizes = distinct_sizes(num_images)
        fitting = next(place for place, size in enumerate(sizes) if size <= room)
        search = MicroBatch(sizes)
        if progress is not None:
            search.go_on(json.loads(json.dumps(progress)) if is_written else progress)
            one_more = progress["fitting"] - 1 if progress["sizes"] == list(sizes) else 0
            fitting = max(fitting, one_more)
        _after_steps(search, room)
        assert search.is_settled and search.size == sizes[fitting]
        progress = search.progress


def test_a_search_that_has_found_something_keeps_to_it() -> None:
    search, other = MicroBatch(distinct_sizes(8)), MicroBatch(distinct_sizes(8))
    search.fitted(8)
    _after_steps(other, 1)
    search.go_on(other.progress)
    assert search.is_settled and search.size == 8
    first, second = (micro_batch_for("auto", 8, "a shape") for _ in range(2))
    second.go_on(other.progress)
    assert first is not second and first.size == 8 and second.size == 2


@given(st.integers(1, 300))
def test_sizes_differ_in_how_many_micro_batches_they_make(num_images: int) -> None:
    sizes = distinct_sizes(num_images)
    counts = [-(-num_images // size) for size in sizes]
    assert sizes[0] == num_images and sizes[-1] == 1
    assert len(set(counts)) == len(counts)
    assert all(-(-num_images // (size - 1)) > count for size, count in zip(sizes, counts, strict=True) if size > 1)


def test_a_short_last_batch_says_nothing_of_a_size() -> None:
    search = MicroBatch(distinct_sizes(8))
    search.fitted(5)
    assert search.size == 8 and not search.is_settled
    search.failed()
    assert search.size == 4


@pytest.mark.parametrize(("setting", "size"), [(4, 4), (99, 8)])
def test_a_number_is_taken_as_it_is(setting: int, size: int) -> None:
    search = micro_batch_for(setting, 8, "shape")
    assert search.size == size and search.is_settled
    with pytest.raises(
        NotEnoughMemoryError, match=f"`training.micro_batch` must fit .*, but got {size}, .* set it to auto"
    ):
        search.failed()


class _Memory:
    """A hook on a module's forward pass that runs out of memory as a device would."""

    def __init__(self, has_room: Callable[[int, int], bool]) -> None:
        self.has_room, self.num_calls, self.sizes = has_room, 0, [0]
        self.num_failures = 0

    def __call__(self, module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        self.num_calls += 1
        self.sizes.append(len(arguments[0]))
        if not self.has_room(self.num_calls, self.sizes[-1]):
            self.num_failures += 1
            raise torch.OutOfMemoryError("no room")


def _tuning(
    base: DiffusionModels, dataset: PreparedDataset, folder: Path, strategy: str = "bitfit", **settings: Any
) -> FineTuning:
    hyperparameters = OWN.get(strategy, {})
    if strategy == "text_encoder_swap":
        write_bert_layout(folder / "encoder", hidden_size=48)
        hyperparameters = {"encoder": str(folder / "encoder"), "train_encoder": True}
    method, models = make_strategy(strategy, hyperparameters), base.fresh()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method.attach(models)
    config = TrainingConfig(**{"num_epochs": 1, "warmup_fraction": 0.0} | settings)
    feeder = BatchFeeder(
        models=models,
        data=dataset.split("train"),
        data_key="phantom-train",
        trained=method.trains,
        cache_folder=folder,
        caption_dropout=0.2,
    )
    plan = BatchPlan(num_images=11, batch_size=4, seed=3)
    return FineTuning(
        models, method, feeder=feeder, plan=plan, lr=1e-4, config=config, accelerator=new_accelerator("no")
    )


def _loss(tuning: FineTuning, has_room: Callable[[int, int], bool] = lambda call, size: True) -> tuple[float, _Memory]:
    memory, losses = _Memory(has_room), []
    tuning.models.unet.register_forward_pre_hook(memory)
    tuning.run(lambda report: losses.append(report.loss))
    return losses[-1], memory


@pytest.fixture(autouse=True)
def _forget_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other trainings found, and what these do."""
    monkeypatch.setattr(micro_batches, "_searches", {})


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["bitfit", *WITH_STEPS])
def test_a_step_is_taken_anew_where_memory_runs_out_in_it(
    base: DiffusionModels, dataset: PreparedDataset, shared_cache: Path, strategy: str
) -> None:
    """At the first step, and at the second after a micro-batch whose gradients are there already."""
    whole, _ = _loss(_tuning(base, dataset, shared_cache, strategy, micro_batch=4))
    tuning = _tuning(base, dataset, shared_cache, strategy)
    loss, memory = _loss(tuning, lambda call, size: size <= 2 and call != 5)
    assert memory.num_failures == 2 and memory.sizes[1:] == [4, 2, 2, 2, 2, *[1] * 7]
    assert loss == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
def test_what_fitted_is_remembered_for_the_shape_alone_and_each_training_tries_one_size_more(
    base: DiffusionModels, dataset: PreparedDataset, shared_cache: Path
) -> None:
    memories = []
    for strategy, room in (("bitfit", 1), ("bitfit", 1), ("bitfit", 2), ("lora", 2)):
        tuning = _tuning(base, dataset, shared_cache, strategy)
        memories.append(_loss(tuning, lambda call, size, room=room: size <= room)[1])
    assert [memory.num_failures for memory in memories] == [2, 1, 0, 1]
    assert [max(memory.sizes) for memory in memories] == [4, 2, 2, 4]


@pytest.mark.slow
def test_dropout_is_the_same_in_a_step_that_is_taken_anew(
    base: DiffusionModels, dataset: PreparedDataset, shared_cache: Path
) -> None:
    """Of a BERT encoder: the attempt that failed has drawn masks from torch's global generator."""
    losses = []
    for micro_batch, num_failures in ((2, 0), ("auto", 1)):
        tuning = _tuning(base, dataset, shared_cache, "text_encoder_swap", micro_batch=micro_batch)
        loss, memory = _loss(tuning, lambda call, size: size <= 2)
        assert memory.num_failures == num_failures
        losses.append(loss)
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_the_moments_are_there_as_the_first_micro_batch_is_tried_and_failing_is_not_charged_to_the_epoch(
    base: DiffusionModels, dataset: PreparedDataset, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning, clock_s, late_s = _tuning(base, dataset, shared_cache), time.perf_counter, [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock_s() + late_s[0])
    has_moments: list[bool] = []

    def has_room(call: int, size: int) -> bool:
        has_moments.append(all(tuning._optimizer.state[parameter] for parameter in tuning._parameters))
        late_s[0] += 1e4 if size > 2 else 0.0
        return size <= 2

    reports: list[EpochReport] = []
    tuning.models.unet.register_forward_pre_hook(_Memory(has_room))
    tuning.run(reports.append)
    assert all(has_moments) and late_s == [1e4]
    assert reports[0].epoch_s < 1e4


@pytest.mark.slow
@pytest.mark.parametrize("part", ["_optimizer", "_average"])
def test_a_step_whose_update_does_not_fit_ends_the_training_with_a_clear_message(
    base: DiffusionModels, dataset: PreparedDataset, shared_cache: Path, part: str
) -> None:
    tuning = _tuning(base, dataset, shared_cache, ema_decay=0.9)

    def no_room(*arguments: object) -> None:
        raise torch.OutOfMemoryError("no room")

    getattr(tuning, part).step = no_room
    with pytest.raises(
        NotEnoughMemoryError, match=r"`optimiser's step 0` must fit .*, but got none .* training\.ema_decay"
    ):
        tuning.run(lambda report: None)


@pytest.mark.slow
def test_a_training_of_which_no_image_fits_ends_with_a_clear_message(
    base: DiffusionModels, dataset: PreparedDataset, shared_cache: Path
) -> None:
    for setting, got in (("auto", 1), (4, 4)):
        tuning = _tuning(base, dataset, shared_cache, micro_batch=setting)
        with pytest.raises(NotEnoughMemoryError, match=f"`training.micro_batch` must fit .* but got {got}, "):
            _loss(tuning, lambda call, size: False)
        assert all(parameter.grad is None for parameter in tuning._parameters)


def test_no_other_strategy_begins_steps() -> None:
    """One that does is to be among those above."""
    beginning = {
        name
        for name, strategy in STRATEGIES.items()
        if strategy.on_step_start is not Strategy.on_step_start or strategy.on_batch is not Strategy.on_batch
    }
    assert beginning <= set(WITH_STEPS)

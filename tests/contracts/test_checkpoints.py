"""What every strategy's training goes on from: a resumed one gives what an uninterrupted one does, to the bit."""

from __future__ import annotations

import errno
import json
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache as once
from pathlib import Path
from typing import Any

import pytest
import torch
from small_films import SmallPhantom
from torch import Tensor

from trainables import micro_batches
from trainables.accelerators import new_accelerator
from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import DiffusionModels, load_base
from trainables.batches import BatchPlan
from trainables.checkpoints import (
    FACTS,
    FOLDER,
    Checkpoint,
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset
from trainables.epochs import EpochReport
from trainables.feeding import BatchFeeder
from trainables.resuming import restore_weights
from trainables.settings import TrainingConfig
from trainables.strategies import COMBINATIONS, STRATEGIES, make_strategy
from trainables.suspending import SuspendedError
from trainables.training import FineTuning

OWN: dict[str, dict[str, Any]] = {
    "selora": {"interval": 1, "threshold": 1.0},
    "adalora": {"initial_share": 0.0, "final_share": 0.0},
    "adalora+text_encoder": {"adalora.initial_share": 0.0, "adalora.final_share": 0.0},
    "textual_inversion": {"words": ["chest x-ray"]},
}
"""Hyperparameters with which a strategy has something to keep after two steps of four."""
FEW: dict[str, int] = {"num_images": 3, "batch_size": 2}
"""Two steps an epoch, the second of them with fewer images; two trainings of every strategy take a minute more with 7 of 4."""


@pytest.fixture(scope="module")
def base() -> DiffusionModels:
    return load_base("mini")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return write_dataset(
        SmallPhantom(num_patients=32, seed=5), tmp_path_factory.mktemp("data") / "phantom", on_progress=None
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _forget_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other trainings of this process found to fit."""
    monkeypatch.setattr(micro_batches, "_searches", {})


def _tuning(
    base: DiffusionModels,
    dataset: PreparedDataset,
    cache: Path,
    *,
    strategy: str,
    seed: int = 0,
    going_on_from: Checkpoint | None = None,
    scaler: torch.amp.GradScaler | None = None,
    num_workers: int = 1,
    room: int = 4,
    micro_batch: Any = "auto",
    num_images: int = 7,
    batch_size: int = 4,
) -> FineTuning:
    """A training on a device that has room for `room` images at a time."""
    hyperparameters = OWN.get(strategy, {})
    if strategy == "text_encoder_swap":
        write_bert_layout(cache / "encoder", hidden_size=48)
        hyperparameters = {"encoder": str(cache / "encoder"), "train_encoder": True}
    method, models = make_strategy(strategy, hyperparameters), base.fresh()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method.attach(models)
    if going_on_from is not None:
        restore_weights(models, method, going_on_from)
    feeder = BatchFeeder(
        models=models,
        data=dataset.split("train"),
        data_key="phantom",
        trained=method.trains,
        cache_folder=cache,
        caption_dropout=0.2,
    )
    accelerator = new_accelerator("no")
    accelerator.scaler = scaler
    tuning = FineTuning(
        models,
        method,
        feeder=feeder,
        plan=BatchPlan(num_images=num_images, batch_size=batch_size, seed=3, num_workers=num_workers),
        lr=1e-3,
        config=TrainingConfig(
            num_epochs=2, warmup_fraction=0.3, lr_schedule="cosine", ema_decay=0.4, micro_batch=micro_batch
        ),
        accelerator=accelerator,
    )

    def expect_room(module: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if len(arguments[0]) > room:
            raise torch.OutOfMemoryError("no room")

    models.unet.register_forward_pre_hook(expect_room)
    if going_on_from is not None:
        tuning.resume(going_on_from)
    return tuning


def _values(tuning: FineTuning) -> dict[str, Tensor]:
    """All that a checkpoint would hold."""
    return {name: tensor.clone() for name, tensor in tuning.checkpoint().tensors.items()}


@dataclass(frozen=True)
class Whole:
    """An uninterrupted training of `FEW`: what it reported and ended with, and where its checkpoint after the first epoch is."""

    reports: list[EpochReport]
    values: dict[str, Tensor]
    facts: Mapping[str, Any]
    rank_history: Any
    step: int
    folder: Path

    def first(self) -> Checkpoint:
        """That checkpoint, read anew: a training that goes on from it changes what it was given."""
        checkpoint = read_checkpoint(self.folder)
        assert checkpoint is not None
        return checkpoint

    def is_as(self, tuning: FineTuning) -> None:
        """Fail where another training has not ended so, to the bit."""
        values, last = _values(tuning), tuning.checkpoint()
        assert tuning.rank_history == self.rank_history and tuning.step == self.step
        assert values.keys() == self.values.keys()
        assert all(torch.equal(values[name], self.values[name]) for name in self.values)
        assert last.facts == self.facts


@pytest.fixture(scope="module")
def whole_of(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Whole]:
    """The uninterrupted training by a strategy, of which each is run once."""

    @once
    def whole(strategy: str) -> Whole:
        tuning, folder = _tuning(base, dataset, cache, strategy=strategy, **FEW), tmp_path_factory.mktemp("whole")
        reports: list[EpochReport] = []

        def keep_first(report: EpochReport) -> None:
            reports.append(report)
            if report.epoch == 0:
                write_checkpoint(folder, tuning.checkpoint())

        tuning.run(keep_first)
        return Whole(reports, _values(tuning), tuning.checkpoint().facts, tuning.rank_history, tuning.step, folder)

    return whole


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [*STRATEGIES, *COMBINATIONS, "adalora+text_encoder"])
def test_a_resumed_training_is_the_uninterrupted_one_to_the_bit(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path, whole_of: Callable[[str], Whole], strategy: str
) -> None:
    """In models that started elsewhere, so that everything comes from the checkpoint."""
    whole = whole_of(strategy)
    resumed, later = _tuning(base, dataset, cache, strategy=strategy, seed=1, going_on_from=whole.first(), **FEW), []
    resumed.run(later.append)
    assert [report.epoch for report in later] == [1]
    assert (later[0].loss, later[0].lr) == (whole.reports[1].loss, whole.reports[1].lr)
    whole.is_as(resumed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "at_step"),
    [("lora", 3), ("adalora", 3), ("dylora", 3), ("selora", 3), ("difffit", 3), ("lora", 4)],
)
def test_a_training_that_is_suspended_within_an_epoch_goes_on_to_the_same_bits(
    base: DiffusionModels,
    dataset: PreparedDataset,
    cache: Path,
    tmp_path: Path,
    whole_of: Callable[[str], Whole],
    strategy: str,
    at_step: int,
) -> None:
    """In the midst of the second epoch, or after its last step, of which the report alone is left."""
    whole = whole_of(strategy)
    first, before = _tuning(base, dataset, cache, strategy=strategy, **FEW), []
    with pytest.raises(SuspendedError):
        first.run(before.append, is_asked=lambda: first.step == at_step)
    checkpoint = _written(first.checkpoint(), tmp_path)
    resumed, later = _tuning(base, dataset, cache, strategy=strategy, seed=1, going_on_from=checkpoint, **FEW), []
    resumed.run(later.append)
    assert first.step == at_step
    seen, due = (
        [(report.epoch, report.loss, report.lr, round(report.images_per_s * report.epoch_s)) for report in each]
        for each in (before + later, whole.reports)
    )
    assert seen == due and later[0].epoch_s > checkpoint.facts["under_way"]["seconds"] > 0
    whole.is_as(resumed)


@pytest.mark.slow
def test_strategies_that_change_while_training_had_something_to_keep(whole_of: Callable[[str], Whole]) -> None:
    """Otherwise the test above would say nothing of it."""
    for strategy in ("selora", "adalora"):
        first = whole_of(strategy).first()
        assert len(first.facts["rank_history"]) > 1
        assert bool(first.under("strategy")) == (strategy == "adalora")


@pytest.mark.slow
def test_the_scale_of_half_precision_goes_on(base: DiffusionModels, dataset: PreparedDataset, cache: Path) -> None:
    scalers = [torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2) for scale in (8.0, 1024.0)]
    tuning = _tuning(base, dataset, cache, strategy="bitfit", scaler=scalers[0])
    tuning.run(lambda report: None)
    assert scalers[0].get_scale() > 8.0
    _tuning(
        base, dataset, cache, strategy="bitfit", scaler=scalers[1], going_on_from=_written(tuning.checkpoint(), cache)
    )
    assert scalers[1].state_dict() == scalers[0].state_dict()


def _scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=8.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "now", "size", "same_loss"),
    [
        ({"room": 1}, {"num_workers": 2}, 2, False),  # this process computes a half of each batch
        ({"room": 1}, {"num_workers": 2, "room": 1}, 1, False),
        ({"num_workers": 2}, {}, 4, False),
        ({"room": 2}, {"micro_batch": 3}, 3, True),
        ({"micro_batch": 2}, {"room": 1}, 1, True),
        ({}, {"scaler": _scaler}, 4, True),
        ({"scaler": _scaler}, {}, 4, True),
    ],
)
def test_a_training_goes_on_where_the_device_is_another(
    base: DiffusionModels,
    dataset: PreparedDataset,
    cache: Path,
    tmp_path: Path,
    before: dict[str, Any],
    now: dict[str, Any],
    size: int,
    same_loss: bool,
) -> None:
    """With another number of workers, another room, another micro-batch, or fp16's scaler where there was none."""
    first, later = (
        {name: value() if name == "scaler" else value for name, value in settings.items()} for settings in (before, now)
    )
    whole, kept, losses = _tuning(base, dataset, cache, strategy="bitfit", **first), [], []

    def keep(report: EpochReport) -> None:
        losses.append(report.loss)
        kept.append(_written(whole.checkpoint(), tmp_path / str(report.epoch)))

    whole.run(keep)
    resumed, reports = _tuning(base, dataset, cache, strategy="bitfit", going_on_from=kept[0], **later), []
    resumed.run(reports.append)
    assert [report.epoch for report in reports] == [1] and resumed.step == whole.step
    assert resumed._micro_batch.is_settled and resumed._micro_batch.size == size
    assert not same_loss or reports[0].loss == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_a_training_that_goes_on_in_another_precision_says_so(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = _tuning(base, dataset, cache, strategy="bitfit").checkpoint()
    for before, num_said in (("no", 0), ("bf16", 1)):
        there = replace(checkpoint, facts={**checkpoint.facts, "mixed_precision": before})
        _tuning(base, dataset, cache, strategy="bitfit", going_on_from=there)
        said = [record.getMessage() for record in caplog.records if record.name == "trainables.resuming"]
        assert len(said) == num_said
    assert "goes on in mixed precision no, as the device here has it, where it was bf16 until epoch 0" in said[0]


def _written(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    write_checkpoint(folder / "scaled", checkpoint)
    read = read_checkpoint(folder / "scaled")
    assert read is not None
    return read


def _small(value: float) -> Checkpoint:
    return Checkpoint(tensors={"weights/a": torch.full((3,), value)}, facts={"step": 1, "rate": 0.1 + 0.2})


def test_the_newest_whole_one_alone_is_kept(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path) is None
    for number in range(11):
        write_checkpoint(tmp_path, _small(float(number)))
        assert [folder.name for folder in (tmp_path / FOLDER).iterdir()] == [str(number)]
    (tmp_path / FOLDER / ".11.abc.partial").mkdir()  # as a killed process leaves it
    (tmp_path / FOLDER / "9").mkdir()  # older, and not yet removed when its process was killed
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.facts["rate"] == 0.1 + 0.2
    assert checkpoint.under("weights")["a"].tolist() == [10.0] * 3
    write_checkpoint(tmp_path, _small(12.0))
    assert [folder.name for folder in (tmp_path / FOLDER).iterdir()] == ["11"]
    remove_checkpoints(tmp_path)
    assert read_checkpoint(tmp_path) is None and not list(tmp_path.iterdir())


def test_one_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, _small(0.0))
    (tmp_path / FOLDER / ".7.abc.partial").mkdir()  # as a killed process leaves it; its room may be wanting now
    facts = {"step": object()}  # cannot be written, after the tensors were
    with pytest.raises(TypeError):
        write_checkpoint(tmp_path, Checkpoint(tensors={"weights/a": torch.ones(3)}, facts=facts))
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.under("weights")["a"].tolist() == [0.0] * 3
    assert [folder.name for folder in (tmp_path / FOLDER).iterdir()] == ["0"]


def test_a_full_disk_is_the_disks_fault_whoever_writes(base: DiffusionModels, tmp_path: Path) -> None:
    """safetensors has errors of its own, by which a trial would count as failed by its own fault."""
    write_checkpoint(tmp_path, _small(0.0))
    large = Checkpoint(tensors={"weights/a": torch.ones(10_000)}, facts={})
    strategy, models = make_strategy("bitfit", {}), base.fresh()
    strategy.attach(models)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_checkpoint(tmp_path, large)
        with pytest.raises(OSError, match="File too large") as adapter:
            strategy.export(models, tmp_path / "adapter")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert adapter.value.errno == errno.EFBIG and Path(adapter.value.filename).parent == tmp_path / "adapter"
    assert read_checkpoint(tmp_path) is not None
    assert [folder.name for folder in (tmp_path / FOLDER).iterdir()] == ["0"]


def test_one_of_another_format_is_answered(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, _small(0.0))
    file = tmp_path / FOLDER / "0" / FACTS
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(ValueError, match="`format` of a checkpoint must be one of 3, 2, but got 99"):
        read_checkpoint(tmp_path)

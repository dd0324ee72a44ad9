"""The loop of a trial: caches, accumulation, averaging, divergence."""

from __future__ import annotations

import gc
import math
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from batch_of import CPU, batch_of
from torch import Tensor

from trainables.accelerators import new_accelerator
from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import DiffusionModels
from trainables.batches import BatchPlan, Share
from trainables.datasets.store import PreparedDataset
from trainables.draws import EpochDraws, seeded_dropout
from trainables.epochs import DivergedError, EpochReport
from trainables.feeding import ENCODE_PIXELS, BatchFeeder, images_at_a_time
from trainables.loss import DenoisingLoss
from trainables.lr_schedule import lr_factor
from trainables.memory import forget_earlier_trials
from trainables.settings import TrainingConfig
from trainables.strategies import make_strategy
from trainables.strategies.base import trained_parameters
from trainables.training import FineTuning

NUM_IMAGES, BATCH = 12, 4


def _tuning(
    base: DiffusionModels,
    dataset: PreparedDataset,
    cache: Path | None,
    *,
    strategy: str = "bitfit",
    lr: float = 1e-3,
    precision: str = "no",
    accelerator: Accelerator | None = None,
    hyperparameters: dict[str, Any] | None = None,
    **settings: Any,
) -> FineTuning:
    config = TrainingConfig(**{"num_epochs": 1, "warmup_fraction": 0.0} | settings)
    method, models = make_strategy(strategy, hyperparameters or {}), base.fresh()
    method.attach(models)
    feeder = BatchFeeder(
        models=models,
        data=dataset.split("train"),
        data_key="phantom-train",
        trained=method.trains,
        cache_folder=cache,
        caption_dropout=config.caption_dropout,
        mixed_precision=precision,
    )
    plan = BatchPlan(num_images=NUM_IMAGES, batch_size=BATCH, seed=3)
    return FineTuning(
        models,
        method,
        feeder=feeder,
        plan=plan,
        lr=lr,
        config=config,
        accelerator=accelerator or new_accelerator(precision),
    )


def _run(tuning: FineTuning) -> tuple[EpochReport, dict[str, Tensor]]:
    seen: list[tuple[EpochReport, dict[str, Tensor]]] = []

    def see(report: EpochReport) -> None:
        with tuning.evaluated_weights():
            seen.append((report, {name: p.detach().clone() for name, p in trained_parameters(tuning.models)}))

    tuning.run(see)
    return seen[-1]


def _parameters_after_each_step(tuning: FineTuning) -> list[dict[str, Tensor]]:
    draws = EpochDraws(tuning.plan.seed, 0, tuning.plan.num_images)
    steps = []
    for share in tuning.plan.epoch(0, 0):
        tuning._train_step(share, tuning.feeder.host_batch(share.indices, draws))
        steps.append({name: p.detach().clone() for name, p in trained_parameters(tuning.models)})
    return steps


@pytest.mark.slow
def test_cached_and_uncached_training_give_the_same_loss(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path
) -> None:
    cached, uncached = _tuning(base, dataset, cache), _tuning(base, dataset, None)
    assert cached.feeder.caches_latents and cached.feeder.caches_prompts
    assert not uncached.feeder.caches_latents and not uncached.feeder.caches_prompts
    assert _run(cached)[0].loss == pytest.approx(_run(uncached)[0].loss, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["text_encoder", "unet+text_encoder"])
def test_a_trained_text_encoder_moves_and_its_outputs_are_not_cached(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path, strategy: str
) -> None:
    tuning = _tuning(base, dataset, cache, strategy=strategy)
    assert tuning.feeder.caches_latents and not tuning.feeder.caches_prompts
    before, (_, after) = dict(base.text_encoder.named_parameters()), _run(tuning)
    assert not (cache / "prompts").exists()
    for name, parameter in before.items():
        assert not torch.equal(after[f"text_encoder.{name}"], parameter), f"{name} did not train"
    unet_moves = any(name.startswith("unet.") for name in after)
    assert unet_moves == ("unet" in strategy.split("+"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["text_encoder", "unet+text_encoder"])
def test_cached_latents_do_not_change_a_trained_text_encoders_loss(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path, strategy: str
) -> None:
    cached, uncached = (_run(_tuning(base, dataset, folder, strategy=strategy))[0] for folder in (cache, None))
    assert cached.loss == pytest.approx(uncached.loss, rel=1e-5)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(base: DiffusionModels, dataset: PreparedDataset, cache: Path) -> None:
    first, second = (_run(_tuning(base, dataset, cache)) for _ in range(2))
    assert first[0].loss == second[0].loss
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


@pytest.mark.slow
def test_dropout_is_decided_by_the_seed_and_disturbs_no_other_draws(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path, tmp_path: Path
) -> None:
    """BERT's layers draw their masks from torch's global generator."""
    write_bert_layout(tmp_path / "encoder")
    hyperparameters = {"encoder": str(tmp_path / "encoder"), "train_encoder": True}
    runs, states = [], []
    for seed in (1, 2):
        tuning = _tuning(base, dataset, cache, strategy="text_encoder_swap", hyperparameters=hyperparameters)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            runs.append(_run(tuning))
            states.append(torch.equal(torch.get_rng_state(), before))
    assert states == [True, True]
    assert runs[0][0].loss == runs[1][0].loss
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])


def test_masks_are_each_steps_and_workers_own() -> None:
    def mask(*place: int) -> Tensor:
        with seeded_dropout(torch.device("cpu"), *place):
            return torch.nn.functional.dropout(torch.ones(256), 0.5)

    masks = [mask(3, step, worker) for step in range(2) for worker in range(2)] + [mask(4, 0, 0)]
    assert torch.equal(mask(3, 1, 0), masks[2])
    assert not any(torch.equal(first, other) for place, first in enumerate(masks) for other in masks[:place])


@pytest.mark.slow
def test_the_first_step_is_adam_on_the_clipped_gradient(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path
) -> None:
    tuning = _tuning(base, dataset, cache, max_grad_norm=0.01, weight_decay=0.0)
    tuning.plan = BatchPlan(num_images=8, batch_size=8, seed=3)
    before = {name: p.detach().clone() for name, p in trained_parameters(tuning.models)}
    indices = next(tuning.plan.epoch(0, 0)).indices
    batch = batch_of(tuning.feeder, indices, EpochDraws(3, 0, 8))
    gradients = torch.autograd.grad(
        DenoisingLoss(tuning.models)(batch), [p for _, p in trained_parameters(tuning.models)]
    )
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert norm > 0.01
    _, after = _run(tuning)
    for (name, start), gradient in zip(before.items(), gradients, strict=True):
        clipped = gradient * 0.01 / norm
        torch.testing.assert_close(after[name], start - 1e-3 * clipped / (clipped.abs() + 1e-8), rtol=1e-4, atol=2e-6)


@pytest.mark.slow
def test_evaluated_weights_are_the_average_and_training_goes_on_from_the_last(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path
) -> None:
    """Decay (1 + s) / (10 + s) after step s, at most the one asked for, and none at the first step."""
    plain, averaged = _tuning(base, dataset, cache), _tuning(base, dataset, cache, ema_decay=0.2)
    steps = _parameters_after_each_step(plain)
    _, mean = _run(averaged)
    expected = steps[0]
    for decay, now in zip((2 / 11, 0.2), steps[1:], strict=True):
        expected = {name: decay * expected[name] + (1 - decay) * now[name] for name in now}
    for name, kept in trained_parameters(averaged.models):
        torch.testing.assert_close(mean[name], expected[name], rtol=1e-5, atol=1e-7)
        assert torch.equal(kept, steps[-1][name])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["unet", "lora", "dora", "bitfit"])
def test_bfloat16_trains_float32_parameters_to_nearly_the_same_loss(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path, strategy: str
) -> None:
    full, _ = _run(_tuning(base, dataset, cache, strategy=strategy, lr=1e-4))
    mixed = _tuning(base, dataset, cache, strategy=strategy, lr=1e-4, precision="bf16")
    report, _ = _run(mixed)
    assert report.loss != full.loss
    assert report.loss == pytest.approx(full.loss, rel=0.02)
    assert {parameter.dtype for _, parameter in trained_parameters(mixed.models)} == {torch.float32}


@pytest.mark.slow
def test_a_step_that_overflows_in_half_precision_moves_neither_weights_nor_learning_rate(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path
) -> None:
    """fp16's scaler without fp16, and a first gradient that is infinite."""
    accelerator = new_accelerator("no")
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    tuning = _tuning(base, dataset, cache, accelerator=accelerator)
    before = {name: p.detach().clone() for name, p in trained_parameters(tuning.models)}
    factors = iter([math.inf, 1.0, 1.0])
    next(iter(tuning._parameters)).register_hook(lambda gradient: gradient * next(factors))
    first, second, _ = _parameters_after_each_step(tuning)
    assert all(torch.equal(first[name], before[name]) for name in before)
    assert any(not torch.equal(second[name], before[name]) for name in before)
    assert tuning._lr_schedule.last_epoch == 2  # three steps, one of them skipped


@pytest.mark.slow
def test_the_lr_reported_is_that_of_the_last_step(base: DiffusionModels, dataset: PreparedDataset, cache: Path) -> None:
    """Three steps, two of them warm-up: 1/3, 2/3, 1."""
    assert _run(_tuning(base, dataset, cache, warmup_fraction=0.7))[0].lr == pytest.approx(1e-3)


def test_images_encoded_together_fit_the_accelerator() -> None:
    assert [images_at_a_time(side) for side in (64, 224, 512, 4096)] == [64, 41, 8, 1]
    assert images_at_a_time(512) * 512**2 <= ENCODE_PIXELS


@pytest.mark.slow
def test_an_earlier_trial_is_forgotten_where_memory_is_the_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    module = torch.nn.Linear(1, 1)
    module.itself = [module]  # type: ignore[assignment]
    reference = weakref.ref(module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gc.disable()
    try:
        del module
        assert reference() is not None
        forget_earlier_trials()
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.slow
def test_frozen_weights_take_no_gradient_and_no_optimiser_state(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path
) -> None:
    tuning = _tuning(base, dataset, cache)
    _run(tuning)
    trained = {id(parameter) for _, parameter in trained_parameters(tuning.models)}
    everything = [p for module in tuning.models.components().values() for p in module.parameters()]
    assert all(p.grad is None for p in everything if id(p) not in trained)
    assert {id(p) for p in tuning._optimizer.state} <= trained


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_trial_with_a_clear_message(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path
) -> None:
    with pytest.raises(DivergedError, match=r"`loss` must stay finite, but got nan .* lr .* Lower the learning rate"):
        _run(_tuning(base, dataset, cache, strategy="unet", lr=math.inf))


def test_caption_dropout_replaces_by_the_empty_prompt(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path
) -> None:
    feeder = _tuning(base, dataset, cache, caption_dropout=1.0).feeder
    states = batch_of(feeder, torch.arange(4).numpy(), EpochDraws(0, 0, 4))["prompt_states"]
    with torch.no_grad():
        ids = base.tokenizer(
            "", padding="max_length", max_length=base.tokenizer.model_max_length, return_tensors="pt"
        ).input_ids
        torch.testing.assert_close(states, base.text_encoder(ids)[0].expand(4, -1, -1))


@pytest.mark.parametrize(
    ("shape", "at_start", "at_middle", "at_end"), [("constant", 1, 1, 1), ("linear", 1, 0.5, 0), ("cosine", 1, 0.5, 0)]
)
def test_lr_schedules_at_known_steps(shape: str, at_start: float, at_middle: float, at_end: float) -> None:
    factors = [lr_factor(step, num_steps=110, warmup_steps=10, shape=shape) for step in (0, 10, 60, 110)]
    assert factors == pytest.approx([1 / 11, at_start, at_middle, at_end])


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [4, 3])
def test_accumulated_gradients_are_those_of_the_whole_batch(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path, micro_batch: int
) -> None:
    tuning = _tuning(base, dataset, cache, micro_batch=micro_batch)
    rows, draws = torch.arange(8).numpy(), EpochDraws(3, 0, 8)
    whole = batch_of(tuning.feeder, rows, draws)
    gradients: dict[str, Tensor] = {}
    tuning._optimizer.step = lambda: gradients.update(
        {name: p.grad.clone() for name, p in trained_parameters(tuning.models) if p.grad is not None}
    )
    tuning.accelerator.clip_grad_norm_ = lambda *_: None
    tuning._train_step(Share(rows, 1.0), tuning.feeder.host_batch(rows, draws))
    tuning._loss(whole).backward()
    for name, parameter in trained_parameters(tuning.models):
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-7)


@pytest.mark.slow
def test_batches_are_the_rows_of_any_other_batch_with_them(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path
) -> None:
    """Whatever is cached, and however images are dealt out."""
    for folder, strategy in ((cache, "bitfit"), (None, "bitfit"), (cache, "all")):
        feeder = _tuning(base, dataset, folder, strategy=strategy, caption_dropout=0.5).feeder
        rows, draws = np.array([5, 0, 9, 3]), EpochDraws(3, 1, 24)
        whole = batch_of(feeder, rows, draws)
        for name in whole:
            parts = [batch_of(feeder, part, EpochDraws(3, 1, 24))[name] for part in (rows[2:], rows[:2])]
            assert torch.equal(torch.cat(parts[::-1]), whole[name]), name


def test_what_is_cached_changes_neither_noise_nor_timesteps_nor_dropped_captions(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path
) -> None:
    rows, draws = np.arange(6), EpochDraws(3, 0, 24)
    batches = [
        batch_of(_tuning(base, dataset, folder, strategy=strategy, caption_dropout=0.5).feeder, rows, draws)
        for folder, strategy in ((cache, "bitfit"), (None, "bitfit"), (cache, "all"))
    ]
    for name in ("noise", "timesteps"):
        assert all(torch.equal(batch[name], batches[0][name]) for batch in batches)
    assert torch.equal(batches[1]["token_ids"], batches[2]["token_ids"])
    assert "latent_noise" not in batches[0] and torch.equal(batches[1]["latent_noise"], batches[2]["latent_noise"])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_what_is_kept_on_the_device_gives_the_same_batches(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path, precision: str
) -> None:
    feeder = _tuning(base, dataset, cache, precision=precision, caption_dropout=0.5).feeder
    rows, draws = np.array([5, 0, 9, 3]), EpochDraws(3, 1, 24)
    sent, host = batch_of(feeder, rows, draws), feeder.host_batch(rows, draws)
    num_bytes = {name: host[name].nbytes // 4 for name in ("moments", "prompt_states")}
    rooms = {"prompt_states": num_bytes["prompt_states"] * len(feeder.token_ids), "moments": 0}
    rooms["moments"] = rooms["prompt_states"] + num_bytes["moments"] * len(feeder.data)
    for last, names in (("prompt_states", {"prompt_states"}), ("moments", {"prompt_states", "moments"})):
        feeder.keep_on(CPU, rooms[last])
        assert {name for name in num_bytes if name not in feeder.host_batch(rows, draws)} == names
        kept = batch_of(feeder, rows, draws)
        assert kept.keys() == sent.keys() and all(torch.equal(kept[name], sent[name]) for name in sent)


@pytest.mark.slow
def test_states_in_half_precision_are_what_training_in_it_computes_with_anyway(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path
) -> None:
    tuning = _tuning(base, dataset, cache, strategy="lora", precision="bf16")
    batch = batch_of(tuning.feeder, np.arange(4), EpochDraws(3, 0, 24))
    assert batch["prompt_states"].dtype == torch.bfloat16 and batch["latents"].dtype == torch.float32
    in_full = torch.from_numpy(tuning.feeder._states[tuning.feeder._prompt_rows[:4]])  # type: ignore[index]
    tuning.feeder.caption_dropout = 0.0
    batch = batch_of(tuning.feeder, np.arange(4), EpochDraws(3, 0, 24))
    assert torch.equal(tuning._loss(batch), tuning._loss({**batch, "prompt_states": in_full}))


def test_moments_in_half_precision_are_rounded_and_the_loss_hardly_tells(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path
) -> None:
    half, full = (_tuning(base, dataset, cache, strategy="lora", precision=name) for name in ("bf16", "no"))
    rows = np.arange(8)
    rounded, exact = (batch_of(tuning.feeder, rows, EpochDraws(3, 0, 24)) for tuning in (half, full))
    assert not torch.equal(rounded["latents"], exact["latents"])
    torch.testing.assert_close(rounded["latents"], exact["latents"], rtol=2e-3, atol=2e-3)
    losses = [full._loss({**exact, "latents": batch["latents"]}).item() for batch in (rounded, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)

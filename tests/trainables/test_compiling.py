"""Compiled training: the same losses, no graph break, and which strategies need new graphs as they train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
import torch._inductor.config
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.utils import counters

from trainables.accelerators import new_accelerator
from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import DiffusionModels
from trainables.batches import BatchPlan, filled
from trainables.checkpoints import Checkpoint
from trainables.compiling import CompilationError, compile_blocks
from trainables.datasets.store import PreparedDataset
from trainables.epochs import EpochReport
from trainables.feeding import BatchFeeder
from trainables.loss import DenoisingLoss
from trainables.resuming import restore_weights
from trainables.settings import TrainingConfig
from trainables.strategies import STRATEGIES, make_strategy
from trainables.strategies.base import trained_parameters
from trainables.training import FineTuning

NUM_IMAGES, BATCH = 7, 4
"""The last batch of an epoch has three images."""
OWN: dict[str, dict[str, Any]] = {
    "selora": {"interval": 2, "threshold": 1.0},
    "adalora": {"initial_share": 0.0, "final_share": 0.5},
    "dylora": {"rank": 2},
}
"""Hyperparameters with which a strategy does what it is for in a few steps."""
NEW_GRAPHS = {"selora": {3: 1, 4: 1}, "dylora": {4: 1}}
"""How many further graphs the transformer needs, by step: for a rank that is tried and one that is kept, and for one that is drawn."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small(base: DiffusionModels) -> DiffusionModels:
    """The mini base with a U-Net of five residual blocks of two shapes, and a transformer."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=base.unet.config.cross_attention_dim,
        norm_num_groups=8,
    )
    return replace(base, unet=unet)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True, scope="module")
def _forget_graphs() -> Iterator[None]:
    """Those of these tests, which share what is alike."""
    yield
    torch._dynamo.reset()


@pytest.fixture
def tuning(small: DiffusionModels, dataset: PreparedDataset, shared_cache: Path) -> Callable[..., FineTuning]:
    def make(
        strategy: str, compiler: str | None, *, num_epochs: int = 2, going_on_from: Checkpoint | None = None
    ) -> FineTuning:
        hyperparameters = OWN.get(strategy, {})
        if strategy == "text_encoder_swap":
            write_bert_layout(shared_cache / "encoder", hidden_size=48)
            hyperparameters = {"encoder": str(shared_cache / "encoder")}
        method, models = make_strategy(strategy, hyperparameters), small.fresh()
        method = method.for_conditions(dataset.conditions)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            method.attach(models)
        if going_on_from is not None:
            restore_weights(models, method, going_on_from)
        feeder = BatchFeeder(
            models=models,
            data=dataset.split("train"),
            data_key="phantom-train",
            trained=method.trains,
            cache_folder=shared_cache,
            caption_dropout=0.2,
        )
        made = FineTuning(
            models,
            method,
            feeder=feeder,
            plan=BatchPlan(num_images=NUM_IMAGES, batch_size=BATCH, seed=3),
            lr=1e-3,
            config=TrainingConfig(num_epochs=num_epochs, warmup_fraction=0.0),
            accelerator=new_accelerator("no"),
            compiler=compiler,
        )
        if going_on_from is not None:
            made.resume(going_on_from)
        return made

    return make


def _losses(tuning: FineTuning) -> list[float]:
    losses: list[float] = []

    def note(report: EpochReport) -> None:
        losses.append(report.loss)

    tuning.run(note)
    return losses


def _weights(tuning: FineTuning) -> dict[str, Tensor]:
    return {path: parameter.detach().clone() for path, parameter in trained_parameters(tuning.models)}


def _num_graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("strategy", ["nested_lora", "all"])
def test_compiled_training_gives_the_same_losses_and_names(tuning: Callable[..., FineTuning], strategy: str) -> None:
    """By the compiler's own autograd; of nested LoRA each image's rank must follow it, and the VAE's loss counts pixels."""
    plain, compiled, before = tuning(strategy, None), tuning(strategy, "aot_eager"), _num_graphs()
    expected = _losses(plain)
    assert _num_graphs() == before
    losses = _losses(compiled)
    assert _num_graphs() > before
    assert losses == pytest.approx(expected, rel=1e-5)
    weights, others = _weights(plain), _weights(compiled)
    assert weights.keys() == others.keys()
    for path, weight in weights.items():
        torch.testing.assert_close(others[path], weight, rtol=1e-3, atol=1e-5)
    assert plain.checkpoint().tensors.keys() == compiled.checkpoint().tensors.keys()
    assert plain.models.unet.state_dict().keys() == compiled.models.unet.state_dict().keys()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_strategy_breaks_a_graph_and_those_that_need_new_ones_are_known(
    tuning: Callable[..., FineTuning], strategy: str
) -> None:
    """The short batch at the end of an epoch needs none, nor does the next trial of the same shapes."""
    counters.clear()
    training = tuning(strategy, "eager")
    graphs: list[int] = []
    training.models.unet.register_forward_pre_hook(lambda *_: graphs.append(_num_graphs()))
    training.run(lambda report: None)
    graphs.append(_num_graphs())
    assert dict(counters["graph_break"]) == {}
    later = [after - before for before, after in pairwise(graphs[1:])]
    assert {number: count for number, count in enumerate(later, 2) if count} == NEW_GRAPHS.get(strategy, {})
    tuning(strategy, "eager").run(lambda report: None)
    assert _num_graphs() == graphs[-1]


def test_a_compiled_training_goes_on_from_a_checkpoint_to_the_same_numbers(tuning: Callable[..., FineTuning]) -> None:
    whole, first, kept = tuning("lora", "aot_eager"), tuning("lora", "aot_eager"), list[Checkpoint]()
    losses = _losses(whole)
    first.run(lambda report: kept.append(deepcopy(first.checkpoint())))
    second = tuning("lora", "aot_eager", going_on_from=kept[0])
    assert _losses(second) == losses[1:]
    assert all(torch.equal(weight, _weights(second)[path]) for path, weight in _weights(whole).items())
    uncompiled = tuning("lora", None, going_on_from=kept[0])
    assert _losses(uncompiled) == pytest.approx(losses[1:], rel=1e-4)


def test_images_that_fill_up_a_batch_change_neither_loss_nor_gradients(base: DiffusionModels) -> None:
    """In float64, where nothing but the sums' order is left: of denoising, and of what the autoencoder reconstructs."""
    models = base.fresh()
    for part in models.components().values():
        part.double().requires_grad_(True)
    loss = DenoisingLoss(models, min_snr_gamma=5.0, reconstruction_weight=0.5)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "pixels": torch.rand(3, 3, 64, 64, generator=generator, dtype=torch.float64) * 2 - 1,
        "token_ids": torch.randint(3, 500, (3, models.tokenizer.model_max_length), generator=generator),
        "timesteps": torch.tensor([10, 400, 900]),
        **{
            name: torch.randn(3, 4, 16, 16, generator=generator, dtype=torch.float64)
            for name in ("noise", "latent_noise")
        },
    }
    results = []
    for size, count in ((3, None), (5, 3)):
        rows = filled(slice(0, 3), size)
        total = loss({name: tensor[rows] for name, tensor in batch.items()}, count)
        total.backward()
        results.append({"loss": total.detach(), **{path: p.grad for path, p in trained_parameters(models)}})
        for part in models.components().values():
            part.zero_grad()
    whole, padded = results
    assert all(value is not None for value in whole.values())
    for name, value in whole.items():
        torch.testing.assert_close(padded[name], value, rtol=1e-9, atol=1e-14)


@given(st.integers(0, 20), st.integers(1, 20), st.integers(0, 40))
def test_a_part_is_filled_up_with_its_last_image(start: int, count: int, size: int) -> None:
    images = np.arange(start, start + count)
    rows = np.arange(60)[filled(slice(start, start + count), size)]
    assert rows.tolist() == [*images, *[start + count - 1] * (size - count)]


def test_more_kinds_of_block_than_torch_would_compile_by_itself_are_compiled() -> None:
    """SD 1.5 has 21 kinds; torch compiles 8 of a class, and runs the others as they are."""
    blocks = nn.ModuleList(
        ResnetBlock2D(in_channels=8, out_channels=8 * (k + 1), temb_channels=8, groups=4) for k in range(9)
    )
    counters.clear()
    compile_blocks(blocks, backend="eager")
    for _ in range(2):
        for block in blocks:
            block(torch.zeros(1, 8, 4, 4), torch.zeros(1, 8))
    assert _num_graphs() == len(blocks)


def test_a_compiler_that_is_not_there_is_named_with_the_remedy(
    tuning: Callable[..., FineTuning], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # not what another process compiled
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    rule = r"`compute.compile` must find a compiler that works, but got .*no-such-compiler.* Install g\+\+ .* compute.compile=false"
    with pytest.raises(CompilationError, match=rule):
        _losses(tuning("lora", "inductor"))

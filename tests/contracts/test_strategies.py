"""What every strategy promises, by one suite.

A strategy that has no example in strategy_examples.py goes through it with its defaults; what it may train is then not
known from elsewhere, and one test is skipped.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm_python
from diffusers import UNet2DConditionModel
from fingerprints import fingerprint, shares_all_but_what_trains
from numpy.typing import NDArray
from safetensors.torch import load_file
from small_films import SIDE_PX
from strategy_examples import EXAMPLES, VARIANTS, Example, projection
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertModel

from trainables.base_models.models import BaseIdentity, DiffusionModels, load_base, resolve_base
from trainables.exports import EXPORTS
from trainables.feeding import tokenize
from trainables.growth import adopt
from trainables.loss import DenoisingLoss
from trainables.sampling import generate_batches
from trainables.strategies import Strategy, load_adapter, make_strategy
from trainables.strategies.base import TrainingStep, trained_parameters
from trainables.strategies.composed import Composed
from trainables.strategies.low_rank import TargetedStrategy
from trainables.strategies.text_encoder_swap import TextEncoderSwap
from trainables.strategies.textual_inversion import TextualInversion

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
"""The first test that looks at what another process gives waits for the training of all strategies."""
CAPTIONS = ["a blue ring", "a chest film with edema"]
SAMPLING: dict[str, Any] = {"prompts": CAPTIONS, "seeds": [3, 4], "num_steps": 2, "guidance": 3.0}
OTHER_PROMPTS = ["a red circle", "a chest film"]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A strategy after a few optimiser steps, and what it exported."""

    example: str
    strategy: Strategy
    models: DiffusionModels
    losses: list[float]
    before: dict[str, float]
    after: dict[str, float]
    pixels: NDArray[np.float32]
    folder: Path
    shares_the_base: bool = False
    leaves_the_base: bool = False

    @property
    def fits_diffusers_loaders(self) -> bool:
        parts = self.strategy.parts if isinstance(self.strategy, Composed) else (self.strategy,)
        return all(isinstance(part, TargetedStrategy | TextualInversion) for part in parts)


def sample(models: DiffusionModels, prompts: Sequence[str] = SAMPLING["prompts"]) -> NDArray[np.float32]:
    options = {"num_steps": SAMPLING["num_steps"], "guidance_scale": SAMPLING["guidance"], "batch_size": len(prompts)}
    return next(generate_batches(models, prompts, SAMPLING["seeds"], **options)).numpy()


def fixed_batch(models: DiffusionModels, strategy: Strategy) -> dict[str, Tensor]:
    """Smooth films or latents, noise and captions; nothing about it is special but that it stays the same."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, 4, 2, 2, generator=generator)
    side = SIDE_PX // models.latent_factor
    latents = functional.interpolate(coarse, size=(side, side), mode="bilinear")
    noise = torch.randn(latents.shape, generator=generator)
    batch = {"noise": noise, "timesteps": torch.tensor([150, 600]), "token_ids": tokenize(models, CAPTIONS)}
    if "vae" not in strategy.trains:
        return {**batch, "latents": latents}
    pixels = functional.interpolate(coarse[:, :3].tanh(), size=(SIDE_PX, SIDE_PX), mode="bilinear")
    return {**batch, "pixels": pixels, "latent_noise": torch.randn(latents.shape, generator=generator)}


def loss_of(models: DiffusionModels, strategy: Strategy) -> Callable[[], Tensor]:
    """The engine's loss on the fixed batch."""
    loss = DenoisingLoss(
        models, reconstruction_weight=strategy.reconstruction_weight, penalty=lambda: strategy.penalty(models)
    )
    batch = fixed_batch(models, strategy)
    return lambda: loss(batch)


@torch.no_grad()
def errors(models: DiffusionModels, strategy: Strategy) -> dict[str, float]:
    """The denoising error without what a strategy adds to it, and the autoencoder's reconstruction error where it trains."""
    batch = fixed_batch(models, strategy)
    denoising = DenoisingLoss(models)(batch).item()
    if "vae" not in strategy.trains:
        return {"denoising": denoising}
    return {
        "denoising": denoising,
        "reconstruction": DenoisingLoss(models, reconstruction_weight=1.0)(batch).item() - denoising,
    }


def train(models: DiffusionModels, strategy: Strategy, example: Example) -> list[float]:
    loss_now = loss_of(models, strategy)
    optimizer = torch.optim.AdamW(strategy.param_groups(models, example.lr))
    losses = []
    for number in range(example.num_steps):
        step = TrainingStep(number=number, num_steps=example.num_steps, seed=0)
        strategy.on_step_start(models, step)
        strategy.on_batch(models, np.arange(len(CAPTIONS)) + number * len(CAPTIONS))
        loss = loss_now()
        loss.backward()
        strategy.on_gradients(models, lambda tensor: tensor)
        optimizer.step()
        change = strategy.on_step_end(models, step)
        optimizer.zero_grad()
        if change is not None:
            adopt(change.grown, optimizer)
        losses.append(loss.item())
    return losses


def trained(base: DiffusionModels, name: str, folder: Path) -> Trained:
    torch.manual_seed(0)
    example, models, bits = EXAMPLES[name], base.sharing(), fingerprint(base)
    strategy = make_strategy(example.strategy or name, example.hyperparameters)
    strategy.attach(models)
    models.own_trained()
    shares = shares_all_but_what_trains(models, base)
    before = errors(models, strategy)
    losses = train(models, strategy, example)
    after = errors(models, strategy)
    result = Trained(
        example=name,
        strategy=strategy,
        models=models,
        losses=losses,
        before=before,
        after=after,
        pixels=sample(models),
        folder=folder,
    )
    strategy.export(models, folder / "adapter")
    EXPORTS["pipeline"].write(models, strategy, folder / "pipeline")
    if result.fits_diffusers_loaders:
        EXPORTS["diffusers"].write(models, strategy, folder / "diffusers")
    return replace(result, shares_the_base=shares, leaves_the_base=fingerprint(base) == bits)


@pytest.fixture(scope="session")
def base() -> DiffusionModels:
    return load_base("mini").for_films_of(SIDE_PX)


@pytest.fixture(scope="session")
def base_pixels(base: DiffusionModels) -> dict[str, NDArray[np.float32]]:
    """What the base gives for the prompts that strategies are trained on, and for others."""
    return {"trained": sample(base), "others": sample(base, OTHER_PROMPTS)}


class TrainedOnce(dict[str, Trained]):
    """Examples by name, each trained when it is first asked for."""

    def __init__(self, base: DiffusionModels, folder: Path) -> None:
        super().__init__()
        self.base, self.folder = base, folder

    def __missing__(self, name: str) -> Trained:
        self[name] = trained(self.base, name, self.folder / name)
        return self[name]


@pytest.fixture(scope="session")
def every(base: DiffusionModels, tmp_path_factory: pytest.TempPathFactory) -> TrainedOnce:
    """The strategies, trained once for the whole suite."""
    return TrainedOnce(base, tmp_path_factory.mktemp("strategies"))


@pytest.fixture(scope="session")
def elsewhere(
    every: TrainedOnce, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Path]:
    """Pixels by (strategy, kind) from another process, first with plain diffusers only, then with restored adapters."""
    folder = tmp_path_factory.mktemp("elsewhere")
    pixels: dict[tuple[str, str], Path] = {}
    jobs: dict[str, list[dict[str, Any]]] = {"plain_diffusers.py": [], "restore_adapters.py": []}
    for name in examples_of(request.session.items):
        for kind in ("diffusers", "pipeline", "adapter"):
            if (every[name].folder / kind).is_dir():
                pixels[name, kind] = folder / f"{name}-{kind}.npy"
                job = {"kind": kind, "folder": str(every[name].folder / kind), "to": str(pixels[name, kind])}
                script = "restore_adapters.py" if kind == "adapter" else "plain_diffusers.py"
                jobs[script].append({**job, "prompts": as_a_user_writes(every[name].models, kind)})
    run_elsewhere(jobs, folder)
    return pixels


def examples_of(items: Sequence[pytest.Item]) -> list[str]:
    """The examples that the selected tests are about."""
    calls = [item.callspec.params for item in items if isinstance(item, pytest.Function) and hasattr(item, "callspec")]
    asked = {params.get("result") for params in calls}
    return [name for name in EXAMPLES if name in asked]


def as_a_user_writes(models: DiffusionModels, kind: str) -> list[str]:
    """Prompts for this engine, which knows what the tokens stand for; for other programs, with the tokens in them."""
    prompts: list[str] = SAMPLING["prompts"]
    return prompts if kind == "adapter" else [models.spelled(prompt) for prompt in prompts]


def run_elsewhere(jobs: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """Run the scripts one after the other in one new process; the first must not import this project, and says so if it does."""
    code = "import runpy, sys\n"
    for script, tasks in jobs.items():
        task = folder / f"{script}.json"
        models = {"base": str(resolve_base("mini")), "resolution_px": SIDE_PX}
        task.write_text(json.dumps({**models, "jobs": tasks, **SAMPLING}))
        code += f"sys.argv = [{script!r}, {str(task)!r}]\nrunpy.run_path({str(HERE / script)!r}, run_name='__main__')\n"
        code += f"sys.path.insert(0, {str(ROOT)!r})\n"
    command = [*warm_python.command(warm_python.PLAIN), "-P", "-c", code]  # -P keeps the working directory off the path
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(params=sorted(EXAMPLES))
def result(request: pytest.FixtureRequest, every: TrainedOnce) -> Trained:
    return every[request.param]


def before_training(result: Trained, base: DiffusionModels) -> dict[str, nn.Module]:
    """The base's parts, and the encoder that took the text encoder's place, as transformers loads it."""
    if not isinstance(result.strategy, TextEncoderSwap):
        return base.components()
    swapped = BertModel.from_pretrained(result.strategy.encoder, add_pooling_layer=False)
    return {**base.components(), "text_encoder": swapped}


def test_it_trains_on_the_base_s_memory_but_for_what_trains_and_leaves_that_to_the_bit(result: Trained) -> None:
    assert result.shares_the_base and result.leaves_the_base


def test_it_trains_exactly_its_own_names(result: Trained, base: DiffusionModels) -> None:
    if not EXAMPLES[result.example].is_listed:
        pytest.skip("strategy_examples.py lists no names for it")
    names = {name for name, _ in trained_parameters(result.models)}
    assert names == EXAMPLES[result.example].names(base)
    assert {name.split(".")[0] for name in names} == set(result.strategy.trains)


@pytest.mark.parametrize(("name", "hyperparameters", "names"), VARIANTS)
def test_other_hyperparameters_train_exactly_their_names(
    base: DiffusionModels, name: str, hyperparameters: dict[str, Any], names: Callable[[DiffusionModels], set[str]]
) -> None:
    models = base.fresh()
    make_strategy(name, hyperparameters).attach(models)
    assert {path for path, _ in trained_parameters(models)} == names(base)


def test_trained_parameters_are_float32_and_all_move(base: DiffusionModels, result: Trained) -> None:
    torch.manual_seed(0)
    start = base.fresh()
    result.strategy.attach(start)
    before = dict(trained_parameters(start))
    exported = result.strategy.tensors(result.models)
    for name, parameter in trained_parameters(result.models):
        assert parameter.dtype == torch.float32, name
        was_dropped = exported[name].numel() == 0
        assert was_dropped or not torch.equal(parameter, before[name]), f"{name} did not train"


def test_what_is_not_trained_keeps_its_bits(result: Trained, base: DiffusionModels) -> None:
    ours = {name.replace(".base.", ".") for name in EXAMPLES[result.example].names(base)}
    for component, module in result.models.components().items():
        now = {key.replace(".base.", "."): value for key, value in module.state_dict().items()}
        for key, value in before_training(result, base)[component].state_dict().items():
            if f"{component}.{key}" not in ours:
                assert torch.equal(now[key], value), f"{component}.{key}"


def test_the_base_it_was_copied_from_keeps_its_bits(every: TrainedOnce, base: DiffusionModels) -> None:
    again = load_base("mini")
    for component, module in base.components().items():
        loaded = again.component(component).state_dict()
        assert all(torch.equal(value, loaded[key]) for key, value in module.state_dict().items())


def test_frozen_parameters_take_no_gradient(result: Trained) -> None:
    loss_of(result.models, result.strategy)().backward()
    names = {name for name, _ in trained_parameters(result.models)}
    for component, module in result.models.components().items():
        for path, parameter in module.named_parameters():
            assert (parameter.grad is not None) == (f"{component}.{path}" in names), f"{component}.{path}"
            parameter.grad = None


def test_attaching_changes_no_pixel(
    base: DiffusionModels, base_pixels: dict[str, NDArray[np.float32]], result: Trained
) -> None:
    if isinstance(result.strategy, TextEncoderSwap):
        pytest.skip("other states of the same prompts are what it is for")
    models = base.fresh()
    result.strategy.attach(models)
    np.testing.assert_allclose(sample(models, OTHER_PROMPTS), base_pixels["others"], atol=1e-5)


def test_training_changes_the_pixels(base_pixels: dict[str, NDArray[np.float32]], result: Trained) -> None:
    assert np.abs(result.pixels - base_pixels["trained"]).max() > 1e-2


def test_the_loss_falls(result: Trained) -> None:
    assert np.isfinite(result.losses).all()
    for name, error in result.before.items():
        assert result.after[name] < 0.95 * error, name


def test_the_adapter_holds_exactly_the_trained_tensors(result: Trained) -> None:
    tensors = load_file(result.folder / "adapter" / "adapter.safetensors")
    exported = result.strategy.tensors(result.models)
    assert tensors.keys() == exported.keys() == dict(trained_parameters(result.models)).keys()
    assert all(torch.equal(tensor, exported[name]) for name, tensor in tensors.items())
    assert result.strategy.num_parameters(result.models) == sum(tensor.numel() for tensor in tensors.values())


def test_a_new_process_restores_the_same_pixels(result: Trained, elsewhere: dict[tuple[str, str], Path]) -> None:
    np.testing.assert_allclose(np.load(elsewhere[result.example, "adapter"]), result.pixels, atol=1e-6)


def test_plain_diffusers_loads_the_merged_folder(result: Trained, elsewhere: dict[tuple[str, str], Path]) -> None:
    np.testing.assert_allclose(np.load(elsewhere[result.example, "pipeline"]), result.pixels, atol=1e-4)


def test_diffusers_loaders_read_the_adapter(result: Trained, elsewhere: dict[tuple[str, str], Path]) -> None:
    if not result.fits_diffusers_loaders:
        pytest.skip("they have no format for it; another test sees that it is refused")
    np.testing.assert_allclose(np.load(elsewhere[result.example, "diffusers"]), result.pixels, atol=1e-4)


def test_merged_gives_the_same_pixels_in_the_original_structure(result: Trained, base: DiffusionModels) -> None:
    models = base.fresh()
    strategy = load_adapter(models, result.folder / "adapter")
    strategy.merged(models)
    np.testing.assert_allclose(sample(models), result.pixels, atol=1e-4)
    for component, plain in before_training(result, base).items():
        adapted = models.component(component)
        if projection(base) & EXAMPLES[result.example].names(base) and component == "unet":
            plain = UNet2DConditionModel.from_config(adapted.config)  # diffusers' own, by the configuration it exports
        assert adapted.state_dict().keys() == plain.state_dict().keys()
        plain_types = {path: type(module) for path, module in plain.named_modules()}
        assert {path: type(module) for path, module in adapted.named_modules()} == plain_types


def test_loading_gives_back_the_strategy(result: Trained, base: DiffusionModels) -> None:
    assert load_adapter(base.fresh(), result.folder / "adapter") == result.strategy


def test_an_adapter_of_another_base_is_refused(result: Trained, base: DiffusionModels) -> None:
    models = base.fresh()
    models.base = BaseIdentity(name="other", source="other", weights_hash="0123456789abcdef")
    with pytest.raises(
        ValueError, match=f"`base` must have weights 0123456789abcdef .other., but got {base.base.weights_hash}"
    ):
        result.strategy.restore(models, result.folder / "adapter")
    assert not list(trained_parameters(models))


def test_an_adapter_of_another_strategy_is_refused(result: Trained, every: TrainedOnce, base: DiffusionModels) -> None:
    other = "norm" if result.strategy.name == "bitfit" else "bitfit"
    message = f"`strategy` must be '{result.strategy.name}', but got '{other}'"
    with pytest.raises(ValueError, match=re.escape(message)):
        result.strategy.restore(base.fresh(), every[other].folder / "adapter")


def test_what_diffusers_loaders_cannot_read_is_not_written(result: Trained, tmp_path: Path) -> None:
    if result.fits_diffusers_loaders:
        pytest.skip("they can; the other process does")
    rule = "`format` diffusers must have a low-rank adapter or new tokens"
    with pytest.raises(ValueError, match=re.escape(f"{rule}, but got an adapter by '{result.strategy.name}'")):
        EXPORTS["diffusers"].write(result.models, result.strategy, tmp_path / "diffusers")
    assert not (tmp_path / "diffusers").exists()


@pytest.mark.parametrize("example", ["adalora", "selora", "selora everywhere"])
def test_exports_are_seen_at_ranks_that_differ_by_layer(example: str, every: TrainedOnce) -> None:
    ranks = every[example].strategy.ranks(every[example].models)
    assert len(set(ranks.values())) > 1

"""SD 1.5's architecture: parameter counts to the digit, and folders of its layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from trainables.base_models.models import DiffusionModels, load_base, weights_hash
from trainables.base_models.sd15 import sd15_on_meta, write_sd15_layout
from trainables.sampling import generate, generate_batches
from trainables.strategies import make_strategy
from trainables.strategies.base import num_trainable_parameters

CLIP_VOCABULARY = Path(__file__).resolve().parents[3] / "../shared/data/clip_bpe_vocab"
CLIP_BASE = 49408


@pytest.fixture(scope="module")
def sd15() -> DiffusionModels:
    return sd15_on_meta()


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd15")
    write_sd15_layout(folder, latent_side=8)
    return folder


@pytest.mark.parametrize(
    ("component", "count"), [("unet", 859_520_964), ("vae", 83_653_863), ("text_encoder", 123_060_480)]
)
def test_components_are_as_large_as_published(sd15: DiffusionModels, component: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in sd15.component(component).parameters()) == count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "hyperparameters", "count"),
    [
        ("unet", {}, 859_520_964),
        ("lora", {"rank": 4}, 797_184),
        ("lora", {"rank": 8}, 1_594_368),
        ("lora", {"rank": 64}, 12_754_944),
        ("lora", {"rank": 3, "targets": "all_linear"}, 426_496 * 3),
        ("dora", {"rank": 8}, 1_594_368 + 99_840),
        ("bitfit", {}, 343_684),
        ("text_encoder", {}, 123_060_480),
        ("unet+text_encoder", {}, 859_520_964 + 123_060_480),
        ("difffit", {}, 581_124),
        ("difffit", {"attention_gammas": False}, 481_284),
        ("norm", {}, 200_320),
        ("attention", {}, 43_962_560),
        ("attention", {"layers": "all"}, 43_962_560 + 49_574_080),
    ],
)
def test_strategies_train_as_many_parameters_as_published(
    sd15: DiffusionModels, strategy: str, hyperparameters: dict[str, object], count: int
) -> None:
    models = sd15.fresh()
    make_strategy(strategy, hyperparameters).attach(models)
    assert num_trainable_parameters(models) == count


def test_all_linear_is_184_layers_and_feed_forward_lies_between(sd15: DiffusionModels) -> None:
    layers = {
        targets: len(list(make_strategy("lora", {"targets": targets}).target_layers(sd15.unet)))
        for targets in ("attention", "attention+ff", "all_linear")
    }
    # 16 transformer blocks: two attentions of four layers and a feed-forward of two each
    assert layers == {"attention": 128, "attention+ff": 160, "all_linear": 184}


def test_no_memory_is_taken_for_weights(sd15: DiffusionModels) -> None:
    assert all(parameter.is_meta for parameter in sd15.unet.parameters())


@pytest.mark.slow
def test_a_local_folder_of_the_layout_loads_and_samples(layout: Path) -> None:
    models = load_base(str(layout))
    assert models.resolution_px == 64
    assert models.base.source == layout.name
    assert not any(
        parameter.requires_grad for module in models.components().values() for parameter in module.parameters()
    )
    images = generate(models, ["chest"], [0], num_steps=2, guidance_scale=2.0, batch_size=1)
    assert images.shape == (1, 64, 64, 3)
    assert images.std() > 0


@pytest.mark.slow
def test_a_thinner_layout_keeps_every_parameter_name(layout: Path, sd15: DiffusionModels) -> None:
    thin, full = load_base(str(layout)), sd15
    for component in thin.components():
        assert thin.component(component).state_dict().keys() == full.component(component).state_dict().keys()


@pytest.mark.slow
def test_the_same_seed_writes_the_same_weights(layout: Path, tmp_path: Path) -> None:
    write_sd15_layout(tmp_path / "again", latent_side=8)
    write_sd15_layout(tmp_path / "other", latent_side=8, seed=1)
    hashes = [load_base(str(folder)).base.weights_hash for folder in (layout, tmp_path / "again", tmp_path / "other")]
    assert hashes[0] == hashes[1] != hashes[2]


def test_variants_that_a_clone_has_and_a_download_has_not_leave_the_hash_alone(layout: Path, tmp_path: Path) -> None:
    clone = shutil.copytree(layout, tmp_path / "clone")
    weights = clone / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert weights_hash(clone) == weights_hash(layout)


@pytest.mark.slow
def test_writing_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    write_sd15_layout(tmp_path, latent_side=8)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_sd15s_own_vocabulary_goes_through_the_text_encoder(tmp_path: Path) -> None:
    if not CLIP_VOCABULARY.is_dir():
        pytest.skip("shared/data/clip_bpe_vocab is not beside the repository")
    files = {"vocab": str(CLIP_VOCABULARY / "vocab.json"), "merges": str(CLIP_VOCABULARY / "merges.txt")}
    write_sd15_layout(tmp_path, latent_side=8, tokenizer=CLIPTokenizer(**files, model_max_length=77))
    models = load_base(str(tmp_path))
    assert models.text_encoder.config.vocab_size == len(models.tokenizer) == CLIP_BASE
    prompts = ["Chest X-ray of a subject with cardiomegaly", "Chest X-ray of a subject with edema"]
    images = next(generate_batches(models, prompts, [0, 0], num_steps=1, guidance_scale=1.0, batch_size=2))
    assert np.abs(images[0] - images[1]).max() > 0


def test_a_width_that_the_heads_do_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`width_divisor` must be 1, 2, 4 or 8, but got 16"):
        write_sd15_layout(tmp_path, width_divisor=16)

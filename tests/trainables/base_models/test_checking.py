"""Bases that cannot work are refused by what their configurations and files say, before a weight is read."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import MINI_FOLDER, DiffusionModels, load_base, resolve_base
from trainables.base_models.shapes import base_on_meta
from trainables.caption_lengths import caption_note

pytestmark = pytest.mark.slow

Change = Callable[[Path], None]
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    return shutil.copytree(MINI_FOLDER, tmp_path / "mini")


def config(file: str, **values: Any) -> Change:
    """Writes values into a JSON file; None takes a key out."""

    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) | values
        (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return change


def unet(**values: Any) -> Change:
    return config("unet/config.json", **values)


def schedule(**values: Any) -> Change:
    return config("scheduler/scheduler_config.json", **values)


def card(**values: Any) -> Change:
    return config("model_index.json", **values)


def tensors(file: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    """Writes other tensors into a file of weights."""
    return lambda folder: save_file(change(load_file(folder / file)), folder / file, metadata={"format": "pt"})


def without(*names: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda state: {name: tensor for name, tensor in state.items() if name not in names}


def with_(**added: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda state: state | added


def whole(name: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda state: state | {name: state[name].to(torch.int8)}


def deleted(name: str) -> Change:
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def written(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1000]) and None


SDXL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1536,
}
LCM = {"time_cond_proj_dim": 256}
UPSCALER = {"in_channels": 7, "num_class_embeds": 1000}
IMAGE_PROMPTED = {"encoder_hid_dim_type": "image_proj", "encoder_hid_dim": 64}

ARCHITECTURES: list[tuple[Change, str]] = [
    (unet(in_channels=9), "takes and gives the 4 channels .* takes 9 and gives 4, as an inpainting model, in"),
    (unet(in_channels=8), "takes 8 and gives 4, as an image-editing model"),
    (unet(out_channels=8), "takes 4 and gives 8, in"),
    (config("vae/config.json", latent_channels=16), "gives the 16 channels of its autoencoder's latents, but got one that takes 4"),
    (unet(**SDXL), "time step and a prompt alone, but got addition_embed_type 'text_time' in .*, a StableDiffusionPipeline"),
    (unet(**LCM), "but got time_cond_proj_dim 256 in"),
    (unet(**UPSCALER), "but got num_class_embeds 1000 in"),
    (unet(**IMAGE_PROMPTED), "but got encoder_hid_dim_type 'image_proj' in"),
    (unet(_class_name="SD3Transformer2DModel"), "UNet2DConditionModel as its unet, but got SD3Transformer2DModel in"),
    (config("vae/config.json", _class_name="AutoencoderTiny"), "AutoencoderKL as its vae, but got AutoencoderTiny in"),
    (unet(cross_attention_dim=128), "`text_encoder` must give states 128 wide, .* but got 64 in"),
    (unet(sample_size=None), "`sample_size` of the U-Net must be the side of its latents, but got None in"),
    (unet(sample_size=[16, 16]), r"but got \[16, 16\] in"),
    (schedule(prediction_type="sample"), "`prediction_type` must be epsilon or v_prediction, but got 'sample' in"),
    (schedule(prediction_type="flow_prediction"), "but got 'flow_prediction' in"),
    (schedule(beta_schedule="sigmoid"), "`beta_schedule` must be linear, scaled_linear or squaredcos_cap_v2 .* but got 'sigmoid'"),
    (schedule(_class_name="EDMEulerScheduler", beta_start=None), "but got 'scaled_linear' of a EDMEulerScheduler in"),
    *((schedule(num_train_timesteps=number), "`noise schedule` of a base must take the signal away step by step, but got num_train")
      for number in (0, -3, "many", 10.5)),
    (schedule(beta_end=2.0), "step by step, but got num_train_timesteps 1000, beta_start 0.00085, beta_end 2.0 in"),
    (schedule(beta_start=-0.1), "but got num_train_timesteps 1000, beta_start -0.1"),
    (schedule(trained_betas=[0.1, 1.5]), "take the signal away step by step"),
    (schedule(beta_start=0.0, beta_end=0.0), "take the signal away step by step"),
    (unet(sample_size=0), "`sample_size` of the U-Net must be the side of its latents, but got 0 in"),
    *((config("vae/config.json", scaling_factor=scale), f"`scaling_factor` of the autoencoder must be .*, but got {scale!r} in")
      for scale in (0, -1.0, "x", math.nan, math.inf)),
    (config("text_encoder/config.json", model_type="t5"), "of type clip_text_model, bert, roberta, but got 't5'"),
    (written("vae/config.json", b"[]"), "`config.json` of a base must be a JSON object, but got"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), ARCHITECTURES)
def test_another_architecture_is_refused_also_where_nothing_but_its_shapes_are_asked_for(
    mini: Path, change: Change, said: str
) -> None:
    change(mini)
    for use in (resolve_base, base_on_meta):
        with pytest.raises(ValueError, match=said):
            use(str(mini))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (deleted(UNET), "must have the weights of its unet, but got no diffusion_pytorch_model.safetensors in"),
        (deleted(TEXT), "must have the weights of its text_encoder, but got no model.safetensors in"),
        (cut(VAE), "`diffusion_pytorch_model.safetensors` must be a whole safetensors file, but got .*/vae/"),
        (written(UNET, b""), "must be a whole safetensors file"),
        (written(TEXT, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Run `git lfs pull` in the folder"),
        (tensors(UNET, without("conv_out.weight")), "`unet` of a base must have the tensors .* but got no conv_out.weight, in"),
        (tensors(UNET, without("conv_in.bias", "conv_out.bias", "conv_out.weight")), "but got no conv_in.bias and 2 more"),
        (tensors(UNET, with_(extra=torch.zeros(1))), "but got extra, which is none of them"),
        (tensors(UNET, whole("conv_in.weight")), "but got conv_in.weight in whole numbers, as quantised weights"),
        (tensors(TEXT, whole("final_layer_norm.bias")), "but got final_layer_norm.bias in whole numbers"),
        (tensors(TEXT, with_(**{"final_layer_norm.bias": torch.zeros(8)})), r"of shape \[8\] where \[64\] is due"),
        (tensors(VAE, without("quant_conv.bias")), "`vae` of a base must have the tensors .* no quant_conv.bias"),
        (unet(layers_per_block=2), "`unet` of a base must have the tensors that its config.json describes"),
        (written("model_index.json", b"[]"), "`model_index.json` of a base must be a JSON object"),
        (written("model_index.json", b"x"), "must hold the configurations of Stable Diffusion 1.5's classes, but got .*model_index"),
        (card(unet=None), "`model_index.json` of a base must name the class of its unet, UNet2DConditionModel, but got None in"),
        (card(tokenizer=["transformers"]), r"the class of its tokenizer, but got \['transformers'\] in"),
        (card(text_encoder=["transformers", "CLIPTextModelWithProjection"]), "its text_encoder, CLIPTextModel or BertModel"),
        (card(scheduler=["diffusers", "NoScheduler"]), "the class of its scheduler, but got .*NoScheduler.* Copy the model_index"),
        (card(vae=[None, None]), r"the class of its vae, AutoencoderKL, but got \[None, None\] in"),
        (deleted("tokenizer"), "must have a tokenizer, but got none that can be read in"),
        (written("tokenizer/tokenizer.json", b"{"), "must have a tokenizer, but got none that can be read in"),
        (deleted("scheduler"), "must have a scheduler_config.json, but got none in"),
        (deleted("vae/config.json"), "each with a config.json, but got none in .*vae', a StableDiffusionPipeline"),
        (lambda folder: write_bert_layout(folder / "tokenizer" / ".." / "text_encoder", words=["a"]), "has more|no more tokens"),
    ],
)  # fmt: skip
def test_files_that_are_not_the_models_are_refused(mini: Path, change: Change, said: str) -> None:
    change(mini)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        resolve_base(str(mini))


@pytest.mark.parametrize("shard", ["diffusion_pytorch_model-00002-of-00002.safetensors", UNET])
def test_a_shard_that_is_missing_is_named(mini: Path, shard: str) -> None:
    (mini / UNET).unlink()
    index = mini / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"conv_in.weight": shard}}))
    with pytest.raises(FileNotFoundError, match=f"must have all its weights, but got no .*{shard}"):
        resolve_base(str(mini))


def old_names(folder: Path) -> None:
    """As transformers and diffusers wrote the text encoder and the autoencoder when Stable Diffusion 1.5 came out."""
    text = {f"text_model.{name}": tensor for name, tensor in load_file(folder / TEXT).items()}
    text["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(text, folder / TEXT, metadata={"format": "pt"})
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = load_file(folder / VAE)
    for name in [name for name in vae if "mid_block.attentions" in name]:
        for new, old in renamed.items():
            vae[name.replace(new, old)] = vae.pop(name) if new in name else vae[name]
            if new in name:
                break
    save_file(vae, folder / VAE, metadata={"format": "pt"})


def named_parts_that_are_absent(folder: Path) -> None:
    """As in a download of the pipeline without what films do not need."""
    config(
        "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        requires_safety_checker=True,
    )(folder)


@pytest.fixture(scope="module")
def plain() -> DiffusionModels:
    """The mini base as it is."""
    return load_base("mini")


@pytest.mark.parametrize(
    "change",
    [
        old_names,
        named_parts_that_are_absent,
        config("model_index.json", safety_checker=None, feature_extractor=None, image_encoder=None),
        schedule(prediction_type=None),  # as in the first releases, which predict noise
        schedule(prediction_type="v_prediction", rescale_betas_zero_snr=True),
        config("unet/config.json", _class_name=None),
        deleted("tokenizer/tokenizer_config.json"),
        config("tokenizer/tokenizer_config.json", model_max_length=1000),
    ],
)
def test_what_can_be_loaded_is(mini: Path, plain: DiffusionModels, change: Change) -> None:
    change(mini)
    ours = load_base(str(mini))
    assert ours.tokenizer.model_max_length == plain.tokenizer.model_max_length == 77
    assert "77" in caption_note(str(mini), ["edema " * 100])
    for name, component in plain.components().items():
        loaded = ours.component(name).state_dict()
        assert all(torch.equal(loaded[key], tensor) for key, tensor in component.state_dict().items())

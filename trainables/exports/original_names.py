"""A pipeline's weights under the names that they have in the original Stable Diffusion's single file.

Source: CompVis/stable-diffusion, `ldm/modules/diffusionmodules/openaimodel.py` and `model.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from trainables.base_models.models import DiffusionModels

UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_MIDDLE = {"resnets.0": "block_1", "attentions.0": "attn_1", "resnets.1": "block_2"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
VAE_BLOCK = {"conv_shortcut": "nin_shortcut"}
BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
VAE_UP_OR_DOWN = re.compile(
    r"(encoder|decoder)\.(down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)"
)


def original_tensors(models: DiffusionModels) -> dict[str, Tensor]:
    """All weights of plain models by their original names.

    Args:
        models: without anything attached.
    """
    unet, vae, text = (part.state_dict() for part in (models.unet, models.vae, models.text_encoder))
    config = models.unet.config
    attends = [kind != "UpBlock2D" for kind in config.up_block_types]
    named = {
        f"model.diffusion_model.{unet_name(name, int(config.layers_per_block), attends)}": tensor
        for name, tensor in unet.items()
    }
    num_levels = len(models.vae.config.block_out_channels)
    named |= {
        f"first_stage_model.{vae_name(name, num_levels)}": _kernel(name, weights) for name, weights in vae.items()
    }
    text = {name.removeprefix("text_model."): tensor for name, tensor in text.items()}
    return named | {f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in text.items()}


def unet_name(name: str, num_layers: int, attends: list[bool]) -> str:
    """A U-Net tensor's original name.

    Args:
        name: diffusers' name.
        num_layers: residual blocks of each level on the way down; there is one more on the way up.
        attends: whether each block on the way up has attention.
    """
    if match := BLOCK.fullmatch(name):
        way, block, kind, layer, inner = match[1], int(match[2]), match[3], int(match[4]), match[5]
        first = block * (num_layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + num_layers + 1}.0.{inner.replace('conv', 'op')}"
        if kind == "upsamplers":
            return f"output_blocks.{first + num_layers}.{1 + attends[block]}.{inner}"
        place = f"input_blocks.{first + layer + 1}" if way == "down" else f"output_blocks.{first + layer}"
        return f"{place}.0.{_renamed(inner, UNET_RESNET)}" if kind == "resnets" else f"{place}.1.{inner}"
    if name.startswith("mid_block.attentions.0."):
        return name.replace("mid_block.attentions.0", "middle_block.1")
    if match := re.fullmatch(r"mid_block\.resnets\.(\d)\.(.+)", name):
        return f"middle_block.{2 * int(match[1])}.{_renamed(match[2], UNET_RESNET)}"
    return _renamed(name, UNET_ENDS)


def vae_name(name: str, num_levels: int) -> str:
    """An autoencoder tensor's original name; the original counts levels on the way up from the finest."""
    if match := VAE_UP_OR_DOWN.fullmatch(name):
        side, way, block, kind, layer, inner = match.groups()
        level = int(block) if way == "down" else num_levels - 1 - int(block)
        place = f"block.{layer}" if kind == "resnets" else {"down": "downsample", "up": "upsample"}[way]
        return f"{side}.{way}.{level}.{place}.{_renamed(inner, VAE_BLOCK)}"
    if match := re.fullmatch(r"(encoder|decoder)\.mid_block\.(resnets\.\d|attentions\.0)\.(.+)", name):
        inner = _renamed(match[3], VAE_ATTENTION if "attentions" in match[2] else VAE_BLOCK)
        return f"{match[1]}.mid.{VAE_MIDDLE[match[2]]}.{inner}"
    return name.replace("conv_norm_out", "norm_out")


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """The name of a tensor, its module renamed where the table has it."""
    module, _, tensor = name.rpartition(".")
    return f"{names.get(module, module)}.{tensor}"


def _kernel(name: str, tensor: Tensor) -> Tensor:
    """The autoencoder's attention is linear layers in diffusers and convolutions of one pixel in the original."""
    return tensor[:, :, None, None] if "attentions" in name and tensor.ndim == 2 else tensor

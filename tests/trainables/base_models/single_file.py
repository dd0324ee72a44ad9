"""A pipeline folder's weights under the names that a single file has for them, written from the published code of latent diffusion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
UNET = (
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("mid_block.resnets.0", "middle_block.0"),
    ("mid_block.attentions.0", "middle_block.1"),
    ("mid_block.resnets.1", "middle_block.2"),
)
VAE = (
    ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"), ("mid_block.attentions.0", "mid.attn_1"),
    ("conv_norm_out", "norm_out"), ("conv_shortcut", "nin_shortcut"), ("downsamplers.0", "downsample"),
    ("upsamplers.0", "upsample"), ("resnets", "block"), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"),
    ("to_out.0", "proj_out"), ("down_blocks", "down"),
)  # fmt: skip


def write_single_file(folder: Path, file: Path) -> None:
    """Write the parts of a folder of Stable Diffusion 1.5's blocks into one file."""
    unet, vae = (load_file(folder / part / "diffusion_pytorch_model.safetensors") for part in ("unet", "vae"))
    text = load_file(folder / "text_encoder" / "model.safetensors")
    tensors = {f"model.diffusion_model.{_unet(name)}": tensor for name, tensor in unet.items()}
    tensors |= {f"first_stage_model.{_vae(name)}": _as_convolution(name, tensor) for name, tensor in vae.items()}
    tensors |= {f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in text.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def _replaced(name: str, pairs: Sequence[tuple[str, str]]) -> str:
    for ours, theirs in pairs:
        name = name.replace(ours, theirs)
    return name


def _unet(name: str) -> str:
    def down(match: re.Match[str]) -> str:
        block, kind, layer = int(match[1]), match[2], int(match[3])
        if kind == "downsamplers":
            return f"input_blocks.{3 * block + 3}.0.op"
        return f"input_blocks.{3 * block + layer + 1}.{0 if kind == 'resnets' else 1}"

    def up(match: re.Match[str]) -> str:
        block, kind, layer = int(match[1]), match[2], int(match[3])
        if kind == "upsamplers":
            return f"output_blocks.{3 * block + 2}.{1 if block == 0 else 2}.conv"  # the first block has no attention
        return f"output_blocks.{3 * block + layer}.{0 if kind == 'resnets' else 1}"

    if "resnets" in name:
        name = _replaced(name, RESNET)
    name = re.sub(r"down_blocks\.(\d)\.(resnets|attentions|downsamplers)\.(\d)(\.conv)?", down, name)
    name = re.sub(r"up_blocks\.(\d)\.(resnets|attentions|upsamplers)\.(\d)(\.conv)?", up, name)
    return _replaced(name, UNET)


def _vae(name: str) -> str:
    name = re.sub(r"up_blocks\.(\d)", lambda match: f"up.{3 - int(match[1])}", name)
    return _replaced(name, VAE)


def _as_convolution(name: str, tensor: Tensor) -> Tensor:
    is_projection = "attentions" in name and tensor.ndim == 2
    return tensor[:, :, None, None] if is_projection else tensor

"""What all formats write alike: tensors with their metadata, new tokens, the noise scheduler."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainables.exports.base import Writing
from trainables.exports.steps import SCHEDULER, TOKENS
from trainables.naming import expect, without_folders
from trainables.sampling import noise_scheduler_of
from trainables.strategies.textual_inversion import token_vectors
from trainables.tensor_files import save_tensors

if TYPE_CHECKING:
    from trainables.base_models.models import DiffusionModels
    from trainables.strategies import Strategy

ORIGIN_KEY = "radiograph_sweep"
"""Key of a file's metadata under which all that is known of its origin stands as JSON."""


def write_tensors(tensors: Mapping[str, Tensor], file: Path, writing: Writing, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file.

    Args:
        tensors: by name.
        file: where to; its folder is made if need be.
        writing: in which precision.
        metadata: of the file, beside `format`, which says that the tensors are PyTorch's.

    Raises:
        ValueError: a weight is too large for float16.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    written = {name: as_written(tensor, writing) for name, tensor in tensors.items()}
    save_tensors(written, file, {"format": "pt", **metadata})


def as_written(tensor: Tensor, writing: Writing) -> Tensor:
    """A tensor in the precision in which it is written.

    Raises:
        ValueError: it is too large for float16.
    """
    if not writing.half or not tensor.is_floating_point():
        return tensor.detach()
    largest = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
    most = torch.finfo(torch.float16).max
    expect(largest <= most, f"`--half` must have weights of at most {most:,.0f}", f"{largest:g}", "Leave it out.")
    return tensor.detach().half()


def write_metadata(folder: Path, metadata: Mapping[str, str]) -> None:
    """Give the safetensors files of a folder, which another program wrote, metadata."""
    for file in sorted(folder.glob("*.safetensors")):
        partial = file.with_suffix(".partial")
        save_tensors(load_file(file), partial, {"format": "pt", **metadata})
        partial.replace(file)


def write_companions(models: DiffusionModels, folder: Path) -> None:
    """Write what belongs beside weights: a file a new token, and the noise scheduler that the engine samples with.

    A token's file holds one tensor [num_vectors, width] under the token's name: diffusers takes the token from there,
    AUTOMATIC1111 and ComfyUI from the file's name.
    """
    for token, vectors in token_vectors(models).items():
        (folder / TOKENS).mkdir(parents=True, exist_ok=True)
        save_tensors({token: vectors}, folder / TOKENS / f"{token.strip('<>')}.safetensors")
    noise_scheduler_of(models.scheduler_config).save_pretrained(folder / SCHEDULER)


def described(models: DiffusionModels, strategy: Strategy, writing: Writing, architecture: str) -> dict[str, str]:
    """A file's metadata: the keys of Stability AI's ModelSpec that programs show, and all that is known as JSON.

    Args:
        models: the base with the adapter attached.
        strategy: what is attached.
        writing: with the origin.
        architecture: ModelSpec's word, such as `stable-diffusion-v1/lora`.

    Source: github.com/Stability-AI/ModelSpec, version 1.0.1.
    """
    tokens = ", ".join(token_vectors(models))
    known = {
        "strategy": strategy.name,
        "hyperparameters": without_folders(strategy.hyperparameters()),
        "base": models.base.source,
        "base_weights": models.base.weights_hash,
        **writing.origin,
    }
    said = {
        "sai_model_spec": "1.0.1",
        "architecture": architecture,
        "implementation": "https://github.com/huggingface/diffusers",
        "title": f"{strategy.name} on {models.base.source}",
        "description": "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in known.items() if value != {}),
        "resolution": f"{models.resolution_px}x{models.resolution_px}",
        "prediction_type": str(models.scheduler_config.get("prediction_type", "epsilon")),
        "usage_hint": writing.origin.get("prompts", ""),
        "trigger_phrase": tokens,
    }
    spec = {f"modelspec.{key}": value for key, value in said.items() if value}
    return {**spec, ORIGIN_KEY: json.dumps(known, default=str)}

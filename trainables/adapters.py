"""Adapters as files: loading one, and writing it in the formats that other programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from trainables.base_models.models import DiffusionModels
from trainables.sampling import noise_scheduler_of, pipeline_of
from trainables.strategies import Strategy, make_strategy
from trainables.strategies.base import read_card
from trainables.strategies.low_rank import LowRankLinear, low_rank_layers, peft_tensors
from trainables.strategies.naming import expect

LORA_WEIGHTS = "pytorch_lora_weights.safetensors"
LORA_METADATA_KEY = "lora_adapter_metadata"


def load_adapter(models: DiffusionModels, folder: Path) -> Strategy:
    """Attach an exported adapter to a fresh base, in place.

    Returns:
        The strategy that the adapter was trained by.

    Raises:
        FileNotFoundError: the folder has no adapter card.
        ValueError: the adapter belongs to another base, or its files are not what they should be.
    """
    card = read_card(folder)
    strategy = make_strategy(card["strategy"], card["hyperparameters"])
    strategy.restore(models, folder)
    return strategy


def to_diffusers(models: DiffusionModels, strategy: Strategy, folder: Path) -> None:
    """Write a low-rank adapter as the file that `StableDiffusionPipeline.load_lora_weights(folder)` reads.

    The noise scheduler that the engine samples with is written beside it, in `scheduler/`.

    Args:
        models: The base with the adapter attached, not merged.
        strategy: The strategy that is attached.
        folder: Where to write; made if need be.

    Raises:
        ValueError: the strategy has no low-rank layers.
    """
    layers = dict(low_rank_layers(models.unet))
    expect(
        bool(layers),
        "`format` diffusers must have a low-rank adapter",
        f"one by {strategy.name!r}",
        "Export it as a pipeline, which every strategy can be.",
    )
    tensors = {
        f"unet.{path}.{name}": tensor for path, layer in layers.items() for name, tensor in peft_tensors(layer).items()
    }
    metadata = {f"unet.{key}": value for key, value in _lora_config(layers).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / LORA_WEIGHTS, metadata={"format": "pt", LORA_METADATA_KEY: json.dumps(metadata)})
    noise_scheduler_of(models.scheduler_config).save_pretrained(folder / "scheduler")


def to_pipeline(models: DiffusionModels, strategy: Strategy, folder: Path) -> None:
    """Write the adapted model as a folder that `StableDiffusionPipeline.from_pretrained(folder)` reads.

    The adapter is folded into a copy of the weights; the noise scheduler is the one that the engine samples with.

    Args:
        models: The base with the adapter attached; left as it is.
        strategy: The strategy that is attached.
        folder: Where to write; made if need be.
    """
    plain = models.fresh()
    strategy.merged(plain)
    pipeline_of(plain).save_pretrained(folder, safe_serialization=True)


def _lora_config(layers: dict[str, LowRankLinear]) -> dict[str, Any]:
    """What diffusers hands to PEFT's LoraConfig; ranks and alphas by layer, so that layers may differ."""
    tensors = [peft_tensors(layer) for layer in layers.values()]
    first = next(iter(layers.values()))
    return {
        "r": first.rank,
        "lora_alpha": first.alpha,
        "rank_pattern": {f"^{path}": layer.rank for path, layer in layers.items() if layer.rank != first.rank},
        "alpha_pattern": {f"^{path}": layer.alpha for path, layer in layers.items() if layer.alpha != first.alpha},
        "target_modules": sorted(layers),
        "use_dora": any("lora_magnitude_vector" in named for named in tensors),
    }

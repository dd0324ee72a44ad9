"""Adapters as files: loading one, and writing it in the formats that other programs read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from trainables.base_models.models import PLACEHOLDERS, DiffusionModels
from trainables.sampling import noise_scheduler_of, pipeline_of
from trainables.strategies import Strategy, make_strategy
from trainables.strategies.base import read_card
from trainables.strategies.low_rank import LowRankLayer, low_rank_layers
from trainables.strategies.naming import expect
from trainables.strategies.textual_inversion import extended_embeddings, token_vectors

LORA_WEIGHTS = "pytorch_lora_weights.safetensors"
TOKENS = "tokens"
"""Folder of the new tokens' files; beside the low-rank file they would be taken for others of its kind."""
LORA_METADATA_KEY = "lora_adapter_metadata"
LORA_COMPONENTS = ("unet", "text_encoder")
"""What `load_lora_weights` adapts."""


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
    """Write an adapter in the formats of diffusers' loaders: low-rank layers, new tokens, or both.

    Low-rank layers become the file that `StableDiffusionPipeline.load_lora_weights(folder)` reads; each new token
    becomes a file in `tokens/` that `load_textual_inversion(file)` reads. The noise scheduler that the engine samples
    with is written beside them, in `scheduler/`.

    Args:
        models: The base with the adapter attached, not merged.
        strategy: The strategy that is attached.
        folder: Where to write; made if need be.

    Raises:
        ValueError: the strategy trains something else than low-rank layers and new tokens.
    """
    layers = {name: found for name in LORA_COMPONENTS if (found := dict(low_rank_layers(models.component(name))))}
    tokens = token_vectors(models)
    adapted = [f"{name}.{path}." for name, found in layers.items() for path in found]
    extended = [f"text_encoder.{path}." for path, _ in extended_embeddings(models.text_encoder)]
    expect(
        all(path.startswith((*adapted, *extended)) for path in strategy.tensors(models)),
        "`format` diffusers must have a low-rank adapter or new tokens",
        f"an adapter by {strategy.name!r}",
        "Export it as a pipeline, which every strategy can be.",
    )
    folder.mkdir(parents=True, exist_ok=True)
    if layers:
        _write_lora(layers, folder / LORA_WEIGHTS)
    for token, vectors in tokens.items():
        _write_token(token, vectors, folder / TOKENS)
    noise_scheduler_of(models.scheduler_config).save_pretrained(folder / "scheduler")


def _write_lora(layers: Mapping[str, dict[str, LowRankLayer]], file: Path) -> None:
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, Any] = {}
    for name, found in layers.items():
        active = {path: layer for path, layer in found.items() if len(layer.factors()[0])}
        if not active:  # an adaptive strategy may spend all its ranks on the other component
            continue
        tensors |= dict(_lora_tensors(name, active))
        metadata |= {f"{name}.{key}": value for key, value in _lora_config(active).items()}
    save_file(tensors, file, metadata={"format": "pt", LORA_METADATA_KEY: json.dumps(metadata)})


def _write_token(token: str, vectors: Tensor, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    save_file({token: vectors.cpu().contiguous()}, folder / f"{token.strip('<>')}.safetensors")


def _lora_tensors(component: str, layers: dict[str, LowRankLayer]) -> Iterator[tuple[str, Tensor]]:
    for path, layer in layers.items():
        for name, tensor in layer.peft_tensors().items():
            # transformers' reader puts the adapter's name behind the part, and looks for the magnitude's weight there
            ending = ".weight" if name == "lora_magnitude_vector" and component == "text_encoder" else ""
            yield f"{component}.{path}.{name}{ending}", tensor.detach().cpu().contiguous()


def to_pipeline(models: DiffusionModels, strategy: Strategy, folder: Path) -> None:
    """Write the adapted model as a folder that `StableDiffusionPipeline.from_pretrained(folder)` reads.

    The adapter is folded into a copy of the weights; the noise scheduler is the one that the engine samples with. New
    tokens are in the folder's tokenizer; a file beside it lets the engine take the words that they stand for.

    Args:
        models: The base with the adapter attached; left as it is.
        strategy: The strategy that is attached.
        folder: Where to write; made if need be.
    """
    plain = models.fresh()
    strategy.merged(plain)
    pipeline_of(plain).save_pretrained(folder, safe_serialization=True)
    if plain.placeholders:
        (folder / PLACEHOLDERS).write_text(json.dumps(dict(plain.placeholders), indent=2) + "\n")


def _lora_config(layers: dict[str, LowRankLayer]) -> dict[str, Any]:
    """What diffusers hands to PEFT's LoraConfig; ranks and alphas by layer, so that layers may differ."""
    ranks = {path: len(layer.factors()[0]) for path, layer in layers.items()}
    alphas = {path: layer.scale * ranks[path] for path, layer in layers.items()}
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{path}": own for path, own in ranks.items() if own != rank},
        "alpha_pattern": {f"^{path}": own for path, own in alphas.items() if own != alpha},
        "target_modules": sorted(layers),
        "use_dora": any("lora_magnitude_vector" in layer.peft_tensors() for layer in layers.values()),
    }

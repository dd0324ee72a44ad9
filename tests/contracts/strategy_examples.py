"""One example of each strategy for the contract suite, with what it may train on the mini base."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from search_spaces.ranges import RANGES
from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import DiffusionModels, resolve_base
from trainables.strategies import STRATEGIES, make_strategy
from trainables.strategies.base import trained_parameters

WORDS = ("blue ring", "edema")
"""What new tokens stand for; other prompts have none of these."""
ATTENTION_BLOCKS = [
    *("down_blocks.1.attentions.0", "down_blocks.2.attentions.0", "mid_block.attentions.0"),
    *(f"up_blocks.{block}.attentions.{layer}" for block in (0, 1) for layer in (0, 1)),
]
ATTENTION_LAYERS = [
    f"unet.{block}.transformer_blocks.0.{attention}.{layer}"
    for block in ATTENTION_BLOCKS
    for attention in ("attn1", "attn2")
    for layer in ("to_q", "to_k", "to_v", "to_out.0")
]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A strategy as the suite trains it, and what it may train on the mini base."""

    strategy: str = ""
    """Its name where it is not the example's."""
    hyperparameters: dict[str, Any]
    lr: float
    num_steps: int = 8
    """The fewest of 8 and 16 in which its loss falls by more than the twentieth that is asked for."""
    names: Callable[[DiffusionModels], set[str]]
    is_listed: bool = True
    """Whether `names` were listed by hand, and not taken from the strategy itself."""


def every_parameter(*components: str) -> Callable[[DiffusionModels], set[str]]:
    """By the weights files, which hold parameters only."""
    files = [(name, file) for name in components for file in (resolve_base("mini") / name).glob("*.safetensors")]
    return lambda base: {f"{name}.{key}" for name, file in files for key in load_file(file)}


def biases_by_module_type(base: DiffusionModels) -> set[str]:
    """By walking linear, convolution and norm layers, rather than by parameter names."""
    kinds = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)
    modules = base.unet.named_modules()
    return {f"unet.{path}.bias" for path, module in modules if isinstance(module, kinds) and module.bias is not None}


def norms_by_name(base: DiffusionModels) -> set[str]:
    """By what diffusers calls its norms, rather than by their types."""
    norms = ("norm", "norm1", "norm2", "norm3", "conv_norm_out")
    return {f"unet.{path}" for path, _ in base.unet.named_parameters() if path.split(".")[-2] in norms}


def projections(*attentions: str) -> Callable[[DiffusionModels], set[str]]:
    """Weights of the four projections and the output's bias, on the named attentions of the mini U-Net."""
    layers = {layer for layer in ATTENTION_LAYERS if layer.split(".")[-2 - layer.endswith(".0")] in attentions}
    biases = {f"{layer}.bias" for layer in layers if layer.endswith("to_out.0")}
    return lambda base: {f"{layer}.weight" for layer in layers} | biases


def biases_norms_and_gammas(base: DiffusionModels) -> set[str]:
    """Biases and norms as above, with those of the scaled layers one level down, and each gamma by name."""
    blocks = [f"unet.{block}.transformer_blocks.0" for block in ATTENTION_BLOCKS]
    outputs = [f"{block}.{layer}" for block in blocks for layer in ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2")]
    plain = biases_by_module_type(base) | norms_by_name(base)
    moved = {f"{output}.bias": f"{output}.base.bias" for output in outputs}
    gammas = {f"{layer}.gamma" for layer in ATTENTION_LAYERS} | {f"{output}.gamma_block" for output in outputs}
    return {moved.get(name, name) for name in plain} | gammas


def on_attention(*tensors: str) -> Callable[[DiffusionModels], set[str]]:
    """The named tensors on every attention projection of the mini U-Net."""
    return lambda base: {f"{layer}.{tensor}" for layer in ATTENTION_LAYERS for tensor in tensors}


def together(*names: str) -> Callable[[DiffusionModels], set[str]]:
    """What the examples of these strategies train."""
    return lambda base: {path for name in names for path in EXAMPLES[name].names(base)}


def weights_by_shape(base: DiffusionModels) -> set[str]:
    """Deltas of all matrices and kernels but the norms', which are vectors."""
    weights = {path for path, value in base.unet.named_parameters() if value.dim() > 1}
    return {f"unet.{path.removesuffix('.weight')}.delta" for path in weights}


def in_text_encoder(
    *layers: str, tensors: tuple[str, ...] = ("lora_A", "lora_B")
) -> Callable[[DiffusionModels], set[str]]:
    """Factors on the named layers of the mini text encoder, by the weights file."""
    (file,) = (resolve_base("mini") / "text_encoder").glob("*.safetensors")
    paths = {key.removesuffix(".weight") for key in load_file(file) if key.split(".")[-2] in layers}
    weights = {path for path in paths if f"{path}.weight" in load_file(file)}
    return lambda base: {f"text_encoder.{path}.{factor}" for path in weights for factor in tensors}


def both(
    first: Callable[[DiffusionModels], set[str]], second: Callable[[DiffusionModels], set[str]]
) -> Callable[..., set[str]]:
    """What either gives."""
    return lambda base: first(base) | second(base)


def factors_by_shape(base: DiffusionModels) -> set[str]:
    """Factors of every matrix and kernel of the U-Net."""
    paths = {path.removesuffix(".delta") for path in weights_by_shape(base)}
    return {f"{path}.{factor}" for path in paths for factor in ("lora_A", "lora_B")}


def rows_of_new_tokens(base: DiffusionModels) -> set[str]:
    """One tensor, beside the table."""
    return {"text_encoder.embeddings.token_embedding.rows"}


TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
ENCODERS = tempfile.TemporaryDirectory()
"""Text encoders with random weights that take the place of the base's; their folders are written once and go with it."""


def encoder(hidden_size: int) -> str:
    folder = Path(ENCODERS.name) / str(hidden_size)
    if not folder.is_dir():
        write_bert_layout(folder, hidden_size=hidden_size)
    return str(folder)


def parameters_of_encoder(hidden_size: int) -> Callable[[DiffusionModels], set[str]]:
    """By the weights file, whose head is left out."""
    keys = {key for file in Path(encoder(hidden_size)).glob("*.safetensors") for key in load_file(file)}
    inner = {key.removeprefix("bert.") for key in keys if key.startswith("bert.")}
    return lambda base: {f"text_encoder.{key}" for key in inner}


def projection(base: DiffusionModels) -> set[str]:
    """From the encoder's width to the one that the U-Net takes."""
    return {"unet.encoder_hid_proj.weight", "unet.encoder_hid_proj.bias"}


LOW_RANK = {"rank": 4, "alpha": 10.0}
TOKENS = {"words": WORDS, "num_vectors": 8}
EXAMPLES: dict[str, Example] = {
    "unet": Example(hyperparameters={}, lr=1e-3, names=every_parameter("unet")),
    "text_encoder": Example(hyperparameters={}, lr=1e-2, names=every_parameter("text_encoder")),
    "vae": Example(hyperparameters={}, lr=1e-4, names=every_parameter("vae")),
    "unet+text_encoder": Example(hyperparameters={}, lr=1e-3, names=together("unet", "text_encoder")),
    "unet+vae": Example(hyperparameters={}, lr=1e-3, names=together("unet", "vae")),
    "vae+text_encoder": Example(hyperparameters={}, lr=2e-4, names=together("vae", "text_encoder")),
    "all": Example(hyperparameters={}, lr=1e-3, names=together("unet", "vae", "text_encoder")),
    "lora+text_encoder": Example(
        hyperparameters={"lora.rank": 4, "lora.alpha": 10.0}, lr=5e-3, names=together("lora", "text_encoder")
    ),
    "lora": Example(hyperparameters=LOW_RANK, lr=5e-3, names=on_attention("lora_A", "lora_B")),
    "dora": Example(hyperparameters=LOW_RANK, lr=5e-3, names=on_attention("lora_A", "lora_B", "lora_magnitude_vector")),
    "selora": Example(
        hyperparameters={"alpha": 10.0, "interval": 3, "threshold": 1.1},
        lr=5e-3,
        names=on_attention("lora_A", "lora_B"),
    ),
    "selora everywhere": Example(
        strategy="selora",
        hyperparameters={
            "alpha": 10.0,
            "interval": 3,
            "threshold": 1.1,
            "targets": "linear+conv",
            "components": "unet+text_encoder",
        },
        lr=2e-3,
        names=both(factors_by_shape, in_text_encoder(*TEXT_ATTENTION, "fc1", "fc2")),
    ),
    "adalora": Example(hyperparameters=LOW_RANK, lr=4e-2, names=on_attention("lora_A", "lora_B", "lora_E")),
    "dylora": Example(hyperparameters=LOW_RANK, lr=5e-3, names=on_attention("lora_A", "lora_B")),
    "nested_lora": Example(hyperparameters=LOW_RANK, lr=5e-3, names=on_attention("lora_A", "lora_B")),
    "lora everywhere": Example(
        strategy="lora",
        hyperparameters={**LOW_RANK, "targets": "linear+conv", "components": "unet+text_encoder"},
        lr=2e-3,
        names=both(factors_by_shape, in_text_encoder(*TEXT_ATTENTION, "fc1", "fc2")),
    ),
    "dora in the text encoder": Example(
        strategy="dora",
        hyperparameters={**LOW_RANK, "components": "text_encoder", "targets": "all_linear"},
        lr=4e-2,
        names=in_text_encoder(*TEXT_ATTENTION, "fc1", "fc2", tensors=("lora_A", "lora_B", "lora_magnitude_vector")),
    ),
    "bitfit": Example(hyperparameters={}, lr=2e-2, names=biases_by_module_type),
    "norm": Example(hyperparameters={}, lr=2e-2, names=norms_by_name),
    "attention": Example(hyperparameters={}, lr=2e-3, names=projections("attn2")),
    "difffit": Example(hyperparameters={}, lr=2e-2, names=biases_norms_and_gammas),
    "delta_full": Example(hyperparameters={}, lr=1e-3, names=weights_by_shape),
    "textual_inversion": Example(hyperparameters=TOKENS, lr=6e-2, num_steps=16, names=rows_of_new_tokens),
    "text_encoder_swap": Example(hyperparameters={"encoder": encoder(64)}, lr=1e-3, names=every_parameter("unet")),
    "swap with projection": Example(
        strategy="text_encoder_swap",
        hyperparameters={"encoder": encoder(48), "train_encoder": True},
        lr=1e-3,
        names=both(both(every_parameter("unet"), projection), parameters_of_encoder(48)),
    ),
    "lora and new tokens": Example(
        strategy="lora+textual_inversion",
        hyperparameters={f"textual_inversion.{key}": value for key, value in TOKENS.items()},
        lr=2e-3,
        names=together("lora", "textual_inversion"),
    ),
}


def highest_lr(name: str) -> float:
    """The largest learning rate of a strategy in any search space, which is what the small base bears."""
    if name not in RANGES:
        raise LookupError(
            f"`RANGES` must have an entry for every strategy, but got none for {name!r}. Add one to search_spaces/ranges.py."
        )
    return max(high for _, high in RANGES[name].lr.values())


def attached(name: str) -> Callable[[DiffusionModels], set[str]]:
    """What a strategy trains when it is attached, for those that have no list above."""

    def names(base: DiffusionModels) -> set[str]:
        models = base.fresh()
        make_strategy(name, {}).attach(models)
        return {path for path, _ in trained_parameters(models)}

    return names


EXAMPLES |= {
    name: Example(hyperparameters={}, lr=highest_lr(name), names=attached(name), is_listed=False)
    for name in STRATEGIES.keys() - {example.strategy or name for name, example in EXAMPLES.items()}
}


def without_attention_gammas(base: DiffusionModels) -> set[str]:
    """Biases, norms and the blocks' gammas."""
    return {name for name in biases_norms_and_gammas(base) if not name.endswith(".gamma")}


VARIANTS: list[tuple[str, dict[str, Any], Callable[[DiffusionModels], set[str]]]] = [
    ("attention", {"layers": "all"}, projections("attn1", "attn2")),
    ("lora", {"targets": "linear+conv"}, factors_by_shape),
    ("lora", {"components": "text_encoder"}, in_text_encoder(*TEXT_ATTENTION)),
    (
        "lora",
        {"components": "unet+text_encoder"},
        both(on_attention("lora_A", "lora_B"), in_text_encoder(*TEXT_ATTENTION)),
    ),
    (
        "lora",
        {"components": "text_encoder", "targets": "attention+ff"},
        in_text_encoder(*TEXT_ATTENTION, "fc1", "fc2"),
    ),
    ("difffit", {"attention_gammas": False}, without_attention_gammas),
]

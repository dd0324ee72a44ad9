"""What the search draws for each strategy: one entry a strategy, for every search space. A new strategy adds its entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from search_spaces.draw import Draw

Bounds = tuple[float, float]

ENCODERS: Final = ("StanfordAIMI/RadBERT", "cambridgeltl/SapBERT-from-PubMedBERT-fulltext")
TRAIN_THE_TEXT_ENCODER: Final = ("text_encoder", "textual_inversion")
"""Strategies that train the text encoder: beside them in a combination, no other part can."""
SEARCHED_COMBINATIONS: Final = ("unet+text_encoder", "unet+vae", "vae+text_encoder", "all", "lora+text_encoder")
"""Combinations that are searched without being named; any other is had by naming it."""
PARTS: Final = {"all": ("unet", "vae", "text_encoder")}
"""Parts of combinations whose names do not spell them out."""


def no_fields(draw: Draw) -> dict[str, Any]:
    """A strategy that has nothing to choose but its learning rate."""
    return {}


def low_rank(draw: Draw) -> dict[str, Any]:
    """Rank, and alpha as a multiple of it: what acts on the weights is the scale alpha / rank."""
    rank = draw("rank", (2, 4, 8, 16, 32))
    if "alpha" in draw.fixed:
        return {"rank": rank, "alpha": draw.fixed["alpha"]}
    return {"rank": rank, "alpha": round(rank * draw("alpha_ratio", (1.0, 2.0, 4.0)))}


def dynamic_rank(draw: Draw) -> dict[str, Any]:
    """A low rank, and whether a step trains one of its rows only."""
    return {**low_rank(draw), "frozen": draw("frozen", (False, True))}


def expansion(draw: Draw) -> dict[str, Any]:
    """When SeLoRA tests for a further rank, and by how much that must pay."""
    return {"threshold": draw("threshold", (1.1, 1.3, 1.6, 2.0)), "interval": draw("interval", (10, 20, 40, 80))}


def attention_layers(draw: Draw) -> dict[str, Any]:
    """Cross-attention alone, or self-attention besides."""
    return {"layers": draw("layers", ("cross", "all"))}


def gammas(draw: Draw) -> dict[str, Any]:
    """Whether there are scales inside the attentions."""
    return {"attention_gammas": draw("attention_gammas", (True, False))}


def tokens(draw: Draw) -> dict[str, Any]:
    """Vectors for each new token."""
    return {"num_vectors": draw("num_vectors", (1, 2, 4, 8))}


def encoder(draw: Draw) -> dict[str, Any]:
    """Which text encoder takes CLIP's place, and whether it trains."""
    can_train = not set(TRAIN_THE_TEXT_ENCODER) & set(draw.beside)
    return {
        "encoder": draw("encoder", ENCODERS),
        "train_encoder": draw("train_encoder", (False, True) if can_train else (False,)),
    }


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """What the search draws for one strategy.

    Attributes:
        lr: by search space, the lowest and highest learning rate, drawn log-uniformly, of the strategy alone or as a part
            of a combination. A space without an entry cannot suggest the strategy.
        published: by search space, the learning rate that others have published, which the strategy's first trial takes.
        fields: draws the strategy's own hyperparameters.
        on_request: suggested only where it is named, since it needs downloads.
    """

    lr: Mapping[str, Bounds]
    published: Mapping[str, float] = field(default_factory=dict)
    fields: Callable[[Draw], dict[str, Any]] = no_fields
    on_request: bool = False


RANGES: Final[dict[str, Ranges]] = {
    "unet": Ranges(lr={"core": (2e-6, 1e-4), "mini": (1e-4, 2e-3)}, published={"core": 1e-5}),
    "lora": Ranges(lr={"core": (2e-5, 2e-3), "mini": (5e-4, 1e-2)}, published={"core": 1e-4}, fields=low_rank),
    "dora": Ranges(lr={"core": (2e-5, 2e-3), "mini": (5e-4, 1e-2)}, published={"core": 1e-4}, fields=low_rank),
    "adalora": Ranges(lr={"core": (5e-5, 5e-3), "mini": (1e-3, 2e-2)}, published={"core": 5e-4}, fields=low_rank),
    "dylora": Ranges(lr={"core": (2e-5, 2e-3), "mini": (5e-4, 1e-2)}, published={"core": 1e-4}, fields=dynamic_rank),
    "nested_lora": Ranges(lr={"core": (2e-5, 2e-3), "mini": (5e-4, 1e-2)}, fields=low_rank),
    "selora": Ranges(lr={"core": (1e-5, 1e-3), "mini": (5e-4, 1e-2)}, published={"core": 1e-4}, fields=expansion),
    "bitfit": Ranges(lr={"core": (5e-5, 5e-3), "mini": (5e-4, 2e-2)}, published={"core": 1e-4}),
    "norm": Ranges(lr={"core": (5e-5, 5e-3), "mini": (5e-4, 2e-2)}),
    "attention": Ranges(lr={"core": (5e-6, 5e-4), "mini": (2e-4, 5e-3)}, fields=attention_layers),
    "difffit": Ranges(lr={"core": (1e-4, 1e-2), "mini": (5e-4, 2e-2)}, published={"core": 1e-3}, fields=gammas),
    "delta_full": Ranges(lr={"core": (2e-6, 1e-4), "mini": (1e-4, 2e-3)}, published={"core": 1e-5}),
    "text_encoder": Ranges(lr={"core": (1e-6, 5e-5), "mini": (1e-4, 5e-3)}, published={"core": 5e-6}),
    "vae": Ranges(lr={"core": (1e-6, 5e-5), "mini": (1e-5, 1e-3)}, published={"core": 1e-6}),
    "textual_inversion": Ranges(
        lr={"core": (1e-4, 1e-2), "mini": (1e-3, 1e-1)}, published={"core": 1e-3}, fields=tokens
    ),
    "text_encoder_swap": Ranges(lr={"core": (5e-6, 2e-4)}, published={"core": 5e-5}, fields=encoder, on_request=True),
}
"""Where learning rates have been published for Stable Diffusion 1.5, the range of `core` surrounds them: 1e-5 for the
whole U-Net, alone or beside others; 5e-6 for the text encoder alone, and 1e-6 beside others; 1e-6 for the autoencoder;
1e-4 for LoRA, DoRA, DyLoRA, SeLoRA and BitFit; 5e-4 to 2e-3 for AdaLoRA; 1e-3 for DiffFit and for new tokens; 5e-5 with
another text encoder. None is published for `norm`, which has the range of BitFit's biases, for `nested_lora`, which has
LoRA's, nor for `attention`, whose range lies between those of LoRA and of the whole U-Net. The ranges of `mini` lie
higher: its U-Net has three hundred times fewer parameters, and bears larger steps."""


def parts_of(name: str) -> tuple[str, ...]:
    """The strategies that a combination consists of; of another strategy itself."""
    return PARTS.get(name, tuple(name.split("+")))

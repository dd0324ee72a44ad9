"""Text-encoder swap: a BERT-type encoder in the place of CLIP's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from trainables.base_models.models import COMPONENTS, DiffusionModels, states_width
from trainables.base_models.text_encoders import HUB_ENCODERS, TextEncoder, bert_to_count, load_bert
from trainables.naming import expect
from trainables.strategies.base import Sizes, Strategy
from trainables.strategies.low_rank import expect_positive


@dataclass(frozen=True, kw_only=True)
class TextEncoderSwap(Strategy):
    """Every parameter of the U-Net, which learns to read a BERT-type encoder's last hidden states in place of CLIP's.

    Where the encoder's width is not the U-Net's, a linear projection is trained as well: diffusers' own
    `encoder_hid_proj`, so that any program loads the exported pipeline. A frozen encoder is no part of the adapter,
    which only names its source and hash; a trained one is, but its configuration and tokenizer still come from the
    source. A trained encoder has its own dropout, drawn by the trial's seed.

    Attributes:
        encoder: hub id, or local folder, of a BERT or RoBERTa encoder with safetensors weights.
        train_encoder: whether the encoder trains with the U-Net.
        encoder_lr_ratio: the encoder's learning rate over the U-Net's, where it trains.

    Source: Chambon et al. 2022, "RoentGen", section on replacing the text encoder; Chambon et al. 2022, "Adapting
    Pretrained Vision-Language Foundational Models to Medical Imaging Domains".
    """

    name = "text_encoder_swap"
    sized: ClassVar[Sizes] = {"train_encoder": (False, True)}

    encoder: str = HUB_ENCODERS[0]
    train_encoder: bool = False
    encoder_lr_ratio: float = 0.1

    def __post_init__(self) -> None:
        is_named = isinstance(self.encoder, str) and bool(self.encoder)
        remedy = f"Try {HUB_ENCODERS[0]}."
        expect(is_named, "`encoder` must be a hub id or a folder", repr(self.encoder), remedy)
        is_flag = isinstance(self.train_encoder, bool)
        expect(is_flag, "`train_encoder` must be true or false", repr(self.train_encoder), "Try false.")
        expect_positive(self.encoder_lr_ratio, "encoder_lr_ratio", "Try 0.1.")
        folder = Path(self.encoder).expanduser()
        if folder.is_dir():  # an adapter names it, and is loaded in other working directories
            object.__setattr__(self, "encoder", str(folder.absolute()))

    @property
    def trains(self) -> tuple[str, ...]:
        """The U-Net, and the encoder where it trains."""
        return ("unet", "text_encoder") if self.train_encoder else ("unet",)

    @property
    def identified_elsewhere(self) -> frozenset[str]:
        """The encoder, which may have moved."""
        return frozenset({"encoder"})

    def param_groups(self, models: DiffusionModels, lr: float) -> list[dict[str, Any]]:
        """The U-Net at `lr`, the encoder at its share of it where it trains."""
        rates = {"unet": lr, "text_encoder": lr * self.encoder_lr_ratio}
        return [
            {"params": [each for path, each in self.trained(models) if path.startswith(f"{name}.")], "lr": rates[name]}
            for name in self.trains
        ]

    def inject(self, models: DiffusionModels) -> None:
        """Put the encoder and its tokenizer in their places, and let the U-Net train.

        Raises:
            FileNotFoundError: the encoder cannot be had.
            ValueError: the encoder is none of BERT's type, or the models are adapted already.
        """
        is_own = not models.text_source and not any(each.requires_grad for each in models.text_encoder.parameters())
        expect(
            is_own,
            "`models` must have the base's own text encoder",
            "one that is swapped or trains already",
            "Attach to `models.fresh()` of the base; in a combination name `text_encoder_swap` first.",
        )
        encoder = self._encoder(models)
        models.text_encoder, models.tokenizer, models.text_source = encoder.module, encoder.tokenizer, encoder.identity
        models.placeholders = {}
        fit_projection(models)
        models.unet.requires_grad_(True)
        models.text_encoder.requires_grad_(self.train_encoder)

    def _encoder(self, models: DiffusionModels) -> TextEncoder:
        """The encoder, with weights where the one that it replaces has them."""
        if any(models.is_loaded(name) for name in COMPONENTS):
            num_tokens = models.tokenizer.model_max_length
            return load_bert(self.encoder, num_tokens=num_tokens, device=models.text_encoder.device)
        return bert_to_count(self.encoder, models.tokenizer)


def fit_projection(models: DiffusionModels) -> None:
    """Give the U-Net a new projection of the encoder's states, where their width is not the one that it takes."""
    unet, width = models.unet, int(models.text_encoder.config.hidden_size)
    if states_width(unet) == width:
        return
    unet.encoder_hid_proj = nn.Linear(width, unet.config.cross_attention_dim, device=unet.device, dtype=unet.dtype)
    unet.register_to_config(encoder_hid_dim=width, encoder_hid_dim_type="text_proj")

"""How a trial trains, apart from what its strategy and the search choose."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """Settings shared by all trials of a sweep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_epochs: int = Field(default=4, ge=1, description="Passes over the training images.")
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = Field(default="auto", description="auto: bf16 where the device has it, else none.")
    gradient_accumulation: int = Field(default=1, ge=1, description="Parts in which each batch is computed; the batch size does not change.")
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    lr_schedule: Literal["constant", "cosine", "linear"] = "cosine"
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps over which lr rises to its value.")
    ema_decay: float | None = Field(default=None, gt=0, lt=1, description="Evaluate and export the moving average of the weights.")
    caption_dropout: float = Field(default=0.1, ge=0, le=1, description="Share of captions replaced by the empty one, for guidance.")
    min_snr_gamma: float | None = Field(default=None, gt=0, description="Min-SNR loss weighting (Hang et al. 2023); 5 is usual.")
    cache_latents: bool = Field(default=True, description="Encode images and captions once per sweep where the strategy leaves the encoder frozen.")
    evaluate_every_epochs: int | None = Field(default=None, ge=1, description="Also evaluate during training; none: at the end only.")

"""How a trial trains, apart from what its strategy and the search choose."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_GUIDANCE: Final = 1000.0
"""Far beyond what images gain by; much larger ones overflow, which looks like weights that have diverged."""


def _yaml_no(value: object) -> object:
    return "no" if value is False else value  # YAML 1.1 reads a bare no as false


class TrainingConfig(BaseModel):
    """Settings shared by all trials of a sweep.

    Attributes:
        num_epochs: passes over the training images.
        mixed_precision: `auto` is bf16 on a GPU that has it, fp16 on one that has not, none on a CPU; a training that goes
            on elsewhere goes on as that device has it. In both, weights that stay frozen are kept in half precision too.
        micro_batch: images that a worker computes at a time, at most, without a change of the batch size or, but for
            rounding and the masks of a trained BERT encoder's dropout, the losses; `auto`: as many as fit into the
            device's memory, found by trying.
        max_grad_norm: longer gradients are scaled down to this norm.
        lr_schedule: what follows the warm-up.
        warmup_fraction: share of the steps over which lr rises to its value.
        ema_decay: evaluate and export the moving average of the weights.
        caption_dropout: share of captions replaced by the empty one, for guidance.
        min_snr_gamma: min-SNR loss weighting (Hang et al. 2023); 5 is usual.
        cache_latents: encode images and captions once per sweep where the strategy leaves their encoder frozen.
        checkpoint_every_s: at the end of an epoch, what the trial could go on from is written to the disk if the last time
            was at least so long ago; of a full U-Net it is 10 GB. 0: after every epoch.
        evaluate_every_epochs: also evaluate during training; None: at the end only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_epochs: Annotated[int, Field(ge=1)] = 3
    mixed_precision: Annotated[Literal["auto", "no", "fp16", "bf16"], BeforeValidator(_yaml_no)] = "auto"
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    caption_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = None
    cache_latents: bool = True
    checkpoint_every_s: Annotated[float, Field(ge=0)] = 300.0
    evaluate_every_epochs: Annotated[int, Field(ge=1)] | None = None

"""How a trial trains, apart from what its strategy and the search choose; and what all sections of a configuration share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
"""Values of settings: a number of things, numbers above 0 or from 0 on, and a part of a whole."""
MAX_GUIDANCE: Final = 1000.0
"""Guidance that is far stronger than what images gain by; much larger values overflow, which looks like weights that
have diverged."""
Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""The numbers in which films are sampled. `auto`: bf16 on a GPU that has it, fp16 on one that has not, fp32 on a
CPU."""


def _yaml_no(value: object) -> object:
    return "no" if value is False else value  # YAML 1.1 reads a bare no as false


class Section(BaseModel):
    """A frozen part of the configuration that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AugmentationConfig(Section):
    """How far training films are varied; by default they are not.

    Attributes:
        rotation_degrees: the largest angle by which a film is turned, either way. 0, the default: none is.
        shift: the longest way by which a film is moved along each side, either way, as a share of the side. 0: none is.
        gamma: grey levels are raised to a power between 1 / gamma and gamma. 1: they stay as they are.
        flip: exchange left and right in half of the variants. Hearts then lie right, and captions that name a side are
            wrong: never without being asked.
        variants: how many variants each film has, the first as it is; an epoch takes one of them, by seed, epoch and image.
            4 are several looks at a film for four times the cache of a frozen autoencoder's outputs.
    """

    rotation_degrees: Annotated[float, Field(ge=0, le=45)] = 0.0
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    gamma: Annotated[float, Field(ge=1, le=4)] = 1.0
    flip: bool = False
    variants: Annotated[int, Field(ge=2, le=64)] = 4

    @property
    def is_on(self) -> bool:
        """Whether any variant may differ from its film."""
        return self.rotation_degrees > 0 or self.shift > 0 or self.gamma > 1 or self.flip


AS_THEY_ARE: Final = AugmentationConfig()
"""Films that are not varied."""


class TrainingConfig(Section):
    """Settings shared by all trials of a sweep.

    Attributes:
        num_epochs: passes over the training images. 3 show that a sweep works; what pays is a matter of the data, and
            every preset says its own.
        mixed_precision: the numbers that are computed in. `auto` is bf16 on a GPU that has it, fp16 on one that has not,
            float32 on a CPU; a training that goes on elsewhere goes on as that device has it. In both halves, weights that
            stay frozen are kept in half precision too. `no`: float32 everywhere.
        micro_batch: the most images that a worker computes at a time. It changes neither the batch size nor, but for
            rounding and the masks of a trained BERT encoder's dropout, the losses. `auto`: as many as fit into the device's
            memory, found by trying, so that nobody has to know the memory beforehand.
        max_grad_norm: longer gradients are scaled down to this norm; 1 is usual for Stable Diffusion.
        weight_decay: of AdamW, a step takes lr times this share of a weight away; 1e-2 is AdamW's usual value. Strategies
            leave it out for what multiplies weights (`trainables.strategies.norm`).
        lr_schedule: how the learning rate changes after the warm-up: not at all, or down to 0 along a cosine or a line.
            `constant` lets trainings of different lengths be compared at the same epoch.
        warmup_fraction: share of all steps over which the learning rate rises to its value. AdamW's moments of the first
            steps rest on few gradients: 0.05 keeps these steps short.
        ema_decay: share of the moving average of the weights that a step keeps; the average is evaluated and exported. None,
            the default: the weights themselves, without a second copy in memory. 0.99 to 0.999 is usual.
        caption_dropout: share of captions replaced by the empty one, from which classifier-free guidance starts. 0.1 is what
            Stable Diffusion 1.5 was trained with.
        min_snr_gamma: signal-to-noise ratio above which a noise level weighs less in the loss (min-SNR, Hang et al. 2023); 5 is
            usual. None, the default: every noise level weighs the same, as Stable Diffusion was trained.
        augmentation: small changes of the training films. None by default: films lie in one way on a detector, and what
            helps against few films is a matter of the data.
        cache_latents: encode images and captions once per sweep where the strategy leaves their encoder frozen: the losses
            are the same, and the encoder need not be loaded.
        checkpoint_every_s: seconds between two checkpoints, at least; they are written at the ends of epochs, and where a
            sweep is told to end. 300 s: a trial that is lost repeats minutes, and a full U-Net's checkpoint is 10 GB. 0:
            after every epoch.
        evaluate_every_epochs: epochs from one evaluation during training to the next, besides those at rungs; None, the
            default: none, since sampling costs more than training.
    """

    num_epochs: Count = 3
    mixed_precision: Annotated[Literal["auto", "no", "fp16", "bf16"], BeforeValidator(_yaml_no)] = "auto"
    micro_batch: Count | Literal["auto"] = "auto"
    max_grad_norm: Positive = 1.0
    weight_decay: NonNegative = 1e-2
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    caption_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    min_snr_gamma: Positive | None = None
    augmentation: AugmentationConfig = AS_THEY_ARE
    cache_latents: bool = True
    checkpoint_every_s: NonNegative = 300.0
    evaluate_every_epochs: Count | None = None


def evaluates_after(epoch: int, training: TrainingConfig, rungs: Collection[int] = ()) -> bool:
    """Whether an epoch (0-based) ends with an evaluation: the last one, those of rungs, and one in so many if asked for.

    Args:
        epoch: 0-based.
        training: its `num_epochs` and `evaluate_every_epochs` count.
        rungs: epochs done at which trials are compared.
    """
    every, done = training.evaluate_every_epochs, epoch + 1
    return done == training.num_epochs or done in rungs or (every is not None and done % every == 0)

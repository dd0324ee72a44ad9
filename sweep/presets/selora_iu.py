"""MICCAI 2024's SeLoRA and what it was compared with, on the Indiana reports."""

from __future__ import annotations

from typing import Final

from sweep.config import EvaluationConfig, SweepConfig
from sweep.presets.studies import Values, each_once, gpus, prepared
from trainables.settings import TrainingConfig

SIDE_PX: Final = 224
SHARED: Final = {"lr": 1e-4, "batch_size": 8, "components": "unet+text_encoder", "targets": "all_linear"}
STRATEGIES: Final[Values] = {
    "lora": {**SHARED, "rank": 4, "alpha": 8},
    "adalora": {**SHARED, "rank": 4, "alpha": 8},
    "dylora": {**SHARED, "rank": 4, "alpha": 8, "frozen": False},
    "selora": {**SHARED, "threshold": 1.3, "interval": 40, "alpha": 8},
}


def selora_study(name: str, num_epochs: int) -> SweepConfig:
    """The study on one of its two data sets.

    Args:
        name: of the preset, and of the prepared folder.
        num_epochs: 10 on the Indiana films, 100 on the few of Montgomery County.
    """
    return SweepConfig(
        preset=name,
        base="sd15",
        resolution_px=SIDE_PX,
        objectives=("fid", "trainable_parameters"),
        search=each_once(STRATEGIES),
        data=prepared(name, SIDE_PX),
        training=TrainingConfig(
            num_epochs=num_epochs,
            weight_decay=0.0,
            lr_schedule="constant",
            warmup_fraction=0.0,
            caption_dropout=0.0,
            evaluate_every_epochs=num_epochs // 2,
        ),
        evaluation=EvaluationConfig(
            extractor="inception", images_per_condition=500, num_steps=50, guidance_scale=7.5, batch_size=16
        ),
        compute=gpus(),
    )


def selora_iu() -> SweepConfig:
    r"""SeLoRA (Mao et al. 2024) on the Indiana reports: LoRA, AdaLoRA, DyLoRA, SeLoRA on all linear layers, 10 epochs.

        python -m sweep.prepare iu_xray --root NLMCXR --to prepared/selora_iu --resolution 224 \
            --fit crop --caption text --section findings --sizes 80%,16%,4% --base sd15

    Published: Stable Diffusion 1.5's U-Net and text encoder on films of 224 px, Adam 1e-4, batches of 8, threshold 1.3 every
    40 steps, alpha 8, 80, 16 and 4 % of the films for training, validation and test, FID and CLIP score over three seeds
    (`sweep.evaluate --seeds 3`). The rank of the others is taken to be 4, the median of those of LoRA's own
    paper: the text at hand lacks the number.

    Not to be had: which film is in which split. Departs: ours is by patient and alike in findings, and 14 findings then have
    the five test films that are scored; the last epoch stands instead of the best by validation loss; `selora` lacks the
    four faults of its code.
    """
    return selora_study("selora_iu", 10)

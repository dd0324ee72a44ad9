"""Chambon et al.'s first look at Stable Diffusion on chest X-rays."""

from __future__ import annotations

from typing import Final

from sweep.config import EvaluationConfig, SweepConfig
from sweep.presets.studies import Values, each_once, gpus, prepared
from trainables.settings import TrainingConfig

SAPBERT: Final = "cambridgeltl/SapBERT-from-PubMedBERT-fulltext"
STRATEGIES: Final[Values] = {
    "textual_inversion": {"lr": 5e-4, "batch_size": 4, "num_vectors": 1},
    "text_encoder_swap": {"lr": 5e-5, "batch_size": 4, "encoder": SAPBERT, "train_encoder": False},
    "unet": {"lr": 5e-5, "batch_size": 4},
}


def chambon() -> SweepConfig:
    r"""Chambon et al. 2022 (arXiv:2210.04133) on 1,000 frontal films: new tokens, another text encoder, the U-Net alone.

        python -m sweep.prepare chexpert --root CheXpert-v1.0 --to prepared/chambon --resolution 512 \
            --uncertain zeros --num-train 1000 --condition "No Finding" --condition "Pleural Effusion"

    Published: the autoencoder, left as it is, keeps what radiologists and a classifier of 18 findings look for (RMSE, FID,
    classifier before and after: the study "reconstruction" of `sweep.evaluate`); of the three ways the U-Net's gives the
    lowest FID.

    Not to be had: its 1,000 films of CheXpert and 1,000 of MIMIC-CXR, and its radiologist. Departs: 50 epochs; learning
    rates of the order that its text gives; SapBERT stands frozen beside a U-Net that trains, as `text_encoder_swap` has it.
    """
    return SweepConfig(
        preset="chambon",
        base="sd15",
        objectives=("fid", "trainable_parameters"),
        search=each_once(STRATEGIES),
        data=prepared("chambon"),
        training=TrainingConfig(num_epochs=50, weight_decay=1e-2, lr_schedule="constant", evaluate_every_epochs=25),
        evaluation=EvaluationConfig(
            extractor="xrv", images_per_condition=500, num_steps=50, guidance_scale=7.5, batch_size=16
        ),
        compute=gpus(),
    )

"""ELAMI 2025: how to fine-tune Stable Diffusion for radiographs of 512 px, as it was done."""

from __future__ import annotations

from typing import Final

from sweep.config import EvaluationConfig, SweepConfig
from sweep.presets.studies import Values, each_once, gpus, prepared
from trainables.settings import TrainingConfig

LOW_RANK: Final = {"rank": 8, "alpha": 16, "lr": 1e-4}
UNET, TEXT, VAE = {"unet.lr": 1e-5}, {"text_encoder.lr": 1e-6}, {"vae.lr": 1e-6}
STRATEGIES: Final[Values] = {
    "unet": {"lr": 1e-5},
    "text_encoder": {"lr": 5e-6},
    "vae": {"lr": 1e-6},
    "unet+text_encoder": {**UNET, **TEXT},
    "unet+vae": {**UNET, **VAE},
    "vae+text_encoder": {**VAE, **TEXT},
    "all": {**UNET, **VAE, **TEXT},
    "lora": LOW_RANK,
    "dora": LOW_RANK,
    "bitfit": {"lr": 1e-4},
    "difffit": {"lr": 1e-4, "attention_gammas": True},
    "delta_full": {"lr": 1e-4},
}
"""The paper's eleven strategies at its learning rates, and `delta_full`, which its code runs under the name DiffFit."""
LARGE_BATCH: Final = ("dora", "bitfit", "difffit", "delta_full")
PUBLISHED_BATCHES: Final[Values] = {
    name: {**values, "batch_size": 128 if name in LARGE_BATCH else 64} for name, values in STRATEGIES.items()
}
IN_THE_PAPER: Final = ("fid", "vendi", "trainable_parameters", "epoch_s")
CONDITIONS: Final = ("Cardiomegaly", "Lung Opacity", "Edema", "No Finding", "Pneumothorax", "Pleural Effusion")


def evaluation() -> EvaluationConfig:
    """As the paper scores: up to 5,000 films a condition, 50 steps, guidance 7.5, torchxrayvision's DenseNet-121."""
    return EvaluationConfig(extractor="xrv", images_per_condition=5000, num_steps=50, guidance_scale=7.5, batch_size=16)


def pixels_under_pressure() -> SweepConfig:
    r"""Pixels under Pressure (TehraniNasab, Kumar, Arbel 2025) on CheXpert: eleven strategies, and the one that its code ran.

        python -m sweep.prepare chexpert --root CheXpert-v1.0 --to prepared/pixels_under_pressure --resolution 512 \
            --caption showing --uncertain zeros --sizes 20000,8000,28655 --condition Cardiomegaly \
            --condition "Lung Opacity" --condition Edema --condition "No Finding" --condition Pneumothorax \
            --condition "Pleural Effusion"

    Published: Stable Diffusion 1.5, four GPUs, fp16, AdamW, constant lr: U-Net 1e-5, text encoder 1e-6 beside others and
    5e-6 alone, VAE 1e-6, others 1e-4 (rank 8, alpha 16); batches of 64, and of 128 for DoRA, BitFit and DiffFit; uncertain
    labels as negative. Its loader is sharded twice, so that each of its 101 epochs sees a quarter of the films: 25 here.

    Not to be had: CheXpert without Stanford's agreement; the classifier of its alignment; its split, which has 5,989
    patients both in training and in test. Departs: patients are in one split (of about as many films, in about the same
    shares of findings; the paper's counts are of films with a finding), and captions have commas in the data's order.
    """
    return SweepConfig(
        preset="pixels_under_pressure",
        base="sd15",
        objectives=IN_THE_PAPER,
        search=each_once(PUBLISHED_BATCHES),
        data=prepared("pixels_under_pressure"),
        training=TrainingConfig(
            num_epochs=25,
            mixed_precision="fp16",
            weight_decay=1e-2,
            lr_schedule="constant",
            warmup_fraction=0.0,
            caption_dropout=0.0,
        ),
        evaluation=evaluation(),
        compute=gpus(workers_per_trial=4),
    )

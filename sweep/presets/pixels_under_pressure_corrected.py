"""ELAMI 2025's comparison without the faults of its code."""

from __future__ import annotations

from sweep.config import SweepConfig
from sweep.presets.pixels_under_pressure import IN_THE_PAPER, STRATEGIES, evaluation
from sweep.presets.studies import each_once, gpus, prepared
from trainables.settings import TrainingConfig


def pixels_under_pressure_corrected() -> SweepConfig:
    r"""Pixels under Pressure with one batch size for all, whole epochs, uncertain labels ignored, and DiffFit as published.

        python -m sweep.prepare chexpert --root CheXpert-v1.0 --to prepared/pixels_under_pressure_corrected \
            --resolution 512 --uncertain ignore --sizes 20000,8000,28655 --condition Cardiomegaly \
            --condition "Lung Opacity" --condition Edema --condition "No Finding" --condition Pneumothorax \
            --condition "Pleural Effusion"

    Repairs, beside patients in one split: every strategy has batches of 64; an epoch sees all films; labels marked as
    uncertain are neither present nor absent; `difffit` is the method of its paper at that paper's 1e-3, and `delta_full` is
    left out; a tenth of the captions is dropped, since sampling is guided. The captions are those of the paper's text.
    """
    values = {name: {**settings, "batch_size": 64} for name, settings in STRATEGIES.items() if name != "delta_full"}
    values["difffit"]["lr"] = 1e-3
    return SweepConfig(
        preset="pixels_under_pressure_corrected",
        base="sd15",
        objectives=IN_THE_PAPER,
        search=each_once(values),
        data=prepared("pixels_under_pressure_corrected"),
        training=TrainingConfig(
            num_epochs=25, weight_decay=1e-2, lr_schedule="constant", warmup_fraction=0.0, caption_dropout=0.1
        ),
        evaluation=evaluation(),
        compute=gpus(workers_per_trial=4),
    )

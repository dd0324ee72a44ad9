"""CheXGenBench: the benchmark's row of Stable Diffusion 1.5."""

from __future__ import annotations

from typing import Final

from sweep.config import EvaluationConfig, SweepConfig
from sweep.presets.studies import Values, each_once, gpus, prepared
from trainables.settings import TrainingConfig

STRATEGIES: Final[Values] = {
    "unet": {"lr": 5e-6, "batch_size": 128},
    "lora": {"lr": 1e-4, "batch_size": 128, "rank": 32, "alpha": 32},
}


def chexgenbench() -> SweepConfig:
    r"""CheXGenBench (Dutt et al. 2025): the U-Net in full and by LoRA, scored by FID on RAD-DINO's features.

        python -m sweep.prepare folder --root mimic-cxr-with-annotations --to prepared/chexgenbench --resolution 512 \
            --caption text --split own --base sd15

    The folder holds MIMIC-CXR-JPG's films and a `metadata.csv` made of the benchmark's annotation files: `file_name`,
    `patient_id`, `labels`, `split`, and its `annotated_prompt` as `text`.

    Published: one film for each prompt of the test file, 50 steps, guidance 7.5; FID on RAD-DINO 118.93 for Stable
    Diffusion 1.5. Not to be had: MIMIC-CXR without PhysioNet's agreement. Departs: films are drawn by condition and not one
    for each prompt; KID, precision, recall, density and coverage are ours, on the same features; its FID on Inception wants
    `--set evaluation.extractor=inception`; BioViL-T, radiomics and the Siamese network of its privacy score are not ours.
    Learning rates and epochs are ours, for its table does not name them for this base.
    """
    return SweepConfig(
        preset="chexgenbench",
        base="sd15",
        objectives=("fid", "kid", "trainable_parameters"),
        search=each_once(STRATEGIES),
        data=prepared("chexgenbench"),
        training=TrainingConfig(num_epochs=20, weight_decay=1e-2, lr_schedule="constant", evaluate_every_epochs=10),
        evaluation=EvaluationConfig(
            extractor="rad_dino", images_per_condition=1000, num_steps=50, guidance_scale=7.5, batch_size=16
        ),
        compute=gpus(workers_per_trial=4),
    )

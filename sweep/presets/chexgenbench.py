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
    Diffusion 1.5. `sweep.evaluate` has the figures as the benchmark's code defines them (its study "benchmark"): films of
    299 px, FID, KID, precision, recall, density and coverage with five neighbours, overall, by label and by sex, age and view;
    F1 and AUC of a ResNet-50 trained on real, synthetic, mixed and augmented films. The ResNet-50 starts from ImageNet's
    weights if they are given: `--classifier resnet50 --classifier-weights FILE`. FID, KID and inception score on Inception's
    features come by `--set evaluation.extractor=inception`.

    Privacy is measured where the weights of its Siamese network are given (Packhäuser et al. 2022): `--verifier-weights
    ResNet-50_epoch11_data_handling_RPN.pth`. Of 2,000 training captions ten films each are generated; it is told how likely
    they are of the patient of that caption's film, and how far they are from it in RAD-DINO's features.

    Not to be had: MIMIC-CXR without PhysioNet's agreement; its choice of 20,000 training films for the classifiers, in whose
    place as many captions are drawn. Departs: trials, before the final evaluation, are scored by films drawn by condition;
    films are shrunk to 512 px before they are to 299; generated films are turned grey before they are looked at; prompts are
    cut at a sentence before CLIP's 77 tokens. Learning rates and epochs are ours, for its table does not name them for this
    base. Two of its figures are missing: alignment by BioViL-T, whose two networks are hi-ml-multimodal's own, and are not
    rebuilt here; and FRD, whose features are pyradiomics', of which no release can be installed on Python 3.10 or later. Its
    distance of pixels is left out, as the code measures another one (`analysis.studies.chexgenbench.privacy_row` says which).
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

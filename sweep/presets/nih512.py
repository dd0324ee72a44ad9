"""Real films at 512 px on Stable Diffusion 1.5."""

from __future__ import annotations

from pathlib import Path

from sweep.config import ComputeConfig, DataConfig, EvaluationConfig, SearchConfig, SweepConfig
from sweep.presets.compared import COMPARED
from trainables.settings import TrainingConfig


def nih512() -> SweepConfig:
    """Real NIH ChestX-ray14 films at 512 px on Stable Diffusion 1.5, scored by torchxrayvision's DenseNet-121, on GPUs.

    Expects them prepared in `prepared/nih_cxr14_512`, and both models' weights here or a network to fetch them. Trains
    and samples as the study "Pixels under Pressure" does: AdamW, weight decay 0.01, constant learning rate, 50 steps of
    sampling at guidance 7.5. It is not that study: other films, fewer epochs, U-Net strategies only; and bf16 where the
    card has it, fp16 as in the study where not. bf16 rounds to 8 bits where fp16 keeps 11, but reaches as far as float32:
    no loss is scaled, no step skipped as its gradients overflowed.
    """
    return SweepConfig(
        preset="nih512",
        base="sd15",
        search=SearchConfig(space="core", strategies=COMPARED, num_trials=24),
        data=DataConfig(source="prepared", path=Path("prepared/nih_cxr14_512"), resolution_px=512),
        training=TrainingConfig(
            num_epochs=20,
            mixed_precision="auto",
            lr_schedule="constant",
            evaluate_every_epochs=5,
        ),
        evaluation=EvaluationConfig(
            extractor="xrv", images_per_condition=100, num_steps=50, guidance_scale=7.5, batch_size=8
        ),
        compute=ComputeConfig(cpus_per_worker=4, gpus_per_worker=1, evaluation_cpus=4, evaluation_gpus=1),
    )

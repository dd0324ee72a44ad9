"""Presets: whole studies by name, as functions that give their configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from sweep.config import ComputeConfig, DataConfig, EvaluationConfig, SweepConfig
from trainables.settings import TrainingConfig

COMPARED: Final = ("unet", "lora", "dora", "bitfit")
"""What the presets compare: few enough that a dozen trials say something of each. The spaces have more."""


def demo() -> SweepConfig:
    """The engine at work in five minutes on two cores: phantom films, the bundled mini base, twelve short trials."""
    return SweepConfig(
        preset="demo",
        base="mini",
        space="mini",
        strategies=COMPARED,
        num_trials=12,
        data=DataConfig(source="phantom", num_patients=400, resolution_px=64),
        training=TrainingConfig(num_epochs=4, lr_schedule="cosine"),
        evaluation=EvaluationConfig(extractor="mini", images_per_condition=16, num_steps=8, guidance_scale=1.0),
        compute=ComputeConfig(concurrent_trials=2),
    )


def nih64() -> SweepConfig:
    """Real NIH ChestX-ray14 films at 64 px on the bundled mini base: about half an hour on two cores.

    Expects them prepared in `prepared/nih_cxr14_64`; `--set data.path=FOLDER` names another place.
    """
    return SweepConfig(
        preset="nih64",
        base="mini",
        space="mini",
        strategies=COMPARED,
        num_trials=12,
        data=DataConfig(source="prepared", path=Path("prepared/nih_cxr14_64"), resolution_px=64),
        training=TrainingConfig(num_epochs=40, lr_schedule="cosine", ema_decay=0.99, evaluate_every_epochs=20),
        evaluation=EvaluationConfig(extractor="mini", images_per_condition=32, num_steps=20, guidance_scale=2.0),
        compute=ComputeConfig(concurrent_trials=2),
    )


def nih512() -> SweepConfig:
    """Real NIH ChestX-ray14 films at 512 px on Stable Diffusion 1.5, scored by torchxrayvision's DenseNet-121, on GPUs.

    Expects them prepared in `prepared/nih_cxr14_512`, and both models' weights here or a network to fetch them. Trains
    and samples as the study "Pixels under Pressure" does: AdamW, weight decay 0.01, constant learning rate, fp16, 50
    steps of sampling at guidance 7.5. It is not that study: other films, fewer epochs, U-Net strategies only.
    """
    return SweepConfig(
        preset="nih512",
        base="sd15",
        space="core",
        strategies=COMPARED,
        num_trials=24,
        data=DataConfig(source="prepared", path=Path("prepared/nih_cxr14_512"), resolution_px=512),
        training=TrainingConfig(
            num_epochs=20,
            mixed_precision="fp16",
            lr_schedule="constant",
            gradient_accumulation=4,
            evaluate_every_epochs=5,
        ),
        evaluation=EvaluationConfig(
            extractor="xrv", images_per_condition=100, num_steps=50, guidance_scale=7.5, batch_size=8
        ),
        compute=ComputeConfig(cpus_per_worker=4, gpus_per_worker=1, evaluation_cpus=4, evaluation_gpus=1),
    )


PRESETS: Final[dict[str, Callable[[], SweepConfig]]] = {"demo": demo, "nih64": nih64, "nih512": nih512}

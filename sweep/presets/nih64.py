"""Real films at 64 px on the bundled mini base."""

from __future__ import annotations

from pathlib import Path

from sweep.config import ComputeConfig, DataConfig, EvaluationConfig, SearchConfig, SweepConfig
from sweep.presets.compared import COMPARED
from trainables.settings import TrainingConfig


def nih64() -> SweepConfig:
    """Real NIH ChestX-ray14 films at 64 px on the bundled mini base: about half an hour on two cores.

    Expects them prepared in `prepared/nih_cxr14_64`; `--set data.path=FOLDER` names another place.
    """
    return SweepConfig(
        preset="nih64",
        base="mini",
        search=SearchConfig(space="mini", strategies=COMPARED, num_trials=12),
        data=DataConfig(source="prepared", path=Path("prepared/nih_cxr14_64"), resolution_px=64),
        training=TrainingConfig(num_epochs=40, lr_schedule="cosine", ema_decay=0.99, evaluate_every_epochs=20),
        evaluation=EvaluationConfig(extractor="mini", images_per_condition=32, num_steps=20, guidance_scale=2.0),
        compute=ComputeConfig(concurrent_trials=2),
    )

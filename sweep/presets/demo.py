"""The engine at work in five minutes, without data, network or GPU."""

from __future__ import annotations

from sweep.config import ComputeConfig, DataConfig, EvaluationConfig, SearchConfig, SweepConfig
from sweep.presets.compared import COMPARED
from trainables.settings import TrainingConfig


def demo() -> SweepConfig:
    """The engine at work in five minutes on two cores: phantom films, the bundled mini base, ten short trials.

    The default trial scheduler seldom stops any of so few; the one named here does, so that stops are seen.
    """
    return SweepConfig(
        preset="demo",
        base="mini",
        search=SearchConfig(space="mini", strategies=COMPARED, scheduler="hypervolume", num_trials=10),
        data=DataConfig(source="phantom", num_patients=300, resolution_px=64),
        training=TrainingConfig(num_epochs=4, lr_schedule="cosine"),
        evaluation=EvaluationConfig(extractor="mini", images_per_condition=16, num_steps=8, guidance_scale=1.0),
        compute=ComputeConfig(concurrent_trials=2),
    )

"""One toy of each kind that can be added, each by one object in one table; a pytest plugin and Ray's set-up hook.

`pytest -p toys` adds them before the suites are collected; `toys.register` adds them in a Ray worker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, RandomSampler
from safetensors.torch import save_file

from analysis.features import EXTRACTORS
from analysis.features.base import FeatureExtractor
from analysis.metrics import METRICS, FeatureSet, Metric
from analysis.metrics.inputs import require_same_dim
from search_spaces.ranges import RANGES, Ranges
from sweep.config import ComputeConfig, DataConfig, EvaluationConfig, SearchConfig, SweepConfig
from sweep.presets import PRESETS
from sweep.search.plan import SearchPlan
from sweep.search.samplers import SEARCH_SAMPLERS
from trainables.base_models.models import DiffusionModels
from trainables.datasets import SOURCES
from trainables.datasets.base import SPLITS, ImageTextSample, ImageTextSource, SourceOptions, require_split
from trainables.datasets.captions import paper_template
from trainables.exports import EXPORTS, ExportFormat, Writing
from trainables.settings import TrainingConfig
from trainables.strategies import STRATEGIES, Strategy

FINDINGS = ("Edema", "No Finding")


@dataclass(frozen=True, kw_only=True)
class ToyStrategy(Strategy):
    """The last convolution of the U-Net."""

    name = "toy"

    def inject(self, models: DiffusionModels) -> None:
        models.unet.conv_out.requires_grad_(True)


def shift(generated: FeatureSet, reference: FeatureSet) -> float:
    """How far the mean of generated features lies from that of real ones."""
    first, second = (features.rows() for features in (generated, reference))
    require_same_dim(first.shape[1], second.shape[1])
    return float(np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)))


class ToyExtractor(FeatureExtractor):
    """Mean grey levels of sixteen tiles."""

    name, dim, weights_hash, preprocessing = "toy", 16, "none", "grey by mean; 4 x 4 tiles"

    def extract(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        grey = images.mean(axis=-1) if images.ndim == 4 else images
        side = grey.shape[1] // 4
        tiles = grey.reshape(len(grey), 4, side, 4, side).mean(axis=(2, 4))
        return tiles.reshape(len(grey), 16).astype(np.float32)


def load_toy(name: str, weights: Path | None, device: object) -> FeatureExtractor:
    return ToyExtractor()


class ToySource(ImageTextSource):
    """Gradients of light, steeper with edema; a patient a film."""

    name: ClassVar[str] = "toy"

    def __init__(self, options: SourceOptions) -> None:
        self.options, self.conditions, self.resolution_px = options, FINDINGS, options.resolution_px
        self.prompts = paper_template(with_view=options.with_view)

    @classmethod
    def create(cls, options: SourceOptions) -> Self:
        return cls(options)

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        side = self.resolution_px
        for number in range(self.num_samples(split)):
            conditions, steepness = FINDINGS[number % 2 :][:1], 1 + 2 * (number % 2)
            ramp = np.linspace(0, 60 * steepness + number, side).astype(np.uint8)
            name = f"{split}-{number}"
            yield ImageTextSample(
                image=np.tile(ramp, (side, 1)),
                conditions=conditions,
                patient_id=name,
                image_id=name,
                view="PA",
                prompt=self.prompts.prompt(conditions, view="PA"),
            )

    def num_samples(self, split: str) -> int:
        return (40, 10, 10)[SPLITS.index(require_split(split))]

    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self.options).encode()).hexdigest()


def toy_sampler(plan: SearchPlan) -> BaseSampler:
    return RandomSampler(seed=plan.trial_seed + 1)


class ToyFormat(ExportFormat):
    """The trained tensors of the toy strategy, by their own names."""

    name = "toy"

    def expect_fits(self, models: DiffusionModels, strategy: Strategy) -> None:
        if strategy.name != "toy":
            raise ValueError(
                f"`format` toy must have the toy strategy, but got an adapter by {strategy.name!r}. Use pipeline."
            )

    def write(self, models: DiffusionModels, strategy: Strategy, folder: Path, writing: Writing | None = None) -> None:
        self.expect_fits(models, strategy)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(strategy.tensors(models)), folder / "toy.safetensors")

    def next_steps(self, folder: Path, base: str) -> str:
        return f"Look at {folder}."


def toy() -> SweepConfig:
    """Two trials of everything that is a toy, on a prepared data set that the caller names."""
    return SweepConfig(
        preset="toy",
        base="mini",
        objectives=("toy_shift", "trainable_parameters"),
        search=SearchConfig(space="mini", strategies=("toy",), sampler="toy", num_trials=2),
        data=DataConfig(source="prepared", path=Path("prepared/toy")),
        training=TrainingConfig(num_epochs=1),
        evaluation=EvaluationConfig(extractor="toy", images_per_condition=4, num_steps=1, guidance_scale=1.0),
        compute=ComputeConfig(concurrent_trials=1),
    )


def register() -> None:
    """One line for each toy: what whoever adds a thing writes into its table."""
    tables: list[tuple[Any, str, Any]] = [
        (STRATEGIES, "toy", ToyStrategy),
        (RANGES, "toy", Ranges(lr={"core": (1e-5, 1e-3), "mini": (1e-3, 1e-2)})),
        (METRICS, "toy_shift", Metric(name="toy_shift", label="shift", direction="min", function=shift)),
        (EXTRACTORS, "toy", load_toy),
        (SOURCES, "toy", ToySource),
        (SEARCH_SAMPLERS, "toy", toy_sampler),
        (EXPORTS, "toy", ToyFormat()),
        (PRESETS, "toy", toy),
    ]
    for table, name, entry in tables:
        table[name] = entry


def pytest_configure() -> None:
    """As a plugin: before any suite reads the tables."""
    register()

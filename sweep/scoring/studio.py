"""What trials and finalists share: the base model, the extractor and the caches, under the same keys."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.features import FeatureCache, FeatureKey, load_extractor
from analysis.features.base import FeatureExtractor
from sweep.config import EvaluationConfig
from sweep.scoring.identity import feature_key, sampling_digest, weights_digest
from sweep.scoring.plans import GenerationPlan
from sweep.scoring.streaming import extract_split
from trainables.base_models.models import DiffusionModels, load_base
from trainables.datasets.store import PreparedDataset
from trainables.numerics import numerics_on
from trainables.sampling import generate_batches, to_uint8
from trainables.strategies import load_adapter


class Studio:
    """Generates films by adapted models and takes features of films, each set of them once."""

    def __init__(
        self,
        *,
        base: str,
        resolution_px: int | None,
        dataset: Path,
        cache_folder: Path,
        evaluation: EvaluationConfig,
    ) -> None:
        """Open a data set and the cache of features; models are loaded when first needed.

        Args:
            base: name or folder of the base model.
            resolution_px: side of the films that it makes; None: its own.
            dataset: folder of the prepared data set.
            cache_folder: of the run; features lie in `features` in it.
            evaluation: the extractor and the sampling.

        Raises:
            FileNotFoundError: there is no such data set.
            ValueError: it is of another format.
        """
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dataset = PreparedDataset.open(dataset)
        self.evaluation = evaluation
        self.numerics = numerics_on(self.device, evaluation.precision)
        self.features = FeatureCache(cache_folder / "features")
        self._base_name, self._resolution_px = base, resolution_px

    @cached_property
    def base(self) -> DiffusionModels:
        """The un-adapted base model on the device, in the numerics that films are sampled in; it stays as it is."""
        models = load_base(self._base_name).for_films_of(self._resolution_px)
        return models.to(self.device).computing_in(self.numerics)

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """The run's feature extractor."""
        config = self.evaluation
        return load_extractor(config.extractor, weights=config.extractor_weights, device=self.device)

    def adapted(self, adapter: Path | None) -> DiffusionModels:
        """The base with an adapter on it, or as it is; beside the base's memory it takes no more than the adapter's."""
        return with_adapter(self.base, adapter)

    def generate(
        self, models: DiffusionModels, plan: GenerationPlan, sampling: EvaluationConfig, chosen: range | None = None
    ) -> Iterator[Tensor]:
        """The films of a plan batch by batch, uint8[batch, H, W, 3] on the device.

        Args:
            models: base with adapter.
            plan: which films.
            sampling: how they are made.
            chosen: numbers of the batches to make; None: all.
        """
        batches = generate_batches(
            models,
            plan.prompts,
            plan.seeds,
            num_steps=sampling.num_steps,
            guidance_scale=sampling.guidance_scale,
            batch_size=sampling.batch_size,
            chosen=chosen,
        )
        return map(to_uint8, batches)

    def weights_of(self, adapter: Path | None) -> str:
        """Hash of the weights that generate."""
        return weights_digest(self.base.base.weights_hash, adapter)

    def name_of(self, adapter: Path | None, plan: GenerationPlan, sampling: EvaluationConfig) -> str:
        """What generated films depend on, as a name that no others have.

        Args:
            adapter: an exported adapter; None: the un-adapted base.
            plan: which films.
            sampling: how they are made.
        """
        made = f"{self.base.resolution_px}px-{sampling_digest(sampling, self.numerics)}"
        return f"{self.weights_of(adapter)}-{plan.digest()}-{made}"

    def generated_key(self, adapter: Path | None, plan: GenerationPlan, sampling: EvaluationConfig) -> FeatureKey:
        """Where features of generated films, taken in grey, are kept.

        Args:
            adapter: an exported adapter; None: the un-adapted base.
            plan: which films.
            sampling: how they are made.
        """
        return feature_key(self.extractor, f"grey-{self.name_of(adapter, plan, sampling)}", len(plan))

    def real_features(self, split: str) -> NDArray[np.float32]:
        """Features float32[n, dim] of all films of a split, taken once a run and node."""
        data = self.dataset.split(split)
        key = feature_key(self.extractor, f"{self.dataset.fingerprint}-{split}", len(data))
        return self.features.get_or_compute(key, lambda: extract_split(data, self.extractor))


def with_adapter(base: DiffusionModels, adapter: Path | None) -> DiffusionModels:
    """A base with an adapter on it where there is one, over the base's own tensors; the base stays as it is, to the bit."""
    models = base.sharing()
    if adapter is not None:
        load_adapter(models, adapter)
        models.to(base.unet.device)
    return models

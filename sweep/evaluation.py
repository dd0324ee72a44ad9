"""Actors that score adapters: generate, extract features once, compare with held-out films. No mathematics here."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayTaskError

from analysis.features import load_extractor
from analysis.features.cache import FeatureCache, FeatureKey
from analysis.metrics import METRICS, LabelledFeatures, evaluate
from sweep.config import ComputeConfig, EvaluationConfig
from sweep.identity import feature_key, plan_digest, sampling_digest, weights_digest
from trainables.adapters import load_adapter
from trainables.base_models.models import load_base
from trainables.datasets.captions import caption
from trainables.datasets.store import PreparedDataset
from trainables.sampling import generate
from trainables.sheets import labelled_sheet
from trainables.trial import EvaluationError

SHEET_COLUMNS = 8
ATTEMPTS = 2
MAX_DEATHS = 3
"""How often the process of an evaluation actor may die; what it was scoring is scored again by its successor."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSpec:
    """What every trial of a sweep is scored against."""

    base: str
    dataset: Path
    conditions: tuple[str, ...]
    cache_folder: Path
    seed: int
    config: EvaluationConfig


@dataclass(frozen=True, kw_only=True)
class GenerationPlan:
    """The same prompts and noise for every trial, so that trials differ by their weights alone.

    Attributes:
        labels: the condition that each image is asked to show.
        seeds: one an image, for its starting noise.
        reference_rows: rows of the held-out split that each condition is compared with, as many as are generated for it.
    """

    labels: tuple[str, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    reference_rows: NDArray[np.int64]

    def digest(self) -> str:
        """Hash of what is generated, for the feature cache."""
        return plan_digest(self.prompts, self.seeds)


def plan_generation(rows_with: Mapping[str, NDArray[np.int64]], per_condition: int, seed: int) -> GenerationPlan:
    """As many images per condition as asked for or as held-out films show it, whichever is fewer.

    Args:
        rows_with: rows of the held-out films of each condition.
        per_condition: the most for one condition.
        seed: chooses the films and the noise.

    Raises:
        ValueError: a condition has fewer than two held-out films.
    """
    labels: list[str] = []
    rows: list[NDArray[np.int64]] = []
    for number, (condition, films) in enumerate(rows_with.items()):
        require_two_films(condition, len(films))
        chosen = np.random.default_rng((seed, number)).permutation(films)[:per_condition]
        rows.append(np.sort(chosen))
        labels += [condition] * len(chosen)
    seeds = np.random.SeedSequence(seed).generate_state(len(labels), np.uint32)
    return GenerationPlan(
        labels=tuple(labels), prompts=tuple(caption((label,)) for label in labels),
        seeds=tuple(int(value) for value in seeds), reference_rows=np.concatenate(rows),
    )  # fmt: skip


class AdapterScorer:
    """Scores adapters of one sweep; keeps base model, extractor and reference features warm."""

    def __init__(self, spec: EvaluationSpec) -> None:
        self.spec = spec
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dataset = PreparedDataset.open(spec.dataset)
        self.held_out = self.dataset.split(spec.config.split)
        rows_with = {condition: self.held_out.indices_with(condition) for condition in spec.conditions}
        self.plan = plan_generation(rows_with, spec.config.images_per_condition, spec.seed)
        self.base = load_base(spec.base)
        self.extractor = load_extractor(
            spec.config.extractor, weights=spec.config.extractor_weights, device=self.device
        )
        self.features = FeatureCache(spec.cache_folder / "features")

    @cached_property
    def reference(self) -> LabelledFeatures:
        """Features of the held-out films, once per sweep and node; each film is extracted once however many conditions it shows."""
        data = f"{self.dataset.fingerprint}-{self.spec.config.split}"
        every = self.features.get_or_compute(
            self._key(data, len(self.held_out)),
            lambda: self.extractor.extract(self.held_out.images(np.arange(len(self.held_out)))),
        )
        return LabelledFeatures(every[self.plan.reference_rows], self.plan.labels)

    def score(self, adapter: Path | None, samples: Path) -> dict[str, float]:
        """Metrics of an adapter, or of the base model as it is.

        Args:
            adapter: a folder that a strategy exported; None scores the un-adapted base.
            samples: where to write a sheet of generated films (PNG).
        """
        images = self._generate(adapter)
        self.save_sheet(images, samples)
        data = f"{self._weights_digest(adapter)}-{self.plan.digest()}-{self._sampling_digest()}"
        features = self.features.get_or_compute(self._key(data, len(images)), lambda: self.extractor.extract(images))
        return evaluate(
            METRICS.values(), LabelledFeatures(features, self.plan.labels), self.reference,
            extractor=self.extractor.name, conditions=self.spec.conditions,
        )  # fmt: skip

    def save_sheet(self, images: NDArray[np.uint8], to: Path) -> None:
        """A row of the first images of each condition, as PNG."""
        labels = np.array(self.plan.labels)
        labelled_sheet({name: images[labels == name][:SHEET_COLUMNS] for name in self.spec.conditions}).save(to)

    def save_reference_sheet(self, to: Path) -> None:
        """The same of the held-out films, for the eye to compare with; extracts their features as well."""
        assert len(self.reference)
        self.save_sheet(self.held_out.images(self.plan.reference_rows), to)

    def _generate(self, adapter: Path | None) -> NDArray[np.uint8]:
        models = self.base.fresh()
        if adapter is not None:
            load_adapter(models, adapter)
        config = self.spec.config
        return generate(
            models.to(self.device), self.plan.prompts, self.plan.seeds,
            num_steps=config.num_steps, guidance_scale=config.guidance_scale, batch_size=config.batch_size,
        )  # fmt: skip

    def _weights_digest(self, adapter: Path | None) -> str:
        return weights_digest(self.base.base.weights_hash, adapter)

    def _sampling_digest(self) -> str:
        return sampling_digest(self.spec.config)

    def _key(self, data: str, count: int) -> FeatureKey:
        return feature_key(self.extractor, data, count)


@dataclass(frozen=True)
class ActorEvaluator:
    """What a trial holds of the evaluation actors; picklable."""

    actors: tuple[Any, ...]

    def evaluate(self, adapter: Path) -> dict[str, float]:
        """Score an exported adapter, a second time where the first fails; leaves `samples.png` beside its folder.

        Raises:
            EvaluationError: it failed again.
        """
        actor = self.actors[zlib.crc32(str(adapter).encode()) % len(self.actors)]
        for _ in range(ATTEMPTS):
            try:
                return dict(ray.get(actor.score.remote(adapter, adapter.parent / "samples.png")))
            except RayTaskError as error:
                failure = error
        raise EvaluationError(str(failure.cause)) from failure

    def prepare(self, out: Path) -> None:
        """Wait until the actors can work, and hear now of what they lack; leaves the held-out films' `reference.png`."""
        ray.get([actor.save_reference_sheet.remote(out / "reference.png") for actor in self.actors])

    def score_base(self, out: Path) -> Any:
        """Have the un-adapted base model scored, beside the trials; leaves `baseline.png`, returns a Ray reference."""
        return self.actors[0].score.remote(None, out / "baseline.png")


def start_evaluators(spec: EvaluationSpec, compute: ComputeConfig) -> ActorEvaluator:
    """Start the evaluation actors of a sweep, with as many threads as they have CPUs."""
    remote_class = ray.remote(AdapterScorer).options(
        num_cpus=compute.evaluation_cpus, num_gpus=compute.evaluation_gpus,
        max_restarts=MAX_DEATHS, max_task_retries=MAX_DEATHS,
    )  # fmt: skip
    return ActorEvaluator(tuple(remote_class.remote(spec) for _ in range(compute.evaluation_actors)))


def conditions_to_score(dataset: PreparedDataset, split: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The conditions named in the configuration, or all that at least two held-out films show.

    Raises:
        ValueError: a named condition is unknown to the data set or has fewer than two films, or none has two.
    """
    require_known_conditions(wanted or (), dataset.conditions)
    held_out = dataset.split(split)
    counts = {condition: len(held_out.indices_with(condition)) for condition in wanted or dataset.conditions}
    for condition in wanted or ():
        require_two_films(condition, counts[condition])
    chosen = tuple(condition for condition, count in counts.items() if count >= 2)
    if not chosen:
        raise ValueError(f"`{split}` must show a condition on at least 2 films, but got {counts}. Prepare more films.")
    return chosen


def require_known_conditions(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Refuse conditions that the data do not have.

    Raises:
        ValueError: there is one.
    """
    unknown = [condition for condition in wanted if condition not in known]
    if unknown:
        raise ValueError(f"`data.conditions` must be among {', '.join(known)}, but got {unknown}. Check the spelling.")


def require_two_films(condition: str, num_films: int) -> None:
    """Refuse a condition that no metric can be computed for.

    Raises:
        ValueError: it has fewer than two held-out films.
    """
    if num_films < 2:
        raise ValueError(
            f"`conditions` must have at least 2 held-out films each, but got {num_films} of {condition!r}. "
            "Prepare more films, or leave the condition out with --set data.conditions=[...]."
        )

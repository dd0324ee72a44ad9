"""Actors that score adapters: generate, extract features once, compare with held-out films. No mathematics here."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayError

from analysis.features import load_extractor
from analysis.features.cache import FeatureCache, FeatureKey
from analysis.metrics import METRICS, LabelledFeatures, evaluate
from sweep.config import ComputeConfig, EvaluationConfig
from sweep.scoring.identity import feature_key, plan_digest, sampling_digest, weights_digest
from sweep.scoring.rungs import at_rung, earlier_image_counts, early_scores
from sweep.scoring.streaming import Films, Mask, extract_and_keep, extract_split
from trainables.base_models.models import load_base
from trainables.datasets.store import PreparedDataset
from trainables.sampling import generate_batches, to_uint8
from trainables.sheets import labelled_sheet
from trainables.strategies import load_adapter
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

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """For each image how many of its condition come before it."""
        seen: Counter[str] = Counter()
        places = np.empty(len(self.labels), np.int64)
        for row, label in enumerate(self.labels):
            places[row] = seen[label]
            seen[label] += 1
        return places

    def only(self, chosen: Mask) -> GenerationPlan:
        """The part of the plan that is chosen, in its order."""
        rows = np.flatnonzero(chosen)
        return GenerationPlan(
            labels=tuple(self.labels[row] for row in rows), prompts=tuple(self.prompts[row] for row in rows),
            seeds=tuple(self.seeds[row] for row in rows), reference_rows=self.reference_rows[rows],
        )  # fmt: skip


def plan_generation(
    rows_with: Mapping[str, NDArray[np.int64]], per_condition: int, seed: int, prompt_of: Callable[[str, int], str]
) -> GenerationPlan:
    """As many images per condition as asked for or as held-out films show it, whichever is fewer.

    Args:
        rows_with: rows of the held-out films of each condition.
        per_condition: the most for one condition.
        seed: chooses the films and the noise.
        prompt_of: the prompt for a condition that is compared with the held-out film of a row.

    Raises:
        ValueError: a condition has fewer than two held-out films.
    """
    labels: list[str] = []
    rows: list[NDArray[np.int64]] = []
    for number, (condition, films) in enumerate(rows_with.items()):
        require_two_films(condition, len(films))
        chosen = np.random.default_rng((seed, number)).permutation(films)[:per_condition]
        rows.append(chosen)  # in random order: an early evaluation takes the first ones
        labels += [condition] * len(chosen)
    seeds = np.random.SeedSequence(seed).generate_state(len(labels), np.uint32)
    reference_rows = np.concatenate(rows)
    return GenerationPlan(
        labels=tuple(labels), seeds=tuple(int(value) for value in seeds), reference_rows=reference_rows,
        prompts=tuple(prompt_of(label, int(row)) for label, row in zip(labels, reference_rows, strict=True)),
    )  # fmt: skip


class AdapterScorer:
    """Scores adapters of one sweep; keeps base model, extractor and reference features warm."""

    def __init__(self, spec: EvaluationSpec) -> None:
        self.spec = spec
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dataset = PreparedDataset.open(spec.dataset)
        self.held_out = self.dataset.split(spec.config.split)
        rows_with = {condition: self.held_out.indices_with(condition) for condition in spec.conditions}
        self.plan = plan_generation(rows_with, spec.config.images_per_condition, spec.seed, self.prompt_of)
        self.base = load_base(spec.base)
        self.extractor = load_extractor(
            spec.config.extractor, weights=spec.config.extractor_weights, device=self.device
        )
        self.features = FeatureCache(spec.cache_folder / "features")
        self._references: dict[int, LabelledFeatures] = {}

    def prompt_of(self, condition: str, row: int) -> str:
        """The prompt for one condition, made as the data's captions are, with the rest from a held-out film."""
        films = self.held_out
        return self.dataset.prompts.prompt((condition,), view=films.views[row], own=films.prompts[row])

    @cached_property
    def held_out_features(self) -> NDArray[np.float32]:
        """Features of all held-out films, extracted once per sweep and node."""
        data = f"{self.dataset.fingerprint}-{self.spec.config.split}"
        return self.features.get_or_compute(
            self._key(data, len(self.held_out)),
            lambda: extract_split(self.held_out, self.extractor),
        )

    def score(self, adapter: Path | None, samples: Path, share_done: float = 1.0) -> dict[str, float]:
        """Metrics of an adapter, or of the base model as it is.

        Args:
            adapter: a folder that a strategy exported; None scores the un-adapted base.
            samples: where to write a sheet of generated films (PNG).
            share_done: share of the training that is behind it; before its end, see `sweep.scoring.rungs`.
        """
        config = at_rung(self.spec.config, share_done)
        plan = self._plan_of(config.images_per_condition)
        features, shown = self._features(adapter, config)
        self.save_sheet(shown, plan.only(plan.places < SHEET_COLUMNS).labels, samples)
        generated, reference = LabelledFeatures(features, plan.labels), self._reference_of(config.images_per_condition)
        if config != self.spec.config:
            return early_scores(generated, reference, extractor=self.extractor.name, num_steps=config.num_steps)
        return evaluate(
            METRICS.values(), generated, reference, extractor=self.extractor.name, conditions=self.spec.conditions
        )

    def save_sheet(self, films: Films, labels: Sequence[str], to: Path) -> None:
        """A row of films for each condition, as PNG."""
        shown = np.array(labels)
        labelled_sheet({name: films[shown == name] for name in self.spec.conditions}).save(to)

    def save_reference_sheet(self, to: Path) -> None:
        """The first held-out films, for the eye to compare with; extracts the features of all as well."""
        assert len(self.held_out_features)
        shown = self.plan.only(self.plan.places < SHEET_COLUMNS)
        self.save_sheet(self.held_out.images(shown.reference_rows), shown.labels, to)

    def _plan_of(self, per_condition: int) -> GenerationPlan:
        return self.plan.only(self.plan.places < per_condition)

    def _reference_of(self, per_condition: int) -> LabelledFeatures:
        """Features of the held-out films of a rung; what metrics derive from them is kept.

        A film stands for each of its conditions, but once among all: repeats would bias what compares films in pairs.
        """
        if per_condition not in self._references:
            plan = self._plan_of(per_condition)
            films, place = np.unique(plan.reference_rows, return_inverse=True)
            shown: list[list[str]] = [[] for _ in films]
            for film, label in zip(place, plan.labels, strict=True):
                shown[film].append(label)
            labels = [tuple(names) for names in shown]
            self._references[per_condition] = LabelledFeatures(self.held_out_features[films], labels)
        return self._references[per_condition]

    def _features(self, adapter: Path | None, config: EvaluationConfig) -> tuple[NDArray[np.float32], Films]:
        """Features of a rung's images, and the images of its sheet; no image is extracted twice."""
        plan = self._plan_of(config.images_per_condition)
        sheet = plan.places < SHEET_COLUMNS
        drawn: list[Films] = []

        def compute() -> NDArray[np.float32]:
            known, held = self._features_of_an_earlier_rung(adapter, config)
            features = np.empty((len(plan.labels), self.extractor.dim), np.float32)
            features[known], (features[~known], shown) = held, self._draw(adapter, config, wanted=~known, shown=sheet)
            drawn.append(shown)
            return features

        features = self.features.get_or_compute(self._images_key(adapter, config), compute)
        nothing = np.zeros(len(sheet), bool)
        return features, drawn[0] if drawn else self._draw(adapter, config, wanted=nothing, shown=sheet)[1]

    def _features_of_an_earlier_rung(
        self, adapter: Path | None, config: EvaluationConfig
    ) -> tuple[Mask, NDArray[np.float32]]:
        """Which of a rung's images an earlier rung of the same weights and steps has extracted, and their features."""
        places = self._plan_of(config.images_per_condition).places
        for count in earlier_image_counts(self.spec.config, config.images_per_condition):
            smaller = config.model_copy(update={"images_per_condition": count})
            held = self.features.get(self._images_key(adapter, smaller))
            if held is not None:
                return places < count, held
        return np.zeros(len(places), bool), np.empty((0, self.extractor.dim), np.float32)

    def _draw(
        self, adapter: Path | None, config: EvaluationConfig, *, wanted: Mask, shown: Mask
    ) -> tuple[NDArray[np.float32], Films]:
        """Generate those images of a rung that are wanted or shown: features of the former, pixels of the latter."""
        needed = wanted | shown
        batches = self._generate(adapter, config, self._plan_of(config.images_per_condition).only(needed))
        return extract_and_keep(batches, self.extractor, wanted=wanted[needed], shown=shown[needed])

    def _generate(self, adapter: Path | None, config: EvaluationConfig, plan: GenerationPlan) -> Iterator[Films]:
        models = self.base.fresh()
        if adapter is not None:
            load_adapter(models, adapter)
        batches = generate_batches(
            models.to(self.device), plan.prompts, plan.seeds,
            num_steps=config.num_steps, guidance_scale=config.guidance_scale, batch_size=config.batch_size,
        )  # fmt: skip
        return map(to_uint8, batches)

    def _images_key(self, adapter: Path | None, config: EvaluationConfig) -> FeatureKey:
        plan = self._plan_of(config.images_per_condition)
        data = f"grey-{self._weights_digest(adapter)}-{plan.digest()}-{self._sampling_digest(config)}"
        return self._key(data, len(plan.labels))

    def _weights_digest(self, adapter: Path | None) -> str:
        return weights_digest(self.base.base.weights_hash, adapter)

    def _sampling_digest(self, config: EvaluationConfig) -> str:
        return sampling_digest(config)

    def _key(self, data: str, count: int) -> FeatureKey:
        return feature_key(self.extractor, data, count)


@dataclass(frozen=True)
class ActorEvaluator:
    """What a trial holds of the evaluation actors; picklable."""

    actors: tuple[Any, ...]

    def evaluate(self, adapter: Path, share_done: float) -> dict[str, float]:
        """Score an exported adapter, a second time where the first fails; leaves `samples.png` beside its folder.

        Raises:
            EvaluationError: it failed again.
        """
        actor = self.actors[zlib.crc32(str(adapter).encode()) % len(self.actors)]
        return _scores(lambda: actor.score.remote(adapter, adapter.parent / "samples.png", share_done))

    def prepare(self, out: Path) -> None:
        """Wait until the actors can work, and hear now of what they lack; leaves the held-out films' `reference.png`."""
        ray.get([actor.save_reference_sheet.remote(out / "reference.png") for actor in self.actors])

    def score_base(self, out: Path) -> Any:
        """Have the un-adapted base model scored, beside the trials; leaves `baseline.png`, returns a Ray reference."""
        return self.actors[0].score.remote(None, out / "baseline.png")

    def base_scores(self, running: Any, out: Path) -> dict[str, float]:
        """Wait for what `score_base` began, and try once more where it failed.

        Raises:
            EvaluationError: it failed again.
        """
        return _scores(lambda: self.score_base(out), running)

    def stop(self) -> None:
        """End the actors' processes; what they hold of the cluster is free again."""
        for actor in self.actors:
            ray.kill(actor)


def _scores(start: Callable[[], Any], running: Any = None) -> dict[str, float]:
    """Wait for an evaluation, the running one if there is one, and start it again where it fails."""
    for _ in range(ATTEMPTS):
        try:
            return dict(ray.get(running or start()))
        except RayError as error:
            failure, running = error, None
    raise EvaluationError(str(getattr(failure, "cause", failure))) from failure


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
